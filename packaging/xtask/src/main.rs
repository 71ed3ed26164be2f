//! Commands for developers. `cargo xtask help` lists them.
//!
//! | module | command |
//! | --- | --- |
//! | [`up`] | `up`: all daemons in the foreground, as an ordinary user, under `./var` |
//! | [`upstream`] | `upstream stop|start`, `ask`: the demo's upstream, and a client that prints answers |
//! | [`test`] | `test`: everything that CI runs, with one table at the end |
//! | [`deb`], [`docs`] | `deb`: the Debian package with man pages and completions |
//! | [`lab`] | `lab`: the package on a booted Debian host, from install to purge |
//! | [`lab::faults`] | `drill faults`: real faults on such a host, and which of them the agent finds |
//! | [`house`] | `house`: which module may import which, and other house rules |
//! | [`fuzz`] | `fuzz`: untrusted input, by mutation or guided by coverage |
//! | [`bench`] | `bench`: measurements and their budgets |
//! | [`lab::silence`] | `drill silence`: an hour on fresh hosts without a fault, without a false alarm |
//! | [`damage`] | `drill damage`: flips, cuts and zeroes the state files of all daemons, and opens them |
//! | [`soak`] | `drill soak`: an agent with 1,000 checks while faults come and go |
//!
//! Only the output of [`docs`] is shipped.

mod apt;
mod bench;
mod clock;
mod damage;
mod deb;
mod deny;
// The tests' code and not the product's, so that one checks the other.
#[expect(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../../../tests/src/dns_message.rs"]
mod dns_message;
mod docs;
mod files;
mod fuzz;
mod house;
mod lab;
mod outcome;
mod process;
mod sh;
mod soak;
mod test;
mod up;
mod upstream;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, try, test and package dogwatch")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run alertd, `dogwatch run` and `dogwatch dns` in the foreground, under ./var
    Up(up::Options),
    /// Stop or start the upstream of a running `cargo xtask up`
    Upstream {
        action: upstream::Action,
        /// The --dir of `up`
        #[arg(long, default_value = "var")]
        dir: PathBuf,
    },
    /// Query a DNS server and print address, TTL, extended error and time
    Ask(upstream::Ask),
    /// Run everything that CI runs: format, lints, tests, drills, fuzzing, licences, package, lab
    Test(test::Options),
    /// Build dist/dogwatch_VERSION_ARCH.deb
    Deb {
        /// Use this version instead of the workspace's (for upgrade tests)
        #[arg(long)]
        version: Option<String>,
    },
    /// Install, upgrade and purge the package on a booted Debian host (needs root)
    Lab(lab::Options),
    /// Run benchmarks against their budgets: DNS, outages, snapshot, alertd, agent
    Bench(bench::Options),
    /// Print files, lines, import circles and upward imports per crate; fail on a broken rule
    House(house::Options),
    /// Run the outage drills in virtual time; `faults`: real faults on a lab host (needs root);
    /// `silence`: an hour on fresh hosts without a fault; `damage`: damaged state files; `soak`:
    /// an agent with 1,000 checks in real time
    Drill {
        /// For example `all`, `openai --seeds 100`, `faults`, `faults --help`, or `--help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz the parsers of untrusted input
    Fuzz(fuzz::Options),
    /// Write man pages and completions to DIR
    Docs { dir: PathBuf },
    /// Check licences, bans, sources and advisories with cargo-deny
    Deny,
    /// Install the Debian packages that the tests need (needs root)
    Setup,
    /// The demo's upstream: answers for *.demo.test and forwards the rest
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: Option<SocketAddr>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Upstream { action, dir } => upstream::switch(action, &dir),
        Command::Ask(ask) => upstream::ask(&ask),
        Command::Test(options) => test::run(&options),
        Command::Deb { version } => deb::build(version.as_deref()).map(|path| println!("{}", path.display())),
        Command::Lab(options) => lab::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::House(options) => house::run(&options),
        Command::Drill { arguments } => match arguments.split_first() {
            Some((first, rest)) if first == "faults" => lab::faults::run(rest),
            Some((first, _)) if first == "silence" => lab::silence::run(&Parser::parse_from(&arguments)),
            Some((first, _)) if first == "damage" => damage::run(&damage::Options::parse_from(&arguments)),
            Some((first, _)) if first == "soak" => soak::run(&soak::Options::parse_from(&arguments)),
            _ => test::drill(&arguments),
        },
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Docs { dir } => docs::write(&dir),
        Command::Deny => deny::run(),
        Command::Setup => apt::install(true).map(drop),
        Command::Relay { listen, to } => upstream::relay(listen, to),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
