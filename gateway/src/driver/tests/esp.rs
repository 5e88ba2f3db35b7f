//! What the kernel is told of ESP that is of no SA.

use super::*;
use crate::kernel::bpf::EspSource;

/// Waits until what a gateway's kernel was told is as it should be.
fn until(gateway: &Gateway, what: &str, is: impl Fn(&Record) -> bool) {
    let deadline = clock::now().checked_add(Duration::from_secs(20)).unwrap();
    while !is(&gateway.record.lock().unwrap()) {
        assert!(clock::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_spi_is_awaited_from_before_the_peer_can_agree() {
    if !is_root("an_spi_is_awaited_from_before_the_peer_can_agree") {
        return;
    }
    let (first, second) = pair();
    until(&second, "installed", |record| !record.children().is_empty());
    {
        let record = second.record.lock().unwrap();
        let child = record.children().remove(0);
        let sa = (child.inbound.destination, child.inbound.spi);
        // Once more with each request that was sent.
        assert_eq!(record.were_awaited.first(), Some(&sa));
        assert!(record.were_awaited.iter().all(|one| *one == sa));
    }
    // Who answers has the SA before.
    assert_eq!(first.record.lock().unwrap().were_awaited, []);
    for mut gateway in [first, second] {
        gateway.signal(Signal::End);
        gateway.wait();
    }
}

#[test]
fn an_spi_that_the_peer_does_not_agree_to_is_awaited_no_more() {
    if !is_root("an_spi_that_the_peer_does_not_agree_to_is_awaited_no_more") {
        return;
    }
    let other_prefix = policies("1", "2", "respond").replace("10.1.0.0/16", "10.7.0.0/16");
    let (first, second) = pair_with(other_prefix, policies("2", "1", "always"));
    until(&second, "refused", |record| {
        !record.were_awaited.is_empty() && record.awaited.is_empty()
    });
    for mut gateway in [first, second] {
        gateway.signal(Signal::End);
        gateway.wait();
    }
}

#[test]
fn the_programs_are_told_that_somebody_runs_and_whose_sas_there_are() {
    if !is_root("the_programs_are_told_that_somebody_runs_and_whose_sas_there_are") {
        return;
    }
    let mut gateway = Gateway::start("10.9.0.1", &policies("1", "2", "respond"), || {});
    until(&gateway, "told", |record| record.renewals == 1);
    assert!(!gateway.record.lock().unwrap().other_sas);
    let source = "192.0.2.2:4500".parse().unwrap();
    let seen = EspSource { destination: [10, 9, 0, 1].into(), spi: 7, source };
    gateway.notice(Notice::UnknownEsp(seen));
    gateway.notice(Notice::OtherSas);
    until(&gateway, "told", |record| record.other_sas);
    gateway.signal(Signal::End);
    gateway.wait();
}
