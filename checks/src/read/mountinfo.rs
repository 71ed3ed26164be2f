//! Parses `/proc/self/mountinfo` (proc(5)).

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use crate::name::escaped;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Differs for every mount. A remount keeps it.
    pub(crate) id: u64,
    /// `major:minor`: the same for every mount of one filesystem.
    pub(crate) device: String,
    /// The directory of the filesystem that is mounted: `/` unless it is a bind mount or a
    /// subvolume.
    pub(crate) root: String,
    pub(crate) point: PathBuf,
    /// Options of this mount.
    options: String,
    pub(crate) fs_type: String,
    /// `/dev/sda1`, `server:/export`.
    pub(crate) source: String,
    /// Options of the filesystem. After an error the kernel sets `ro` here and leaves the options
    /// of the mount alone.
    super_options: String,
}

/// Whether a mount is writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    ReadOnly,
    /// The kernel made it read-only after an error.
    Lost,
}

impl Mount {
    pub(crate) fn access(&self) -> Access {
        let has = |options: &str, wanted: &str| options.split(',').any(|option| option == wanted);
        if has(&self.super_options, "emergency_ro") || has(&self.super_options, "shutdown") {
            return Access::Lost;
        }
        match (has(&self.super_options, "ro"), has(&self.options, "ro")) {
            // The options of the mount do not count: with ProtectSystem=strict a service sees the
            // whole host as read-only mounts.
            (false, _) => Access::ReadWrite,
            // Mounted with `ro`: it is in both places.
            (true, false) => Access::Lost,
            (true, true) => Access::ReadOnly,
        }
    }
}

/// Parses all lines. A malformed line is skipped.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let (id, _parent) = (mount.next()?.parse().ok()?, mount.next()?);
    let (device, root, point, options) = (mount.next()?, mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (fs_type, source) = (filesystem.next()?, filesystem.next()?);
    Some(Mount {
        id,
        device: device.to_owned(),
        root: shown(root),
        point: PathBuf::from(unescape(point)),
        options: options.to_owned(),
        fs_type: fs_type.to_owned(),
        source: shown(source),
        super_options: filesystem.next().unwrap_or_default().to_owned(),
    })
}

/// Space, tab, newline and backslash are escaped as `\040` and so on.
pub(crate) fn unescape(text: &str) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digit: u8| (b'0'..=b'7').contains(&digit).then(|| u32::from(digit - b'0'));
        let escaped = match tail {
            [a, b, c, ..] if first == b'\\' => {
                octal(*a).zip(octal(*b)).zip(octal(*c)).map(|((a, b), c)| a * 64 + b * 8 + c)
            }
            _ => None,
        };
        let escaped = escaped.and_then(|code| u8::try_from(code).ok());
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(out)
}

/// The same for people.
pub(crate) fn shown(text: &str) -> String {
    escaped(unescape(text))
}

/// The mount of `path`.
pub(crate) fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // Of several mounts at the same point, the last one hides the others.
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Mount {
        parse_line(text).unwrap()
    }

    #[test]
    fn escapes_and_optional_fields_are_parsed() {
        let mount = line(
            r"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue",
        );
        assert_eq!((mount.point.to_str(), mount.device.as_str()), (Some("/mnt two"), "98:0"));
        assert_eq!((mount.root.as_str(), mount.fs_type.as_str()), ("/mnt1", "ext3"));
        assert_eq!(unescape(r"a\134\011\9\04"), "a\\\t\\9\\04");
    }

    #[test]
    fn names_that_are_no_text_are_kept() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = crate::root::Root::captured(dir.path());
        let line = b"36 35 98:0 / /mnt/gr\xf6\xdfe\\011x rw - ext3 /dev/root rw\n";
        std::fs::write(dir.path().join("mounts"), line).unwrap();
        let mounts = parse(&root.read_escaped("/mounts").unwrap());
        assert_eq!(mounts[0].point.as_os_str().as_bytes(), b"/mnt/gr\xf6\xdfe\tx");
    }

    #[test]
    fn a_read_only_error_differs_from_a_read_only_mount() {
        let access =
            |options: &str, fs: &str| line(&format!("1 1 8:1 / /x {options} - ext4 /dev/a {fs}")).access();
        assert_eq!(access("rw,relatime", "rw"), Access::ReadWrite);
        assert_eq!(access("ro,relatime", "ro"), Access::ReadOnly);
        assert_eq!(access("ro,relatime", "rw"), Access::ReadWrite, "as a sandboxed service sees it");
        assert_eq!(access("rw,relatime", "ro,errors=remount-ro"), Access::Lost);
        assert_eq!(access("rw,relatime", "rw,emergency_ro"), Access::Lost);
    }

    #[test]
    fn the_last_mount_at_a_path_is_the_one_that_is_seen() {
        let mounts = parse(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n\
             9 1 0:42 / /mnt rw - ext4 /dev/c rw\n\
             10 9 0:43 / /mnt rw - nfs4 server:/x rw\n\
             nonsense\n",
        );
        assert_eq!(mounts.len(), 3);
        assert_eq!(containing(&mounts, Path::new("/mnt/a")).unwrap().fs_type, "nfs4");
        assert_eq!(containing(&mounts, Path::new("/mntx")).unwrap().point, Path::new("/"));
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|\\\\[0-7]{1,3}| - | |/|\\n){0,60}") {
            parse(&text);
        }
    }
}
