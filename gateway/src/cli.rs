//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_mangen::Man;

use crate::control::DEFAULT_SOCKET;
use crate::log;
use crate::policy::{DEFAULT_PIN_DIR, DEFAULT_STATE_DIR};

/// How the program ends.
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// An error: the message on standard error says which.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// `gateway status` found no gateway that answers.
    pub const NO_DAEMON: u8 = 3;
}

const EXIT_CODES: &str = "\
Exit status:
  0  success
  1  an error, described on standard error
  2  a mistake on the command line
  3  `gateway status`: no gateway answers";

const EXAMPLES: &str = "\
Examples:
  gateway check /etc/gateway/policies           is all in the files right?
  gateway run --policies /etc/gateway/policies  protect what the files select
  kill -HUP $(pidof gateway)                    load the files again
  gateway status                                who is connected, what failed
  gateway status --json | jq .ike_sas
  gateway trace --drops                         what is dropped, and why";

/// What the gateway reads and leaves, and the key of `[gateway]` that puts it elsewhere.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/gateway/policies/*.toml",
        "The policy files, if `--policies` names that directory. Files that they name lie there too.",
    ),
    (
        DEFAULT_SOCKET,
        "The control socket, on which `gateway status` asks; root's alone. Key `control-socket`.",
    ),
    (
        DEFAULT_PIN_DIR,
        "eBPF programs, links and maps, pinned on bpffs: they outlive the gateway. Key `pin-dir`.",
    ),
    (DEFAULT_STATE_DIR, "The secret by which peers learn at once of a crash. Key `state-dir`."),
    (
        "/run/gateway/resolv.conf",
        "The name servers that peers tell, if the key `resolv-conf` names such a file.",
    ),
];

/// IPsec gateway: IKEv2 with an eBPF data path
#[derive(Debug, Parser)]
#[command(name = "gateway", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway in the foreground
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check policy files without touching anything
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Show what the running gateway does
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Show what becomes of packets, and why
    #[command(after_help = TRACE_HELP)]
    Trace(TraceArgs),
    /// Show how large packets may be, and why
    #[command(after_help = MTU_HELP)]
    Mtu(StatusArgs),
    /// Block what the policies protect until the gateway runs
    #[command(after_help = GUARD_HELP)]
    Guard(GuardArgs),
    /// Remove the eBPF guard that stays when the gateway ends
    #[command(after_help = UNGUARD_HELP)]
    Unguard(Pinned),
    /// Print the version
    Version,
    /// Print the manual page in troff
    #[command(hide = true)]
    Man,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  gateway completions bash > /etc/bash_completion.d/gateway")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

const RUN_HELP: &str = "\
Signals:
  SIGHUP           load the policy files again; with an error nothing changes
  SIGTERM, SIGINT  delete all SAs and end; a second one ends at once

What the policies protect stays blocked when the gateway ends: the eBPF guard is
pinned.

Examples:
  gateway run --policies /etc/gateway/policies
  gateway run --policies ./policies --log debug
  gateway run -p ./policies --log info,gateway_ike=debug --log-format json

Exit status: 0 after SIGTERM or SIGINT, 1 when it cannot start or go on, 2 for a
mistake on the command line.";

const CHECK_HELP: &str = "\
Examples:
  gateway check ./policies
  gateway check --json ./policies | jq -r '.errors[].message'

Exit status: 0 if the files can be loaded, 1 if there are errors, 2 for a
mistake on the command line.";

const STATUS_HELP: &str = "\
Examples:
  gateway status
  gateway status --json | jq '.ike_sas[] | {peer, state}'

For Prometheus, name an address in [gateway] of the policy files:
  metrics-listen = \"127.0.0.1:9500\"

Exit status: 0 if the gateway answered, 1 if it could not, 2 for a mistake on
the command line, 3 if there is none.";

const TRACE_HELP: &str = "\
Each line is a decision of the eBPF programs: when, on which CPU, interface and
hook, the verdict, the counter that was raised, the rule, the peer, the SPI, and
the packet. XDP shows it as it is after the decision. ESP of known SAs that just
passes is shown as `passed`. Several of --peer, --rule and --spi show what any
of them names. A guard without a gateway can be traced too, but not by names.

What is above --rate, or faster than it can be shown, is counted, and said at
the end.

Examples:
  gateway trace                            everything that is decided
  gateway trace --drops                    what is dropped
  gateway trace --peer berlin --count 20   the next 20 packets of a peer
  gateway trace --reason ingress_clear --json | jq -r .source
  gateway trace --spi c0ffee01 --write trace.pcapng
  gateway trace --write trace.pcapng --keys .  and esp_sa to decrypt it with

Exit status: 0 after an interrupt or --count decisions, 1 when there is nothing
to trace or it cannot go on, 2 for a mistake on the command line.";

const MTU_HELP: &str = "\
For each Child SA the MTU of the underlay by which the peer is reached, what
encryption adds, and what is left. The routes to what is protected have that
MTU: local TCP and UDP, and what is forwarded, get it by ICMP and ICMPv6 where a
packet is too large. A smaller MTU on the way to the peer is not known here.

Examples:
  gateway mtu
  gateway mtu --json | jq '.[] | {rule, mtu, mss_v4}'

Exit status: 0 if the gateway answered, 1 if it could not, 2 for a mistake on
the command line, 3 if there is none.";

const GUARD_HELP: &str = "\
The eBPF guard is attached to the interfaces of `interfaces` in the policy
files, or, where they name none, to all that are hardware. It stays when the
command ends. At boot this closes the time until the gateway has started, and
all the time if it cannot: deploy/gateway-guard.service does that. The gateway
then keeps the guard on its underlay only. Where a gateway runs already nothing
is done.

Examples:
  gateway guard --policies /etc/gateway/policies
  gateway unguard                              lifts it again

Exit status: 0 if all these interfaces are guarded, 1 if one or all are not, 2
for a mistake on the command line.";

const UNGUARD_HELP: &str = "\
What the policies protected passes in the clear from then on. SAs and policies
in the kernel are not touched: the gateway takes its own away when it ends in
good order or starts again.

Examples:
  systemctl disable --now gateway gateway-guard && gateway unguard
  gateway unguard --pin-dir /sys/fs/bpf/gateway-test

Exit status: 0 if there is no guard (any more), 1 if a gateway is running or the
guard cannot be removed, 2 for a mistake on the command line.";

/// Arguments of `gateway run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Directory with the policy files (*.toml)
    #[arg(long, short, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub policies: PathBuf,
    /// How much to log: error, warn, info, debug, trace, or a list like info,gateway_ike=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    pub log_format: log::Format,
}

/// Arguments of `gateway check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Directory with the policy files (*.toml)
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub policies: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where a gateway is asked.
#[derive(Debug, Args)]
pub struct Control {
    /// The gateway's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub socket: PathBuf,
}

/// Where the eBPF programs of a gateway are, and where it is asked.
#[derive(Debug, Args)]
pub struct Pinned {
    /// Where the programs are pinned: `pin-dir` in the policy files
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PIN_DIR)]
    #[arg(value_hint = clap::ValueHint::DirPath)]
    pub pin_dir: PathBuf,
    /// The gateway itself.
    #[command(flatten)]
    pub control: Control,
}

/// Arguments of `gateway status` and `gateway mtu`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// The gateway.
    #[command(flatten)]
    pub control: Control,
}

/// Arguments of `gateway trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Only traffic of this peer: of its rules and SAs; may be given again
    #[arg(long, value_name = "NAME")]
    pub peer: Vec<String>,
    /// Only what this rule decides, and ESP of its SAs; may be given again
    #[arg(long, value_name = "NAME")]
    pub rule: Vec<String>,
    /// Only ESP with this SPI, in hexadecimal; may be given again
    #[arg(long, value_name = "SPI")]
    pub spi: Vec<Spi>,
    /// Only decisions with this reason, a counter of `gateway status`; may be given again
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
    /// Only what is dropped
    #[arg(long)]
    pub drops: bool,
    /// End after so many decisions
    #[arg(long, short, value_name = "N")]
    pub count: Option<u64>,
    /// The most decisions of one CPU in a second
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub rate: u32,
    /// Print each line as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the packets to this file too, in the format pcapng
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub write: Option<PathBuf>,
    /// Write the keys of all SAs of the gateway into this directory too, as Wireshark's `esp_sa`:
    /// who can read it can read what was captured
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub keys: Option<PathBuf>,
    /// Whose programs.
    #[command(flatten)]
    pub pinned: Pinned,
}

/// An SPI on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spi(pub u32);

impl core::str::FromStr for Spi {
    type Err = core::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).map(Self)
    }
}

/// Arguments of `gateway guard`.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Directory with the policy files (*.toml)
    #[arg(long, short, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub policies: PathBuf,
}

/// The manual page, with a section for each command, in troff.
///
/// # Errors
/// Writing into memory does not fail; the type is the renderer's.
pub fn manual() -> std::io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone()).section("8").manual("System administration");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        page.extend_from_slice(
            format!(".SH \"GATEWAY {}\"\n", sub.get_name().to_uppercase()).as_bytes(),
        );
        let man = Man::new(sub.clone());
        let mut section = Vec::new();
        man.render_description_section(&mut section)?;
        man.render_synopsis_section(&mut section)?;
        man.render_options_section(&mut section)?;
        // Sections of the command become subsections of the page.
        let section = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
        page.extend_from_slice(section.as_bytes());
        page.extend_from_slice(verbatim(".SS DETAILS", sub).as_bytes());
    }
    page.extend_from_slice(files().as_bytes());
    page.extend_from_slice(verbatim(".SH \"EXAMPLES AND EXIT STATUS\"", &command).as_bytes());
    Ok(page)
}

/// The section about files.
fn files() -> String {
    let mut section = String::from(".SH FILES\n");
    for (path, what) in FILES {
        section.push_str(&format!(".TP\n.I {}\n{}\n", escaped(path), escaped(what)));
    }
    section
}

/// A line of text in troff.
fn escaped(line: &str) -> String {
    line.replace('\\', "\\e").replace('-', "\\-")
}

/// What follows the options in the help, line by line as it stands there.
fn verbatim(heading: &str, command: &clap::Command) -> String {
    let Some(text) = command.get_after_help().map(ToString::to_string) else {
        return String::new();
    };
    let mut section = format!("{heading}\n.nf\n");
    for line in text.lines() {
        // `\&` keeps a leading dot or quote from being a request.
        section.push_str("\\&");
        section.push_str(&escaped(line));
        section.push('\n');
    }
    section.push_str(".fi\n");
    section
}

/// A completion script.
#[must_use]
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gateway", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_needs_policies_and_defaults_to_text_at_info() {
        let Command::Run(args) = parse("gateway run --policies /p").unwrap().command else {
            panic!("another command");
        };
        assert_eq!(args.policies, PathBuf::from("/p"));
        assert_eq!((args.log.as_str(), args.log_format), ("info", log::Format::Text));
        assert_eq!(parse("gateway run").unwrap_err().exit_code(), i32::from(exit::USAGE));
    }

    #[test]
    fn status_looks_at_the_default_socket() {
        let Command::Status(args) = parse("gateway status --json").unwrap().command else {
            panic!("another command");
        };
        assert!(args.json);
        assert_eq!(args.control.socket, PathBuf::from("/run/gateway/control.sock"));
    }

    #[test]
    fn an_spi_is_hexadecimal() {
        let spis = |line: &str| match parse(line).map(|cli| cli.command) {
            Ok(Command::Trace(args)) => Ok(args.spi),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.exit_code()),
        };
        let found = spis("gateway trace --spi 0xC0ffee01 --spi 10");
        assert_eq!(found, Ok(vec![Spi(0xc0ff_ee01), Spi(0x10)]));
        assert_eq!(spis("gateway trace --spi 1c0ffee01"), Err(i32::from(exit::USAGE)));
    }

    #[test]
    fn the_help_shows_examples_and_exit_codes() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        for expected in ["Examples:", "kill -HUP", "Exit status:", "3  `gateway status`", "check"] {
            assert!(help.contains(expected), "{expected} in\n{help}");
        }
        for sub in ["run", "check", "status", "trace", "mtu", "guard", "unguard"] {
            let help = command.find_subcommand_mut(sub).unwrap().render_long_help().to_string();
            assert!(help.contains("Examples:") && help.contains("Exit status:"), "{help}");
        }
        assert!(!help.contains("troff"), "the manual's command is hidden");
    }

    #[test]
    fn what_follows_the_options_fits_into_eighty_columns() {
        let command = Cli::command();
        for command in [&command].into_iter().chain(command.get_subcommands()) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
            assert_eq!(long, Vec::<&str>::new(), "{}", command.get_name());
        }
    }

    #[test]
    fn the_manual_names_the_files() {
        let page = String::from_utf8(manual().unwrap()).unwrap();
        let (_, files) = page.split_once(".SH FILES\n").unwrap();
        let settings = crate::policy::Settings::default();
        let places = [settings.control_socket, settings.pin_dir, settings.state_dir];
        for place in places.iter().map(|path| path.display().to_string()) {
            assert!(files.contains(&format!(".I {place}\n")), "{place} in\n{files}");
        }
    }

    #[test]
    fn the_manual_describes_every_command() {
        let page = String::from_utf8(manual().unwrap()).unwrap();
        for expected in [".TH gateway 8", "GATEWAY RUN", "GATEWAY STATUS", "SIGHUP", "Exit status"]
        {
            assert!(page.contains(expected), "{expected} in\n{page}");
        }
    }

    #[test]
    fn completions_know_the_options() {
        let script = String::from_utf8(completions(clap_complete::Shell::Bash)).unwrap();
        assert!(script.contains("--log-format"));
    }
}
