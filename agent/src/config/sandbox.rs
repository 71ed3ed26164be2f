//! What the unit of the agent forbids to plugins and handlers, as far as it can be known without
//! running them. A setuid program runs as usual when the admin tries it in a shell, and fails in
//! the agent.
//!
//! The unit is read as systemd does: the file of the highest directory, then its drop-ins, later
//! lines winning (systemd.unit(5), systemd.exec(5)).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The restrictions of a unit that a plugin may not expect.
#[expect(clippy::struct_excessive_bools, reason = "one for each directive of the unit")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    no_new_privileges: bool,
    /// `ProtectHome=yes` or `tmpfs`.
    hides_home: bool,
    private_tmp: bool,
    /// `ProtectSystem=strict`.
    read_only: bool,
    /// What stays writable.
    writable: Vec<PathBuf>,
    /// `DevicePolicy=closed` or `strict`, or `PrivateDevices=yes`.
    no_devices: bool,
    devices: Vec<PathBuf>,
}

/// A program that a plugin consists of or calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub setuid: bool,
    /// It has file capabilities (capabilities(7)).
    pub capable: bool,
}

impl Sandbox {
    /// Of the unit as it is installed; `None` if there is none.
    pub fn installed() -> Option<Self> {
        let unit = UNIT_DIRECTORIES.iter().find_map(|directory| {
            fs::read_to_string(Path::new(directory).join(UNIT)).ok().filter(|text| !text.is_empty())
        })?;
        let mut drop_ins = BTreeMap::new();
        // A file in /etc wins over one of the same name in /usr.
        for directory in UNIT_DIRECTORIES.iter().rev() {
            let entries = fs::read_dir(Path::new(directory).join(format!("{UNIT}.d"))).into_iter().flatten();
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "conf")
                    && let Some(name) = path.file_name()
                {
                    drop_ins.insert(name.to_owned(), fs::read_to_string(&path).unwrap_or_default());
                }
            }
        }
        Some(Self::parse([unit].into_iter().chain(drop_ins.into_values())))
    }

    fn parse(texts: impl Iterator<Item = String>) -> Self {
        let mut sandbox = Self::default();
        let yes = |value: &str| matches!(value, "yes" | "true" | "on" | "1");
        let mut device_policy = false;
        let mut private_devices = false;
        for text in texts {
            let mut section = "";
            for line in text.lines().map(str::trim) {
                if line.starts_with('[') {
                    section = if line == "[Service]" { "Service" } else { "" };
                    continue;
                }
                let Some((key, value)) = line.split_once('=').filter(|_| section == "Service") else {
                    continue;
                };
                let value = value.trim();
                let paths = |base: &str| -> Vec<PathBuf> {
                    let paths = value.split_whitespace().map(|path| path.trim_start_matches(['-', '+']));
                    paths.map(|path| Path::new(base).join(path)).collect()
                };
                match key.trim() {
                    "NoNewPrivileges" => sandbox.no_new_privileges = yes(value),
                    "ProtectHome" => sandbox.hides_home = yes(value) || value == "tmpfs",
                    "PrivateTmp" => sandbox.private_tmp = yes(value) || value == "disconnected",
                    "ProtectSystem" => sandbox.read_only = value == "strict",
                    "PrivateDevices" => private_devices = yes(value),
                    "DevicePolicy" => device_policy = matches!(value, "closed" | "strict"),
                    "DeviceAllow" if value.is_empty() => sandbox.devices.clear(),
                    "DeviceAllow" => sandbox.devices.extend(paths("/").into_iter().take(1)),
                    "ReadWritePaths" if value.is_empty() => sandbox.writable.clear(),
                    "ReadWritePaths" => sandbox.writable.extend(paths("/")),
                    "StateDirectory" => sandbox.writable.extend(paths("/var/lib")),
                    "RuntimeDirectory" => sandbox.writable.extend(paths("/run")),
                    "CacheDirectory" => sandbox.writable.extend(paths("/var/cache")),
                    "LogsDirectory" => sandbox.writable.extend(paths("/var/log")),
                    _ => {}
                }
            }
        }
        sandbox.no_devices = device_policy || private_devices;
        sandbox
    }

    /// What will not work of a command. `programs` are the files of its words.
    pub fn forbids(&self, argv: &[String], programs: &[Program]) -> Vec<String> {
        let privileged = programs.iter().filter(|program| self.no_new_privileges && program.is_privileged());
        let privileged = privileged.map(|program| {
            let what = if program.setuid { "is setuid or setgid" } else { "has file capabilities" };
            format!(
                "{} {what}, which NoNewPrivileges= of {UNIT} switches off{}",
                shown(program),
                instead(argv)
            )
        });
        let named = argv.iter().filter_map(|word| named_path(word));
        let places = named.filter_map(|path| {
            let place = self.forbidden_place(path)?;
            Some(format!("{} {place}", path.display()))
        });
        let written = written(argv).filter(|path| self.read_only && !self.is_writable(path)).map(|path| {
            let path = path.display();
            let own = self.writable.iter().find(|place| place.starts_with("/var/lib"));
            let own = own.map(|own| format!("use a file below {}, or ", own.display())).unwrap_or_default();
            format!("{path} cannot be written, because of ProtectSystem=strict of {UNIT}; {own}add ReadWritePaths=")
        });
        privileged.chain(places).chain(written).collect()
    }

    fn forbidden_place(&self, path: &Path) -> Option<String> {
        let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
        if self.hides_home && below(&["/home", "/root", "/run/user"]) {
            return Some(format!("is hidden by ProtectHome= of {UNIT}"));
        }
        if self.private_tmp && below(&["/tmp", "/var/tmp"]) {
            return Some(format!("is hidden by PrivateTmp= of {UNIT}"));
        }
        let device = self.no_devices && below(&["/dev"]) && !below(PSEUDO_DEVICES);
        let allowed = self.devices.iter().any(|allowed| path.starts_with(allowed));
        (device && !allowed)
            .then(|| format!("cannot be opened, because of DevicePolicy= of {UNIT}; add DeviceAllow="))
    }

    fn is_writable(&self, path: &Path) -> bool {
        ["/proc", "/sys", "/dev"].iter().any(|place| path.starts_with(place))
            || self.writable.iter().any(|place| path.starts_with(place))
            || (self.private_tmp && ["/tmp", "/var/tmp"].iter().any(|place| path.starts_with(place)))
    }
}

/// The files that a command runs, as far as its words tell: the program, one that it is known to
/// call, and programs among its arguments, as for `env` and `timeout`.
pub(super) fn programs(argv: &[String], find: impl Fn(&str) -> Option<PathBuf>) -> Vec<Program> {
    let name = argv.first().map(|word| word.rsplit('/').next().unwrap_or(word)).unwrap_or_default();
    let called = CALLED.iter().filter(|(plugin, _)| *plugin == name).map(|(_, called)| *called);
    let arguments = argv.iter().skip(1).map(String::as_str);
    let arguments = arguments.filter(|word| word.starts_with('/') || BECOME.contains(word));
    let words = argv.first().map(String::as_str).into_iter().chain(called).chain(arguments);
    words.filter_map(find).filter_map(|path| Program::read(&path)).collect()
}

impl Program {
    fn read(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let capable = rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64]).is_ok();
        Some(Self { path: path.to_owned(), setuid: metadata.mode() & 0o6000 != 0, capable })
    }

    fn is_privileged(&self) -> bool {
        self.setuid || self.capable
    }
}

fn shown(program: &Program) -> String {
    program.path.display().to_string()
}

/// What to do instead.
fn instead(argv: &[String]) -> &'static str {
    let name = argv.first().map(|word| word.rsplit('/').next().unwrap_or(word)).unwrap_or_default();
    match name {
        "check_ping" | "check_icmp" | "check_fping" => "; use kind = \"ping\", which needs no privileges",
        _ => "; if it needs them, relax the unit in a drop-in",
    }
}

/// `/dev/sda`, `--device=/dev/sda`.
fn named_path(word: &str) -> Option<&Path> {
    let path = word.split_once('=').map_or(word, |(_, value)| value);
    path.starts_with('/').then(|| Path::new(path))
}

/// The files that a known plugin writes.
fn written(argv: &[String]) -> impl Iterator<Item = &Path> {
    let name = argv.first().map(|word| word.rsplit('/').next().unwrap_or(word)).unwrap_or_default();
    let options = WRITES.iter().filter(move |(plugin, _)| *plugin == name).map(|(_, option)| *option);
    options.flat_map(|option| {
        argv.windows(2).filter(move |pair| pair[0] == option).map(|pair| Path::new(pair[1].as_str()))
    })
}

const UNIT: &str = "dogwatch.service";
/// The highest first.
const UNIT_DIRECTORIES: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Plugins and the privileged programs that they call.
const CALLED: [(&str, &str); 2] = [("check_ping", "ping"), ("check_fping", "fping")];
const BECOME: [&str; 4] = ["sudo", "su", "doas", "pkexec"];
/// Options that name a file to write.
const WRITES: [(&str, &str); 2] = [("check_log", "-O"), ("check_log", "--oldlog")];
/// Those that `DevicePolicy=closed` leaves (systemd.resource-control(5)).
const PSEUDO_DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/fd",
    "/dev/log",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit of the package, with a drop-in.
    fn sandbox(drop_in: &str) -> Sandbox {
        let unit = include_str!("../../../packaging/systemd/dogwatch.service").to_owned();
        Sandbox::parse([unit, drop_in.to_owned()].into_iter())
    }

    fn said(sandbox: &Sandbox, command: &str, programs: &[Program]) -> String {
        let argv: Vec<_> = command.split(' ').map(str::to_owned).collect();
        sandbox.forbids(&argv, programs).join("\n")
    }

    /// G6: `check_ping`, `check_dhcp`, `check_log`.
    #[test]
    fn what_the_packaged_unit_forbids_is_said() {
        let sandbox = sandbox("");
        let ping = Program { path: "/usr/bin/ping".into(), setuid: false, capable: true };
        let dhcp =
            Program { path: "/usr/lib/nagios/plugins/check_dhcp".into(), setuid: true, capable: false };
        for (command, programs, expected) in [
            (
                "check_ping -H db1",
                &[ping][..],
                "/usr/bin/ping has file capabilities, which NoNewPrivileges= of dogwatch.service switches off; use \
                 kind = \"ping\", which needs no privileges",
            ),
            (
                "check_dhcp -s 192.0.2.1",
                &[dhcp],
                "/usr/lib/nagios/plugins/check_dhcp is setuid or setgid, which NoNewPrivileges= of \
                 dogwatch.service switches off; if it needs them, relax the unit in a drop-in",
            ),
            (
                "check_log -F /var/log/syslog -O /tmp/old -q x",
                &[],
                "/tmp/old cannot be written, because of ProtectSystem=strict of dogwatch.service; use a file \
                 below /var/lib/dogwatch, or add ReadWritePaths=",
            ),
            (
                "check_ide_smart -d /dev/sda",
                &[],
                "/dev/sda cannot be opened, because of DevicePolicy= of dogwatch.service; add DeviceAllow=",
            ),
            ("check_log -F /var/log/syslog -O /var/lib/dogwatch/old -q x", &[], ""),
            ("check_file_age -f /home/me/x", &[], ""),
            ("check_tcp -H db1 -p 5432", &[Program::default()], ""),
            ("sh -c x --file=/dev/null", &[], ""),
        ] {
            assert_eq!(said(&sandbox, command, programs), expected, "{command}");
        }
    }

    #[test]
    fn a_drop_in_changes_what_is_forbidden() {
        let dhcp = Program { path: "/x/check_dhcp".into(), setuid: true, capable: false };
        let open = sandbox(
            "[Service]\nNoNewPrivileges=no\nReadWritePaths=-/srv/logs /tmp\nDeviceAllow=/dev/sda r\n",
        );
        assert_eq!(said(&open, "check_dhcp", std::slice::from_ref(&dhcp)), "");
        assert_eq!(said(&open, "check_log -O /srv/logs/old", &[]), "");
        assert_eq!(said(&open, "check_ide_smart -d /dev/sda", &[]), "");
        assert!(said(&open, "check_ide_smart -d /dev/sdb", &[]).starts_with("/dev/sdb cannot be opened"));
        let closed = sandbox("[Service]\nProtectHome=yes\nPrivateTmp=true\n[Unit]\nNoNewPrivileges=no\n");
        assert!(said(&closed, "check_dhcp", &[dhcp]).contains("is setuid"));
        let hidden = said(&closed, "/home/me/check --state=/tmp/x", &[]);
        assert_eq!(
            hidden,
            "/home/me/check is hidden by ProtectHome= of dogwatch.service\n\
             /tmp/x is hidden by PrivateTmp= of dogwatch.service"
        );
    }

    #[test]
    fn the_files_of_a_command_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("check_ping", 0o755), ("ping", 0o4755), ("env", 0o755), ("sudo", 0o4755)] {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let find = |word: &str| Some(dir.path().join(word)).filter(|path| path.exists());
        let setuid = |command: &str| {
            let argv: Vec<_> = command.split(' ').map(str::to_owned).collect();
            let found = programs(&argv, find).into_iter().filter(|program| program.setuid);
            let names = found.map(|program| program.path.file_name().unwrap().to_string_lossy().into_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(setuid("check_ping -H ping"), "ping");
        assert_eq!(setuid("env ping"), "", "a word without a slash may be anything");
        assert_eq!(setuid("env sudo x"), "sudo");
        assert_eq!(setuid(&format!("env {}/ping", dir.path().display())), "ping");
    }
}
