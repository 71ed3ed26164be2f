//! The answer to a command line that runs nothing: `--help`, `--version`, and mistakes.

use std::{
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
};

/// Prints help or the mistake, and returns the exit code: 0 for help, 2 for a mistake. Help that
/// could not be written, for example to a full disk, is a failure; if nobody reads it, it is not.
pub fn answer(program: &str, answer: &clap::Error) -> ExitCode {
    let printed = answer.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(error) if !answer.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "{program}: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2)),
    }
}
