//! What the binary `alertd` can be told; its man page and completions are made from this.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

/// Routes alerts to people: groups, escalates until somebody acks, tells each once.
#[derive(Debug, Parser)]
#[command(name = "alertd", version)]
pub struct Arguments {
    /// Config file; `alertd.d/*.toml` beside it are read too.
    #[arg(long, default_value = "/etc/dogwatch/alertd.toml")]
    pub config: PathBuf,
    /// Check the config, say everything that is wrong with it, and exit.
    #[arg(long)]
    pub check: bool,
}

/// The whole command line.
pub fn command() -> clap::Command {
    Arguments::command()
}
