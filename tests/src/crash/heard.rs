//! Received notifications, counted by their id, which is the same for every attempt.

use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::mail_server::Mail;

/// Shared by all servers.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Hash of its text, by id.
    words: HashMap<String, u64>,
    /// The id of each incident's problem or recovery notification, by incident and kind.
    meanings: HashMap<(u64, String), String>,
    /// Number of different notifications, by host and kind.
    told: HashMap<(String, String), usize>,
    arrived: usize,
    repeated: usize,
    faults: Vec<String>,
}

/// One notification as a receiver gets it.
struct Arrival {
    id: String,
    incident: u64,
    host: String,
    /// `problem`, `recovery`.
    kind: String,
    words: u64,
}

impl Heard {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, arrival: Arrival) {
        let Arrival { id, incident, host, kind, words } = arrival;
        let mut inner = self.inner();
        inner.arrived += 1;
        match inner.words.insert(id.clone(), words) {
            None => *inner.told.entry((host, kind.clone())).or_default() += 1,
            Some(before) => {
                inner.repeated += 1;
                if before != words {
                    inner.faults.push(format!("{id} came again with other words"));
                }
            }
        }
        let before = inner.meanings.entry((incident, kind.clone())).or_insert_with(|| id.clone()).clone();
        if before != id {
            inner.faults.push(format!("the {kind} of #{incident} was told under two ids: {before}, {id}"));
        }
    }

    fn complain(&self, fault: String) {
        self.inner().faults.push(fault);
    }

    /// Number of different notifications of this kind for this host.
    pub fn count(&self, host: &str, kind: &str) -> usize {
        self.inner().told.get(&(host.to_owned(), kind.to_owned())).copied().unwrap_or(0)
    }

    /// All notifications, with repeats.
    pub fn arrived(&self) -> usize {
        self.inner().arrived
    }

    /// Notifications repeated under the same id.
    pub fn repeated(&self) -> usize {
        self.inner().repeated
    }

    /// One meaning under two ids, or one id with two meanings.
    pub fn faults(&self) -> Vec<String> {
        self.inner().faults.clone()
    }

    /// Listens for webhooks; returns the port.
    ///
    /// # Errors
    /// If loopback has no free port.
    pub fn listen(&self) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let heard = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                thread::spawn(move || heard.serve(&stream));
            }
        });
        Ok(port)
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut id, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if let Some(value) = line.strip_prefix("x-dogwatch-id:") {
                    value.trim().clone_into(&mut id);
                }
            }
            let mut bytes = vec![0; length];
            // Half a body: the sender was killed, and the request was not accepted.
            reader.read_exact(&mut bytes).ok()?;
            match serde_json::from_slice(&bytes).ok().and_then(|body| posted(&body)) {
                Some(arrival) if arrival.id == id => self.take(arrival),
                _ => self.complain(format!(
                    "no notification, or not the one of its header: {}",
                    String::from_utf8_lossy(&bytes)
                )),
            }
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
        }
    }

    /// Reads and removes emails in a maildir until the directory is gone.
    pub fn watch(&self, maildir: &Path) {
        let (heard, new) = (self.clone(), maildir.join("new"));
        thread::spawn(move || {
            // The server creates the directory with the first email.
            while new.parent().is_some_and(Path::exists) || !new.exists() {
                let mails = fs::read_dir(&new).into_iter().flatten().filter_map(Result::ok);
                for path in mails.map(|entry| entry.path()) {
                    heard.take_mail(&path);
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
    }

    fn take_mail(&self, path: &PathBuf) {
        let Ok(text) = fs::read_to_string(path) else { return };
        let _ = fs::remove_file(path);
        match mailed(&Mail { text: text.replace("\r\n", "\n") }) {
            Some(arrival) => self.take(arrival),
            None => self.complain(format!("no notification: {text}")),
        }
    }
}

fn posted(body: &Value) -> Option<Arrival> {
    Some(Arrival {
        id: body["id"].as_str()?.to_owned(),
        incident: body["incident"].as_u64()?,
        host: body["group"]["host"].as_str()?.to_owned(),
        kind: body["kind"].as_str()?.to_owned(),
        words: hash(&body.to_string()),
    })
}

/// `[#12] CRITICAL web1/disk: …`, without what the server adds to the text.
fn mailed(mail: &Mail) -> Option<Arrival> {
    let subject = mail.header("Subject");
    let host = subject.split_whitespace().nth(2)?.split_once('/')?.0.to_owned();
    let well = mail.header("X-Dogwatch-State") == "OK";
    let words: Vec<_> = mail.text.lines().filter(|line| !line.starts_with("X-Peer:")).collect();
    Some(Arrival {
        id: mail.header("X-Dogwatch-Id"),
        incident: mail.header("X-Dogwatch-Incident").parse().ok()?,
        host,
        kind: if well { "recovery" } else { "problem" }.to_owned(),
        words: hash(&words.join("\n")),
    })
}

fn hash(words: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    hasher.finish()
}
