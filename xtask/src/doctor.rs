//! `cargo xtask doctor`: what this machine has of what the project needs, and what mends the rest.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::json;

use crate::ebpf::{self, probe};
use crate::error::{Context as _, Result};
use crate::shell::{capture, find_tool, is_root};

/// Arguments of `cargo xtask doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit status is 1 if something is missing that the build, the demonstration or the tests need.
`cargo xtask setup` installs it.

Examples:
  cargo xtask doctor
  cargo xtask doctor --json")]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What something is needed for; each needs what the ones before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Building the gateway.
    Build,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask test`.
    Test,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Demo => "demo",
            Self::Test => "test",
        }
    }
}

/// How something that is missing is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Debian's packages.
    Packages(&'static [&'static str]),
    /// A compiler with a `core` for BPF.
    Core,
    /// bpf-linker, with this LLVM or a newer one.
    Linker(u32),
}

/// One thing that is needed.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: &'static str,
    pub(crate) purpose: Purpose,
    /// What was found, or why what was found will not do.
    pub(crate) found: std::result::Result<String, String>,
    pub(crate) mend: Mend,
}

/// Programs, what they are for, and the packages that have them.
const PROGRAMS: &[(&str, Purpose, &[&str])] = &[
    ("cc", Purpose::Build, &["gcc", "libc6-dev"]),
    ("bash", Purpose::Demo, &["bash"]),
    ("unshare", Purpose::Demo, &["util-linux"]),
    ("ip", Purpose::Demo, &["iproute2"]),
    ("nft", Purpose::Demo, &["nftables"]),
    ("ping", Purpose::Demo, &["iputils-ping"]),
    ("tcpdump", Purpose::Demo, &["tcpdump"]),
    ("qemu-system-x86_64", Purpose::Demo, &["qemu-system-x86"]),
    ("busybox", Purpose::Demo, &["busybox-static"]),
    ("depmod", Purpose::Demo, &["kmod"]),
    ("xz", Purpose::Demo, &["xz-utils"]),
    ("zstd", Purpose::Demo, &["zstd"]),
    ("lz4", Purpose::Demo, &["lz4"]),
    ("g++", Purpose::Test, &["g++"]),
    ("swanctl", Purpose::Test, &["strongswan-swanctl"]),
    (
        "charon-systemd",
        Purpose::Test,
        &["charon-systemd", "libstrongswan-extra-plugins", "libstrongswan-standard-plugins"],
    ),
];

/// Everything that is needed, in the order in which it is to be mended.
pub(crate) fn inventory() -> Vec<Item> {
    let mut items: Vec<Item> = PROGRAMS
        .iter()
        .map(|(name, purpose, packages)| Item {
            name,
            purpose: *purpose,
            found: find_tool(name)
                .map(|path| path.display().to_string())
                .ok_or_else(|| "not installed".to_owned()),
            mend: Mend::Packages(packages),
        })
        .collect();
    items.push(virtiofsd());
    items.push(strongswan_eap());
    items.extend(bpf_tools());
    items.sort_by_key(|item| item.purpose);
    items
}

/// It is not in PATH: Debian has had it in two places.
fn virtiofsd() -> Item {
    let places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
    let found = places.iter().find(|place| Path::new(place).is_file());
    Item {
        name: "virtiofsd",
        purpose: Purpose::Demo,
        found: found.map(ToString::to_string).ok_or_else(|| "not installed".to_owned()),
        // In Debian 12 it is in the latter's dependency, qemu-system-common.
        mend: Mend::Packages(&["virtiofsd | qemu-system-x86"]),
    }
}

/// The plugins by which strongSwan speaks EAP: some come with one package, some with another.
fn strongswan_eap() -> Item {
    let plugin = |name: &str| format!("/usr/lib/ipsec/plugins/libstrongswan-eap-{name}.so");
    let missing =
        ["mschapv2", "identity"].into_iter().find(|name| !Path::new(&plugin(name)).is_file());
    Item {
        name: "strongSwan's EAP",
        purpose: Purpose::Test,
        found: match missing {
            None => Ok(plugin("*")),
            Some(name) => Err(format!("eap-{name} is not installed")),
        },
        mend: Mend::Packages(&["libcharon-extauth-plugins", "libcharon-extra-plugins"]),
    }
}

/// The compiler and the linker of the BPF programs.
fn bpf_tools() -> Vec<Item> {
    if let Some(object) = std::env::var_os("GATEWAY_EBPF_OBJECT") {
        return vec![Item {
            name: "BPF object",
            purpose: Purpose::Build,
            found: Ok(format!("{} (GATEWAY_EBPF_OBJECT)", object.display())),
            mend: Mend::Core,
        }];
    }
    let compilers = probe::compilers();
    let chosen = probe::choose(&compilers);
    let core = Item {
        name: "BPF compiler",
        purpose: Purpose::Build,
        found: chosen.map(ToString::to_string).ok_or_else(|| {
            let seen: Vec<String> = compilers.iter().map(ToString::to_string).collect();
            if seen.is_empty() { "no rustc".to_owned() } else { seen.join("; ") }
        }),
        mend: Mend::Core,
    };
    // Which LLVM is needed is known once there is a compiler.
    let Some(compiler) = chosen else { return vec![core] };
    let linker = Item {
        name: "bpf-linker",
        purpose: Purpose::Build,
        found: probe::linker(compiler.llvm)
            .map(|linker| match linker.llvm {
                Some(llvm) => format!("{} (LLVM {llvm})", linker.path.display()),
                None => linker.path.display().to_string(),
            })
            .map_err(|missing| missing.to_string()),
        mend: Mend::Linker(compiler.llvm),
    };
    vec![core, linker]
}

impl Item {
    /// The command that mends it by hand.
    pub(crate) fn remedy(&self) -> String {
        match &self.mend {
            Mend::Packages(packages) => {
                let first: Vec<&str> = packages
                    .iter()
                    .map(|package| package.split(" | ").last().unwrap_or(package))
                    .collect();
                format!("apt-get install {}", first.join(" "))
            }
            Mend::Core if find_tool("apt-get").is_some() => format!(
                "apt-get install {}  (or: rustup toolchain install nightly --component rust-src)",
                CORE_PACKAGES.join(" ")
            ),
            Mend::Core => "rustup toolchain install nightly --component rust-src".to_owned(),
            Mend::Linker(llvm) => match ebpf::llvm_prefix(*llvm) {
                Some(_) => "cargo xtask setup".to_owned(),
                None => format!("apt-get install llvm-{llvm}-dev; cargo xtask setup"),
            },
        }
    }
}

/// Debian's compiler with a prebuilt `core` for BPF.
pub(crate) const CORE_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Something about the machine that needs no mending, since the tests have a virtual machine.
struct Feature {
    name: &'static str,
    found: String,
}

/// What the running kernel has.
fn features() -> Vec<Feature> {
    let release = read("/proc/sys/kernel/osrelease");
    let config = kernel_config(&release);
    let modules = fs::read_to_string(format!("/lib/modules/{release}/modules.dep"));
    let modules = modules.unwrap_or_default();
    let has = |option: &str, module: &str| {
        let set = |value: &str| config.contains(&format!("\nCONFIG_{option}={value}\n"));
        let is_module = modules.contains(&format!("/{module}.ko"));
        let found = match (set("y"), set("m") || config.is_empty(), config.is_empty()) {
            (true, ..) => "built in",
            (_, true, _) if is_module => "module",
            (.., true) => "unknown",
            _ => "no",
        };
        found.to_owned()
    };
    let bpffs = read("/proc/mounts").lines().any(|line| line.contains(" /sys/fs/bpf bpf "));
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    [
        ("kernel", release),
        ("root", yes_no(is_root())),
        ("KVM", yes_no(Path::new("/dev/kvm").exists())),
        ("kernel ESP", has("INET_ESP", "esp4")),
        ("kernel ESP for IPv6", has("INET6_ESP", "esp6")),
        ("kernel XFRM interface", has("XFRM_INTERFACE", "xfrm_interface")),
        ("kernel BPF", has("BPF_SYSCALL", "")),
        ("kernel BPF JIT", has("BPF_JIT", "")),
        ("bpffs at /sys/fs/bpf", yes_no(bpffs)),
    ]
    .map(|(name, found)| Feature { name, found })
    .into()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// The kernel's configuration, or nothing if it does not show it.
fn kernel_config(release: &str) -> String {
    let boot = fs::read_to_string(format!("/boot/config-{release}")).ok();
    boot.or_else(|| capture(Command::new("zcat").arg("/proc/config.gz")).ok())
        .map(|text| format!("\n{text}"))
        .unwrap_or_default()
}

/// Runs the command of `cargo xtask doctor`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (items, features) = (inventory(), features());
    let missing = items.iter().filter(|item| item.found.is_err()).count();
    if args.json {
        let text = serde_json::to_string_pretty(&as_json(&items, &features))
            .context(|| "cannot write JSON")?;
        println!("{text}");
    } else {
        print(&items, &features, missing);
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(items: &[Item], features: &[Feature]) -> serde_json::Value {
    let items: Vec<_> = items
        .iter()
        .map(|item| match &item.found {
            Ok(found) => json!({
                "name": item.name, "purpose": item.purpose.name(), "ok": true, "found": found,
            }),
            Err(why) => json!({
                "name": item.name, "purpose": item.purpose.name(), "ok": false, "found": why,
                "remedy": item.remedy(),
            }),
        })
        .collect();
    let machine: serde_json::Map<_, _> =
        features.iter().map(|f| (f.name.to_owned(), f.found.clone().into())).collect();
    json!({ "needed": items, "machine": machine })
}

fn print(items: &[Item], features: &[Feature], missing: usize) {
    println!("{:<24} {:<7} {:<8} found", "needed", "for", "");
    for item in items {
        let (state, found) = match &item.found {
            Ok(found) => ("ok", found),
            Err(why) => ("MISSING", why),
        };
        println!("{:<24} {:<7} {state:<8} {found}", item.name, item.purpose.name());
        if item.found.is_err() {
            println!("{:<24} {:<7} {:<8} -> {}", "", "", "", item.remedy());
        }
    }
    println!("\nthis machine (what it lacks, the tests find in a virtual machine)");
    for Feature { name, found } in features {
        println!("{name:<24} {found}");
    }
    if missing == 0 {
        println!("\nNothing is missing.");
    } else {
        println!("\nMissing: {missing}. `cargo xtask setup` installs it.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_thing_names_the_command_that_mends_it() {
        for mend in [Mend::Packages(&["virtiofsd | qemu-system-x86"]), Mend::Core, Mend::Linker(9)]
        {
            let item = Item {
                name: "thing",
                purpose: Purpose::Build,
                found: Err("not installed".to_owned()),
                mend,
            };
            let remedy = item.remedy();
            assert!(remedy.contains("install") || remedy.contains("setup"), "{remedy}");
            assert!(!remedy.contains('|'), "{remedy}");
        }
    }

    #[test]
    fn the_report_for_programs_says_what_the_one_for_people_says() {
        let items = [Item {
            name: "thing",
            purpose: Purpose::Demo,
            found: Err("not installed".to_owned()),
            mend: Mend::Packages(&["thing-package"]),
        }];
        let features = [Feature { name: "kernel", found: "6.1".to_owned() }];
        let json = as_json(&items, &features);
        assert_eq!(json["needed"][0]["ok"], false);
        assert_eq!(json["needed"][0]["remedy"], "apt-get install thing-package");
        assert_eq!(json["machine"]["kernel"], "6.1");
    }
}
