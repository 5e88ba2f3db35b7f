//! `cargo xtask demo`: builds all that is needed and shows the gateway at work.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::doctor::Purpose;
use crate::error::{Context as _, Result};
use crate::progress::{Step, say};
use crate::shell::{is_root, quote, succeeds, target_dir, tool};
use crate::{setup, test, vm};

/// A whole demonstration takes two or three minutes under emulation.
const LIMIT: Duration = Duration::from_secs(900);

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Two gateways negotiate IKEv2 through a NAT in network namespaces and carry traffic. Nothing of
the machine's own network is touched. On a kernel without ESP, or without root, all of it
happens in a virtual machine with a stock Debian kernel.

Examples:
  cargo xtask demo
  cargo xtask demo --vm -k 6.1")]
pub(crate) struct Args {
    /// Use a virtual machine even if this machine's kernel could do it.
    #[arg(long)]
    vm: bool,

    /// Debian kernel series of the virtual machine.
    #[arg(short, long, value_name = "SERIES", default_value = "6.12")]
    kernel: String,
}

/// Runs the command of `cargo xtask demo`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo)?;
    say("building the gateway and the demonstration (the first time takes minutes)");
    test::release(&["--package", "gateway", "--bin", "gateway"])?;
    test::release(&["--package", "gateway-tests", "--bin", "demo"])?;
    let release = target_dir().join("release");
    let program = release.join("demo").to_string_lossy().into_owned();
    let gateway = release.join("gateway").to_string_lossy().into_owned();
    let script =
        format!("export GATEWAY_BIN={}; {}", quote(&gateway), test::isolated([program.as_str()]));

    if !args.vm && can_encrypt()? {
        say("this kernel has ESP: running in network namespaces on this machine");
        let status = Command::new("sh").args(["-c", &script]).status().context(|| "sh")?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if !args.vm {
        let why =
            if is_root() { "this kernel has no ESP or no XFRM interface" } else { "not root" };
        say(format!("{why}: using a virtual machine"));
    }
    let machine = vm::Machine::with_kernel(&args.kernel, None, LIMIT);
    let job = vm::Job {
        command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        ..vm::Job::default()
    };
    let mut step =
        Some(Step::start(format!("booting a stock Debian kernel {} in QEMU", args.kernel)));
    let outcome = vm::execute(&machine, &job, &mut |stream, data| {
        // Its first words show that it has booted.
        if let Some(step) = step.take() {
            step.done();
        }
        vm::pass_on(stream, data);
    })?;
    Ok(vm::exit_code(&outcome, &machine))
}

/// Whether this kernel takes an ESP SA and has XFRM interfaces: tried in a network namespace
/// that goes away at once.
fn can_encrypt() -> Result<bool> {
    if !is_root() || !Path::new("/proc/sys/net").exists() {
        return Ok(false);
    }
    let ip = quote(&tool("ip")?.to_string_lossy());
    let key = "00".repeat(20);
    let trial = format!(
        "{ip} xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x100 reqid 1 \
         mode tunnel aead 'rfc4106(gcm(aes))' 0x{key} 128 && \
         {ip} link set lo up && {ip} link add ipsec0 type xfrm dev lo if_id 1"
    );
    Ok(succeeds(Command::new("unshare").args(["--net", "sh", "-c", &trial])))
}
