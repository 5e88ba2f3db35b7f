//! The command `gateway`: reads the command line and turns results into output and exit codes.
#![expect(unused_crate_dependencies, reason = "the library of this package uses them")]

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use gateway::cli::{
    CheckArgs, Cli, Command, GuardArgs, Pinned, StatusArgs, completions, exit, manual,
};
use gateway::control::{QueryError, Request, Response, query, render, render_mtu};
use gateway::driver;
use gateway::kernel::bpf::remove;
use gateway::trace;
use gateway_ike::config::{LocalAuth, PeerConfig};
use serde::Serialize;
use serde_json::{Value, json};

/// A handshake allocates some two hundred times, which takes a tenth less of it than with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(args) => driver::run(&args).map_or_else(|e| failed(&e), |()| exit::OK),
        Command::Check(args) => check(&args),
        Command::Status(args) => status(&args),
        Command::Trace(args) => trace::run(&args).map_or_else(|e| failed(&e), |()| exit::OK),
        Command::Mtu(args) => mtu(&args),
        Command::Guard(args) => guard(&args),
        Command::Unguard(args) => unguard(&args),
        Command::Version => print(concat!("gateway ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        Command::Man => manual().map_or_else(|e| failed(&e), |page| print(&page)),
        Command::Completions { shell } => print(&completions(shell)),
    };
    ExitCode::from(code)
}

/// `gateway check`.
fn check(args: &CheckArgs) -> u8 {
    let result = driver::load(&args.policies);
    if args.json {
        let (value, code) = match &result {
            Ok(loaded) => (
                json!({
                    "ok": true,
                    "files": loaded.files,
                    "peers": loaded.policies.peers.len(),
                    "rules": loaded.policies.rules.len(),
                    "authentication": loaded.policies.peers.values().map(|p| authentication(p)).collect::<Vec<_>>(),
                    "warnings": loaded.warnings,
                    "errors": [],
                }),
                exit::OK,
            ),
            Err(errors) => (json!({ "ok": false, "warnings": [], "errors": errors }), exit::FAILED),
        };
        let printed = print(format!("{value:#}\n").as_bytes());
        return code.max(printed);
    }
    match result {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
            let (peers, rules) = (loaded.policies.peers.len(), loaded.policies.rules.len());
            let mut text = format!("ok: {} files, {peers} peers, {rules} rules\n", loaded.files);
            for peer in loaded.policies.peers.values() {
                let (ours, theirs) = (peer.local_auth.name(), peer.remote_auth.name());
                text.push_str(&format!("peer {}: we by {ours}", peer.name));
                if let LocalAuth::Certificate(credential) = &peer.local_auth {
                    let certificate = credential.certificate();
                    let (subject, until) = (certificate.subject(), certificate.not_after());
                    text.push_str(&format!(" ({subject}, valid until {until})"));
                }
                text.push_str(&format!(", the peer by {theirs}\n"));
            }
            print(text.as_bytes())
        }
        Err(errors) => {
            errors.iter().for_each(|error| complain(&error.to_string()));
            exit::FAILED
        }
    }
}

/// How a peer and we prove who we are, for `gateway check --json`.
fn authentication(peer: &PeerConfig) -> Value {
    let certificate = match &peer.local_auth {
        LocalAuth::Certificate(credential) => {
            let certificate = credential.certificate();
            json!({
                "subject": certificate.subject().to_string(),
                "not_after": certificate.not_after().to_string(),
            })
        }
        LocalAuth::Psk(_) | LocalAuth::PublicKey(_) | LocalAuth::Eap(_) => Value::Null,
    };
    json!({
        "peer": &*peer.name,
        "local": peer.local_auth.name(),
        "remote": peer.remote_auth.name(),
        "certificate": certificate,
    })
}

/// `gateway status`.
fn status(args: &StatusArgs) -> u8 {
    match query(&args.control.socket, &Request::Status {}) {
        Ok(Response::Status(report)) => show(args, &report, |report| render(report)),
        other => unanswered(other),
    }
}

/// `gateway mtu`.
fn mtu(args: &StatusArgs) -> u8 {
    match query(&args.control.socket, &Request::Mtu {}) {
        Ok(Response::Mtu(reports)) => show(args, &reports, |reports| render_mtu(reports)),
        other => unanswered(other),
    }
}

/// What the gateway has answered, for programs or for people.
fn show<R: Serialize>(args: &StatusArgs, report: &R, render: fn(&R) -> String) -> u8 {
    if !args.json {
        return print(render(report).as_bytes());
    }
    match serde_json::to_string_pretty(report) {
        Ok(text) => print(format!("{text}\n").as_bytes()),
        Err(error) => failed(&error),
    }
}

/// It has not answered what was asked.
fn unanswered(answer: Result<Response, QueryError>) -> u8 {
    match answer {
        Ok(Response::Error(error)) => failed(&error),
        Ok(Response::Status(_) | Response::Mtu(_) | Response::Names(_)) => {
            failed(&"the gateway answers something else than what it was asked")
        }
        Err(error @ QueryError::NoDaemon { .. }) => {
            failed(&error);
            exit::NO_DAEMON
        }
        Err(error) => failed(&error),
    }
}

/// `gateway guard`.
fn guard(args: &GuardArgs) -> u8 {
    let guarded = match driver::guard(args) {
        Ok(Some(guarded)) => guarded,
        Ok(None) => return print(b"a gateway is running, and guards\n"),
        Err(error) => return failed(&error),
    };
    if guarded.is_empty() {
        return failed(&"there is no interface to guard: name the underlay in `interfaces`");
    }
    let mut code = exit::OK;
    for (interface, outcome) in &guarded {
        code = code.max(match outcome {
            Ok(tc) => print(format!("{interface}: guarded (TC {tc})\n").as_bytes()),
            Err(error) => failed(&format!("{interface} is not guarded: {error}")),
        });
    }
    code
}

/// `gateway unguard`.
fn unguard(args: &Pinned) -> u8 {
    match query(&args.control.socket, &Request::Status {}) {
        Err(QueryError::NoDaemon { source, .. })
            if source.kind() != io::ErrorKind::PermissionDenied => {}
        Ok(_) | Err(_) => {
            let socket = args.control.socket.display();
            return failed(&format!("a gateway is running (it has {socket}): stop it first"));
        }
    }
    let pin_dir = &args.pin_dir;
    if !pin_dir.exists() {
        return print(format!("nothing is pinned at {}\n", pin_dir.display()).as_bytes());
    }
    match remove(pin_dir) {
        Ok(()) => print(format!("the guard at {} is removed\n", pin_dir.display()).as_bytes()),
        Err(error) => failed(&error),
    }
}

/// Reports an error, which may be several lines.
fn failed(error: &impl ToString) -> u8 {
    error.to_string().lines().for_each(complain);
    exit::FAILED
}

fn complain(line: &str) {
    // Where standard error is gone there is nobody to tell.
    drop(writeln!(io::stderr(), "gateway: {line}"));
}

/// Prints to standard output. A reader that has gone away, such as `head`, is no error.
fn print(octets: &[u8]) -> u8 {
    let mut out = io::stdout();
    match out.write_all(octets).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failed(&error),
        _ => exit::OK,
    }
}
