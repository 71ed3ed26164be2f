//! The developer's commands. `cargo xtask help` lists them.
//!
//! | module | command |
//! | --- | --- |
//! | [`up`] | `up`: the whole of dogwatch in the foreground, as an ordinary user, under `./var` |
//! | [`upstream`] | `upstream stop|start`, `ask`: the demo's upstream, and a client that shows what answers look like |
//! | [`test`] | `test`: everything that CI runs, with one table at the end |
//! | [`deb`], [`docs`] | `deb`: the package, made with dpkg-deb; its man pages and completions |
//! | [`lab`] | `lab`: the package on a real systemd, from install to purge |
//! | [`house`] | `house`: the house rules, of which the layers of each crate are the first |
//! | [`fuzz`] | `fuzz`: what strangers can send, guided by coverage |
//! | [`bench`] | `bench`: the numbers beside their budgets |
//!
//! Nothing here is shipped, except what [`docs`] generates.

mod apt;
mod bench;
mod clock;
mod deb;
mod deny;
// The demo answers with the code of the tests, not with the product's, so that one checks the
// other.
#[expect(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../../../tests/src/dns_message.rs"]
mod dns_message;
mod docs;
mod files;
mod fuzz;
mod house;
mod lab;
mod outcome;
mod sh;
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
    /// Start alertd, `dogwatch run` and `dogwatch dns` in the foreground, as you, under ./var
    Up(up::Options),
    /// Stop or start the upstream that a running `cargo xtask up` forwards to
    Upstream {
        action: upstream::Action,
        /// The folder that `up` was given
        #[arg(long, default_value = "var")]
        dir: PathBuf,
    },
    /// Ask a DNS server, again and again with --watch, and show value, TTL, EDE and time
    Ask(upstream::Ask),
    /// Everything that CI runs: format, lints, tests, licences, drill, package, lab
    Test(test::Options),
    /// Build dist/dogwatch_VERSION_ARCH.deb
    Deb {
        /// Build with this version instead of the workspace's (for upgrade tests)
        #[arg(long)]
        version: Option<String>,
    },
    /// Install, upgrade and purge the package on a real systemd (needs root)
    Lab(lab::Options),
    /// Print the numbers that have a budget
    Bench(bench::Options),
    /// Print files, lines, circles and upward imports of each crate; fail on a broken house rule
    House(house::Options),
    /// Run the outage drills in virtual time
    Drill {
        /// Arguments for the drill, for example `all`, or `openai --seeds 100`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzz what strangers can send: all targets or one, for a time
    Fuzz(fuzz::Options),
    /// Write man pages and completions to DIR
    Docs { dir: PathBuf },
    /// Check licences, bans, sources and advisories with cargo-deny
    Deny,
    /// Install what the tests need from Debian (needs root)
    Setup,
    /// The demo's upstream: forwards, and answers for *.demo.test itself
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
        Command::Drill { arguments } => test::drill(&arguments),
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
