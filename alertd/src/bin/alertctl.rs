//! The binary `alertctl`; see [`dogwatch_alertd::ctl`].

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    dogwatch_alertd::ctl::main().await
}
