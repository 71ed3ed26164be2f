//! `cargo test`, where cargo-nextest is not installed: shows the failures, counts from the closing
//! lines.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::outcome::{Count, Outcome};

/// Runs `cargo test`. Prints only failures and skips unless `verbose`.
pub(super) fn run(command: &mut Command, count: &mut Count, verbose: bool) -> Result<Outcome> {
    let mut child =
        command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("cannot start cargo")?;
    let out = child.stdout.take().context("cargo has no stdout")?;
    let mut reader = Reader::default();
    for line in BufReader::new(out).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if reader.shows(&line) || verbose {
            println!("{line}");
            std::io::stdout().flush()?;
        }
    }
    *count = reader.count;
    let status = child.wait()?;
    if !status.success() {
        return Ok(Outcome::Failed(format!("{} of the tests failed", count.failed.max(1))));
    }
    if count.passed == 0 {
        return Ok(Outcome::Failed("no test ran".into()));
    }
    Ok(Outcome::Passed)
}

/// Reads libtest's output line by line. Leaves out the output of passing tests, except their skips.
#[derive(Default)]
struct Reader {
    in_successes: bool,
    count: Count,
}

impl Reader {
    fn shows(&mut self, line: &str) -> bool {
        if line.contains("SKIPPED") {
            self.count.skipped += 1;
            return true;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.count.passed += number_before(rest, " passed");
            self.count.failed += number_before(rest, " failed");
            self.count.skipped += number_before(rest, " ignored");
            return true;
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        let passing = line.starts_with("test ") && line.ends_with(" ... ok");
        !self.in_successes && !passing && !line.is_empty()
    }
}

/// 12 in "ok. 12 passed; 0 failed" for " passed".
fn number_before(text: &str, word: &str) -> u32 {
    let before = text.split(word).next().filter(|before| before.len() < text.len());
    before.and_then(|before| before.rsplit(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_sum_of_the_closing_lines_and_of_what_tests_say_they_skip() {
        let mut reader = Reader::default();
        let shown: Vec<_> = [
            "running 3 tests",
            "test a ... ok",
            "test b ... FAILED",
            "successes:",
            "---- a stdout ----",
            "SKIPPED a: no dig",
            "chatter",
            "failures:",
            "---- b stdout ----",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out",
        ]
        .into_iter()
        .filter(|line| reader.shows(line))
        .collect();
        assert_eq!(reader.count, Count { passed: 12, failed: 1, skipped: 3 });
        assert!(shown.contains(&"SKIPPED a: no dig") && shown.contains(&"---- b stdout ----"));
        assert!(!shown.contains(&"chatter") && !shown.contains(&"test a ... ok"));
    }
}
