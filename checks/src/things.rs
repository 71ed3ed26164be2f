//! What the things of a kind are called, so that a name which none can have is an error.

/// What a check has services for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Things {
    /// A single service, named like the check.
    None,
    /// Names without a rule: sensors, interfaces, pools.
    Names,
    /// Absolute paths.
    Paths,
    /// Names of systemd units.
    Units,
    /// Block devices as the kernel names them, without `/dev/`.
    Devices,
}

impl Things {
    pub fn exist(self) -> bool {
        self != Self::None
    }

    /// What was meant by a pattern that matches no thing, whatever the host has.
    pub fn meant(self, pattern: &str) -> Option<String> {
        let starts_open = pattern.starts_with(['*', '?']);
        match self {
            Self::None | Self::Names => None,
            Self::Paths if !pattern.starts_with('/') && !starts_open => Some(format!("/{pattern}")),
            Self::Paths => {
                let mut path = pattern.to_owned();
                while path.contains("//") {
                    path = path.replace("//", "/");
                }
                if path.len() > 1 && path.ends_with('/') {
                    path.pop();
                }
                (path != pattern).then_some(path)
            }
            Self::Units => {
                let is_whole = pattern.contains(['*', '?']) || has_unit_type(pattern);
                (!is_whole).then(|| format!("{pattern}.service"))
            }
            Self::Devices => pattern.strip_prefix("/dev/").map(str::to_owned),
        }
    }
}

/// `nginx.service` is a unit, `php8.2-fpm` is not the name of one.
pub(crate) fn has_unit_type(name: &str) -> bool {
    UNIT_TYPES.iter().any(|suffix| name.ends_with(suffix))
}

const UNIT_TYPES: &[&str] = &[
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_can_match_nothing_says_what_was_meant() {
        for (things, pattern, meant) in [
            (Things::Paths, "data", Some("/data")),
            (Things::Paths, "srv/*", Some("/srv/*")),
            (Things::Paths, "/data/", Some("/data")),
            (Things::Paths, "/srv//x", Some("/srv/x")),
            (Things::Paths, "/", None),
            (Things::Paths, "/data", None),
            (Things::Paths, "*data*", None),
            (Things::Units, "nginx", Some("nginx.service")),
            (Things::Units, "php8.2-fpm", Some("php8.2-fpm.service")),
            (Things::Units, "backup.timer", None),
            (Things::Units, "app@*", None),
            (Things::Devices, "/dev/sda", Some("sda")),
            (Things::Devices, "sd*", None),
            (Things::Names, "data", None),
        ] {
            assert_eq!(things.meant(pattern).as_deref(), meant, "{things:?} {pattern}");
        }
    }
}
