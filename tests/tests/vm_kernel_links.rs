//! Interfaces that are in the way, go and come back under the kernel's half of the gateway.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/node.rs"]
mod node;

use gateway::kernel::KernelSetupError;
use gateway_ike::config::{Mode, PolicySet};
use gateway_ike::io::KernelCommand;
use gateway_tests::error::{Context as _, Result};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};

use kernel::{GCM, child, mirrored, outer};
use node::{Node, SIZES, machines, ping, trap};

fn index(namespace: &Namespace, name: &str) -> Result<String> {
    let text = namespace.run("cat", &[&format!("/sys/class/net/{name}/ifindex")])?;
    Ok(text.trim().to_owned())
}

fn mtu(namespace: &Namespace, name: &str) -> Result<String> {
    namespace.run("cat", &[&format!("/sys/class/net/{name}/mtu")])
}

#[test]
fn an_xfrm_interface_that_is_deleted_is_made_anew() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let [mut one, mut two] = Node::ends([&a, &b], &spec)?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    ping(&a, "10.2.0.1", &["56"])?;
    let before = (index(&a, "ipsec0")?, mtu(&a, "ipsec0")?);

    a.ip("link del ipsec0")?;
    one.tend(&a)?;
    assert_eq!((index(&a, "ipsec0")?, mtu(&a, "ipsec0")?), before);
    ping(&a, "10.2.0.1", SIZES)?;

    // Its index is taken, and for a while its name.
    let taken = &before.0;
    a.ip(&format!(
        "link del ipsec0\n\
         link add foreign index {taken} type veth peer name far\n\
         link set far up\n\
         link set foreign name ipsec0\n\
         link set ipsec0 up"
    ))?;
    one.tend(&a)?;
    let problem = one.problem("ipsec0").unwrap();
    assert!(problem.starts_with("interface ipsec0 exists and is of kind veth"), "{problem}");
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    a.ip("link set ipsec0 down\nlink set ipsec0 name foreign\nlink set foreign up")?;
    one.tend(&a)?;
    assert_eq!(one.problem("ipsec0"), None);
    assert_ne!(index(&a, "ipsec0")?, *taken);
    ping(&a, "10.2.0.1", SIZES)?;
    ping(&b, "10.1.0.1", SIZES)?;
    one.end()?;
    two.end()
}

#[test]
fn an_underlay_that_is_made_anew_gets_its_programs_and_routes_again() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, b] = machines()?;
    let spec = child(GCM, Mode::Tunnel, false);
    let other = mirrored(&spec);
    let [mut one, mut two] = Node::ends([&a, &b], &spec)?;
    one.execute(trap(&spec)).context("trap")?;
    one.install(&spec).context("a")?;
    two.install(&other).context("b")?;
    ping(&a, "10.2.0.1", &["56"])?;
    let routes = || a.run("ip", &["route", "show", "proto", "171"]);
    let before = routes()?;
    assert!(before.contains("10.2.0.0/16"), "{before}");

    // The wire has two ends.
    a.ip("link del under")?;
    one.tend(&a)?;
    assert_eq!(routes()?, "");
    assert_eq!(one.problem("under").unwrap(), "there is no such interface");
    a.link("under", &b, "under")?;
    for (namespace, n) in [(&a, 0), (&b, 1)] {
        namespace.ip(&format!("address add {}/24 dev under", outer(false)[n]))?;
    }
    one.tend(&a)?;
    two.tend(&b)?;
    assert_eq!(one.problem("under"), None);
    assert_eq!(routes()?, before);
    ping(&a, "10.2.0.1", SIZES)?;
    ping(&b, "10.1.0.1", SIZES)?;
    one.remove(&spec)?;
    one.execute(KernelCommand::RemoveTrap { reqid: spec.inbound.reqid }).context("trap")?;
    assert_eq!(routes()?, "");
    a.run("ping", &["-c", "1", "-W", "1", "10.2.0.1"]).unwrap_err();
    one.end()?;
    two.end()
}

#[test]
fn an_interface_in_the_way_is_named() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let [a, _b] = machines()?;
    let open =
        || Ok::<_, gateway_tests::Error>(Node::try_open(&a, &PolicySet::default(), "under")?.err());
    a.ip("link add ipsec0 type veth peer name other")?;
    let error = open()?.unwrap();
    assert!(
        matches!(&error, KernelSetupError::NameTaken { name, .. } if name == "ipsec0"),
        "{error}"
    );
    a.ip("link delete ipsec0\nlink add ipsec0 type xfrm dev under if_id 99")?;
    let error = open()?.unwrap();
    assert!(error.to_string().contains("an XFRM interface with if_id 99"), "{error}");
    a.ip("link delete ipsec0\nlink add mine type xfrm dev under if_id 7")?;
    let error = open()?.unwrap();
    assert!(matches!(error, KernelSetupError::IfIdTaken(7)), "{error}");
    Ok(())
}
