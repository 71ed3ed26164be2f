//! Which mounts are watched. Reads nothing.
//!
//! Not watched: filesystems without space of their own, images that are always full, mounts that
//! belong to a container or a login session, and what the user excludes. A filesystem that is
//! mounted several times (bind mounts, subvolumes) is watched once, and always under the same name.

use std::path::Path;

use crate::{
    Blind, Pattern,
    read::{fstab::Line, mountinfo::Mount},
    root::FsUsage,
};

/// What the user does not want to watch.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// Mount points. One without `*` and `?` also stands for everything below it.
    pub(super) points: Vec<Pattern>,
    pub(super) types: Vec<Pattern>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Choice {
    pub(super) watched: Vec<Mount>,
    /// Lines of fstab without a mount.
    pub(super) absent: Vec<Line>,
    pub(super) blind: Vec<Blind>,
}

pub(super) fn choose(mounts: &[Mount], fstab: &[Line], filter: &Filter) -> Choice {
    let mut choice = Choice::default();
    let mut hidden = Vec::new();
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[at + 1..].iter().any(|later| later.point == mount.point) {
            hidden.push(mount);
            continue;
        }
        match class(mount) {
            Class::Pseudo => {}
            Class::Image => choice.blind(&mount.point, IMAGE.into()),
            Class::Owned(area) => {
                if mount.fs_type != "tmpfs" {
                    choice.blind(Path::new(area.path), format!("filesystems of {}", area.owner));
                }
            }
            Class::Real => match filter.excludes(&mount.point, &mount.fs_type) {
                Some(why) => choice.blind(&mount.point, why),
                None => choice.watch(mount, fstab),
            },
        }
    }
    for mount in hidden {
        let seen = choice.watched.iter().any(|watched| watched.device == mount.device);
        if !seen && matches!(class(mount), Class::Real) {
            choice.blind(&mount.point, format!("{} is hidden by another mount", mount.source));
        }
    }
    let absent = fstab.iter().filter(|line| {
        // The unit of the agent may have a `/dev` of its own.
        line.must_be_mounted()
            && !is_system(&line.point)
            && !mounts.iter().any(|mount| mount.point == line.point)
            && filter.excludes(&line.point, &line.fs_type).is_none()
    });
    choice.absent = absent.cloned().collect();
    choice
}

impl Choice {
    fn blind(&mut self, point: &Path, why: String) {
        let blind = Blind { thing: super::shown(point), why };
        if !self.blind.contains(&blind) {
            self.blind.push(blind);
        }
    }

    /// Of several mounts of a device, the one that was mounted as a whole counts, then the one that
    /// fstab lists first, then the oldest. A backup tool that mounts it again changes no name.
    fn watch(&mut self, mount: &Mount, fstab: &[Line]) {
        let rank = |mount: &Mount| {
            // All subvolumes of btrfs are alike.
            let is_part = mount.root != "/" && mount.fs_type != "btrfs";
            let line = fstab.iter().position(|line| line.point == mount.point);
            (is_part, line.unwrap_or(usize::MAX))
        };
        match self.watched.iter_mut().find(|known| known.device == mount.device) {
            None => self.watched.push(mount.clone()),
            Some(known) if rank(mount) < rank(known) => *known = mount.clone(),
            Some(_) => {}
        }
    }
}

impl Filter {
    /// Why a mount is not wanted.
    fn excludes(&self, point: &Path, fs_type: &str) -> Option<String> {
        let shown = super::shown(point);
        let at_or_below = |pattern: &Pattern| {
            pattern.matches(&shown) || (pattern.is_literal() && point.starts_with(pattern.as_str()))
        };
        if let Some(pattern) = self.points.iter().find(|pattern| at_or_below(pattern)) {
            return Some(format!("excluded by exclude = \"{pattern}\""));
        }
        let pattern = self.types.iter().find(|pattern| pattern.matches(fs_type))?;
        Some(format!("excluded by exclude_type = \"{pattern}\""))
    }
}

/// The reason why an image is not watched.
pub(super) const IMAGE: &str = "an image, always full";

/// A FUSE filesystem that has no room and never had any: an image that is mounted by a program
/// which its type does not tell.
pub(super) fn is_image(mount: &Mount, usage: FsUsage) -> bool {
    mount.fs_type.starts_with("fuse")
        && usage.free == 0
        && usage.reserved == 0
        && usage.inodes_free == 0
        && mount.fs_type != "fuseblk"
}

enum Class {
    Real,
    /// Without space of its own, or a part of the system.
    Pseudo,
    Image,
    Owned(&'static Area),
}

/// A directory with mounts of others.
struct Area {
    path: &'static str,
    /// A mount that is at most this deep below is the administrator's.
    depth: usize,
    /// Mounts below a directory with this name are the administrator's.
    except: &'static str,
    owner: &'static str,
}

const AREAS: &[Area] = &[
    Area { path: "/var/lib/docker", depth: 1, except: "volumes", owner: CONTAINERS },
    Area { path: "/var/lib/containers", depth: 2, except: "volumes", owner: CONTAINERS },
    Area { path: "/var/lib/containerd", depth: 1, except: "", owner: CONTAINERS },
    Area { path: "/var/lib/kubelet", depth: 1, except: "", owner: CONTAINERS },
    Area { path: "/var/lib/rancher", depth: 2, except: "", owner: CONTAINERS },
    Area { path: "/run/containerd", depth: 0, except: "", owner: CONTAINERS },
    Area { path: "/run/containers", depth: 0, except: "", owner: CONTAINERS },
    Area { path: "/run/crio", depth: 0, except: "", owner: CONTAINERS },
    Area { path: "/run/docker", depth: 0, except: "", owner: CONTAINERS },
    Area { path: "/run/k3s", depth: 0, except: "", owner: CONTAINERS },
    Area { path: "/run/user", depth: 0, except: "", owner: "login sessions" },
];

const CONTAINERS: &str = "containers";

fn class(mount: &Mount) -> Class {
    // In a container, `/` is an overlay.
    if mount.point == Path::new("/") {
        return Class::Real;
    }
    if is_pseudo(&mount.fs_type) || is_system(&mount.point) {
        return Class::Pseudo;
    }
    if is_image_type(mount) {
        return Class::Image;
    }
    let owned = AREAS.iter().find(|area| {
        mount.point.strip_prefix(area.path).is_ok_and(|below| {
            let exempt = below.iter().any(|part| part == area.except);
            below.components().count() > area.depth && !exempt
        })
    });
    owned.map_or(Class::Real, Class::Owned)
}

fn is_image_type(mount: &Mount) -> bool {
    let kind = mount.fs_type.as_str();
    matches!(kind, "squashfs" | "erofs" | "iso9660" | "cramfs" | "romfs")
        || (kind == "udf" && mount.access() != crate::read::mountinfo::Access::ReadWrite)
        || kind.strip_prefix("fuse.").is_some_and(|program| {
            let program = program.to_ascii_lowercase();
            ["squashfuse", "snapfuse", "appimage", "dwarfs", "erofsfuse", "fuseiso", "cvmfs"]
                .iter()
                .any(|image| program.contains(image))
        })
        // Where the runtime of an AppImage mounts it, whatever the program is called.
        || (kind.starts_with("fuse") && mount.point.to_string_lossy().starts_with("/tmp/.mount_"))
}

/// The list of `node_exporter`, without tmpfs: a full `/run` or `/tmp` breaks a host.
fn is_pseudo(fs_type: &str) -> bool {
    const PSEUDO: &[&str] = &[
        "autofs",
        "binder",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "functionfs",
        "fuse.gvfsd-fuse",
        "fuse.lxcfs",
        "fuse.portal",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nfsd",
        "nsfs",
        "overlay",
        "proc",
        "pstore",
        "ramfs",
        "resctrl",
        "rootfs",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
    ];
    PSEUDO.contains(&fs_type)
}

/// Mount points of the kernel and of systemd, and files that are mounted into a container.
fn is_system(point: &Path) -> bool {
    const SYSTEM: &[&str] = &[
        "/dev",
        "/proc",
        "/sys",
        "/run/credentials",
        "/run/host",
        "/run/systemd",
        "/run/netns",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
    ];
    SYSTEM.iter().any(|system| point.starts_with(system))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::read::{fstab, mountinfo};

    fn chosen(mounts: &str, fstab: &str, exclude: &[&str], types: &[&str]) -> Choice {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(*text)).collect();
        let filter = Filter { points: patterns(exclude), types: patterns(types) };
        choose(&mountinfo::parse(mounts), &fstab::parse(fstab), &filter)
    }

    fn points(choice: &Choice) -> Vec<PathBuf> {
        choice.watched.iter().map(|mount| mount.point.clone()).collect()
    }

    /// Mounts from `device root point type`, one a line.
    fn mounts(lines: &str) -> String {
        let line = |(at, line): (usize, &str)| {
            let [device, root, point, kind] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            format!("{at} 1 {device} {root} {point} rw,relatime - {kind} /dev/x rw\n")
        };
        lines.split('\n').map(str::trim).filter(|line| !line.is_empty()).enumerate().map(line).collect()
    }

    fn watched(lines: &str) -> Vec<PathBuf> {
        points(&chosen(&mounts(lines), "", &[], &[]))
    }

    fn paths<const N: usize>(paths: [&str; N]) -> Vec<PathBuf> {
        paths.map(PathBuf::from).to_vec()
    }

    #[test]
    fn each_real_filesystem_is_watched_once_where_it_is_mounted_as_a_whole() {
        let lines = "8:1 / / ext4
            0:5 / /proc proc
            8:2 /sub /srv/bind xfs
            8:2 / /srv xfs
            8:2 / /srv/again xfs
            0:41 / /run tmpfs
            0:60 / /run/credentials/systemd-sysusers.service ramfs
            0:61 / /run/credentials/getty@tty1.service tmpfs
            0:62 / /mnt autofs
            0:42 / /mnt ext4
            0:43 / /mnt nfs4";
        let choice = chosen(&mounts(lines), "", &[], &[]);
        assert_eq!(points(&choice), paths(["/", "/srv", "/run", "/mnt"]));
        let hidden = Blind { thing: "/mnt".into(), why: "/dev/x is hidden by another mount".into() };
        assert_eq!(choice.blind, [hidden]);
    }

    /// moby#35712, monitoring-plugins#1819, node_exporter#711, cluster-monitoring-operator#74.
    #[test]
    fn mounts_of_containers_are_not_watched_but_the_administrators_below_their_directory_are() {
        let lines = "8:1 / / ext4
            8:3 / /var/lib/docker ext4
            0:40 / /var/lib/docker/overlay2/x/merged overlay
            0:44 / /var/lib/docker/containers/x/mounts/shm tmpfs
            8:4 / /var/lib/docker/volumes xfs
            0:45 / /var/lib/docker/volumes/db/_data nfs4
            0:46 / /var/lib/docker/zfs/graph/x zfs
            8:1 /var/lib/kubelet/pods/9c/volume-subpaths/a /var/lib/kubelet/pods/9c/volume-subpaths/a/3 ext4
            0:47 / /var/lib/kubelet/pods/9c/volumes/kubernetes.io~secret/token tmpfs
            8:64 / /var/lib/kubelet/pods/9c/volumes/kubernetes.io~csi/pvc-1/mount ext4
            0:48 / /run/containerd/io.containerd.grpc.v1.cri/sandboxes/x/shm tmpfs
            0:49 / /run/netns/cni-1 nsfs
            0:50 / /run/user/1000 tmpfs
            0:51 / /run/user/1000/doc fuse.portal";
        let choice = chosen(&mounts(lines), "", &[], &[]);
        let admins = ["/", "/var/lib/docker", "/var/lib/docker/volumes", "/var/lib/docker/volumes/db/_data"];
        assert_eq!(points(&choice), paths(admins));
        let blind = ["/var/lib/docker", "/var/lib/kubelet"]
            .map(|thing| Blind { thing: thing.into(), why: "filesystems of containers".into() });
        assert_eq!(choice.blind, blind);
    }

    #[test]
    fn images_are_listed_as_blind_even_without_ro() {
        let lines = "8:1 / / ext4
            7:1 / /snap/core/1 squashfs
            0:40 / /snap/lxd/2 fuse.snapfuse
            0:41 / /tmp/.mount_Nextclabc fuse.Nextcloud-3.AppImage
            0:42 / /tmp/.mount_cursorXY fuse.cursor
            0:43 / /media/a fuse.squashfuse_ll
            11:0 / /media/cdrom iso9660
            7:2 / /composefs erofs
            0:44 / /home/u/nas fuse.sshfs";
        let choice = chosen(&mounts(lines), "", &[], &[]);
        assert_eq!(points(&choice), paths(["/", "/home/u/nas"]));
        assert_eq!(choice.blind.len(), 7);
        assert!(choice.blind.iter().all(|blind| blind.why == IMAGE));
    }

    #[test]
    fn a_filesystem_keeps_its_name_when_it_is_mounted_again() {
        // timeshift mounts the top of a btrfs filesystem for a while.
        let btrfs = "0:25 /@ / btrfs
            0:25 /@home /home btrfs
            0:25 / /run/timeshift/backup btrfs";
        assert_eq!(watched(btrfs), paths(["/"]));
        // systemd mounts in any order at boot.
        let fstab = "/dev/b /srv xfs defaults\n/srv /export none bind\n";
        for lines in ["8:2 / /srv xfs\n8:2 / /export xfs", "8:2 / /export xfs\n8:2 / /srv xfs"] {
            assert_eq!(points(&chosen(&mounts(lines), fstab, &[], &[])), paths(["/srv"]));
        }
        // PrivateTmp of the agent's own unit.
        assert_eq!(watched("0:30 / /tmp tmpfs\n0:30 /systemd-private-1/tmp /tmp tmpfs"), paths(["/tmp"]));
    }

    #[test]
    fn patterns_exclude_and_say_so() {
        let lines = "8:1 / / ext4
            8:2 / /mnt/a ext4
            8:3 / /mnt/a/b ext4
            8:4 / /mnt/c xfs
            0:9 / /home/u/nas fuse.sshfs";
        let of = |exclude: &[&str], types: &[&str]| points(&chosen(&mounts(lines), "", exclude, types));
        assert_eq!(of(&["/mnt/*"], &[]), paths(["/", "/home/u/nas"]));
        assert_eq!(of(&["/mnt/a"], &[]), paths(["/", "/mnt/c", "/home/u/nas"]), "and below");
        assert_eq!(of(&["/mnt/?"], &[]), paths(["/", "/mnt/a/b", "/home/u/nas"]));
        assert_eq!(of(&[], &["fuse.*", "xf?"]), paths(["/", "/mnt/a", "/mnt/a/b"]));
        assert_eq!(of(&["/srv/*"], &["ntfs"]).len(), 5, "a pattern may match nothing");
        let blind = chosen(&mounts(lines), "", &["/mnt/*"], &["fuse.*"]).blind;
        assert_eq!(blind[0].why, "excluded by exclude = \"/mnt/*\"");
        assert_eq!(blind[3].why, "excluded by exclude_type = \"fuse.*\"");
    }

    #[test]
    fn lines_of_fstab_without_a_mount_are_absent() {
        let fstab = "UUID=1 / ext4 defaults\n\
            UUID=2 /data ext4 defaults\n\
            LABEL=old /old/ xfs ro\n\
            /dev/u /usb ext4 noauto\n\
            /dev/n /n ext4 nofail\n\
            nas:/a /auto nfs x-systemd.automount\n\
            UUID=3 none swap sw\n\
            nas:/b /mnt/b nfs _netdev\n\
            nodev /dev/hugepages1G hugetlbfs pagesize=1G\n\
            /dev/sdz /srv ext4 defaults\n";
        let absent = |exclude: &[&str], types: &[&str]| {
            let choice = chosen(&mounts("8:1 / / ext4\n8:2 / /srv ext4"), fstab, exclude, types);
            choice.absent.into_iter().map(|line| line.point).collect::<Vec<_>>()
        };
        assert_eq!(absent(&[], &[]), paths(["/data", "/old", "/mnt/b"]));
        assert_eq!(absent(&["/mnt/*"], &["xfs"]), paths(["/data"]));
    }
}
