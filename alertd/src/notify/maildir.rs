//! `[receiver.NAME.maildir]`: writes each notification as a file in a maildir, for hosts without a
//! mail server, for `cargo xtask up`, and for tests. Read it with `mutt -f PATH`, `mail -f` or
//! `cat PATH/new/*`.
//!
//! The file is written in `tmp`, synced, renamed into `new`, and the directory is synced, so an
//! accepted notification survives a power failure. The file name is made from the notification's id
//! only, so a retry never creates a second file, even if a reader has moved the first one to `cur`.
//! (The usual time, pid and host in maildir names only prevent collisions, which unique ids prevent
//! too.)

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use dogwatch_alertd_core::rules::notification::{Accepted, DeliveryError, Notification};
use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    replace::{NewFile, replace_file},
};
use lettre::message::Mailbox;
use serde::Deserialize;

use super::{mail, sender::Sender};

/// `[receiver.NAME.maildir]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Created if missing, with `tmp`, `new` and `cur`.
    pub path: Spanned<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Maildir {
    path: PathBuf,
}

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Maildir> {
        let at = self.path.span();
        let path = self.path.into_inner();
        if path.as_os_str().is_empty() {
            problems.add(source, at, "path is empty; set it to the directory for the email files");
            return None;
        }
        Some(Maildir { path })
    }
}

impl Maildir {
    pub(super) async fn send(&self, told: &Notification, sender: &Sender) -> Result<Accepted, DeliveryError> {
        let from = Mailbox::new(None, mail::local_address("dogwatch", sender)?);
        let to = Mailbox::new(None, mail::local_address(&told.receiver, sender)?);
        let bytes = mail::message(told, &from, &to, sender)?.formatted();
        let name = mail::token(&told.id);
        let path = self.path.clone();
        let file = name.clone();
        let written = tokio::task::spawn_blocking(move || deliver(&path, &file, &bytes)).await;
        match written {
            Ok(Ok(())) => Ok(Accepted { provider_id: Some(name), ..Accepted::delivered() }),
            // A full disk or wrong permissions can be fixed while we retry; the operator sees the
            // error.
            Ok(Err(error)) => Err(retry(format!("cannot write to {}: {error}", self.path.display()))),
            Err(error) => Err(retry(format!("writing to {} failed: {error}", self.path.display()))),
        }
    }
}

fn retry(reason: String) -> DeliveryError {
    DeliveryError::Retry { after: None, reason }
}

fn deliver(maildir: &Path, name: &str, mail: &[u8]) -> io::Result<()> {
    for part in ["tmp", "new", "cur"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(maildir.join(part))?;
    }
    if was_read(&maildir.join("cur"), name)? {
        return Ok(());
    }
    let new = NewFile { temporary: Some(maildir.join("tmp").join(name)), ..NewFile::with_mode(0o600) };
    replace_file(&maildir.join("new").join(name), &new, |file| file.write_all(mail))?;
    Ok(())
}

/// A reader moves `new/NAME` to `cur/NAME:2,FLAGS`.
fn was_read(cur: &Path, name: &str) -> io::Result<bool> {
    for entry in fs::read_dir(cur)? {
        let file = entry?.file_name();
        if file.to_string_lossy().split(":2,").next() == Some(name) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{super::words::tests::problem, *};

    #[tokio::test]
    async fn a_retry_creates_no_second_file_even_after_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let maildir = Maildir { path: dir.path().join("mail") };
        let count = |part: &str| fs::read_dir(dir.path().join("mail").join(part)).unwrap().count();
        for _ in 0..2 {
            maildir.send(&problem(), &sender()).await.unwrap();
            assert_eq!((count("tmp"), count("new"), count("cur")), (0, 1, 0));
        }
        let new = dir.path().join("mail/new/n-0192f3a7-2");
        let text = fs::read_to_string(&new).unwrap();
        assert!(text.contains("Subject: [#4711] CRITICAL web1/disk: /var 96% used\r\n"), "{text}");
        fs::rename(&new, dir.path().join("mail/cur/n-0192f3a7-2:2,S")).unwrap();
        maildir.send(&problem(), &sender()).await.unwrap();
        assert_eq!((count("new"), count("cur")), (0, 1));
    }

    #[tokio::test]
    async fn an_id_with_slashes_cannot_leave_the_maildir() {
        let dir = tempfile::tempdir().unwrap();
        let maildir = Maildir { path: dir.path().join("mail") };
        let told = Notification { id: "../../../etc/passwd".into(), ..problem() };
        let name = maildir.send(&told, &sender()).await.unwrap().provider_id.unwrap();
        assert_eq!(name.len(), 32);
        assert!(dir.path().join("mail/new").join(name).is_file());
    }

    #[tokio::test]
    async fn a_maildir_that_cannot_be_written_is_retried() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mail"), "a file in the way").unwrap();
        let maildir = Maildir { path: dir.path().join("mail") };
        let error = maildir.send(&problem(), &sender()).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Retry { .. }), "{error}");
    }

    fn sender() -> Sender {
        Sender {
            host: "mon1".into(),
            zone: TimeZone::UTC,
            links: None,
            own_words: crate::notify::sender::Rendered::default(),
        }
    }
}
