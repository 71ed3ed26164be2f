//! Standard output of all commands. Unlike `println!`, this does not panic.
//!
//! If the reader, such as `head`, has closed the pipe, the rest is discarded without a message, and
//! the command ends as it would have. After any other error, such as a full disk, the command fails
//! at its end: see [`failed`].

use std::{
    fmt,
    io::{self, ErrorKind, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

/// Writes to standard output. Returns whether more can be written.
pub(super) fn print(text: impl fmt::Display) -> bool {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe && !FAILED.swap(true, Ordering::Relaxed) {
                complain(format_args!("dogwatch: cannot write to standard output: {error}\n"));
            }
            false
        }
    }
}

/// Writes to standard error. Nobody can be informed if that fails.
pub(super) fn complain(text: impl fmt::Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// Whether a text was lost, so that the command must not end with success.
pub(super) fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

static FAILED: AtomicBool = AtomicBool::new(false);
