//! Finds the processes that a check of the kind `process` watches.

use super::{Duration, Pattern, Process, ReadError, Readings, Root, processes};

/// Which processes to find. With several names, there is a group for each.
pub(super) struct Wanted {
    pub(super) names: Vec<Pattern>,
    pub(super) cmdline: Option<Pattern>,
    pub(super) user: Option<String>,
}

/// The processes of one group.
pub(super) struct Found {
    /// What was looked for: the name, the command line, or the user.
    pub(super) what: String,
    pub(super) processes: Vec<Process>,
    /// The process whose open files are nearest to their limit.
    pub(super) fullest: Option<OpenFiles>,
    /// The open files of some process cannot be read.
    pub(super) hides_files: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OpenFiles {
    pub(super) pid: u32,
    pub(super) open: f64,
    pub(super) limit: f64,
}

impl Wanted {
    pub(super) fn is_everything(&self) -> bool {
        self.names.is_empty() && self.cmdline.is_none() && self.user.is_none()
    }

    /// Returns the groups, or that the user does not exist.
    pub(super) fn find(&self, readings: &Readings) -> Result<Result<Vec<Found>, String>, ReadError> {
        let root = readings.root();
        let user = match &self.user {
            None => None,
            Some(user) => match user_id(&root.read("/etc/passwd").unwrap_or_default(), user) {
                Some(id) => Some(id),
                None => {
                    return Ok(Err(format!("user {user} is not in /etc/passwd; use the number of the user")));
                }
            },
        };
        let all = processes::all(readings)?;
        let own = if self.cmdline.is_some() && root.is_live() {
            with_parents(&all.0, std::process::id())
        } else {
            Vec::new()
        };
        let candidates = all.0.iter().filter(|process| {
            !own.contains(&process.pid)
                && process.is_running()
                && user.is_none_or(|user| processes::user(root, process.pid) == Some(user))
        });
        let mut candidates: Vec<(Process, String)> =
            candidates.map(|process| (process.clone(), processes::command_line(root, process.pid))).collect();
        if let Some(pattern) = &self.cmdline {
            candidates.retain(|(_, line)| pattern.matches(line));
        }
        if self.names.is_empty() {
            let by_line = self.cmdline.as_ref().map(|pattern| pattern.as_str().to_owned());
            let by_user = || format!("processes of {}", self.user.as_deref().unwrap_or("all users"));
            let all = candidates.into_iter().map(|(process, _)| process).collect();
            return Ok(Ok(vec![Found::new(by_line.unwrap_or_else(by_user), all, root)]));
        }
        let group = |name: &Pattern| {
            let matching = candidates.iter().filter(|(process, line)| has_name(process, line, name));
            Found::new(name.as_str().to_owned(), matching.map(|(process, _)| process.clone()).collect(), root)
        };
        Ok(Ok(self.names.iter().map(group).collect()))
    }
}

fn has_name(process: &Process, command_line: &str, name: &Pattern) -> bool {
    let program = command_line.split(' ').next().unwrap_or_default();
    let file_name = program.rsplit('/').next().unwrap_or_default();
    name.matches(&process.name) || (!file_name.is_empty() && name.matches(file_name))
}

/// The process and its ancestors, but for init.
fn with_parents(processes: &[Process], pid: u32) -> Vec<u32> {
    let mut chain = Vec::new();
    let mut next = pid;
    while next > 1 && !chain.contains(&next) {
        chain.push(next);
        let Some(process) = processes.iter().find(|process| process.pid == next) else { break };
        next = process.parent;
    }
    chain
}

/// The number of a user by name or number.
fn user_id(passwd: &str, user: &str) -> Option<u32> {
    let by_name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == user).then(|| fields.nth(1)?.parse().ok())?
    });
    by_name.or_else(|| user.parse().ok())
}

impl Found {
    fn new(what: String, processes: Vec<Process>, root: &Root) -> Self {
        let mut found = Self { what, processes, fullest: None, hides_files: false };
        let mut fullest = 0.0;
        for process in &found.processes {
            let Ok((open, limit)) = processes::open_files(root, process.pid) else {
                // Or it has just ended, and the next run does not find it.
                found.hides_files = true;
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "a number of files")]
            let (open, limit) = (open as f64, (limit as f64).max(1.0));
            if open / limit > fullest {
                fullest = open / limit;
                found.fullest = Some(OpenFiles { pid: process.pid, open, limit });
            }
        }
        found
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes; the error is far below a page")]
    pub(super) fn resident_bytes(&self) -> f64 {
        let pages: u64 = self.processes.iter().map(|process| process.resident_pages).sum();
        pages as f64 * rustix::param::page_size() as f64
    }

    /// How long the oldest process runs.
    pub(super) fn uptime(&self, since_boot: Duration) -> Option<Duration> {
        let started = self.processes.iter().map(|process| process.started).min()?;
        let started = Duration::from_secs(started / rustix::param::clock_ticks_per_second().max(1));
        Some(since_boot.saturating_sub(started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_a_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\nbad\n";
        assert_eq!(user_id(passwd, "www-data"), Some(33));
        assert_eq!(user_id(passwd, "1000"), Some(1_000));
        assert_eq!(user_id(passwd, "bad"), None);
        assert_eq!(user_id(passwd, "nobody"), None);
    }

    #[test]
    fn a_pattern_for_command_lines_does_not_match_the_test_itself() {
        let wanted =
            |cmdline: &str| Wanted { names: vec![], cmdline: Some(Pattern::new(cmdline)), user: None };
        let found = wanted("*dogwatch_checks-*").find(&Readings::new(Root::live())).unwrap().unwrap();
        let own = std::process::id();
        assert!(found[0].processes.iter().all(|process| process.pid != own));
    }
}
