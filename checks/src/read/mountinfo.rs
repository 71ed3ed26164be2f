//! Parses `/proc/self/mountinfo` (proc(5)) and selects the real filesystems.
//!
//! Pseudo filesystems, images that are always full (squashfs), layers of containers, and repeated
//! mounts of a device are left out.

use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// `major:minor`: the same for every mount of one filesystem.
    pub(crate) device: String,
    /// The directory of the filesystem that is mounted: `/` unless it is a bind mount or a
    /// subvolume.
    root: String,
    pub(crate) point: PathBuf,
    /// Options of this mount.
    options: String,
    pub(crate) fs_type: String,
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
    let mut mount = mount.split(' ').skip(2);
    let (device, root, point, options) = (mount.next()?, mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (fs_type, _source) = (filesystem.next()?, filesystem.next()?);
    Some(Mount {
        device: device.to_owned(),
        root: unescape(root),
        point: PathBuf::from(unescape(point)),
        options: options.to_owned(),
        fs_type: fs_type.to_owned(),
        super_options: filesystem.next().unwrap_or_default().to_owned(),
    })
}

/// Space, tab, newline and backslash are escaped as `\040` and so on.
pub(crate) fn unescape(text: &str) -> String {
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
    String::from_utf8_lossy(&out).into_owned()
}

/// The real and visible filesystems. Each device is listed once: where it is mounted as a whole, or
/// else at its first mount.
pub(crate) fn worth_watching(mounts: &[Mount]) -> Vec<Mount> {
    let mut chosen: Vec<Mount> = Vec::new();
    for (at, mount) in mounts.iter().enumerate() {
        let hidden = mounts[at + 1..].iter().any(|later| later.point == mount.point);
        let is_root = mount.point == Path::new("/"); // in a container that is an overlay
        if hidden || (is_pseudo(&mount.fs_type) && !is_root) || is_private(&mount.point) {
            continue;
        }
        match chosen.iter_mut().find(|known| known.device == mount.device) {
            None => chosen.push(mount.clone()),
            Some(known) if known.root != "/" && mount.root == "/" => *known = mount.clone(),
            Some(_) => {}
        }
    }
    chosen
}

/// The mount of `path`.
pub(crate) fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // Of several mounts at the same point, the last one hides the others.
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_os_str().len())
}

/// Filesystems without disk space, and images that are always full. The list of `node_exporter`,
/// without tmpfs: a full `/run` or `/tmp` breaks a host.
fn is_pseudo(fs_type: &str) -> bool {
    matches!(
        fs_type,
        "autofs"
            | "binfmt_misc"
            | "bpf"
            | "cgroup"
            | "cgroup2"
            | "configfs"
            | "debugfs"
            | "devpts"
            | "devtmpfs"
            | "efivarfs"
            | "erofs"
            | "fusectl"
            | "fuse.gvfsd-fuse"
            | "fuse.lxcfs"
            | "fuse.portal"
            | "hugetlbfs"
            | "iso9660"
            | "mqueue"
            | "nsfs"
            | "overlay"
            | "proc"
            | "pstore"
            | "ramfs"
            | "rpc_pipefs"
            | "securityfs"
            | "selinuxfs"
            | "squashfs"
            | "sysfs"
            | "tracefs"
    )
}

/// Mount points inside the system or a container runtime, and files that are mounted into a
/// container.
fn is_private(point: &Path) -> bool {
    const PRIVATE: [&str; 10] = [
        "/dev",
        "/proc",
        "/sys",
        "/run/credentials",
        "/run/host",
        "/var/lib/docker",
        "/var/lib/containers/storage",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
    ];
    PRIVATE.iter().any(|private| point.starts_with(private))
}

/// Mount points that are writable in `/etc/fstab`.
pub(crate) fn writable_in_fstab(fstab: &str) -> Vec<PathBuf> {
    fstab
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (point, _fs_type, options) = (fields.next()?, fields.next()?, fields.next()?);
            (!options.split(',').any(|option| option == "ro")).then(|| PathBuf::from(unescape(point)))
        })
        .collect()
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
    fn each_real_filesystem_is_listed_once_where_it_is_mounted_as_a_whole() {
        let mounts = parse(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n\
             2 1 0:5 / /proc rw - proc proc rw\n\
             3 1 8:2 /sub /srv/bind rw - xfs /dev/b rw\n\
             4 1 8:2 / /srv rw - xfs /dev/b rw\n\
             5 1 8:2 / /srv/again rw - xfs /dev/b rw\n\
             6 1 7:1 / /snap/core ro - squashfs /dev/loop1 ro\n\
             7 1 0:40 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n\
             8 1 0:41 / /run rw - tmpfs tmpfs rw\n\
             9 1 0:42 / /mnt rw - ext4 /dev/c rw\n\
             10 9 0:43 / /mnt rw - nfs4 server:/x rw\n\
             nonsense\n",
        );
        let points: Vec<_> = worth_watching(&mounts).into_iter().map(|mount| mount.point).collect();
        assert_eq!(points, ["/", "/srv", "/run", "/mnt"].map(PathBuf::from));
        assert_eq!(containing(&mounts, Path::new("/mnt/a")).unwrap().fs_type, "nfs4");
        assert_eq!(containing(&mounts, Path::new("/srvx")).unwrap().point, Path::new("/"));
    }

    #[test]
    fn writable_mount_points_are_read_from_fstab() {
        let fstab = "# comment\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/b /srv xfs ro,noatime 0 2\n\n/dev/c /a\\040b ext4 defaults";
        assert_eq!(writable_in_fstab(fstab), ["/", "/a b"].map(PathBuf::from));
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|\\\\[0-7]{1,3}| - | |/|\\n){0,60}") {
            worth_watching(&parse(&text));
            writable_in_fstab(&text);
        }
    }
}
