//! The command line of `alertd`. Man page and shell completions are generated from it.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

/// The path of the packaged config. Without a file there, all defaults apply.
pub const DEFAULT_PATH: &str = "/etc/dogwatch/alertd.toml";

/// Route alerts to people: group, notify, and escalate until somebody acknowledges
#[derive(Debug, Parser)]
#[command(name = "alertd", version)]
pub struct Arguments {
    /// Config file; drop-ins are read from the directory with its name and .d (alertd.d/*.toml)
    #[arg(long, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Check the config, print all errors, and exit (2 if there are any)
    #[arg(long)]
    pub check: bool,
}

/// The whole command line.
pub fn command() -> clap::Command {
    Arguments::command()
}
