//! A stand-in for PagerDuty's Events API v2. It accepts and keeps only events that follow the rules
//! of the API.
//!
//! Written from the API's documentation, apart from the code under test: required fields, allowed
//! values, limits.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

/// The integration key that is accepted: 32 characters.
pub const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

pub struct PagerDuty {
    pub url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    accepted: Vec<Value>,
    refused: Vec<String>,
    /// Answered to the next events before one is looked at.
    instead: VecDeque<u16>,
    /// Answered to all events since, in order.
    answered: Vec<u16>,
}

impl PagerDuty {
    /// # Panics
    /// If loopback has no free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url: format!("http://{address}/v2/enqueue"), seen }
    }

    /// Events that were taken, in order.
    pub fn accepted(&self) -> Vec<Value> {
        lock(&self.seen).accepted.clone()
    }

    /// Why events were refused.
    pub fn refused(&self) -> Vec<String> {
        lock(&self.seen).refused.clone()
    }

    /// Answers 503 to the next `events` events.
    pub fn be_busy_for(&self, events: u32) {
        self.answer_next(&vec![503; events as usize]);
    }

    /// Answers these to the next events, whatever they say.
    pub fn answer_next(&self, statuses: &[u16]) {
        lock(&self.seen).instead.extend(statuses);
    }

    /// What all events were answered, in order.
    pub fn answered(&self) -> Vec<u16> {
        lock(&self.seen).answered.clone()
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, seen: &Mutex<Seen>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let answer = match request(&stream) {
        Some((line, body)) => answer(&line, &body, &mut lock(seen)),
        None => (400, "not HTTP".to_owned()),
    };
    let (status, body) = answer;
    let _ = write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// The request line and the body.
fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first.trim().to_owned(), body))
}

fn answer(line: &str, body: &[u8], seen: &mut Seen) -> (u16, String) {
    let answer = judged(line, body, seen);
    seen.answered.push(answer.0);
    answer
}

fn judged(line: &str, body: &[u8], seen: &mut Seen) -> (u16, String) {
    if let Some(status) = seen.instead.pop_front() {
        return (status, "{\"status\":\"as told\"}".into());
    }
    let checked =
        if line == "POST /v2/enqueue HTTP/1.1" { check(body) } else { Err(format!("request {line:?}")) };
    match checked {
        Ok(event) => {
            let reply = serde_json::json!({
                "status": "success", "message": "Event processed", "dedup_key": event["dedup_key"],
            });
            seen.accepted.push(event);
            (202, reply.to_string())
        }
        Err(why) => {
            seen.refused.push(why.clone());
            (400, serde_json::json!({ "status": "invalid event", "errors": [why] }).to_string())
        }
    }
}

/// The rules of the Events API v2.
fn check(body: &[u8]) -> Result<Value, String> {
    if body.len() > 512_000 {
        return Err(format!("{} bytes", body.len()));
    }
    let event: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let text = |value: &Value, name: &str, most: usize| -> Result<String, String> {
        let text = value[name].as_str().ok_or_else(|| format!("{name} is missing"))?;
        if text.is_empty() || text.chars().count() > most {
            return Err(format!("{name} has {} characters", text.chars().count()));
        }
        Ok(text.to_owned())
    };
    if text(&event, "routing_key", 32)? != ROUTING_KEY {
        return Err("routing_key is not this integration's".into());
    }
    text(&event, "dedup_key", 255)?;
    match text(&event, "event_action", 20)?.as_str() {
        "trigger" => {
            let payload = &event["payload"];
            text(payload, "summary", 1_024)?;
            text(payload, "source", 1_024)?;
            let severity = text(payload, "severity", 20)?;
            if !["critical", "error", "warning", "info"].contains(&severity.as_str()) {
                return Err(format!("severity {severity:?}"));
            }
            for link in event["links"].as_array().into_iter().flatten() {
                text(link, "href", 4_096)?;
            }
        }
        "acknowledge" | "resolve" => {}
        other => return Err(format!("event_action {other:?}")),
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_breaks_the_apis_rules_is_refused() {
        let good = json!({
            "routing_key": ROUTING_KEY, "event_action": "trigger", "dedup_key": "k",
            "payload": {"summary": "s", "source": "h", "severity": "critical"},
        });
        let checked = |event: &Value| check(event.to_string().as_bytes());
        checked(&good).unwrap();
        for (path, bad) in [
            ("/routing_key", json!("other")),
            ("/event_action", json!("page")),
            ("/dedup_key", json!("k".repeat(256))),
            ("/payload/summary", json!("s".repeat(1_025))),
            ("/payload/severity", json!("CRITICAL")),
            ("/payload/source", Value::Null),
        ] {
            let mut event = good.clone();
            *event.pointer_mut(path).unwrap() = bad;
            assert!(checked(&event).is_err(), "{path}");
        }
    }
}
