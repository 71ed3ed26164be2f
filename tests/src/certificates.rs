//! A private CA and a server certificate for loopback, made with `openssl`, valid for two days.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::debian_program;

pub struct Certificates {
    openssl: PathBuf,
    /// What a client must trust.
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// For `localhost` and `127.0.0.1`, in `dir`; `None` after a loud skip. RSA, for OpenSMTPD's
    /// key process knows no other.
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
            openssl: openssl.clone(),
            authority: file("authority.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
        })
    }

    /// A certificate of the same authority for the same key and names that expired in 2020.
    ///
    /// # Panics
    /// If `openssl` fails.
    pub fn expired(&self) -> PathBuf {
        let dir = self.key.parent().expect("it lies in a folder");
        let config = "[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\nnew_certs_dir = .\ndefault_md = sha256\n\
                      rand_serial = yes\ncopy_extensions = copy\npolicy = any\n[any]\ncommonName = supplied\n";
        fs::write(dir.join("ca.cnf"), config).expect("the test folder is writable");
        fs::write(dir.join("index.txt"), "").expect("the test folder is writable");
        let line = "ca -batch -config ca.cnf -in server.csr -out expired.pem -notext -keyfile authority.key \
                    -cert authority.pem -startdate 20200101000000Z -enddate 20200102000000Z";
        let output = Command::new(&self.openssl).args(line.split_whitespace()).current_dir(dir).output();
        let output = output.expect("openssl runs");
        assert!(output.status.success(), "openssl ca: {}", String::from_utf8_lossy(&output.stderr));
        dir.join("expired.pem")
    }
}
