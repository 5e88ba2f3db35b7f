//! What waits for the kernel, and what becomes of it when that refuses or is silent.

use super::*;

#[test]
fn the_answer_waits_for_the_kernel_and_a_refusal_leaves_the_ike_sa() {
    for (node, partner) in [(0, 1), (1, 0)] {
        let mut simulation = pair(policies_of_a(), policies_of_b());
        let refusal = Refusal::Error(KernelError::Unsupported("gcm(aes)".to_owned()));
        simulation.nodes[node].kernel.refusals.push_back(refusal);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert!(simulation.nodes[node].kernel.children.is_empty());
        assert!(
            simulation.nodes[partner].kernel.children.is_empty(),
            "the other end holds nothing either"
        );
        assert_eq!(simulation.violations(), Vec::<String>::new());
        assert_eq!(counter(&simulation, node, Counter::ChildSaFailed), 1);
        let status = simulation.nodes[0].endpoint.status(simulation.now);
        assert_eq!(status.ike_sas[0].state, "established");
    }
}

#[test]
fn no_answer_leaves_before_the_kernel_has_spoken() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.acquire(0, "to-b");
    // Up to the moment in which B is about to install: run A's side and take B by hand.
    let now = simulation.now;
    let request = simulation.nodes[0].sent[0].clone();
    let path = gateway_ike::io::Path { local: request.0.remote, remote: request.0.local };
    let b = &mut simulation.nodes[1];
    b.endpoint.handle(now, Input::Datagram { path, octets: &request.1 });
    let answer = loop {
        match b.endpoint.poll_output().expect("an answer to IKE_SA_INIT") {
            Output::Transmit { octets, .. } => break octets,
            Output::Kernel(..)
            | Output::Event(_)
            | Output::Keepalive { .. }
            | Output::Expect { .. }
            | Output::ExpectNoMore { .. }
            | Output::Cookies(_) => {}
        }
    };
    while b.endpoint.poll_output().is_some() {}
    let back = gateway_ike::io::Path { local: path.remote, remote: path.local };
    simulation.input(0, Input::Datagram { path: back, octets: &answer });
    let auth = simulation.nodes[0].sent[1].1.clone();
    let b = &mut simulation.nodes[1];
    b.endpoint.handle(now, Input::Datagram { path, octets: &auth });
    let mut commands = Vec::new();
    while let Some(output) = b.endpoint.poll_output() {
        match output {
            Output::Transmit { .. } => panic!("answered before the kernel has the SA"),
            Output::Kernel(id, command) => commands.push((id, command)),
            Output::Event(_)
            | Output::Keepalive { .. }
            | Output::Expect { .. }
            | Output::ExpectNoMore { .. }
            | Output::Cookies(_) => {}
        }
    }
    let [(id, command)] = <[_; 1]>::try_from(commands).unwrap();
    // The same request again changes nothing.
    b.endpoint.handle(now, Input::Datagram { path, octets: &auth });
    assert!(b.endpoint.poll_output().is_none());
    let result = b.kernel.execute(command).unwrap();
    b.endpoint.handle(now, Input::CommandDone(id, result));
    let sent = std::iter::from_fn(|| b.endpoint.poll_output())
        .filter(|o| matches!(o, Output::Transmit { .. }))
        .count();
    assert_eq!(sent, 1);
    // And now it gets the same answer.
    b.endpoint.handle(now, Input::Datagram { path, octets: &auth });
    assert!(matches!(b.endpoint.poll_output(), Some(Output::Transmit { .. })));
}

#[test]
fn a_kernel_that_never_answers_costs_the_child_sa_only() {
    let mut simulation = pair(policies_of_a(), policies_of_b());
    simulation.nodes[1].kernel.refusals.push_back(Refusal::Silence);
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(4));
    assert_eq!(simulation.nodes[1].sent.len(), 1, "the answer to IKE_AUTH is withheld");
    simulation.run(Duration::from_secs(2));
    assert_eq!(simulation.nodes[1].sent.len(), 2, "and then says that there is no Child SA");
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].state, "established");
    assert!(status.rules[0].last_error.as_ref().unwrap().contains("NO_PROPOSAL_CHOSEN"));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
}

/// An SPI that the kernel has of somebody else is not the end of the Child SA.
#[test]
fn an_spi_that_is_taken_in_the_kernel_is_replaced_by_another() {
    let taken = || Refusal::Error(KernelError::SpiInUse);
    for node in 0..2 {
        for (times, served) in [(1, true), (3, true), (5, false)] {
            let mut simulation = pair(policies_of_a(), policies_of_b());
            simulation.nodes[node].kernel.refusals.extend((0..times).map(|_| taken()));
            simulation.acquire(0, "to-b");
            simulation.run(Duration::from_secs(20));
            let tries = counter(&simulation, node, Counter::SpiTaken);
            assert_eq!(
                tries,
                if served {
                    times
                } else if node == 0 {
                    4
                } else {
                    3
                }
            );
            assert_eq!(simulation.has_one_child_each().unwrap(), served, "node {node}, {times}");
            // The responder's peer hears of one SPI only; the initiator's has one deleted.
            let failed = counter(&simulation, 1 - node, Counter::ChildSaRemoved);
            assert_eq!(failed, if node == 0 { tries } else { 0 });
        }
    }
}
