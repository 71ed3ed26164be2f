//! Debian's ngIRCd on loopback, plain and with TLS, and a person in its channel.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    certificates::Certificates,
    process::{PATIENCE, Process, debian_program, free_port, holds_within, wait_for},
};

pub struct IrcServer {
    process: Process,
    pub port: u16,
    pub tls_port: Option<u16>,
}

impl IrcServer {
    /// ngIRCd with its files in `dir`, with TLS if there are certificates; `None` after a loud
    /// skip.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(dir: &Path, certificates: Option<&Certificates>) -> Option<Self> {
        debian_program("ngircd", "ngircd")?;
        let port = free_port();
        let tls_port = certificates.map(|_| free_port());
        let mut config = format!(
            "[Global]\nName = irc.test\nInfo = dogwatch test\nListen = 127.0.0.1\nPorts = {port}\nMotdPhrase = hello\n\
             {}\
             [Limits]\nMaxConnectionsIP = 0\nMaxNickLength = 30\nPingTimeout = 120\n\
             [Options]\nDNS = no\nIdent = no\nPAM = no\nSyslogFacility = local1\n",
            if rustix::process::geteuid().is_root() {
                "ServerUID = nobody\nServerGID = nogroup\n"
            } else {
                ""
            }
        );
        if let (Some(certificates), Some(port)) = (certificates, tls_port) {
            let (certificate, key) = (certificates.certificate.display(), certificates.key.display());
            let _ = write!(config, "[SSL]\nPorts = {port}\nCertFile = {certificate}\nKeyFile = {key}\n");
            // The server reads them as the user `nobody`; it is a test key.
            for path in [&certificates.certificate, &certificates.key] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("it is ours");
            }
        }
        let path = dir.join("ngircd.conf");
        fs::write(&path, config).expect("the test folder is writable");
        Some(Self::run(dir, port, tls_port))
    }

    /// On the ports of before.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start_again(mut self, dir: &Path) -> Self {
        self.process.kill();
        Self::run(dir, self.port, self.tls_port)
    }

    fn run(dir: &Path, port: u16, tls_port: Option<u16>) -> Self {
        let ngircd = debian_program("ngircd", "ngircd").expect("it was there a moment ago");
        let mut command = Command::new(ngircd);
        command.arg("--nodaemon").arg("--config").arg(dir.join("ngircd.conf"));
        let process = Process::start("ngircd", &mut command, dir);
        let server = Self { process, port, tls_port };
        wait_for(&format!("ngircd to listen\n{}", server.process.log()), || {
            [Some(port), tls_port]
                .into_iter()
                .flatten()
                .all(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        server
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// A person in a channel. Keeps all lines.
pub struct Person {
    stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    channel: String,
}

impl Person {
    /// # Panics
    /// If the server does not let them in.
    pub fn join(port: u16, nick: &str, channel: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut person = Self {
            stream: stream.try_clone().expect("a descriptor"),
            heard: Arc::clone(&heard),
            channel: channel.into(),
        };
        let mut answering = stream.try_clone().expect("a descriptor");
        // Ends with the connection.
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let Some(token) = line.strip_prefix("PING ") {
                    let _ = write!(answering, "PONG {token}\r\n");
                }
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        person.send(&format!("NICK {nick}\r\nUSER {nick} 0 * :a person"));
        wait_for("the welcome", || person.heard("").iter().any(|line| line.contains(" 001 ")));
        person.send(&format!("JOIN {channel}"));
        wait_for("the channel", || person.heard("").iter().any(|line| line.contains(" 366 ")));
        person
    }

    /// Sends a line as it stands.
    pub fn send(&mut self, line: &str) {
        // At once, as real clients do.
        let _ = self.stream.write_all(format!("{line}\r\n").as_bytes());
    }

    /// Says something in the channel.
    pub fn say(&mut self, text: &str) {
        let line = format!("PRIVMSG {} :{text}", self.channel);
        self.send(&line);
    }

    /// Lines that hold `part`.
    pub fn heard(&self, part: &str) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// # Panics
    /// If it is not said in time.
    pub fn wait_to_hear(&self, part: &str) {
        let heard = holds_within(PATIENCE, || !self.heard(part).is_empty());
        assert!(heard, "{part:?} is not said in the channel; heard {:#?}", self.heard(""));
    }
}
