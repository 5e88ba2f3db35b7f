//! Reading what test programs print.
//!
//! [`Reader`] is fed line by line. It understands libtest's result lines, and the marks that
//! our own script puts between the programs that it runs (see [`mod@super::script`]).

use super::tally::Tally;

/// Begins every mark of the script.
pub(super) const MARK: &str = "::xtask ";

/// Counts results from the lines of a run.
#[derive(Debug, Default)]
pub(super) struct Reader {
    tally: Tally,
    /// The program that is running.
    program: String,
    /// What the running program has said of itself so far.
    current: Tally,
    results: u32,
    /// The script has said that it is through.
    ended: bool,
    /// Each skipped test and why.
    pub(super) skips: Vec<String>,
    /// Each failed test.
    pub(super) failures: Vec<String>,
}

impl Reader {
    /// Takes one line; true if it is for people, false if it was a mark.
    pub(super) fn line(&mut self, line: &str) -> bool {
        let line = line.trim_end();
        if let Some(mark) = line.strip_prefix(MARK) {
            self.mark(mark);
            return false;
        }
        if let Some(tally) = result_line(line) {
            self.current.add(tally);
            self.results = self.results.saturating_add(1);
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(test) = test.strip_suffix(" ... FAILED") {
                self.failures.push(format!("{}{test}", self.prefix()));
            } else if let Some((test, why)) = test.split_once(" ... ignored") {
                let why = why.trim_start_matches([',', ' ']);
                let why = if why.is_empty() { "ignored" } else { why };
                self.skips.push(format!("{}{test}: {why}", self.prefix()));
            }
        }
        true
    }

    /// Takes one line of a skip log, `test: why`: libtest has counted that test as passed.
    pub(super) fn skip(&mut self, line: &str) {
        if !line.trim().is_empty() {
            self.skips.push(format!("{}{}", self.prefix(), line.trim()));
            self.current.passed = self.current.passed.saturating_sub(1);
            self.current.skipped = self.current.skipped.saturating_add(1);
        }
    }

    /// Ends the running program. One that fails without a failed test has failed itself: it
    /// crashed, did not compile, or took too long.
    pub(super) fn program_ended(&mut self, status: i32) {
        if self.current.failed == 0 && (status != 0 || self.results == 0) {
            let why = match status {
                0 => "printed no result".to_owned(),
                124 | 137 => "was stopped: it took too long".to_owned(),
                _ => format!("failed (exit status {status})"),
            };
            let program = if self.program.is_empty() { "the program" } else { &self.program };
            self.failures.push(format!("{program} {why}"));
            self.current.failed = 1;
        }
        self.tally.add(std::mem::take(&mut self.current));
        self.results = 0;
        self.program.clear();
    }

    /// The counts of a run of our script; one failure more if it did not come to its end.
    pub(super) fn script_ended(&mut self, how: &str) -> Tally {
        if !self.program.is_empty() {
            self.program_ended(-1);
        }
        if !self.ended {
            self.failures.push(format!("the run did not come to its end: {how}"));
            self.tally.add(Tally::FAILED);
        }
        self.tally
    }

    /// The counts so far, without the running program's.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    fn mark(&mut self, mark: &str) {
        match mark.split_once(' ') {
            Some(("begin", program)) => program.clone_into(&mut self.program),
            Some(("skip", line)) => self.skip(line),
            Some(("end", status)) => self.program_ended(status.parse().unwrap_or(-1)),
            _ if mark == "done" => self.ended = true,
            _ => {}
        }
    }

    fn prefix(&self) -> String {
        if self.program.is_empty() { String::new() } else { format!("{}: ", self.program) }
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s`
fn result_line(line: &str) -> Option<Tally> {
    // A test that writes to the terminal itself may leave its line unfinished before.
    let (_, result) = line.split_once("test result: ")?;
    let (_, counts) = result.split_once(". ")?;
    let count = |name: &str| {
        counts.split(';').find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok())
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reader {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line);
        }
        reader
    }

    #[test]
    fn a_result_line_is_counted() {
        let line = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; \
                    finished in 0.02s";
        assert_eq!(result_line(line), Some(Tally { passed: 3, failed: 0, skipped: 1 }));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(line), Some(Tally { passed: 3, failed: 2, skipped: 0 }));
    }

    #[test]
    fn other_lines_are_no_result() {
        for line in
            ["", "running 3 tests", "test a ... ok", "test result: ok. x passed", "3 passed"]
        {
            assert_eq!(result_line(line), None);
        }
    }

    #[test]
    fn several_programs_add_up() {
        let mut reader = read(
            "::xtask begin host_a\ntest x ... ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             ::xtask end 0\n::xtask begin host_b\ntest y ... FAILED\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
             ::xtask end 101\n::xtask done",
        );
        let tally = reader.script_ended("");
        assert_eq!(tally, Tally { passed: 3, failed: 1, skipped: 0 });
        assert_eq!(reader.failures, ["host_b: y"]);
    }

    #[test]
    fn a_logged_skip_is_not_a_pass() {
        let mut reader = read(
            "::xtask begin vm_a\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             ::xtask skip tunnel: kernel has no ESP\n::xtask end 0\n::xtask done",
        );
        assert_eq!(reader.script_ended(""), Tally { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(reader.skips, ["vm_a: tunnel: kernel has no ESP"]);
    }

    #[test]
    fn an_ignored_test_is_named_with_its_reason() {
        let reader = read("test slow ... ignored, takes an hour\ntest other ... ignored\n");
        assert_eq!(reader.skips, ["slow: takes an hour", "other: ignored"]);
    }

    #[test]
    fn a_crash_is_a_failure_even_without_a_result() {
        let mut reader = read("::xtask begin host_a\ntest x ... \n::xtask end 134\n::xtask done");
        assert_eq!(reader.script_ended(""), Tally::FAILED);
        assert_eq!(reader.failures, ["host_a failed (exit status 134)"]);
    }

    #[test]
    fn success_without_a_result_is_a_failure() {
        let mut reader = read("::xtask begin host_a\n::xtask end 0\n::xtask done");
        assert_eq!(reader.script_ended(""), Tally::FAILED);
        assert_eq!(reader.failures, ["host_a printed no result"]);
    }

    #[test]
    fn a_timeout_is_named() {
        let mut reader = read("::xtask begin vm_a\n::xtask end 124\n::xtask done");
        assert_eq!(reader.script_ended(""), Tally::FAILED);
        assert_eq!(reader.failures, ["vm_a was stopped: it took too long"]);
    }

    #[test]
    fn a_guest_that_dies_fails_its_program_and_the_run() {
        let mut reader = read("::xtask begin vm_a\ntest x ... ok\n");
        let tally = reader.script_ended("the guest died");
        assert_eq!(tally, Tally { passed: 0, failed: 2, skipped: 0 });
        assert!(reader.failures[1].contains("the guest died"));
    }

    #[test]
    fn marks_are_not_shown() {
        let mut reader = Reader::default();
        assert!(!reader.line("::xtask begin a\r"));
        assert!(reader.line("test a ... ok"));
    }
}
