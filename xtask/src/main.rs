//! Building, testing and showing the gateway: `cargo xtask --help`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod apt;
mod bench;
mod check;
mod demo;
mod doctor;
mod ebpf;
mod error;
mod fuzz;
mod peers;
mod progress;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Builds, tests and shows the gateway.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what this machine has of what the project needs, and what mends the rest.
    Doctor(doctor::Args),
    /// Install what is missing.
    Setup(setup::Args),
    /// Show two gateways at work: a tunnel through a NAT, traffic, a reload.
    Demo(demo::Args),
    /// Run the tests: pure, on this machine's kernel, and on stock Debian kernels.
    Test(test::Args),
    /// Run a command in a virtual machine with a stock Debian kernel.
    Vm(vm::Args),
    /// Run the benchmarks, each beside its floor.
    Bench(bench::Args),
    /// Run the fuzz targets for a bounded time.
    Fuzz(fuzz::Args),
    /// Check style, lints, documentation and dependencies, and run the fuzz targets.
    Check(check::Args),
}

fn main() -> ExitCode {
    let result = match &Cli::parse().command {
        Command::Doctor(args) => doctor::run(args),
        Command::Setup(args) => setup::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(args),
        Command::Vm(args) => vm::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Fuzz(args) => fuzz::run(args),
        Command::Check(args) => Ok(check::run(args)),
    };
    result.unwrap_or_else(|error| {
        progress::say(format!("error: {error}"));
        // As `cargo xtask vm` must tell its own failures from the command's.
        ExitCode::from(125)
    })
}
