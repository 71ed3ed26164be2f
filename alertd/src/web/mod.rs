//! The web server behind the links in emails: it shows an incident and acknowledges it when a
//! person presses the button.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /ack/TOKEN` | shows the problem and one button; changes nothing, because mail scanners follow links |
//! | `POST /ack/TOKEN` | acknowledges, once per link |
//! | `GET /open/TOKEN` | lists the open incidents of a receiver, with links to acknowledge; for digests |
//! | anything else | 404 |
//!
//! Anyone who has the token ([`link`]) may acknowledge its incident, or those that its receiver was
//! notified of. There are no cookies, scripts, referrers or caching.
//!
//! Strangers can reach this server, within [`bounds::ALERTD_WEB`]. It accepts at most
//! [`GUESSES_A_SECOND`] wrong links per second. TLS is left to the reverse proxy.

pub mod link;
pub(crate) mod links;
mod page;

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Path as Segment, State},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use dogwatch_alertd_core::Refused;
use dogwatch_daemon::{bounds, secret::SecretFile, tcp_http};
use dogwatch_wire::ctl;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::tz::TimeZone;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub use self::links::{Links, MailLink};

use self::{
    link::{BadLink, OpenLink},
    links::make_key,
};
use crate::{clock, config::Web, engine::Input};

const GUESSES_A_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// A list must go through all incidents.
const LISTS_A_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();
const PATIENCE: Duration = Duration::from_secs(15);

/// The running web server.
pub struct Served {
    web: Web,
    task: JoinHandle<()>,
}

impl Served {
    /// Starts the server; creates the key if there is none.
    ///
    /// # Errors
    /// A message for people that says what to do.
    pub fn open(web: Web, inputs: mpsc::Sender<Input>) -> Result<Self, String> {
        let listener = tcp_http::bind(web.listen);
        let listener = listener.map_err(|error| {
            format!("cannot listen on {}: {error}; change [alertd.web] listen", web.listen)
        })?;
        let key = web.key_file.display();
        make_key(&web.key_file)
            .map_err(|error| format!("cannot create the key for email links, {key}: {error}"))?;
        let served = web.clone();
        let task = tokio::spawn(async move {
            serve(listener, &served, inputs).await;
        });
        Ok(Self { web, task })
    }

    /// Applies a new config. If the new server cannot start, the old one keeps running, unless both
    /// use the same address.
    ///
    /// # Errors
    /// Why the new server did not start; the first value is the server that is running now.
    pub async fn replace(
        old: Option<Self>,
        new: Option<Web>,
        inputs: &mpsc::Sender<Input>,
    ) -> (Option<Self>, Result<(), String>) {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) if old.web == new => return (Some(old), Ok(())),
            (None, None) => return (None, Ok(())),
            (Some(old), None) => {
                old.close().await;
                return (None, Ok(()));
            }
            (old, Some(new)) => (old, new),
        };
        let same_address = old.as_ref().is_some_and(|old| old.web.listen == new.listen);
        let kept = match old {
            // The address must be free for the new server.
            Some(old) if same_address => {
                old.close().await;
                None
            }
            old => old,
        };
        match Self::open(new, inputs.clone()) {
            Ok(served) => {
                if let Some(old) = kept {
                    old.close().await;
                }
                (Some(served), Ok(()))
            }
            Err(words) => (kept, Err(words)),
        }
    }

    async fn close(self) {
        self.task.abort();
        // The listener is closed when the task has ended.
        let _ = self.task.await;
    }
}

#[derive(Clone)]
struct Site {
    inputs: mpsc::Sender<Input>,
    keys: SecretFile,
    zone: TimeZone,
    limit: Arc<DefaultDirectRateLimiter>,
    lists: Arc<DefaultDirectRateLimiter>,
}

/// Serves until dropped.
async fn serve(listener: TcpListener, web: &Web, inputs: mpsc::Sender<Input>) {
    let site = Site {
        inputs,
        keys: SecretFile::new(web.key_file.clone()),
        zone: TimeZone::system(),
        limit: Arc::new(RateLimiter::direct(Quota::per_second(GUESSES_A_SECOND))),
        lists: Arc::new(RateLimiter::direct(Quota::per_second(LISTS_A_SECOND))),
    };
    let router = Router::new()
        .route("/ack/{token}", get(ask).post(acknowledge))
        .route("/open/{token}", get(list))
        .fallback(async || {
            answer(StatusCode::NOT_FOUND, page::said("Not found", "This page does not exist."))
        })
        .with_state(site);
    tcp_http::serve(listener, None, router, bounds::ALERTD_WEB, |_| {}).await;
}

/// The address of a connection, usually the reverse proxy's. Forwarding headers are ignored because
/// anybody could send them.
type Came = ConnectInfo<SocketAddr>;

async fn ask(State(site): State<Site>, from: Came, Segment(token): Segment<String>) -> Response {
    site.handle(&token, from, false).await
}

async fn acknowledge(State(site): State<Site>, from: Came, Segment(token): Segment<String>) -> Response {
    site.handle(&token, from, true).await
}

async fn list(State(site): State<Site>, Segment(token): Segment<String>) -> Response {
    site.list(&token).await
}

impl Site {
    fn keys(&self) -> Option<Vec<String>> {
        self.keys.lines().map_err(|error| tracing::error!("cannot verify links: {error}")).ok()
    }

    /// The answer to a bad link.
    fn turn_away(&self, bad: BadLink) -> Response {
        match bad {
            BadLink::Expired => {
                let words = "This link has expired. Open the link in a newer email, or run alertctl ack.";
                answer(StatusCode::GONE, page::said("Link expired", words))
            }
            // The limit applies to bad links only: valid links work even during a flood.
            BadLink::Forged if self.limit.check().is_err() => busy(),
            BadLink::Forged => {
                let words =
                    "This link is invalid or incomplete. Open it from the email itself, or run alertctl ack.";
                answer(StatusCode::NOT_FOUND, page::said("Invalid link", words))
            }
        }
    }

    async fn list(&self, token: &str) -> Response {
        let Some(keys) = self.keys() else { return not_now() };
        let now = clock::wall();
        let OpenLink { receiver, expires_at, who } = match link::verify_open(&keys, token, now) {
            Ok(link) => link,
            Err(bad) => return self.turn_away(bad),
        };
        if self.lists.check().is_err() {
            return busy();
        }
        let (reply, replied) = oneshot::channel();
        let exchange = async {
            self.inputs.send(Input::ToldOpen(receiver.clone(), reply)).await.ok()?;
            replied.await.ok()
        };
        let Some(told) = tokio::time::timeout(PATIENCE, exchange).await.ok().flatten() else {
            return not_now();
        };
        // The number of used links is part of the nonce: reloading the list gives the same link,
        // which works once, and there is a new one only if the incident waits for an ack again.
        let key = keys.first().map(String::as_str).unwrap_or_default();
        let link = |number, used| {
            let nonce = format!("open-{}-{used}", expires_at.as_second());
            format!("../ack/{}", link::sign(key, number, expires_at, &nonce, &who))
        };
        answer(StatusCode::OK, page::list(&told, &receiver, link, &self.zone, now))
    }

    async fn handle(&self, token: &str, ConnectInfo(from): Came, press: bool) -> Response {
        let Some(keys) = self.keys() else { return not_now() };
        let now = clock::wall();
        let link = match link::verify(&keys, token, now) {
            Ok(link) => link,
            Err(bad) => return self.turn_away(bad),
        };
        let author = format!("{} (email link)", link.who);
        let (reply, replied) = oneshot::channel();
        let input = Input::Link(link.incident, link.nonce, press.then_some(author), reply);
        let input = Input::From(from.ip().to_string(), Box::new(input));
        let exchange = async {
            self.inputs.send(input).await.ok()?;
            replied.await.ok()
        };
        match tokio::time::timeout(PATIENCE, exchange).await.ok().flatten() {
            None => not_now(),
            Some(Err(refused)) => refusal(&refused, link.incident),
            Some(Ok(incident)) if press => done(&incident),
            Some(Ok(incident)) => {
                answer(StatusCode::OK, page::confirm(&incident, &link.who, &self.zone, now))
            }
        }
    }
}

fn not_now() -> Response {
    let words = "alertd is not responding. Try again in a moment, or run alertctl ack.";
    answer(StatusCode::SERVICE_UNAVAILABLE, page::said("Try again later", words))
}

fn busy() -> Response {
    let words = "Please try again in a moment.";
    answer(StatusCode::TOO_MANY_REQUESTS, page::said("Too many requests", words))
}

fn done(incident: &ctl::Incident) -> Response {
    let head = format!("#{} acknowledged", incident.number);
    let words = "Escalation has stopped. You will be notified when the incident is resolved.";
    answer(StatusCode::OK, page::said(&head, words))
}

fn refusal(refused: &Refused, number: u64) -> Response {
    let (head, words) = match refused {
        Refused::LinkUsed(_) => (
            "Already used",
            format!(
                "This link works once and has already acknowledged #{number}. \
                 To see what happened since, run alertctl why {number}."
            ),
        ),
        Refused::NoIncident(_) => {
            ("Already resolved", format!("#{number} is no longer open; there is nothing to acknowledge."))
        }
        other => ("Not acknowledged", other.to_string()),
    };
    answer(StatusCode::GONE, page::said(head, &words))
}

fn answer(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ];
    let mut response = (status, Html(html)).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_created_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        make_key(&path).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            (first.len(), std::fs::metadata(&path).unwrap().permissions().mode() & 0o777),
            (65, 0o600)
        );
        make_key(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    }
}
