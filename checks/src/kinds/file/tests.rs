//! The check with real files in a temporary directory.

use std::{fs, os::unix::fs::PermissionsExt as _, time::SystemTime};

use super::*;
use crate::{
    Past, kind,
    testing::{findings, lines},
};

const NOW: i64 = 1_800_000_000;

struct World {
    dir: tempfile::TempDir,
    root: Root,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::captured(dir.path());
        Self { dir, root }
    }

    /// A file that was changed so many hours before `NOW`.
    fn file(&self, path: &str, hours: u64, size: usize) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![0; size]).unwrap();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 - hours * 3_600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    fn said(&self, path: &str, wanted: Wanted) -> String {
        let result = judge(path, &find(&self.root, path), &wanted, NOW);
        format!("{} {}", result.state, result.summary)
    }
}

fn hours<T>(warn: u64, crit: u64, make: impl Fn(Limits<Duration>) -> T) -> T {
    make(Limits { warn: Some(Duration::from_hours(warn)), crit: Some(Duration::from_hours(crit)) })
}

#[test]
fn a_file_must_exist_and_be_young() {
    let world = World::new();
    world.file("run/job.done", 30, 0);
    let young = hours(26, 50, |age| Wanted { age, ..Wanted::default() });
    assert_eq!(world.said("/run/job.done", Wanted::default()), "OK changed 30 h ago, 0 B");
    assert_eq!(world.said("/run/job.done", young), "WARNING changed 30 h ago, limit 26 h, 0 B");
    world.file("run/job.done", 51, 0);
    assert_eq!(world.said("/run/job.done", young), "CRITICAL changed 51 h ago, limit 50 h, 0 B");
    assert_eq!(world.said("/run/other", young), "CRITICAL does not exist");
    let absent = Wanted { absent: true, ..Wanted::default() };
    assert_eq!(world.said("/run/other", absent), "OK does not exist, as it should be");
    assert_eq!(world.said("/run/job.done", absent), "CRITICAL must not exist");
}

#[test]
fn the_newest_backup_counts() {
    let world = World::new();
    for (name, hours, size) in
        [("a.tar", 72, 5_000), ("b.tar", 48, 5_000), ("c.tar", 20, 10), (".d.tar", 1, 1)]
    {
        world.file(&format!("backup/{name}"), hours, size);
    }
    fs::create_dir(world.dir.path().join("backup/dir.tar")).unwrap();
    let wanted = hours(26, 50, |age| Wanted { age, min_size: Some(1_024.0), ..Wanted::default() });
    assert_eq!(
        world.said("/backup/*.tar", wanted),
        "CRITICAL 3 files, newest changed 20 h ago (c.tar), only 10 B (c.tar), must be at least 1.0 KiB, 9.8 KiB"
    );
    world.file("backup/c.tar", 20, 2_048);
    assert_eq!(world.said("/backup/*.tar", wanted), "OK 3 files, newest changed 20 h ago (c.tar), 11.8 KiB");
    assert_eq!(world.said("/backup/*.zip", wanted), "CRITICAL 0 files");
    assert_eq!(world.said("/b*/?.tar", wanted), "OK 3 files, newest changed 20 h ago (c.tar), 11.8 KiB");
}

#[test]
fn a_queue_must_be_emptied() {
    let world = World::new();
    let range = |text: &str| text.parse().ok();
    let count = Limits { warn: range("1"), crit: range("3") };
    let wanted = hours(1, 5, |oldest| Wanted { oldest, count, ..Wanted::default() });
    assert_eq!(world.said("/spool/*", wanted), "OK 0 files");
    world.file("spool/1", 2, 0);
    assert_eq!(
        world.said("/spool/*", wanted),
        "WARNING 1 file, newest changed 2 h ago (1), oldest changed 2 h ago (1), limit 60 min, 0 B"
    );
    for name in ["2", "3", "4"] {
        world.file(&format!("spool/{name}"), 0, 0);
    }
    assert!(world.said("/spool/*", wanted).starts_with("CRITICAL 4 files (limit 3), "));
}

#[test]
fn size_and_mode_have_limits() {
    let world = World::new();
    world.file("log/a", 1, 3_000);
    world.file("log/b", 1, 3_000);
    let size = Limits { warn: Some(5_000.0), crit: Some(10_000.0) };
    let wanted = Wanted { size, mode: Some(0o600), ..Wanted::default() };
    assert_eq!(
        world.said("/log/*", wanted),
        "CRITICAL 2 files, newest changed 60 min ago (b), 5.9 KiB (limit 4.9 KiB), mode 0640 (a) and 1 more, must be within 0600"
    );
    let wanted = Wanted { mode: Some(0o644), ..Wanted::default() };
    assert_eq!(world.said("/log/a", wanted), "OK changed 60 min ago, 2.9 KiB");
}

#[test]
fn a_file_of_the_future_is_new() {
    let world = World::new();
    world.file("a", 0, 1);
    let found = find(&world.root, "/a");
    assert_eq!(age(&found.files[0], 0), Duration::ZERO);
}

#[test]
fn each_path_has_its_own_service_unless_there_is_only_one() {
    let world = World::new();
    world.file("a", 0, 1);
    let host = Host::new(world.root.clone());
    let said = |options: &[(&str, &str)]| {
        lines(&findings("file", options, &host, &mut Past::default(), Duration::ZERO))
    };
    let both = said(&[("path", "/a"), ("path", "/b")]);
    assert!(both[0].starts_with("/a OK changed "), "{both:?}");
    assert_eq!(both[1], "/b CRITICAL does not exist");
    assert_eq!(said(&[("path", "/b")]), ["- CRITICAL /b: does not exist"]);
}

#[test]
fn every_way_to_write_a_directory_is_understood() {
    let world = World::new();
    world.file("srv/a/x", 1, 1);
    world.file("srv/readme", 1, 1);
    for path in ["/", "//", "/.", "/srv", "/srv/", "//srv//", "/srv/.", "/srv/../srv"] {
        let said = world.said(path, Wanted::default());
        assert!(said.starts_with("OK changed "), "{path}: {said}");
    }
    let of = |path: &str| find(&world.root, path).files.into_iter().map(|file| file.path).collect::<Vec<_>>();
    assert_eq!(of("/"), ["/"]);
    assert_eq!(of("/*/"), ["/srv"]);
    assert_eq!(of("/srv/*"), ["/srv/readme"]);
    assert_eq!(of("/srv/*/"), ["/srv/a"]);
    assert_eq!(of("//srv//a//*"), ["/srv/a/x"]);
}

#[test]
fn odd_names_are_found_and_differ() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let world = World::new();
    for name in [&b"a b"[..], b"a\tb", b"a\nb", b"a\xffb"] {
        fs::write(world.dir.path().join(OsStr::from_bytes(name)), "").unwrap();
    }
    let found = find(&world.root, "/a*").files.into_iter().map(|file| file.path).collect::<Vec<_>>();
    assert_eq!(found, [r"/a\x09b", r"/a\x0ab", "/a b", r"/a\xffb"]);
}

#[test]
fn settings_for_a_path_that_is_not_looked_at_are_an_error() {
    let errors = |pattern: &str| {
        let mut options = [("path", "/a"), ("path", "/b/c")].into_iter().collect::<crate::Options>();
        options.set_for(pattern, [("warn_age", "1h")].into_iter().collect());
        kind("file").unwrap().build(&options, &Host::live()).err().map_or(0, |errors| errors.len())
    };
    assert_eq!(["/a", "/b/*", "*", "/c", "/b"].map(errors), [0, 0, 0, 1, 1]);
}

#[test]
fn contradictions_are_errors() {
    let wrong: &[(&[(&str, &str)], &str)] = &[
        (&[], "path"),
        (&[("path", "a")], "path"),
        (&[("path", "/a/**/b")], "path"),
        (&[("path", "/a/[bc]*")], "path"),
        (&[("path", "/a"), ("warn_age", "2h"), ("crit_age", "1h")], "crit_age"),
        (&[("path", "/a"), ("warn_size", "2GiB"), ("crit_size", "1GiB")], "crit_size"),
        (&[("path", "/a"), ("warn_age", "26")], "warn_age"),
        (&[("path", "/a"), ("crit_oldest", "0s")], "crit_oldest"),
        (&[("path", "/a"), ("crit_oldest", "9999999d")], "crit_oldest"),
        (&[("path", "/a"), ("crit_size", "1e30GiB")], "crit_size"),
        (&[("path", "/a"), ("crit_size", "9999999TiB")], "crit_size"),
        (&[("path", "")], "path"),
        (&[("path", "/a"), ("mode", "0999")], "mode"),
        (&[("path", "/a"), ("min_size", "ten")], "min_size"),
        (&[("path", "/a"), ("absent", "true"), ("warn_age", "2h")], "absent"),
    ];
    for (options, name) in wrong {
        let errors =
            kind("file").unwrap().build(&options.iter().copied().collect(), &Host::live()).unwrap_err();
        assert_eq!(errors[0].option, *name, "{options:?}");
    }
    let fine = [("path", "/a/[b]"), ("mode", "640"), ("warn_size", "5MiB")].into_iter().collect();
    assert!(kind("file").unwrap().build(&fine, &Host::live()).is_ok());
}
