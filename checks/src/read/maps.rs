//! `/proc/PID/maps`, `/proc/PID/exe` and `/proc/PID/cgroup`: which files a process runs, and which
//! unit it belongs to.

/// A file that was deleted or replaced while a process has it mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) path: String,
    /// 0 if unknown.
    pub(crate) inode: u64,
}

/// The library that a line of `maps` maps as code, if that file was deleted:
/// `7f0-7f1 r-xp 00026000 08:01 1234 /usr/lib/libssl.so.3 (deleted)`.
pub(crate) fn deleted_library(line: &str) -> Option<Deleted> {
    let mapped = line.strip_suffix(DELETED)?;
    let mut rest = mapped;
    let mut fields = [""; 5];
    for field in &mut fields {
        let text = rest.trim_start();
        let (word, tail) = text.split_once(' ')?;
        (*field, rest) = (word, tail);
    }
    let path = rest.trim_start();
    let from_package = ["/usr/", "/lib"].iter().any(|prefix| path.starts_with(prefix));
    let is_code = fields[1].as_bytes().get(2) == Some(&b'x') && path.contains(".so");
    (from_package && is_code).then(|| Deleted { path: cleaned(path), inode: fields[4].parse().unwrap_or(0) })
}

/// The program of a process, from the link `exe`, if its file was deleted.
pub(crate) fn deleted_program(exe: &str) -> Option<Deleted> {
    let path = exe.strip_suffix(DELETED)?;
    let installed =
        ["/usr/", "/bin/", "/sbin/", "/lib", "/opt/"].iter().any(|prefix| path.starts_with(prefix));
    installed.then(|| Deleted { path: cleaned(path), inode: 0 })
}

const DELETED: &str = " (deleted)";

/// The path before dpkg (`.dpkg-new`, `.dpkg-tmp`) or rpm (`;65a1b2c3`) renamed the file.
fn cleaned(path: &str) -> String {
    let path = path.strip_suffix(".dpkg-tmp").or_else(|| path.strip_suffix(".dpkg-new")).unwrap_or(path);
    match path.rsplit_once(';') {
        Some((name, id)) if id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()) => name.to_owned(),
        _ => path.to_owned(),
    }
}

/// Who runs a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// `nginx.service`.
    Unit(String),
    /// Below `user.slice`: a login, a desktop.
    Session,
    None,
}

/// The innermost unit in the text of `cgroup`, in cgroup v1 or v2.
pub(crate) fn owner(cgroup: &str) -> Owner {
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path).filter(|path| *path != "/")
    });
    let Some(path) = path else { return Owner::None };
    if path.starts_with("/user.slice/") {
        return Owner::Session;
    }
    let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
    path.split('/').rfind(is_unit).map_or(Owner::None, |unit| Owner::Unit(unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_code_from_packages_counts() {
        let path = |line: &str| deleted_library(line).map(|deleted| (deleted.path, deleted.inode));
        let start = "7f3a4c026000-7f3a4c082000 r-xp 00026000 fe:01 131";
        let ssl = "/usr/lib/x86_64-linux-gnu/libssl.so.3";
        let found = Some((ssl.to_owned(), 131));
        assert_eq!(path(&format!("{start}    {ssl} (deleted)")), found);
        assert_eq!(path(&format!("{start}    {ssl}.dpkg-tmp (deleted)")), found);
        assert_eq!(path(&format!("{start}    {ssl};65a1b2c3 (deleted)")), found);
        for other in [
            &format!("{start}    {ssl}"),
            &format!("{start}    /memfd:JITCode:QtQml (deleted)"),
            &format!("{start}    /dev/shm/lib.so (deleted)"),
            &format!("{start}    /SYSV00000000 (deleted)"),
            &format!("{start}    /home/a/.local/lib/libx.so (deleted)"),
            &format!("{start}    /tmp/jna123.so (deleted)"),
            "7f3a4c026000-7f3a4c082000 r--p 00026000 fe:01 131 /usr/lib/locale/locale-archive (deleted)",
            "7f3a4c026000-7f3a4c082000 rw-p 00026000 fe:01 131 /usr/lib/libssl.so.3 (deleted)",
            "",
            " (deleted)",
        ] {
            assert_eq!(path(other), None, "{other}");
        }
    }

    #[test]
    fn programs_in_memory_or_at_home_do_not_count() {
        assert_eq!(deleted_program("/usr/sbin/nginx (deleted)").unwrap().path, "/usr/sbin/nginx");
        assert_eq!(deleted_program("/usr/sbin/nginx.dpkg-tmp (deleted)").unwrap().path, "/usr/sbin/nginx");
        let others = [
            "/memfd:lxc-attach (deleted)",
            "/home/a/chrome (deleted)",
            "/usr/sbin/nginx",
            "/tmp/x (deleted)",
        ];
        assert_eq!(others.map(deleted_program), [const { None }; 4]);
    }

    #[test]
    fn the_unit_is_the_innermost_one() {
        let unit = |name: &str| Owner::Unit(name.to_owned());
        assert_eq!(owner("0::/system.slice/nginx.service\n"), unit("nginx.service"));
        assert_eq!(owner("0::/system.slice/docker.service/init\n"), unit("docker.service"));
        assert_eq!(
            owner("12:pids:/a\n1:name=systemd:/system.slice/cron.service\n0::/\n"),
            unit("cron.service")
        );
        assert_eq!(owner("0::/user.slice/user-0.slice/session-1.scope"), Owner::Session);
        assert_eq!(owner("0::/\n"), Owner::None);
        assert_eq!(owner("nonsense"), Owner::None);
    }

    proptest! {
        #[test]
        fn any_line_can_be_read(line in "\\PC{0,60}", path in "\\PC{0,20}") {
            deleted_library(&format!("{line} {path} (deleted)"));
            deleted_program(&format!("{line} (deleted)"));
            owner(&line);
        }
    }
}
