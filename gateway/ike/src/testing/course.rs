//! Orders in which the datagrams of two ends can arrive, so that all of them are tried.

use super::Simulation;

/// More datagrams than two ends have reason to send before they are at rest.
const MOST: usize = 200;

/// How a run goes on: by choices of which end's datagram arrives first, and one that is lost.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// Where datagrams of both ends are under way: whether the one to the second end arrives first;
    /// beyond the last, the other.
    pub choices: Vec<bool>,
    /// Which datagram is lost, by number.
    pub lost: Option<usize>,
    /// After how many datagrams the second thing begins; earlier if nothing is under way.
    pub delay: usize,
}

impl Course {
    /// Delivers what is under way until nothing is; `look` sees the simulation after each step. Gives
    /// how many choices there were; `None` if there was no datagram to lose.
    ///
    /// # Errors
    /// What `look` says, or that there is no end.
    pub fn follow(
        &self,
        simulation: &mut Simulation,
        second: impl FnOnce(&mut Simulation),
        mut look: impl FnMut(&mut Simulation) -> Result<(), String>,
    ) -> Result<Option<usize>, String> {
        let mut second = Some(second);
        let (mut choices, mut delivered) = (0_usize, 0_usize);
        loop {
            let is_idle = simulation.under_way(0) == 0 && simulation.under_way(1) == 0;
            if (delivered == self.delay || is_idle)
                && let Some(second) = second.take()
            {
                second(simulation);
                look(simulation)?;
            }
            let to = match (simulation.under_way(0), simulation.under_way(1)) {
                (0, 0) => break,
                (0, _) => 1,
                (_, 0) => 0,
                _ => {
                    let choice = self.choices.get(choices).copied().unwrap_or(false);
                    choices = choices.saturating_add(1);
                    usize::from(choice)
                }
            };
            simulation.deliver(to, self.lost == Some(delivered));
            delivered = delivered.saturating_add(1);
            if delivered > MOST {
                return Err("it does not come to rest".to_owned());
            }
            look(simulation)?;
        }
        let has_lost = self.lost.is_none_or(|lost| lost < delivered);
        Ok(has_lost.then_some(choices))
    }

    /// Every order of arrival: after a run, which gives how many choices it had, the last choice that
    /// was "first end" is taken the other way, until there is none. Gives how many runs there were.
    pub fn every_order(delay: usize, mut run: impl FnMut(&Self) -> usize) -> usize {
        let (mut course, mut runs) = (Self { delay, ..Self::default() }, 0_usize);
        loop {
            let choices = run(&course);
            runs = runs.saturating_add(1);
            course.choices.resize(choices, false);
            while course.choices.pop_if(|choice| *choice).is_some() {}
            let Some(last) = course.choices.last_mut() else { return runs };
            *last = true;
        }
    }
}
