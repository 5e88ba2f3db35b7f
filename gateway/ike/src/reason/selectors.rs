//! Traffic selectors: a rule's beside the peer's (RFC 7296 2.9).

use gateway_wire::TrafficSelector;

use super::{Candidate, Cause, Field, FieldName, MOST_COMPARED, Refusal};
use crate::config::{Mode, Rule, RuleName};
use crate::selector;

/// The selectors of a rule.
pub(crate) struct RuleSelectors<'a> {
    /// Its name.
    pub(crate) rule: &'a RuleName,
    /// On our side.
    pub(crate) local: Vec<TrafficSelector>,
    /// On the peer's side; empty if it has no address of the rule's.
    pub(crate) remote: Vec<TrafficSelector>,
    /// Its mode.
    pub(crate) mode: Mode,
}

/// No rule covers anything of what the peer asks for: of our side, and of its own.
pub(crate) fn no_common_selectors(
    rules: &mut dyn Iterator<Item = RuleSelectors<'_>>,
    (ours, theirs): (&[TrafficSelector], &[TrafficSelector]),
    wants_transport: bool,
) -> Refusal {
    let first = (&mut *rules).take(MOST_COMPARED);
    let compared: Vec<_> =
        first.map(|rule| compare(&rule, (ours, theirs), wants_transport)).collect();
    if compared.is_empty() {
        let none = RuleSelectors {
            rule: &RuleName::from(""),
            local: Vec::new(),
            remote: Vec::new(),
            mode: Mode::Tunnel,
        };
        let asked = Candidate { rule: None, ..compare(&none, (ours, theirs), wants_transport) };
        return Refusal::nearest(vec![asked], 0, |_| Cause::NoRule);
    }
    Refusal::nearest(compared, rules.count(), cause)
}

/// What we ask for, of a peer that does not say what it wants.
pub(super) fn offered(rule: &RuleSelectors<'_>) -> Refusal {
    let mut candidate = compare(rule, (&[], &[]), false);
    candidate.fields.iter_mut().for_each(|field| {
        field.fits = None;
        field.theirs.clear();
    });
    Refusal::nearest(vec![candidate], 0, |_| Cause::SelectorsByPeer)
}

/// The rule that is nearest to what the peer asks for, as far as that is known: the first of equals.
pub(super) fn nearest<'a>(
    mut rules: impl Iterator<Item = &'a Rule>,
    asked: Option<(&[TrafficSelector], &[TrafficSelector])>,
) -> Option<&'a RuleName> {
    let Some(asked) = asked else { return rules.next().map(|rule| &rule.name) };
    let unfit = |rule: &&Rule| {
        let (local, remote) = selector::of_rule(rule);
        let rule = RuleSelectors { rule: &rule.name, local, remote, mode: Mode::Tunnel };
        compare(&rule, asked, false).unfit().count()
    };
    rules.take(MOST_COMPARED).min_by_key(unfit).map(|rule| &rule.name)
}

fn compare(
    rule: &RuleSelectors<'_>,
    (ours, theirs): (&[TrafficSelector], &[TrafficSelector]),
    wants_transport: bool,
) -> Candidate {
    type Of = fn(&TrafficSelector) -> String;
    type Fits = fn(&TrafficSelector, &TrafficSelector) -> bool;
    let field = |name, of: Of, fits: Fits, sides: &[(&[TrafficSelector], &[TrafficSelector])]| {
        let fits = sides.iter().all(|(mine, asked)| {
            mine.iter().any(|mine| asked.iter().any(|asked| fits(mine, asked)))
        });
        let words = |selectors: &mut dyn Iterator<Item = &TrafficSelector>| {
            let mut words: Vec<String> = Vec::new();
            for word in selectors.map(of) {
                if !words.contains(&word) {
                    words.push(word);
                }
            }
            words
        };
        let mine = words(&mut sides.iter().flat_map(|(mine, _)| *mine));
        let asked = words(&mut sides.iter().flat_map(|(_, asked)| *asked));
        Field::new(name, mine, asked, Some(fits))
    };
    let (local, remote) = ((rule.local.as_slice(), ours), (rule.remote.as_slice(), theirs));
    let mode = |transport| if transport { "transport" } else { "tunnel" }.to_owned();
    let transport = rule.mode == Mode::Transport;
    let fields = vec![
        field(FieldName::LocalAddresses, selector::addresses, selector::share_addresses, &[local]),
        field(
            FieldName::RemoteAddresses,
            selector::addresses,
            selector::share_addresses,
            &[remote],
        ),
        field(FieldName::IpProtocol, protocol, selector::share_protocol, &[local, remote]),
        field(FieldName::LocalPorts, selector::ports, selector::share_ports, &[local]),
        field(FieldName::RemotePorts, selector::ports, selector::share_ports, &[remote]),
        // A peer that offers transport mode may be answered with tunnel mode (RFC 7296 1.3.1).
        Field::new(
            FieldName::Mode,
            [mode(transport)],
            [mode(wants_transport)],
            Some(wants_transport || !transport),
        ),
    ];
    Candidate { rule: Some(RuleName::clone(rule.rule)), fields, ..Candidate::default() }
}

fn protocol(selector: &TrafficSelector) -> String {
    match selector.protocol {
        0 => "any".to_owned(),
        number => number.to_string(),
    }
}

/// What the nearest came to.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other field is compared here")]
fn cause(nearest: &Candidate) -> Cause {
    let of = |field: &Field| match field.name {
        FieldName::LocalAddresses => Cause::LocalAddresses,
        FieldName::RemoteAddresses => Cause::RemoteAddresses,
        FieldName::IpProtocol => Cause::SelectorProtocol,
        FieldName::LocalPorts | FieldName::RemotePorts => Cause::Ports,
        _ => Cause::Mode,
    };
    nearest.unfit().next().map_or(Cause::SelectorCombination, of)
}
