use super::*;
use crate::testing::{enter_namespace, ip, is_root, runtime};

const ATTACHED: Attached = Attached { xdp: XdpMode::Driver, tc: TcMode::Tcx };

fn guarded(index: u32, up: bool) -> State {
    State::Guarded { index, attached: ATTACHED, up }
}

fn gone(indexes: &[u32]) -> LinkChange {
    LinkChange { gone: indexes.iter().copied().collect(), lost: false }
}

#[test]
fn an_underlay_that_stays_needs_nothing() {
    assert_eq!(guarded(3, true).need(Some((3, true)), &gone(&[4])), Need::Nothing);
    assert_eq!(guarded(3, true).need(Some((3, false)), &gone(&[])), Need::Nothing);
    assert_eq!(State::Gone.need(None, &gone(&[])), Need::Nothing);
}

#[test]
fn an_underlay_that_was_made_anew_is_guarded_also_under_its_old_index() {
    assert_eq!(guarded(3, true).need(Some((5, true)), &gone(&[])), Need::Guard);
    assert_eq!(guarded(3, true).need(Some((3, true)), &gone(&[3])), Need::Guard);
    assert_eq!(State::Gone.need(Some((3, false)), &gone(&[])), Need::Guard);
    let unguarded = State::Unguarded { index: 3, why: "no".to_owned() };
    assert_eq!(unguarded.need(Some((3, true)), &gone(&[])), Need::Guard);
}

#[test]
fn after_lost_events_every_underlay_is_guarded_again() {
    let lost = LinkChange { lost: true, ..LinkChange::default() };
    assert_eq!(guarded(3, true).need(Some((3, true)), &lost), Need::Guard);
    assert_eq!(guarded(3, true).need(None, &lost), Need::Notice);
}

#[test]
fn an_underlay_that_goes_is_told_once() {
    assert_eq!(guarded(3, true).need(None, &gone(&[3])), Need::Notice);
    assert_eq!(State::Gone.need(None, &gone(&[3])), Need::Nothing);
}

#[test]
fn an_underlay_that_comes_up_may_have_lost_its_routes() {
    assert_eq!(guarded(3, false).need(Some((3, true)), &gone(&[])), Need::Routes);
}

#[test]
fn status_names_what_is_wrong() {
    let underlay = |name: &str, state| Underlay { name: name.to_owned(), state };
    let links = Links {
        underlays: vec![
            underlay("a", guarded(3, true)),
            underlay("b", State::Gone),
            underlay("c", State::Unguarded { index: 5, why: "no".to_owned() }),
        ],
        ..Links::default()
    };
    let shown: Vec<_> = links
        .status("ipsec0", 9)
        .into_iter()
        .map(|link| (link.name, link.index, link.attached, link.problem))
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        shown,
        [
            ("a".to_owned(), Some(3), Some(ATTACHED), None),
            ("b".to_owned(), None, None, text(GONE)),
            ("c".to_owned(), Some(5), None, text("not guarded: no")),
            ("ipsec0".to_owned(), Some(9), None, None),
        ]
    );
    assert_eq!(links.guarded(), ["a"]);
}

/// A message about interface 7.
fn message(kind: u16, family: u8) -> Vec<u8> {
    let mut octets = 32_u32.to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend([0; 10]);
    octets.extend([family, 0, 0, 0]);
    octets.extend(7_u32.to_ne_bytes());
    octets.extend([0; 8]);
    octets
}

#[test]
fn a_message_tells_of_one_interface() {
    assert_eq!(change(&message(RTM_DELLINK, 0)), Some(gone(&[7])));
    assert_eq!(change(&message(RTM_NEWLINK, 0)), Some(gone(&[])));
    let both = [message(RTM_DELLINK, 0), message(RTM_NEWLINK, 0)].concat();
    assert_eq!(change(&both), Some(gone(&[7])), "it may have come back since");
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    assert_eq!(change(&message(RTM_DELLINK, 7)), None);
}

#[test]
fn what_is_cut_or_of_another_kind_is_ignored() {
    assert_eq!(change(&message(24, 0)), None);
    let whole = message(RTM_DELLINK, 0);
    for end in 0..whole.len() {
        assert_eq!(change(&whole[..end]), None);
    }
    let mut short = message(RTM_DELLINK, 0);
    short.truncate(16 + 7);
    short[0] = 16 + 7;
    assert_eq!(change(&short), None);
}

#[test]
fn the_kernel_tells_of_an_interface_that_comes_and_goes() {
    if !is_root("the_kernel_tells_of_an_interface_that_comes_and_goes") {
        return;
    }
    std::thread::spawn(|| {
        enter_namespace();
        runtime().block_on(async {
            let mut events = LinkEvents::open().unwrap();
            ip("link add left type veth peer name right");
            let index = nix::net::if_::if_nametoindex("left").unwrap();
            assert!(events.next().await.unwrap().gone.is_empty());
            ip("link del left");
            let mut gone = BTreeSet::new();
            while !gone.contains(&index) {
                let next = tokio::time::timeout(Duration::from_secs(10), events.next());
                gone.extend(next.await.unwrap().unwrap().gone);
            }
        });
    })
    .join()
    .unwrap();
}

#[test]
fn lost_events_are_noticed() {
    if !is_root("lost_events_are_noticed") {
        return;
    }
    std::thread::spawn(|| {
        enter_namespace();
        runtime().block_on(async {
            let mut events = LinkEvents::open().unwrap();
            events.socket.socket_ref().set_rx_buf_sz(1).unwrap();
            for n in 0..20 {
                ip(&format!("link add left{n} type veth peer name right{n}"));
            }
            let mut lost = false;
            while !lost {
                let next = tokio::time::timeout(Duration::from_secs(10), events.next());
                lost = next.await.unwrap().unwrap().lost;
            }
        });
    })
    .join()
    .unwrap();
}
