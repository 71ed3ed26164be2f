//! What is kept of the output of a plugin, and how it becomes a result: the start of stdout and the
//! end of stderr.

use dogwatch_checks::{CheckResult, Perf, State, output};

use super::{OUTPUT_MAX, STDERR_MAX};

/// The first [`OUTPUT_MAX`] bytes of stdout.
#[derive(Default)]
pub(super) struct Printed {
    kept: Vec<u8>,
    /// There was more.
    pub(super) cut: bool,
}

impl Printed {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = OUTPUT_MAX - self.kept.len();
        self.cut |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub(super) fn parse(&self, state: State) -> CheckResult {
        let mut whole = &self.kept[..];
        if self.cut
            && let Some(end) = whole.iter().rposition(u8::is_ascii_whitespace)
        {
            // Half of the last word may be a number that looks like a value.
            whole = &whole[..end];
        }
        let mut result = output::parse(state, whole);
        result.perfdata = result.perfdata.into_iter().map(Perf::with_base_unit).collect();
        if self.cut {
            append(
                &mut result.detail,
                &format!("output: only the first {} KiB are kept", OUTPUT_MAX / 1_024),
            );
        }
        result
    }
}

/// The last [`STDERR_MAX`] bytes of stderr.
#[derive(Default)]
pub(super) struct Complaints {
    kept: Vec<u8>,
    cut: bool,
}

impl Complaints {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(STDERR_MAX);
        self.kept.drain(..surplus);
        self.cut |= surplus > 0;
    }

    /// The last lines that are not empty.
    fn last_lines(&self) -> Vec<String> {
        let text = output::clean(&String::from_utf8_lossy(&self.kept));
        let whole_lines = text.lines().skip(usize::from(self.cut));
        let mut last: Vec<_> = whole_lines.map(str::trim_end).filter(|line| !line.is_empty()).collect();
        if last.is_empty() && self.cut {
            last.extend(text.lines().next()); // a single long line
        }
        let surplus = last.len().saturating_sub(STDERR_LINES_MAX);
        last.into_iter().skip(surplus).map(str::to_owned).collect()
    }

    /// Shows them with a problem, and as the summary if there is no other.
    pub(super) fn added_to(&self, mut result: CheckResult) -> CheckResult {
        let silent = result.summary == output::NO_OUTPUT;
        if result.state == State::Ok && !silent {
            return result;
        }
        let lines = self.last_lines();
        if silent && let Some(cause) = lines.iter().rfind(|line| !names_no_cause(line)).or(lines.last()) {
            let end = cause.floor_char_boundary(output::SUMMARY_MAX / 2);
            result.summary = format!("{} (from stderr; nothing on stdout)", &cause[..end]);
        }
        for line in lines {
            append(&mut result.detail, &format!("stderr: {line}"));
        }
        result
    }
}

/// How many of the last lines are shown.
const STDERR_LINES_MAX: usize = 5;

/// The last lines of Perl after a missing module.
fn names_no_cause(line: &str) -> bool {
    ["BEGIN failed--", "Compilation failed in require"].iter().any(|start| line.starts_with(start))
}

/// Adds a line that must not be lost, so the text before it may be cut.
fn append(detail: &mut String, line: &str) {
    let line = &line[..line.floor_char_boundary(output::DETAIL_MAX / 8)];
    detail.truncate(detail.floor_char_boundary(output::DETAIL_MAX - line.len() - 1));
    if !detail.is_empty() {
        detail.push('\n');
    }
    detail.push_str(line);
}
