//! What a leaked token and local users do to alertd. Each attack is a loop in a thread of its own.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dogwatch_wire::{Batch, Event, EventKind, PROTOCOL, ServiceState, State, Transition};
use jiff::Timestamp;

use super::caller::{Door, become_user, head, status};

/// Requests of each attack by status; 0: no answer.
pub(super) type Answers = BTreeMap<(&'static str, u16), u64>;

/// Who attacks, and whom.
#[derive(Clone)]
pub(super) struct Attacker {
    /// `None`: as the user that runs the drill.
    pub(super) uid: Option<u32>,
    pub(super) door: Door,
    pub(super) token: Option<String>,
    /// Hosts with an alert from an agent that fires all the time.
    pub(super) agents: Vec<String>,
    /// The same, from a Prometheus.
    pub(super) posted: Vec<String>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) answers: Arc<Mutex<Answers>>,
    pub(super) number: Arc<AtomicU64>,
}

const PAUSE: Duration = Duration::from_millis(20);
const ALERTS_PATH: &str = "/api/v2/alerts";
/// Just under what a body may have.
const BODY: usize = 1_000_000;
/// Of one attacker: more than the share of an address.
const CONNECTIONS: usize = 1_500;
const SLOW_CONNECTIONS: usize = 200;
const HALF_SENT: usize = 40;

impl Attacker {
    /// Starts everything that fills alertd.
    pub(super) fn flood(&self) -> Vec<JoinHandle<()>> {
        vec![
            self.start("unique alerts", Self::unique_alerts),
            self.start("unique alerts", Self::unique_alerts),
            self.start("large texts", Self::large_texts),
            self.start("large bodies", Self::large_bodies),
            self.start("half-sent bodies", Self::half_sent_bodies),
            self.start("deep JSON", Self::deep_json),
            self.start("slow heads", Self::slow_heads),
            self.start("connections", Self::many_connections),
        ]
    }

    /// Starts what speaks for others.
    pub(super) fn pose(&self) -> Vec<JoinHandle<()>> {
        vec![
            self.start("others' alerts", Self::others_alerts),
            self.start("others' agents", Self::others_agents),
        ]
    }

    fn start(&self, name: &'static str, attack: fn(&Self, &'static str)) -> JoinHandle<()> {
        let this = self.clone();
        thread::spawn(move || {
            if let Some(uid) = this.uid {
                become_user(uid).expect("root can be anyone");
            }
            while !this.stop.load(Relaxed) {
                attack(&this, name);
                thread::sleep(PAUSE);
            }
        })
    }

    fn post(&self, name: &'static str, path: &str, body: &str) {
        let status = self.door.post(path, self.token.as_deref(), body.as_bytes());
        self.note(name, status);
    }

    fn note(&self, name: &'static str, status: Option<u16>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((name, status.unwrap_or(0))).or_default() += 1;
    }

    fn next(&self) -> u64 {
        self.number.fetch_add(1, Relaxed)
    }

    /// As many as a body holds.
    fn unique_alerts(&self, name: &'static str) {
        let mut body = "[".to_owned();
        while body.len() < BODY {
            let _ = write!(body, r#"{{"labels":{{"alertname":"u{}"}}}},"#, self.next());
        }
        body.pop();
        body.push(']');
        self.post(name, ALERTS_PATH, &body);
    }

    fn large_texts(&self, name: &'static str) {
        let large = "x".repeat(BODY / 3);
        let number = self.next();
        self.post(
            name,
            ALERTS_PATH,
            &format!(r#"[{{"labels":{{"alertname":"l{number}","big":"{large}"}},"annotations":{{"summary":"{large}"}}}}]"#),
        );
        let mut many = String::new();
        for label in 0..20_000 {
            let _ = write!(many, r#""l{label}":"{number}","#);
        }
        self.post(name, ALERTS_PATH, &format!(r#"[{{"labels":{{{many}"alertname":"m{number}"}}}}]"#));
        let mut padded = "[".to_owned();
        while padded.len() < BODY {
            let (number, text) = (self.next(), "x".repeat(8_000));
            let _ = write!(
                padded,
                r#"{{"labels":{{"alertname":"p{number}"}},"annotations":{{"summary":"{text}"}}}},"#
            );
        }
        padded.pop();
        padded.push(']');
        self.post(name, ALERTS_PATH, &padded);
    }

    fn large_bodies(&self, name: &'static str) {
        self.post(name, ALERTS_PATH, &"[".repeat(4 * BODY));
        let Ok(mut wire) = self.door.open() else { return self.note(name, None) };
        let _ = wire.write_all(head(ALERTS_PATH, self.token.as_deref(), usize::MAX >> 8).as_bytes());
        let _ = wire.write_all(&vec![b'['; BODY]);
        self.note(name, status(&mut *wire));
    }

    /// Held until alertd has had enough.
    fn half_sent_bodies(&self, name: &'static str) {
        let mut wires = Vec::new();
        for _ in 0..HALF_SENT {
            let Ok(mut wire) = self.door.open() else { continue };
            let _ = wire.write_all(head(ALERTS_PATH, self.token.as_deref(), BODY).as_bytes());
            let _ = wire.write_all(&vec![b'['; BODY - 1]);
            wires.push(wire);
        }
        for mut wire in wires {
            if self.stop.load(Relaxed) {
                return;
            }
            self.note(name, status(&mut *wire));
        }
    }

    fn deep_json(&self, name: &'static str) {
        self.post(name, ALERTS_PATH, &"[".repeat(BODY));
        self.post(name, ALERTS_PATH, &r#"{"a":"#.repeat(BODY / 5));
        self.post(name, "/v1/agent/batch", &format!(r#"{{"events":{}"#, "[".repeat(BODY)));
    }

    /// A byte each turn on each connection.
    fn slow_heads(&self, name: &'static str) {
        let mut wires: Vec<_> = (0..SLOW_CONNECTIONS).filter_map(|_| self.door.open().ok()).collect();
        for byte in head(ALERTS_PATH, self.token.as_deref(), 10).bytes() {
            wires.retain_mut(|wire| wire.write_all(&[byte]).is_ok());
            for _ in 0..10 {
                if self.stop.load(Relaxed) || wires.is_empty() {
                    return;
                }
                thread::sleep(PAUSE);
            }
        }
        self.note(name, None);
    }

    fn many_connections(&self, _: &'static str) {
        let wires: Vec<_> = (0..CONNECTIONS).filter_map(|_| self.door.open().ok()).collect();
        for _ in 0..100 {
            if self.stop.load(Relaxed) {
                return;
            }
            thread::sleep(PAUSE);
        }
        drop(wires);
    }

    /// The same labels, to fire and to resolve.
    fn others_alerts(&self, name: &'static str) {
        for ends in ["", r#","endsAt":"2020-01-01T00:00:00Z""#] {
            let mut body = "[".to_owned();
            for host in &self.posted {
                let _ = write!(body, r#"{{"labels":{{"alertname":"DiskFull","host":"{host}"}}{ends}}},"#);
            }
            for host in &self.agents {
                let _ = write!(
                    body,
                    r#"{{"labels":{{"alertname":"disk","service":"disk","host":"{host}"}}{ends}}},"#
                );
            }
            body.pop();
            body.push(']');
            self.post(name, ALERTS_PATH, &body);
        }
    }

    /// Says under the id of each agent that all is well, with a number far ahead.
    fn others_agents(&self, name: &'static str) {
        for host in &self.agents {
            let batch = all_is_well(host, 1_000_000 + self.next());
            self.post(name, "/v1/agent/batch", &serde_json::to_string(&batch).unwrap_or_default());
        }
    }
}

fn all_is_well(host: &str, seq: u64) -> Batch {
    let at = Timestamp::UNIX_EPOCH;
    let now = ServiceState {
        service: "disk".into(),
        state: State::Ok,
        since: at,
        flapping: false,
        summary: "all is well".into(),
        detail: String::new(),
        perfdata: String::new(),
        labels: [].into(),
        annotations: [].into(),
    };
    let kind = EventKind::Transition(Transition { from: State::Critical, now });
    Batch {
        protocol: PROTOCOL,
        agent: format!("id-{host}"),
        host: host.into(),
        epoch: "e1".into(),
        run: String::new(),
        boot: String::new(),
        sent_at: at,
        events: vec![Event { seq, at, kind }],
        heartbeat: None,
        states: None,
        states_part: None,
    }
}
