//! A GET request over HTTP/1.1, with or without TLS, on its own connection. The size of the body
//! and the number of redirects are limited.
//!
//! There is no keep-alive, no cache, no decompression, and no authentication other than a given
//! header. Broken servers are accepted and redirects followed as by curl, except from https to
//! http, which is an error.

use std::{fmt::Write as _, sync::Arc};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, ACCEPT_LANGUAGE, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::{kinds::tcp::connect, tls};

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Get {
    pub(crate) url: Uri,
    /// Connect to this address instead of the host of the URL, which is still used in the request.
    /// Redirects to the same host use it too, redirects to other hosts do not.
    pub(crate) address: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Number of redirects to follow.
    pub(crate) redirects: u32,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The URL after redirects.
    pub(crate) url: Uri,
    /// How many redirects led there.
    pub(crate) redirects: u32,
    /// At most [`BODY_MAX`] bytes.
    pub(crate) body: Vec<u8>,
    /// When the server's certificate expires (Unix time); `None` without TLS.
    pub(crate) valid_until: Option<i64>,
}

/// The rest of a longer page is not read.
pub(crate) const BODY_MAX: usize = 1_024 * 1_024;

/// Returns the TLS settings.
type TlsConfig<'a> = &'a (dyn Fn() -> Result<Arc<ClientConfig>, &'a rustls::Error> + Send + Sync);

/// Fetches a page. An answer with a `wanted` status is not followed, even if it is a redirect. The
/// error is for people. The caller sets the deadline; dropping the future closes the connection.
/// `tls` is called only for https.
pub(crate) async fn get(
    get: &Get,
    wanted: &(dyn Fn(StatusCode) -> bool + Send + Sync),
    tls: TlsConfig<'_>,
) -> Result<Answer, String> {
    let mut url = get.url.clone();
    for redirects in 0..=get.redirects {
        let (answer, location) = fetch(get, &url, tls).await?;
        let answer = Answer { redirects, ..answer };
        if !answer.status.is_redirection() || wanted(answer.status) || get.redirects == 0 {
            return Ok(answer);
        }
        let Some(location) = location else { return Ok(answer) };
        let next =
            resolve(&url, &location).ok_or_else(|| format!("redirects to an invalid URL: {location:?}"))?;
        if is_tls(&url) && !is_tls(&next) {
            return Err(format!("redirects from https to {next}"));
        }
        url = next;
    }
    Err(format!("redirects more than {} times, last to {url}", get.redirects))
}

/// One request: the answer, and the target if it is a redirect.
async fn fetch(get: &Get, url: &Uri, tls: TlsConfig<'_>) -> Result<(Answer, Option<String>), String> {
    let host = host(url);
    let address = get.address.as_deref().filter(|_| is_host_of(&get.url, url));
    let stream = connect(address.unwrap_or(host), port(url)).await?;
    let request = request(get, url)?;
    let mut valid_until = None;
    let mut connection = JoinSet::new(); // aborts the connection when this function ends
    let response = if is_tls(url) {
        let config = tls().map_err(|error| format!("no TLS here: {error}"))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is not a valid TLS server name"))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|error| format!("TLS handshake failed: {}", tls::explained(&error)))?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        valid_until = certificates.first().and_then(|certificate| tls::valid_until(certificate));
        exchange(stream, request, &mut connection).await?
    } else {
        exchange(stream, request, &mut connection).await?
    };
    let status = response.status();
    let location = response.headers().get(LOCATION).map(|value| encoded(value.as_bytes()));
    let location = location.filter(|location| !location.is_empty());
    let body = read(response.into_body()).await?;
    Ok((Answer { status, url: url.clone(), redirects: 0, body, valid_until }, location))
}

fn request(get: &Get, url: &Uri) -> Result<Request<Empty<Bytes>>, String> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("dogwatch/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("cannot request {url}: {error}"))?;
    let same_origin =
        is_host_of(&get.url, url) && port(&get.url) == port(url) && is_tls(&get.url) == is_tls(url);
    for (name, value) in &get.headers {
        // Any other header can be a key: `X-Api-Key`, `PRIVATE-TOKEN`, `Cookie`.
        if same_origin || HARMLESS.contains(name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    Ok(request)
}

/// Headers of the config that are sent to other origins too, after a redirect.
const HARMLESS: [HeaderName; 3] = [ACCEPT, ACCEPT_LANGUAGE, USER_AGENT];

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    connection: &mut JoinSet<hyper::Result<()>>,
) -> Result<Response<Incoming>, String> {
    let wrong = |error: hyper::Error| format!("no HTTP answer: {}", whole(&error));
    let (mut sender, driver) = http1::Builder::new()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(wrong)?;
    connection.spawn(driver);
    sender.send_request(request).await.map_err(wrong)
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_MAX {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| format!("incomplete answer: {}", whole(&error)))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data[..data.len().min(BODY_MAX - bytes.len())]);
        }
    }
    Ok(bytes)
}

/// hyper's own message is only "client error (Connect)"; the reason is in its source.
fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Parses a URL that this client can fetch.
pub(crate) fn parse_url(text: &str) -> Result<Uri, String> {
    let wrong = |why: &str| format!("{text:?} {why}; write for example \"https://example.org/health\"");
    let url: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err(wrong("must start with http:// or https:// and a host"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not contain a user name; use the option header for credentials".into());
    }
    Ok(url)
}

pub(crate) fn is_tls(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(if is_tls(url) { 443 } else { 80 })
}

/// Without the brackets around an IPv6 address.
fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_matches(['[', ']'])
}

fn is_host_of(one: &Uri, other: &Uri) -> bool {
    host(one).eq_ignore_ascii_case(host(other))
}

/// A `Location` as servers send it, with what a URL must not contain percent-encoded.
fn encoded(location: &[u8]) -> String {
    location.trim_ascii().iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_graphic() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Resolves `location` relative to `base` (RFC 3986 §5.2).
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    if has_scheme(location) {
        return parse_url(location).ok();
    }
    if location.starts_with("//") {
        return parse_url(&format!("{scheme}:{location}")).ok();
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (location, None),
    };
    let (path, query) = if path.is_empty() {
        (base.path().to_owned(), query.or(base.query()))
    } else if path.starts_with('/') {
        (without_dots(path), query)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        (without_dots(&format!("{folder}/{path}")), query)
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    parse_url(&format!("{scheme}://{}{path}{query}", base.authority()?)).ok()
}

fn has_scheme(location: &str) -> bool {
    let scheme_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(scheme_char)
    })
}

/// Resolves `.` and `..` in a path that starts with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S14, with two siblings: another port, and http instead of https.
    #[test]
    fn keys_are_sent_to_their_own_origin_only() {
        let names = ["authorization", "cookie", "x-api-key", "private-token", "accept-language", "host"];
        let headers = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("secret")));
        let get = Get {
            url: "https://example.org/a".parse().unwrap(),
            address: None,
            headers: headers.to_vec(),
            redirects: 5,
        };
        let sent = |url: &str| {
            let request = request(&get, &url.parse().unwrap()).unwrap();
            let secret = |name: &&str| request.headers().get(*name).is_some_and(|value| value == "secret");
            names.iter().filter(|name| secret(name)).count()
        };
        assert_eq!(sent("https://example.org/b"), names.len());
        for other in ["https://example.net/", "https://example.org:8443/", "http://example.org/"] {
            assert_eq!(sent(other), 1, "{other}: only the language");
        }
    }

    #[test]
    fn redirects_are_resolved_relative_to_the_page() {
        let base: Uri = "https://a.example:8443/x/y?z".parse().unwrap();
        for (location, url) in [
            ("http://b.example/", "http://b.example/"),
            ("//b.example/p", "https://b.example/p"),
            ("/login?to=1#top", "https://a.example:8443/login?to=1"),
            ("next", "https://a.example:8443/x/next"),
            ("?lang=en", "https://a.example:8443/x/y?lang=en"),
            ("#top", "https://a.example:8443/x/y?z"),
            ("../up?a=../b", "https://a.example:8443/up?a=../b"),
            ("./../../..", "https://a.example:8443/"),
            ("/a/./b/../c/.", "https://a.example:8443/a/c/"),
            ("HTTPS://B.example/p", "https://B.example/p"),
            ("to:1", ""),
            ("./to:1", "https://a.example:8443/x/to:1"),
        ] {
            assert_eq!(
                resolve(&base, location).map(|url| url.to_string()).unwrap_or_default(),
                url,
                "{location}"
            );
        }
        assert_eq!(resolve(&base, "http://"), None);
        assert_eq!(resolve(&base, "//user@b.example/"), None);
    }

    #[test]
    fn a_location_may_contain_spaces_and_umlauts() {
        assert_eq!(encoded(" /größe der page\t".as_bytes()), "/gr%C3%B6%C3%9Fe%20der%20page");
    }

    #[test]
    fn a_url_that_cannot_be_fetched_is_an_error() {
        for wrong in ["", "example.org", "ftp://example.org/", "http://", "/x", "http://me:pw@example.org/"] {
            assert!(parse_url(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(host(&parse_url("http://[::1]:80/").unwrap()), "::1");
    }
}
