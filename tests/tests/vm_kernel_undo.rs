//! What fails is undone, what a killed daemon left is removed, and what is of others stays.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::unwrap_in_result, reason = "this is test code")]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use gateway::kernel::xfrm::{PolicyDirection, PolicyValue, SaDirection, Xfrm, policy_keys};
use gateway_ike::config::Mode;
use gateway_ike::io::KernelError;
use gateway_tests::error::{Context as _, Result};
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child};
use node::{IF_ID, Node, OTHER_IF_ID, everything, machines, policies, trap};

#[test]
fn an_installation_that_fails_leaves_the_kernel_as_it_was() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let mut node = Node::open(&a, &policies(&spec.selectors[0].0))?;
    node.execute(trap(&spec)).context("trap")?;
    let (mut ours, mut others) = a
        .enter(|| Ok::<_, std::io::Error>((Xfrm::open(IF_ID)?, Xfrm::open(OTHER_IF_ID)?)))?
        .context("open")?;

    // Somebody else has the inbound SPI; then the outbound one.
    for direction in [SaDirection::Inbound, SaDirection::Outbound] {
        let mut foreign = spec.clone();
        foreign.selectors.clear();
        others.add_sa(&foreign, direction).context("foreign SA")?;
        let before = everything(&a, &mut node)?;
        let error = node.install(&spec).unwrap_err();
        match direction {
            SaDirection::Inbound => assert_eq!(error, KernelError::SpiInUse),
            SaDirection::Outbound => {
                assert!(
                    error.to_string().contains("cannot install SA 00002002 to 192.0.2.2"),
                    "{error}"
                );
            }
        }
        assert_eq!(everything(&a, &mut node)?, before);
        let sa = if direction == SaDirection::Inbound { &spec.inbound } else { &spec.outbound };
        let id = gateway::kernel::xfrm::SaId { destination: sa.destination, spi: sa.spi };
        others.delete_sa(id).context("foreign SA")?;
    }

    // A policy stands where one of ours should, in each direction.
    for direction in [PolicyDirection::In, PolicyDirection::Forward] {
        let key = policy_keys(&spec.selectors[0].0, Mode::Tunnel, direction).unwrap()[0];
        let value = PolicyValue {
            priority: 1,
            reqid: 1,
            source: None,
            destination: spec.inbound.destination,
        };
        ours.add_policy(&key, &value).context("policy in the way")?;
        let before = everything(&a, &mut node)?;
        let error = node.install(&spec).unwrap_err();
        assert!(error.to_string().starts_with("cannot install policy"), "{error}");
        assert_eq!(everything(&a, &mut node)?, before);
        ours.delete_policy(&key).context("policy in the way")?;
    }

    // A key that is too short for the algorithm.
    let mut short = spec.clone();
    short.outbound.encryption_key = zeroize::Zeroizing::new(vec![1; 7]);
    let before = everything(&a, &mut node)?;
    node.install(&short).unwrap_err();
    assert_eq!(everything(&a, &mut node)?, before);

    // And nothing of all that is in the way of the real one, or of its removal.
    node.install(&spec).context("install")?;
    assert_ne!(everything(&a, &mut node)?, before);
    node.remove(&spec)?;
    assert_eq!(everything(&a, &mut node)?, before);
    node.remove(&spec)?;
    node.end()
}

#[test]
fn a_route_of_another_to_the_same_prefix_stays() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    a.ip("route add 10.2.0.0/16 via 192.0.2.2 src 10.1.0.1")?;
    let spec = child(GCM, Mode::Tunnel, false);
    let mut node = Node::open(&a, &policies(&spec.selectors[0].0))?;
    let before = a.run("ip", &["route"])?;
    node.install(&spec).context("install")?;
    assert_eq!(a.run("ip", &["route"])?, before);
    node.remove(&spec)?;
    assert_eq!(a.run("ip", &["route"])?, before);
    node.end()
}

#[test]
fn the_next_run_removes_what_a_killed_one_left_and_nothing_else() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let rules = policies(&spec.selectors[0].0);
    let mut node = Node::open(&a, &rules)?;
    let mut others = a.enter(|| Xfrm::open(OTHER_IF_ID))?.context("open")?;
    let mut foreign = spec.clone();
    foreign.inbound.spi = 0x7007;
    others.add_sa(&foreign, SaDirection::Inbound).context("foreign SA")?;
    a.ip("route add 10.9.0.0/16 via 192.0.2.2")?;
    let empty = everything(&a, &mut node)?;
    node.execute(trap(&spec)).context("trap")?;
    node.install(&spec).context("install")?;
    let interface = a.run("ip", &["-o", "link", "show", "ipsec0"])?;
    node.kill();
    // Still guarded: nothing leaves in the clear.
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    let mut node = Node::open(&a, &rules)?;
    assert_eq!(everything(&a, &mut node)?, empty);
    assert_eq!(a.run("ip", &["-o", "link", "show", "ipsec0"])?, interface);
    node.end()
}
