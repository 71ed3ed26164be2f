//! Authentication and authorization.
//!
//! | connection | identity | permissions |
//! | --- | --- | --- |
//! | unix socket | uid, from the kernel | those of the user (`rights.rs`); mode (0660) and group control access |
//! | TCP | `Authorization: Bearer TOKEN` | the token's scopes (`token.rs`) |
//!
//! Every request goes through [`check`] with the needs of its route. A route cannot be added
//! without stating its needs ([`super::routes`]).

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use dogwatch_alertd_core::rules::{
    sender::Sender,
    text::line,
    token::{Scope, Token, looks_like_one},
};
use dogwatch_daemon::{bounds::network, unix_http::Peer};
use governor::Quota;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Failure, PATIENCE, rate::Rates, rights::UserRights};
use crate::{
    clock,
    engine::{Access, Input, keyring::Keyring},
};

/// What a caller needs to use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// No token: the answer contains nothing confidential.
    Nothing,
    /// As `read`, but our own agent may ask too: it runs the plugin `alertctl health`.
    Health,
    /// As `ingest`, for agents' batches: a whole fleet can share one token and one address. Each
    /// agent has a rate limit of its own (`batch`).
    Report,
    Scope(Scope),
}

/// A verified caller.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    User(Peer),
    Token(Arc<Token>, IpAddr),
}

impl Caller {
    /// The name in the history. Login names contain no colon (passwd(5)).
    pub(crate) fn name(&self) -> String {
        match self {
            Self::User(peer) => peer.name(),
            Self::Token(token, _) => format!("token:{}", token.name),
        }
    }

    /// For the audit log.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::User(peer) => format!("uid {}", peer.uid),
            Self::Token(_, address) => address.to_string(),
        }
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender { name: self.name(), host: self.host().map(str::to_owned) }
    }

    /// The only host whose alerts the caller may report; `None`: any host.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::User(_) => None,
            Self::Token(token, _) => token.host.as_deref(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let unknown = || Failure::Unknown("the caller is unknown".into());
        parts.extensions.get::<Self>().cloned().ok_or_else(unknown)
    }
}

/// Rate limit per token and address. A dashboard sends a few requests per page.
const CALLS_A_SECOND: NonZeroU32 = NonZeroU32::new(50).unwrap();
const CALLS_AT_ONCE: NonZeroU32 = NonZeroU32::new(300).unwrap();
/// The same for agents' batches: 30,000 agents behind one address, with one token.
const REPORTS_A_SECOND: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
const REPORTS_AT_ONCE: NonZeroU32 = NonZeroU32::new(5_000).unwrap();
/// Rate limit for wrong tokens. Nobody can guess 256 bits; this keeps the log readable.
const WRONG_A_SECOND: NonZeroU32 = NonZeroU32::new(1).unwrap();
const WRONG_AT_ONCE: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Characters in the description of a refused request.
const ASKED_CHARS_MAX: usize = 200;

/// Decides who may use which route.
pub struct Gate {
    keyring: Arc<Keyring>,
    rights: Arc<UserRights>,
    inputs: mpsc::Sender<Input>,
    calls: Rates<(String, IpAddr)>,
    reports: Rates<(String, IpAddr)>,
    wrong: Rates<IpAddr>,
    refused: Rates<u32>,
}

impl Gate {
    pub fn new(keyring: Arc<Keyring>, rights: Arc<UserRights>, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            keyring,
            rights,
            inputs,
            calls: Rates::new(Quota::per_second(CALLS_A_SECOND).allow_burst(CALLS_AT_ONCE)),
            reports: Rates::new(Quota::per_second(REPORTS_A_SECOND).allow_burst(REPORTS_AT_ONCE)),
            wrong: Rates::new(Quota::per_second(WRONG_A_SECOND).allow_burst(WRONG_AT_ONCE)),
            refused: Rates::new(Quota::per_second(WRONG_A_SECOND).allow_burst(WRONG_AT_ONCE)),
        }
    }

    fn admit(&self, request: &Request, needs: Needs, now: Timestamp) -> Result<Option<Caller>, Denied> {
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>() {
            return self.admit_user(peer, needs).map(Some);
        }
        let Some(ConnectInfo(address)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else {
            return Err(Failure::Unknown("the origin of the request is unknown".into()).into());
        };
        let from = network(address.ip());
        let scope = match needs {
            Needs::Scope(scope) => scope,
            Needs::Health => Scope::Read,
            Needs::Report => Scope::Ingest,
            Needs::Nothing => {
                self.calls.take(&(String::new(), from)).map_err(Failure::TooMany)?;
                return Ok(None);
            }
        };
        let token = self.token(request.headers(), now).map_err(|words| match self.wrong.take(&from) {
            Ok(()) => {
                tracing::warn!(%from, path = request.uri().path(), "refused: {words}");
                Failure::Unknown(words.into())
            }
            Err(wait) => Failure::TooMany(wait),
        })?;
        let calls = if needs == Needs::Report { &self.reports } else { &self.calls };
        calls.take(&(token.name.clone(), from)).map_err(Failure::TooMany)?;
        if !token.may(scope) {
            let has: Vec<_> = token.scopes.iter().map(|scope| scope.name()).collect();
            let failure = Failure::Forbidden(format!(
                "this requires the scope {scope}; token {} has {}",
                token.name,
                has.join(", ")
            ));
            return Err(Denied { failure, caller: Some(Caller::Token(token, address.ip())) });
        }
        if token.use_is_news(now) {
            // If the engine is too busy, the next use is recorded.
            let _ = self.inputs.try_send(Input::Access(Access::Used(token.name.clone())));
        }
        Ok(Some(Caller::Token(token, address.ip())))
    }

    fn admit_user(&self, peer: &Peer, needs: Needs) -> Result<Caller, Denied> {
        let rights = self.rights.of(peer.uid);
        let scope = match needs {
            Needs::Nothing => None,
            Needs::Health => Some(Scope::Read).filter(|_| !rights.contains(&Scope::Ingest)),
            Needs::Report => Some(Scope::Ingest),
            Needs::Scope(scope) => Some(scope),
        };
        let caller = Caller::User(peer.clone());
        let Some(scope) = scope.filter(|scope| !scope.is_allowed_by(&rights)) else { return Ok(caller) };
        if let Err(wait) = self.refused.take(&peer.uid) {
            return Err(Failure::TooMany(wait).into());
        }
        let has: Vec<_> = rights.iter().map(|scope| scope.name()).collect();
        let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
        let failure = Failure::Forbidden(format!(
            "this requires the right {scope}; the user {} has {has}; run it as root, or see [alertd.rights]",
            peer.name()
        ));
        Err(Denied { failure, caller: Some(caller) })
    }

    /// Writes a line of the audit log; the refusal is answered after it, like everything that is
    /// recorded. If the loop is too busy for it, the log of the process has it.
    async fn note_refused(&self, caller: &Caller, asked: &str, status: StatusCode) {
        let asked = line(&format!("{asked}: {status}"), ASKED_CHARS_MAX);
        let (answer, answered) = oneshot::channel();
        let refused = Input::Access(Access::Refused(caller.name(), asked, answer));
        let error = match self.inputs.try_send(Input::From(caller.origin(), Box::new(refused))) {
            Ok(()) => match tokio::time::timeout(PATIENCE, answered).await {
                Ok(Ok(())) => return,
                Ok(Err(_)) => "alertd is stopping".to_owned(),
                Err(_) => format!("no answer within {PATIENCE:?}"),
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            by = caller.name(),
            from = caller.origin(),
            error,
            "refused; cannot record this in the audit log"
        );
    }

    fn token(&self, headers: &HeaderMap, now: Timestamp) -> Result<Arc<Token>, &'static str> {
        let text = bearer(headers).ok_or("no token; send \"Authorization: Bearer TOKEN\"")?;
        let token = Some(text).filter(|text| looks_like_one(text)).and_then(|text| self.keyring.find(text));
        let token = token.ok_or("unknown token: it is incomplete, revoked, or from another alertd")?;
        if token.is_expired(now) {
            return Err("this token has expired; create a new one with `alertctl token create`");
        }
        Ok(token)
    }
}

/// A request that is not let in.
struct Denied {
    failure: Failure,
    /// The caller, if known; the refusal is recorded.
    caller: Option<Caller>,
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        Self { failure, caller: None }
    }
}

/// A gate without tokens, for listing the routes.
impl Default for Gate {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::default(), mpsc::channel(1).0)
    }
}

/// The name of the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Middleware that runs before every handler.
pub(super) async fn check(
    State((gate, needs)): State<(Arc<Gate>, Needs)>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let caller = match gate.admit(&request, needs, clock::wall()) {
        Ok(Some(caller)) => caller,
        Ok(None) => return next.run(request).await,
        Err(Denied { failure, caller }) => {
            let response = failure.answer(request.uri().path());
            if let Some(caller) = caller {
                gate.note_refused(&caller, &asked, response.status()).await;
            }
            return response;
        }
    };
    request.extensions_mut().insert(caller.clone());
    let changes = matches!(needs, Needs::Scope(Scope::Ack | Scope::Silence | Scope::Admin));
    if !changes || request.method().is_safe() {
        return next.run(request).await;
    }
    let response = next.run(request).await;
    if response.status().is_client_error() {
        gate.note_refused(&caller, &asked, response.status()).await;
    }
    response
}

#[cfg(test)]
mod tests {
    use dogwatch_alertd_core::rules::token::text_of;

    use super::*;
    use crate::engine::keyring::hash_of;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn gate() -> Gate {
        let token = Token {
            name: "prom".into(),
            hash: hash_of(&text_of(&[1; 32])),
            scopes: [Scope::Ingest].into(),
            host: None,
            created_at: at(0),
            created_by: "eva".into(),
            expires_at: Some(at(100)),
            last_used_at: None,
        };
        let keyring = Keyring::default();
        keyring.put(Some(&token), "prom");
        Gate { keyring: Arc::new(keyring), ..Gate::default() }
    }

    fn request(authorization: &str, address: &str) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        if !authorization.is_empty() {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        let address: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(address));
        request
    }

    fn status(gate: &Gate, authorization: &str, scope: Scope, now: i64) -> u16 {
        match gate.admit(&request(authorization, "192.0.2.7:999"), Needs::Scope(scope), at(now)) {
            Ok(caller) => {
                assert_eq!(caller.unwrap().name(), "token:prom");
                200
            }
            Err(denied) => denied.failure.into_parts().0.as_u16(),
        }
    }

    #[test]
    fn a_token_is_valid_for_its_scopes_until_it_expires() {
        let (gate, good) = (gate(), text_of(&[1; 32]));
        let bearer = format!("Bearer {good}");
        assert_eq!(status(&gate, &bearer, Scope::Ingest, 99), 200);
        assert_eq!(status(&gate, &format!("bEARER  {good} "), Scope::Ingest, 99), 200);
        assert_eq!(status(&gate, &bearer, Scope::Read, 99), 403);
        assert_eq!(status(&gate, &bearer, Scope::Ingest, 100), 401);
        for wrong in ["", &good, "Bearer", "Bearer ", &format!("Basic {good}"), &bearer[..bearer.len() - 1]] {
            assert_eq!(status(&gate, wrong, Scope::Ingest, 99), 401, "{wrong}");
        }
        gate.keyring.put(None, "prom");
        assert_eq!(status(&gate, &bearer, Scope::Ingest, 99), 401);
    }

    #[test]
    fn wrong_tokens_are_rate_limited_apart_from_valid_ones() {
        let (gate, good) = (gate(), format!("Bearer {}", text_of(&[1; 32])));
        let guess = format!("Bearer {}", text_of(&[2; 32]));
        let statuses: Vec<_> = (0..12).map(|_| status(&gate, &guess, Scope::Ingest, 1)).collect();
        assert_eq!((statuses[0], statuses[11]), (401, 429), "{statuses:?}");
        assert_eq!(status(&gate, &good, Scope::Ingest, 1), 200, "from the same address");
        let calls: Vec<_> = (0..400).map(|_| status(&gate, &good, Scope::Ingest, 1)).collect();
        assert_eq!((calls[200], calls[399]), (200, 429));
        let elsewhere = request(&good, "192.0.2.8:1");
        assert!(
            gate.admit(&elsewhere, Needs::Scope(Scope::Ingest), at(1)).is_ok(),
            "the same token elsewhere"
        );
    }

    #[test]
    fn a_request_without_peer_is_refused() {
        let mut request = Request::new(axum::body::Body::empty());
        assert!(gate().admit(&request, Needs::Nothing, at(1)).is_err());
        request.extensions_mut().insert(ConnectInfo(Peer { uid: 0, pid: None }));
        let caller = gate().admit(&request, Needs::Scope(Scope::Admin), at(1)).ok().flatten();
        assert_eq!(caller.unwrap().name(), "root");
    }

    /// S7. On every Debian system, uid 1 is `daemon` and uid 2 is `bin`; here they stand for the
    /// agent and the cache.
    #[test]
    fn a_user_of_the_socket_may_do_what_its_uid_may() {
        let rights = [("daemon".to_owned(), [Scope::Ingest].into()), ("bin".to_owned(), [].into())];
        let rights = Arc::new(UserRights::new(&rights.into()));
        let gate = Gate { rights, ..Gate::default() };
        let may = |uid| {
            let mut request = Request::new(axum::body::Body::empty());
            request.extensions_mut().insert(ConnectInfo(Peer { uid, pid: None }));
            let all = Scope::ALL.into_iter().map(|scope| (Needs::Scope(scope), scope.name()));
            let all = all.chain([(Needs::Health, "health")]);
            let may = all.filter(|(needs, _)| gate.admit(&request, *needs, at(1)).is_ok());
            may.map(|(_, name)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(may(1), "ingest health");
        assert_eq!(may(2), "");
        assert_eq!(may(54_321), "ingest read ack silence health");
        assert_eq!(may(0), "ingest read ack silence admin health");
    }
}
