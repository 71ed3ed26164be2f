//! The HTTP client that receivers share: requests with a deadline and a size limit for the answer,
//! and the meaning of status codes.
//!
//! TLS is rustls with ring. Certificates are verified with the host's certificate store, which is
//! loaded at the first `https` request, so a host without `ca-certificates` can still use `http`. A
//! receiver's `ca_file` is trusted in addition; it is read at each request, so a renewed CA needs
//! no reload.
//!
//! Each request has its own connection: notifications are rare, and a kept connection that the
//! other side has closed would cost a retry. Redirects are not followed, so that the operator
//! notices when a receiver has moved.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use dogwatch_alertd_core::rules::{notification::DeliveryError, text};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::tls;

/// Bytes read of an answer: enough for a short JSON or the beginning of an error page.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const USER_AGENT: &str = concat!("dogwatch-alertd/", env!("CARGO_PKG_VERSION"));

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Cheap to clone; clones share the loaded certificates.
#[derive(Debug, Clone)]
pub(super) struct Http {
    plain: Client<HttpConnector, Full<Bytes>>,
    secure: Arc<OnceLock<Https>>,
}

/// A receiver's URL, and which CAs to trust for it.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) url: Uri,
    /// PEM file with additional CA certificates to trust.
    pub(super) ca_file: Option<PathBuf>,
}

impl Endpoint {
    /// Reads it from the config; `secret` as in [`url`].
    pub(super) fn resolve(
        text: &Spanned<String>,
        ca_file: Option<Spanned<PathBuf>>,
        secret: bool,
        source: &Source,
        problems: &mut Problems,
    ) -> Option<Self> {
        Some(Self { url: url(text, secret, source, problems)?, ca_file: ca_file.map(Spanned::into_inner) })
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            plain: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http(),
            secure: Arc::default(),
        }
    }
}

impl Http {
    /// Sends JSON and reads the answer, all within `deadline`.
    pub(super) async fn post(
        &self,
        to: &Endpoint,
        headers: &[(HeaderName, String)],
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Answer, DeliveryError> {
        let request = request(&to.url, headers, body)?;
        self.within(deadline, request, to).await
    }

    /// Sends a GET and reads the answer, all within `deadline`.
    pub(super) async fn get(&self, from: &Endpoint, deadline: Duration) -> Result<Answer, DeliveryError> {
        let request = Request::get(from.url.clone()).header(header::USER_AGENT, USER_AGENT);
        let request = request.body(Full::default());
        let request = request.map_err(|error| DeliveryError::Rejected { reason: error.to_string() })?;
        self.within(deadline, request, from).await
    }

    async fn within(
        &self,
        deadline: Duration,
        request: Request<Full<Bytes>>,
        to: &Endpoint,
    ) -> Result<Answer, DeliveryError> {
        tokio::time::timeout(deadline, self.exchange(request, to))
            .await
            .unwrap_or_else(|_| Err(retry(format!("{}: no answer within {deadline:?}", shown(&to.url)))))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, at: &Endpoint) -> Result<Answer, DeliveryError> {
        let to = shown(request.uri());
        let sent = if request.uri().scheme_str() == Some("https") {
            self.secure(at).await?.request(request).await
        } else {
            self.plain.request(request).await
        };
        let reply = sent.map_err(|error| retry(format!("{to}: {}", chain(&error))))?;
        let (head, body) = reply.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        // The status decides; a body that is too long or incomplete does not matter.
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Answer { status: head.status, retry_after: retry_after(&head.headers), body })
    }

    async fn secure(&self, to: &Endpoint) -> Result<Https, DeliveryError> {
        if to.ca_file.is_none()
            && let Some(client) = self.secure.get()
        {
            return Ok(client.clone());
        }
        let config = tls::config(to.ca_file.as_deref()).await.map_err(|reason| {
            // A bad ca_file must be fixed by the operator; a certificate store may become readable
            // again.
            if to.ca_file.is_some() { DeliveryError::Rejected { reason } } else { retry(reason) }
        })?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        if to.ca_file.is_some() {
            return Ok(client);
        }
        Ok(self.secure.get_or_init(|| client).clone())
    }
}

impl Answer {
    /// For an answer that is not a success: 408, 425, 429 and 5xx are temporary, other 4xx and
    /// redirects are permanent.
    pub(super) fn into_error(self, to: &Endpoint) -> DeliveryError {
        let said = text::line(&String::from_utf8_lossy(&self.body), 300);
        let reason = format!("{} answered {}: {said}", shown(&to.url), self.status);
        let reason = reason.trim_end_matches([':', ' ']).to_owned();
        match self.status.as_u16() {
            408 | 425 | 500..=599 => DeliveryError::Retry { after: self.retry_after, reason },
            429 => DeliveryError::Retry { after: self.retry_after.or(Some(TOO_MANY_PAUSE)), reason },
            _ => DeliveryError::Rejected { reason },
        }
    }
}

/// The pause after a 429 without `Retry-After` (PagerDuty suggests 30 s).
const TOO_MANY_PAUSE: Duration = Duration::from_secs(30);

/// Reads a URL from the config; see [`safe_url`].
pub(super) fn url(
    text: &Spanned<String>,
    secret: bool,
    source: &Source,
    problems: &mut Problems,
) -> Option<Uri> {
    safe_url(text.get_ref(), secret).map_err(|message| problems.add(source, text.span(), message)).ok()
}

/// Reads a URL. If `secret` says that a secret is sent along, `http` is refused except for this
/// host.
pub fn safe_url(text: &str, secret: bool) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().map_err(|_| format!("{text:?} is not a URL; write https://HOST/PATH"))?;
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else {
        return Err(format!("{text:?} has no host name; write https://HOST/PATH"));
    };
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if local || !secret => Ok(uri),
        Some("http") => Err("the secret would be sent unencrypted; use https://".into()),
        _ => Err(format!("{text:?} is neither http:// nor https://")),
    }
}

fn request(
    url: &Uri,
    headers: &[(HeaderName, String)],
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, DeliveryError> {
    let rejected = |reason: String| DeliveryError::Rejected { reason };
    let mut request = Request::post(url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| rejected(format!("cannot build the request: {error}")))?;
    for (name, value) in headers {
        let value = HeaderValue::from_str(value)
            .map_err(|_| rejected(format!("the value of the header {name} is not valid")))?;
        request.headers_mut().insert(name.clone(), value);
    }
    Ok(request)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    // The date form would need a clock, and none of these services sends it.
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Scheme, host and port only: the path or the query may be secret.
pub(super) fn shown(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or("http"), url.host().unwrap_or("?"))
        + &url.port().map(|port| format!(":{port}")).unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text::line(&text, 300)
}

fn retry(reason: String) -> DeliveryError {
    DeliveryError::Retry { after: None, reason }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use axum::{Router, extract::State, http::HeaderMap};

    use super::*;

    /// Records requests and gives a fixed answer.
    pub(in crate::notify) struct Server {
        pub(in crate::notify) url: String,
        shared: Arc<Shared>,
    }

    struct Shared {
        requests: Mutex<Vec<(HeaderMap, Bytes)>>,
        answer: (u16, Vec<(&'static str, &'static str)>, String),
    }

    impl Server {
        pub(in crate::notify) async fn start(
            status: u16,
            headers: &[(&'static str, &'static str)],
            body: &str,
        ) -> Self {
            let answer = (status, headers.to_vec(), body.to_owned());
            let shared = Arc::new(Shared { requests: Mutex::default(), answer });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/hook?key=hidden", listener.local_addr().unwrap());
            let router = Router::new().fallback(answer_all).with_state(Arc::clone(&shared));
            tokio::spawn(async move { axum::serve(listener, router).await });
            Self { url, shared }
        }

        pub(in crate::notify) fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
            self.shared.requests.lock().unwrap().clone()
        }
    }

    async fn answer_all(
        State(shared): State<Arc<Shared>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> axum::response::Response {
        shared.requests.lock().unwrap().push((headers, body));
        let (status, headers, body) = &shared.answer;
        let mut builder = axum::response::Response::builder().status(*status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(body.clone().into()).unwrap()
    }

    pub(in crate::notify) fn at(url: &str) -> Endpoint {
        Endpoint { url: url.parse().unwrap(), ca_file: None }
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn error_of(status: u16, headers: &[(&'static str, &'static str)]) -> DeliveryError {
        let server = Server::start(status, headers, "sorry\r\nmate").await;
        let to = at(&server.url);
        Http::default().post(&to, &[], b"{}".to_vec(), DEADLINE).await.unwrap().into_error(&to)
    }

    #[tokio::test]
    async fn temporary_errors_are_retried_and_permanent_ones_are_not() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(error_of(status, &[]).await, DeliveryError::Retry { .. }), "{status}");
        }
        for status in [301, 307, 400, 401, 403, 404, 410, 413, 422] {
            assert!(matches!(error_of(status, &[]).await, DeliveryError::Rejected { .. }), "{status}");
        }
    }

    #[tokio::test]
    async fn retry_after_is_respected() {
        let after = |error| match error {
            DeliveryError::Retry { after, .. } => after.map(|after: Duration| after.as_secs()),
            DeliveryError::Rejected { .. } => None,
        };
        assert_eq!(after(error_of(503, &[("retry-after", "120")]).await), Some(120));
        assert_eq!(after(error_of(429, &[]).await), Some(30));
        assert_eq!(after(error_of(503, &[("retry-after", "soon")]).await), None);
    }

    #[tokio::test]
    async fn an_error_names_the_endpoint_without_its_path() {
        let text = error_of(500, &[]).await.to_string();
        assert!(text.ends_with("answered 500 Internal Server Error: sorry mate"), "{text}");
        assert!(!text.contains("hidden") && text.contains("http://127.0.0.1:"), "{text}");
    }

    #[tokio::test]
    async fn a_silent_or_absent_endpoint_is_retried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = at(&format!("http://{}/", listener.local_addr().unwrap()));
        let http = Http::default();
        let post = || http.post(&to, &[], Vec::new(), Duration::from_millis(200));
        let error = post().await.unwrap_err();
        assert!(
            matches!(&error, DeliveryError::Retry { reason, .. } if reason.contains("within 200ms")),
            "{error}"
        );
        drop(listener);
        assert!(matches!(post().await.unwrap_err(), DeliveryError::Retry { .. }));
    }

    #[tokio::test]
    async fn a_long_answer_is_dropped() {
        let server = Server::start(202, &[], &"x".repeat(ANSWER_BYTES_MAX + 1)).await;
        let answer = Http::default().post(&at(&server.url), &[], Vec::new(), DEADLINE).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (202, 0));
    }

    #[test]
    fn a_secret_needs_https_except_to_this_host() {
        let check = |text: &str, secret| {
            let source = Source { path: "alertd.toml".into(), text: text.into() };
            let mut problems = Problems::default();
            let found = url(&Spanned::new(0..text.len(), text.into()), secret, &source, &mut problems);
            assert_eq!(found.is_some(), problems.0.is_empty());
            found.is_some()
        };
        assert!(check("https://example.org/x", true) && check("http://[::1]:80/", true));
        assert!(check("http://127.0.0.1:9/", true) && check("http://example.org/", false));
        for text in ["http://example.org/", "ftp://x/", "example.org", "https:///x", "not a url", ""] {
            assert!(!check(text, true), "{text:?}");
        }
    }
}
