//! Certificates and revocation lists that are renewed while IKE SAs stand.

use super::*;

/// What a reload does to a connection that stands.
#[test]
fn a_new_revocation_list_ends_only_what_it_revokes() {
    let authority = Authority::new("Root");
    let subject = Subject::new("a.test", KeyKind::P256);
    let policies_with = |lists: Vec<Vec<u8>>| {
        let (local, _) = certified(&authority, &subject);
        let mut trust = trust(&authority);
        trust.lists = certificates::lists(&lists);
        let a = (local, RemoteAuth::Certificate(Arc::new(trust)));
        configure(|_, _| {}, ends(a, psk()))
    };
    let mut simulation = run(policies_with(vec![authority.revoke(&[], 10)]));
    assert!(simulation.has_one_child_each().unwrap());
    let before = simulation.nodes[1].kernel.history.len();
    let [_, b] = policies_with(vec![authority.revoke(&[subject.serial + 1], 10)]);
    simulation.configure(1, b);
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(simulation.nodes[1].kernel.history.len(), before + 1, "only the classifier");
    let [_, b] = policies_with(vec![authority.revoke(&[subject.serial], 10)]);
    simulation.configure(1, b);
    simulation.run(MINUTE);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
    let named = simulation.nodes[1].events.iter().any(|e| {
        matches!(
            e.kind,
            EventKind::NoLongerBelieved(AuthenticationFault::Certificate(
                CertificateFault::Revoked(_)
            ))
        )
    });
    assert!(named);
}

#[test]
fn a_renewed_certificate_of_ours_leaves_what_stands() {
    let authority = Authority::new("Root");
    let policies_with = |serial| {
        let subject = Subject { serial, ..Subject::new("a.test", KeyKind::P256) };
        configure(|_, _| {}, ends(certified(&authority, &subject), psk()))
    };
    let mut simulation = run(policies_with(1));
    let sent = simulation.nodes[0].sent.len();
    let [a, _] = policies_with(2);
    simulation.configure(0, a);
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(simulation.nodes[0].sent.len(), sent);
}
