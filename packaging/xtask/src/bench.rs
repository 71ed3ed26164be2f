//! `cargo xtask bench`.
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// For machines
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let _ = options.json;
    Ok(())
}
