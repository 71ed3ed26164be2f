//! Parses `/etc/fstab` (fstab(5), systemd.mount(5)).

use std::path::{Path, PathBuf};

use super::mountinfo::{shown, unescape};

/// A line that mounts a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// `UUID=…`, `/dev/sda1`, `server:/export`.
    pub(crate) source: String,
    pub(crate) point: PathBuf,
    pub(crate) fs_type: String,
    options: Vec<String>,
}

impl Line {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }

    /// The host is incomplete without it.
    pub(crate) fn must_be_mounted(&self) -> bool {
        let optional = ["noauto", "nofail", "x-systemd.automount", "comment=systemd.automount"];
        !optional.iter().any(|option| self.has(option))
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.has("ro")
    }

    /// Mounted without anyone's help, and writable.
    pub(crate) fn must_be_writable(&self) -> bool {
        !self.has("noauto") && !self.is_read_only()
    }
}

/// All lines with a mount point. Swap has none. A malformed line is skipped.
pub(crate) fn parse(text: &str) -> Vec<Line> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut fields = line.split_whitespace();
    let source = fields.next().filter(|source| !source.starts_with('#'))?;
    let (point, fs_type) = (unescape(fields.next()?), fields.next()?);
    let point = Path::new(&point);
    if !point.is_absolute() || fs_type == "swap" || fs_type == "ignore" {
        return None;
    }
    let options = fields.next().unwrap_or("defaults").split(',').map(str::to_owned).collect();
    // Without a slash at the end.
    let point = point.components().collect();
    Some(Line { source: shown(source), point, fs_type: fs_type.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_say_what_must_be_mounted_and_writable() {
        let lines = parse(
            "# comment\n\
             UUID=1 / ext4 errors=remount-ro 0 1\n\
             LABEL=srv /srv/ xfs ro,noatime 0 2\n\
             \n\
             /dev/c /a\\040b\text4\n\
             UUID=2 none swap sw 0 0\n\
             /swapfile swap swap defaults 0 0\n\
             /dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n\
             nas:/b /backup nfs x-systemd.automount,_netdev 0 0\n\
             /dev/usb /usb ext4 nofail,x-systemd.device-timeout=5\n\
             broken\n",
        );
        let shown: Vec<_> = lines
            .iter()
            .map(|line| (line.point.to_str().unwrap(), line.must_be_mounted(), line.must_be_writable()))
            .collect();
        assert_eq!(
            shown,
            [
                ("/", true, true),
                ("/srv", true, false),
                ("/a b", true, true),
                ("/media/cdrom0", false, false),
                ("/backup", false, true),
                ("/usb", false, true),
            ]
        );
        assert_eq!(lines[1].source, "LABEL=srv");
    }

    proptest! {
        #[test]
        fn any_text_can_be_parsed(text in "(\\PC|\\\\[0-7]{1,3}|[ \t]|#|/|,|\\n){0,60}") {
            parse(&text);
        }
    }
}
