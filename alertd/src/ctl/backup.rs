//! `alertctl backup`: writes the copy that alertd makes of its database to a file.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use data_encoding::HEXLOWER;
use dogwatch_alertd_core::rules::text::{clock_time, plural};
use dogwatch_wire::ctl::{BACKUP_HEADER, Backup, NewBackup};
use hyper::Method;
use ring::digest::{Context, SHA256};

use super::{Alertd, Answer, Exit, Failure, args, failure, paint::View, pretty, whole_file::WholeFile};

/// Slightly longer than alertd allows itself for the copy (`api/backup.rs`).
const PATIENCE: Duration = Duration::from_mins(31);

pub(super) async fn back_up(alertd: &Alertd<'_>, ask: &args::Backup, view: &View) -> Result<Answer, Failure> {
    let refused = |words: String| Failure { words, exit: Exit::Refused };
    let mut to = To::open(ask).map_err(refused)?;
    let said = |error| failure(&error, alertd.way);
    let opened = alertd.client.open(Method::POST, "/v1/backup", &NewBackup {}, PATIENCE).await;
    let mut answer = opened.map_err(said)?;
    let about = answer.headers.get(BACKUP_HEADER).map(|value| serde_json::from_slice(value.as_bytes()));
    let Some(Ok(about)) = about else {
        return Err(refused(
            "the response is not a backup; is this an alertd that supports backups? nothing was written"
                .into(),
        ));
    };
    let about: Backup = about;
    let (mut context, mut bytes) = (Context::new(&SHA256), 0);
    while let Some(piece) = answer.piece().await.map_err(said)? {
        to.write(&piece).map_err(refused)?;
        context.update(&piece);
        bytes += piece.len() as u64;
    }
    if (bytes, HEXLOWER.encode(context.finish().as_ref())) != (about.bytes, about.sha256.clone()) {
        let words = format!(
            "the backup is damaged (received {bytes} of {} bytes, or the SHA-256 differs); {}",
            about.bytes,
            to.is_left()
        );
        return Err(refused(words));
    }
    let is_stdout = matches!(to, To::Stdout);
    to.keep().map_err(refused)?;
    let text = if alertd.json { pretty(&about) } else { words(&about, &ask.file, view) };
    if is_stdout {
        eprint!("{text}");
        return Ok(Answer { text: String::new(), exit: Exit::Done });
    }
    Ok(Answer { text, exit: Exit::Done })
}

enum To {
    File(WholeFile),
    Stdout,
}

impl To {
    fn open(ask: &args::Backup) -> Result<Self, String> {
        if ask.file != Path::new("-") {
            return WholeFile::create(&ask.file, ask.force).map(Self::File);
        }
        if io::stdout().is_terminal() {
            return Err("standard output is a terminal; name a file, or redirect the output".into());
        }
        Ok(Self::Stdout)
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), String> {
        match self {
            Self::File(file) => file.write(piece),
            Self::Stdout => io::stdout().write_all(piece).map_err(|error| format!("stdout: {error}")),
        }
    }

    fn keep(self) -> Result<(), String> {
        match self {
            Self::File(file) => file.keep(),
            Self::Stdout => io::stdout().flush().map_err(|error| format!("stdout: {error}")),
        }
    }

    fn is_left(&self) -> &'static str {
        match self {
            Self::File(_) => "no file was written; try again",
            Self::Stdout => "discard the output and try again",
        }
    }
}

fn words(about: &Backup, file: &Path, view: &View) -> String {
    let store = Path::new(&about.store);
    let beside = |suffix: &str| format!("{}{suffix}", store.display());
    let folder = store.parent().unwrap_or(Path::new("")).display();
    let file = if file == Path::new("-") { Path::new("FILE") } else { file };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}: {}, taken {}: {}, {} open, {}, {}; complete, SHA-256 {}",
        file.display(),
        size(about.bytes),
        clock_time(about.taken_at, &view.zone),
        count(about.incidents, "incident"),
        about.open_incidents,
        count(about.alerts, "alert"),
        count(about.silences, "silence"),
        about.sha256
    );
    if let Some(warning) = &about.warning {
        let _ = writeln!(out, "WARNING: {warning}");
    }
    let _ = writeln!(
        out,
        "\nTo restore it, run as root on alertd's host:\n  \
         systemctl stop alertd\n  \
         rm -f {} {}\n  \
         install -m 600 --owner=$(stat -c %U {folder}) --group=$(stat -c %G {folder}) {} {}\n  \
         systemctl start alertd",
        beside("-wal"),
        beside("-shm"),
        file.display(),
        store.display()
    );
    out
}

fn count(n: u64, noun: &str) -> String {
    plural(usize::try_from(n).unwrap_or(usize::MAX), noun)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::ctl::paint::Paint;

    #[test]
    fn it_says_what_is_in_the_file_and_how_to_put_it_back() {
        let taken_at = "2026-11-22T02:20:00Z".parse().unwrap();
        let view = View { now: taken_at, zone: TimeZone::UTC, paint: Paint::Plain };
        let about = Backup {
            taken_at,
            bytes: 3 << 20,
            sha256: "ab".into(),
            open_incidents: 3,
            incidents: 412,
            alerts: 5,
            silences: 1,
            store: "/var/lib/alertd/alertd.db".into(),
            warning: Some("cannot write to the store".into()),
        };
        let said = words(&about, Path::new("/b/a.db"), &view);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(
            lines[0],
            "/b/a.db: 3 MiB, taken 02:20 Sun 22 Nov 2026 UTC: 412 incidents, 3 open, 5 alerts, 1 silence; complete, SHA-256 ab"
        );
        assert_eq!(lines[1], "WARNING: cannot write to the store");
        for step in [
            "rm -f /var/lib/alertd/alertd.db-wal /var/lib/alertd/alertd.db-shm",
            "/b/a.db /var/lib/alertd/alertd.db",
        ] {
            assert!(said.contains(step), "{said}");
        }
        assert_eq!((size(1), size(1 << 20)), ("1 KiB".into(), "1 MiB".into()));
    }
}
