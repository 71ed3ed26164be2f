//! `dogwatch submit NAME STATE TEXT`: submits a result, for example from a cron job.

use std::{io::Read, process::ExitCode};

use dogwatch_daemon::duration::Span;

use super::{SocketArgument, fail, time};
use crate::api::Submit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of a check of kind "passive".
    name: String,
    /// OK, WARNING, CRITICAL or UNKNOWN, or an exit code from 0 to 3.
    state: String,
    /// Output as from a plugin: a summary line, perfdata after `|`, more lines. `-` reads standard
    /// input.
    text: String,
    /// How long this result is valid; then the service is UNKNOWN [default: `freshness` of the
    /// check].
    #[arg(long, value_name = "DURATION", value_parser = time)]
    ttl: Option<Span>,
    #[command(flatten)]
    socket: SocketArgument,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let mut text = arguments.text;
    if text == "-" {
        text.clear();
        if let Err(error) = std::io::stdin().lock().take(TEXT_BYTES_MAX).read_to_string(&mut text) {
            return fail(&format!("cannot read the text from standard input: {error}"));
        }
    }
    let submit = Submit {
        service: arguments.name,
        state: arguments.state,
        text,
        ttl_s: arguments.ttl.map(|span| span.0.as_secs().max(1)),
    };
    match arguments.socket.post("/v1/submit", &submit).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The agent would refuse more.
const TEXT_BYTES_MAX: u64 = 60 * 1_024;
