//! What is said about each filesystem. Reads nothing.

use std::{io::ErrorKind, path::PathBuf, time::Duration};

use super::{
    choose::{self, IMAGE},
    forecast, shown,
};
use crate::{
    Blind, Finding, Findings, Past, State,
    options::PerThing,
    perfdata::Perf,
    read::mountinfo::{Access, Mount},
    result::CheckResult,
    root::FsUsage,
    space::{Limits, human, percent},
    statvfs::Answer,
    threshold::Number,
};

#[derive(Debug, Clone, Copy)]
pub(super) struct DiskLimits {
    pub(super) space: Limits,
    pub(super) inodes: Limits,
    pub(super) forecast: bool,
}

/// One filesystem and its usage.
#[derive(Debug)]
pub(super) struct Filesystem {
    pub(super) point: PathBuf,
    /// `None` if only the path is known.
    pub(super) expected: Option<Mount>,
    /// What fstab mounts here, if nothing is mounted here.
    pub(super) absent: Option<String>,
    /// The mount that the answer is about.
    pub(super) seen: Option<Mount>,
    pub(super) access: Access,
    /// Its path is configured, so it is a problem if it is missing or cannot be read.
    pub(super) named: bool,
    pub(super) answer: Answer,
}

/// `hour` is the Unix time in hours.
pub(super) fn judge(
    filesystems: &[Filesystem],
    mut blind: Vec<Blind>,
    limits: &PerThing<DiskLimits>,
    hour: i64,
    past: &mut Past,
) -> Findings {
    // A check of one path has one service, named like the check.
    let is_whole = matches!(filesystems, [only] if only.named);
    let mut list = Vec::new();
    forecast::forget_others(past, |point| filesystems.iter().any(|known| shown(&known.point) == point));
    for filesystem in filesystems {
        let point = shown(&filesystem.point);
        let limits = *limits.of(&point);
        let was = past.was((!is_whole).then_some(point.as_str()));
        let finding = match reach(filesystem) {
            Reached::Usage(usage) => {
                let mut finding = usage_of(filesystem, usage, limits, was, hour, past);
                finding.fullness = 100.0 - percent(bytes(usage.free), bytes(usage.total()));
                finding
            }
            Reached::Problem(state, text, lasting) => {
                Said { state, text, lasting, perf: vec![], fullness: 101.0 }
            }
            Reached::Blind(why) => {
                blind.push(Blind { thing: point, why: why.into() });
                continue;
            }
            Reached::Gone => continue,
        };
        list.push((point, finding));
    }
    list.sort_by(|(_, a), (_, b)| b.fullness.total_cmp(&a.fullness));
    let finding = |(point, Said { state, text, lasting, perf, .. })| {
        let found = if is_whole {
            Finding::whole(CheckResult::new(state, format!("{point} {text}")).with_perfdata(perf))
        } else {
            Finding::of(point, CheckResult::new(state, text).with_perfdata(perf))
        };
        Finding { lasting, ..found }
    };
    Findings::all(list.into_iter().map(finding).collect()).with_blind(blind)
}

struct Said {
    state: State,
    text: String,
    lasting: Option<Duration>,
    perf: Vec<Perf>,
    /// The fullest comes first.
    fullness: f64,
}

/// What came of reading a filesystem.
enum Reached {
    Usage(FsUsage),
    Problem(State, String, Option<Duration>),
    /// It exists and cannot be judged.
    Blind(&'static str),
    /// It was unmounted, or it is judged under another name.
    Gone,
}

fn reach(filesystem: &Filesystem) -> Reached {
    let named = filesystem.named;
    if let Some(source) = &filesystem.absent {
        return match filesystem.answer {
            // The path of fstab has a symbolic link in it.
            Answer::Usage(usage) if usage.mount.is_some_and(|mount| mount.is_root) => {
                if named {
                    Reached::Usage(usage)
                } else {
                    Reached::Gone
                }
            }
            _ => Reached::Problem(
                State::Critical,
                format!("in /etc/fstab ({source}) but not mounted"),
                Some(ABSENT),
            ),
        };
    }
    match &filesystem.answer {
        Answer::Usage(usage) => match blind(filesystem, *usage) {
            Some(why) if !named => Reached::Blind(why),
            _ => Reached::Usage(*usage),
        },
        Answer::Hung(since) => {
            let said = format!("has not responded for {} s", since.as_secs().max(1));
            Reached::Problem(State::Critical, said, Some(HUNG))
        }
        Answer::Failed(error) => match error.kind() {
            // Below a directory of someone else, or a FUSE mount of a user.
            ErrorKind::PermissionDenied if !named => Reached::Blind("no permission"),
            ErrorKind::PermissionDenied => {
                Reached::Problem(State::Unknown, "cannot be read: no permission".into(), None)
            }
            ErrorKind::NotFound if !named => Reached::Gone,
            ErrorKind::NotFound => Reached::Problem(State::Critical, "does not exist".into(), None),
            _ => Reached::Problem(State::Critical, format!("cannot be read: {error}"), None),
        },
    }
}

/// Why numbers must not be judged.
fn blind(filesystem: &Filesystem, usage: FsUsage) -> Option<&'static str> {
    let expected = filesystem.expected.as_ref()?;
    match &filesystem.seen {
        // Never the numbers of another filesystem.
        Some(seen) if seen.device != expected.device => Some("hidden by another mount"),
        None => Some("hidden by another mount"),
        Some(_) if usage.total() == 0 => Some("has no size"),
        Some(_) if choose::is_image(expected, usage) => Some(IMAGE),
        Some(_) if filesystem.access == Access::ReadOnly => Some("read-only"),
        Some(_) => None,
    }
}

fn usage_of(
    filesystem: &Filesystem,
    usage: FsUsage,
    limits: DiskLimits,
    was: State,
    hour: i64,
    past: &mut Past,
) -> Said {
    let point = shown(&filesystem.point);
    let (free, total) = (bytes(usage.free), bytes(usage.total()));
    let mut parts = Vec::new();
    let of = match &filesystem.seen {
        Some(seen) if filesystem.named && seen.point != filesystem.point => {
            format!("(on {}) ", shown(&seen.point))
        }
        _ => String::new(),
    };
    let space = limits.space.judge_after(was, free, total);
    parts.push(format!("{of}{} free ({})", short(percent(free, total)), human(free)));
    parts.extend(limits.space.said(space));
    let inodes = if usage.inodes == 0 {
        State::Ok
    } else {
        limits.inodes.judge_after(was, bytes(usage.inodes_free), bytes(usage.inodes))
    };
    if inodes != State::Ok {
        parts.push(format!(
            "{} of inodes free",
            short(percent(bytes(usage.inodes_free), bytes(usage.inodes)))
        ));
        parts.extend(limits.inodes.said(inodes));
    }
    let mut state = space.max(inodes);
    let mut lasting = None;
    // A read-only filesystem does not fill up.
    if limits.forecast
        && filesystem.access == Access::ReadWrite
        && let Some(forecast) = forecast::forecast(past, &point, free, total, hour)
    {
        parts.extend(forecast::said(forecast.left));
        if forecast.state > state {
            state = forecast.state;
            lasting = Some(FILLING);
        }
    }
    if filesystem.access == Access::Lost {
        parts.push("became read-only".into());
        state = State::Critical;
        lasting = Some(Duration::ZERO);
    }
    let perf = perf(&point, usage, limits);
    Said { state, text: parts.join(", "), lasting, perf, fullness: 0.0 }
}

/// One decimal where it makes a difference.
fn short(percent: f64) -> String {
    let decimals = if percent < 9.95 { 10.0 } else { 1.0 };
    format!("{}%", Number((percent * decimals).round() / decimals))
}

fn perf(point: &str, usage: FsUsage, limits: DiskLimits) -> Vec<Perf> {
    let (free, total) = (bytes(usage.free), bytes(usage.total()));
    let mut perfdata = vec![limits.space.perf(point, "B", free, total)];
    if usage.inodes > 0 {
        let (free, total) = (bytes(usage.inodes_free), bytes(usage.inodes));
        perfdata.push(limits.inodes.perf(format!("{point} inodes"), "", free, total));
    }
    perfdata
}

#[expect(clippy::cast_precision_loss, reason = "bytes or inodes; the error does not matter")]
fn bytes(count: u64) -> f64 {
    count as f64
}

/// Longer than a mount takes at boot.
const ABSENT: Duration = Duration::from_mins(1);
/// A server that was restarted answers again by then.
const HUNG: Duration = Duration::from_secs(30);
/// A file that was copied looks like this for 20 minutes.
const FILLING: Duration = Duration::from_mins(30);
