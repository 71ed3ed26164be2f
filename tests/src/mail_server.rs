//! Real mail servers on loopback that deliver into a maildir.
//!
//! [`MailServer::opensmtpd`] is Debian's OpenSMTPD, in the clear. It runs in mount and process
//! namespaces of its own, because its spool and socket paths are fixed at compile time: no other
//! OpenSMTPD is disturbed, and all its processes end with the one that we end. Needs root. (Its TLS
//! is of no use here: 6.8.0 in Debian 12 fails every handshake with OpenSSL 3, "EVP lib", its key
//! process being an engine of the old kind.)
//!
//! [`MailServer::aiosmtpd`] is Debian's aiosmtpd, as anyone: in the clear, with STARTTLS and login,
//! and with TLS from the first byte and login.

use std::{
    env, fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    certificates::Certificates,
    process::{Process, debian_program, free_port, root_or_skip, skip, wait_for},
};

pub struct MailServer {
    process: Process,
    /// In the clear, no login.
    pub port: u16,
    maildir: PathBuf,
}

/// The ports of [`MailServer::aiosmtpd`] that need a login.
pub struct SafePorts {
    pub starttls: u16,
    pub implicit: u16,
    /// What a client must trust.
    pub authority: PathBuf,
}

/// Who may log in.
pub const USERNAME: &str = "dogwatch";
pub const PASSWORD: &str = "correct horse battery staple";

/// A mail as it arrived.
#[derive(Debug, Clone)]
pub struct Mail {
    pub text: String,
}

impl Mail {
    /// A header's value, unfolded.
    ///
    /// # Panics
    /// If there is none.
    pub fn header(&self, name: &str) -> String {
        let head =
            self.text.split("\n\n").next().unwrap_or_default().replace("\n ", " ").replace("\n\t", " ");
        let prefix = format!("{}:", name.to_lowercase());
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&prefix));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{}", self.text));
        line[prefix.len()..].trim().to_owned()
    }
}

impl MailServer {
    /// Starts the best server that this user may start, with its files in `dir`; `None` after a
    /// loud skip.
    pub fn start(dir: &Path) -> Option<Self> {
        if rustix::process::geteuid().is_root() {
            Self::opensmtpd(dir)
        } else {
            Self::aiosmtpd(dir).map(|(server, _)| server)
        }
    }

    /// OpenSMTPD with its files in `dir`; `None` after a loud skip.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn opensmtpd(dir: &Path) -> Option<Self> {
        let smtpd = debian_program("smtpd", "opensmtpd")?;
        if !root_or_skip("OpenSMTPD") {
            return None;
        }
        let port = free_port();
        let maildir = dir.join("maildir");
        fs::create_dir_all(&maildir).expect("the test folder is writable");
        for folder in [dir, &maildir] {
            // The user `nobody` writes the email.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        chown(&maildir, Some(NOBODY), Some(NOBODY)).expect("root may");
        let config = dir.join("smtpd.conf");
        fs::write(&config, opensmtpd_config(&maildir, port)).expect("the test folder is writable");
        let script = format!(
            "mount -t tmpfs tmpfs /var/spool && mkdir -m 711 /var/spool/smtpd && mount -t tmpfs tmpfs /run && \
             exec {} -d -f {}",
            smtpd.display(),
            config.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script]);
        let process = Process::start("smtpd", &mut command, dir);
        Some(Self { process, port, maildir }.once_listening(&[port]))
    }

    /// aiosmtpd with its files in `dir`; `None` after a loud skip.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn aiosmtpd(dir: &Path) -> Option<(Self, SafePorts)> {
        let python = Path::new("/usr/bin/python3");
        if !Path::new("/usr/lib/python3/dist-packages/aiosmtpd").is_dir() {
            skip("aiosmtpd is not installed (Debian package python3-aiosmtpd)");
            return None;
        }
        let certificates = Certificates::make(dir)?;
        let ports = [free_port(), free_port(), free_port()];
        let maildir = dir.join("maildir");
        let script = dir.join("smtp_server.py");
        fs::write(&script, include_str!("smtp_server.py")).expect("the test folder is writable");
        let mut command = Command::new(python);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).arg(script);
        command.args([&maildir, &certificates.certificate, &certificates.key]).args([USERNAME, PASSWORD]);
        command.args(ports.map(|port| port.to_string()));
        let process = Process::start("aiosmtpd", &mut command, dir);
        let [port, starttls, implicit] = ports;
        let server = Self { process, port, maildir }.once_listening(&ports);
        Some((server, SafePorts { starttls, implicit, authority: certificates.authority }))
    }

    fn once_listening(self, ports: &[u16]) -> Self {
        wait_for(&format!("the mail server to listen\n{}", self.log()), || {
            ports.iter().all(|&port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        self
    }

    /// What has arrived, oldest first.
    ///
    /// # Panics
    /// If a mail cannot be read.
    pub fn mails(&self) -> Vec<Mail> {
        let Ok(entries) = fs::read_dir(self.maildir.join("new")) else { return Vec::new() };
        let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        files.sort_by_key(|path| fs::metadata(path).and_then(|found| found.modified()).ok());
        let read = |path: PathBuf| fs::read_to_string(path).expect("root may read it").replace("\r\n", "\n");
        files.into_iter().map(|path| Mail { text: read(path) }).collect()
    }

    /// Where it puts what has arrived.
    pub fn maildir(&self) -> &Path {
        &self.maildir
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// uid and gid of `nobody` in Debian.
const NOBODY: u32 = 65_534;

fn opensmtpd_config(maildir: &Path, port: u16) -> String {
    format!(
        "table everyone {{ \"@\" = \"nobody\" }}\n\
         listen on 127.0.0.1 port {port}\n\
         action \"keep\" maildir \"{}\" virtual <everyone>\n\
         match from any for any action \"keep\"\n",
        maildir.display()
    )
}
