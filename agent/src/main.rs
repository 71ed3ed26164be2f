//! Arguments → config → run → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    dogwatch::cli::main()
}
