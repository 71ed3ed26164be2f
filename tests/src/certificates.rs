//! A private authority and a server certificate for loopback, made by `openssl`, good for two days.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::debian_program;

pub struct Certificates {
    /// What a client must trust.
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// For `localhost` and `127.0.0.1`, in `dir`; `None` after a loud skip. RSA, for OpenSMTPD's key process knows no other.
    ///
    /// # Panics
    /// If `openssl` fails.
    pub fn make(dir: &Path) -> Option<Self> {
        let openssl = debian_program("openssl", "openssl")?;
        let file = |name: &str| dir.join(name);
        let run = |line: &str| {
            let output = Command::new(&openssl).args(line.split(' ')).current_dir(dir).output();
            let output = output.expect("openssl runs");
            assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=dogwatch-test-authority -keyout authority.key -out authority.pem",
        );
        run("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr \
             -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .as_str());
        run(
            "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -copy_extensions copy -out server.pem",
        );
        Some(Self {
            authority: file("authority.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
        })
    }
}
