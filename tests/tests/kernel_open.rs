//! What keeps the kernel from being set up, and how that is said.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::unwrap_in_result, clippy::unwrap_used, reason = "this is test code")]

use caps::{CapSet, Capability};
use gateway::complaints::Complaints;
use gateway::kernel::{KernelConfig, KernelSetupError, LinuxKernel, probe};
use gateway_ike::config::PolicySet;
use gateway_tests::error::Result;
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};

/// Tries to set the kernel up in the calling thread's namespace.
fn open(config: KernelConfig) -> core::result::Result<(), KernelSetupError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LinuxKernel::open(config, &PolicySet::default(), Complaints::new(5))).map(drop)
}

fn config(interfaces: &[&str]) -> KernelConfig {
    KernelConfig {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        ..KernelConfig::default()
    }
}

fn refusal(config: KernelConfig) -> Result<KernelSetupError> {
    let namespace = Namespace::new("open")?;
    let refusal = namespace.enter(|| open(config).unwrap_err())?;
    // Whatever it was, nothing is left.
    assert!(!namespace.run("ip", &["-brief", "link"])?.contains("ipsec0"));
    assert_eq!(namespace.run("ip", &["xfrm", "state"])?, "");
    Ok(refusal)
}

#[test]
fn no_interface_configured() -> Result {
    let error = refusal(config(&[]))?;
    assert!(matches!(error, KernelSetupError::NoInterfaces), "{error}");
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_named() -> Result {
    let error = refusal(config(&["lo", "eth7"]))?;
    assert_eq!(error.to_string(), "there is no interface eth7");
    Ok(())
}

#[test]
fn an_if_id_of_zero_is_refused() -> Result {
    let error = refusal(KernelConfig { if_id: 0, ..config(&["lo"]) })?;
    assert!(matches!(error, KernelSetupError::ZeroIfId), "{error}");
    Ok(())
}

#[test]
fn a_missing_capability_is_named() -> Result {
    let namespace = Namespace::new("open")?;
    // Capabilities belong to the thread, and this one ends here.
    let error = namespace.enter(|| {
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
        open(config(&["lo"])).unwrap_err()
    })?;
    assert_eq!(error.to_string(), "missing capability CAP_NET_ADMIN: run as root, or grant it");
    Ok(())
}

#[test]
fn a_kernel_without_esp_is_named_with_what_was_tried() -> Result {
    if !met(&[Requirement::NoEsp])? {
        return Ok(());
    }
    let error = refusal(config(&["lo"]))?;
    let KernelSetupError::NoEsp(capabilities) = &error else { panic!("{error}") };
    assert!(!capabilities.has_esp());
    let text = error.to_string();
    assert!(text.starts_with("kernel has no ESP: CONFIG_INET_ESP"), "{text}");
    assert!(text.contains("no: ESP with aes128gcm16-esn over IPv4 ("), "{text}");
    Ok(())
}

#[test]
fn probing_leaves_nothing_behind() -> Result {
    let namespace = Namespace::new("probe")?;
    let before = namespace.run("ip", &["-brief", "link"])?;
    let capabilities = namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(probe(7)).unwrap()
    })?;
    assert!(capabilities.to_string().starts_with("kernel "), "{capabilities}");
    assert!(capabilities.features.len() > 10, "{capabilities}");
    assert_eq!(namespace.run("ip", &["-brief", "link"])?, before);
    assert_eq!(namespace.run("ip", &["xfrm", "state"])?, "");
    Ok(())
}
