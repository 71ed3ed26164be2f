//! The `http` check with real servers on loopback, with and without TLS.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{sync::Arc, time::Duration};

use dogwatch_checks::{Check, CheckResult, Host, Options, State, kind};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn an_expected_page_is_ok() {
    let port = plain(page("200 OK", "all is well")).await;
    let result = run(&[("url", &format!("http://127.0.0.1:{port}/health")), ("expect", "is well")]).await;
    assert_eq!(result.state, State::Ok, "{}", result.summary);
    assert!(result.summary.contains("200 OK in "), "{}", result.summary);
    let labels: Vec<_> = result.perfdata.iter().map(|perf| perf.label.as_str()).collect();
    assert_eq!(labels, ["time", "size"]);
}

#[tokio::test]
async fn the_request_has_the_host_of_the_url_even_with_another_address() {
    let port = plain("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{host}").await;
    let url = format!("http://www.example.org:{port}/");
    let options =
        [("url", url.as_str()), ("address", "127.0.0.1"), ("header", "X-Token: abc"), ("expect", "www.e")];
    let result = run(&options).await;
    assert_eq!(result.state, State::Ok, "{}", result.summary);
}

#[tokio::test]
async fn the_wrong_status_or_page_is_critical() {
    let port = plain(page("503 Service Unavailable", "sorry")).await;
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(run(&[("url", &url)]).await.state, State::Critical);
    assert_eq!(run(&[("url", &url), ("status", "503")]).await.state, State::Ok);
    let wanted = run(&[("url", &url), ("status", "503"), ("expect", "welcome")]).await;
    assert_eq!(wanted.state, State::Critical);
    assert!(wanted.summary.contains("page does not contain \"welcome\""), "{}", wanted.summary);
}

#[tokio::test]
async fn a_refused_connection_an_unknown_name_and_silence_are_critical() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = run(&[("url", &format!("http://127.0.0.1:{free}/"))]).await;
    assert_eq!(refused.state, State::Critical);
    assert!(refused.summary.ends_with(": connection refused"), "{}", refused.summary);
    // A label of 64 bytes is too long for a query, so none leaves this host.
    let unknown = run(&[("url", &format!("http://{}.invalid/", "x".repeat(64)))]).await;
    assert_eq!(unknown.state, State::Critical);
    assert!(unknown.summary.contains("cannot resolve"), "{}", unknown.summary);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let result = run_for(&[("url", &url)], Duration::from_millis(50)).await;
    assert_eq!(result.summary, format!("{url}: no answer within 0.05 s"));
}

#[tokio::test]
async fn an_invalid_or_incomplete_answer_is_critical() {
    for (answer, problem) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP answer"),
        ("", "no HTTP answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", "incomplete answer"),
    ] {
        let port = plain(answer).await;
        let result = run(&[("url", &format!("http://127.0.0.1:{port}/"))]).await;
        assert_eq!(result.state, State::Critical);
        assert!(result.summary.contains(problem), "{answer:?}: {}", result.summary);
    }
}

#[tokio::test]
async fn an_endless_page_is_cut() {
    let port = plain("HTTP/1.1 200 OK\r\n\r\n{endless}").await;
    let result =
        run(&[("url", &format!("http://127.0.0.1:{port}/")), ("crit", "60s"), ("warn", "60s")]).await;
    assert_eq!(result.state, State::Ok, "{}", result.summary);
    assert!(result.summary.contains("at least 1048576 bytes"), "{}", result.summary);
}

#[tokio::test]
async fn redirects_are_followed_up_to_a_limit() {
    let target = plain(page("200 OK", "here")).await;
    let to =
        format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{target}/end\r\ncontent-length: 0\r\n\r\n");
    let port = plain(to.leak()).await;
    let url = format!("http://127.0.0.1:{port}/");
    let followed = run(&[("url", &url), ("expect", "here")]).await;
    assert_eq!(followed.state, State::Ok, "{}", followed.summary);
    assert!(
        followed.summary.starts_with(&format!("http://127.0.0.1:{target}/end: ")),
        "{}",
        followed.summary
    );
    assert_eq!(run(&[("url", &url), ("redirects", "0")]).await.state, State::Critical);
    assert_eq!(run(&[("url", &url), ("redirects", "0"), ("status", "302")]).await.state, State::Ok);

    let port = plain("HTTP/1.1 301 Moved\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n").await;
    let round = run(&[("url", &format!("http://127.0.0.1:{port}/"))]).await;
    assert!(round.summary.contains("redirects more than 5 times"), "{}", round.summary);
}

#[tokio::test]
async fn a_redirect_may_be_relative_to_the_page() {
    for (location, page) in
        [("?lang=en", "/shop/start?lang=en"), ("../up", "/up"), ("de/gr\u{fc}n", "/shop/de/gr%C3%BCn")]
    {
        let port = routes(&[("/shop/start", redirect(location)), (page, answer("200 OK", "here"))]).await;
        let result = run(&[("url", &format!("http://127.0.0.1:{port}/shop/start"))]).await;
        assert_eq!(result.state, State::Ok, "{}", result.summary);
        assert!(result.summary.starts_with(&format!("http://127.0.0.1:{port}{page}: 200 OK")), "{location}");
    }
}

#[tokio::test]
async fn the_address_is_used_for_the_host_of_the_url_and_for_no_other() {
    let other = plain("HTTP/1.1 200 OK\r\n\r\n{host}").await;
    let to_other = redirect(&format!("http://127.0.0.1:{other}/"));
    let port = routes(&[
        ("/to-self", redirect("/end")),
        ("/to-name", redirect("http://WWW.example.invalid:{port}/end")),
        ("/to-other", to_other),
        ("/end", answer("200 OK", "here")),
    ])
    .await;
    for (path, text) in [("/to-self", "here"), ("/to-name", "here"), ("/to-other", "127.0")] {
        let url = format!("http://www.example.invalid:{port}{path}");
        let result = run(&[("url", &url), ("address", "localhost"), ("expect", text)]).await;
        assert_eq!(result.state, State::Ok, "{path}: {}", result.summary);
    }
}

#[tokio::test]
async fn credentials_are_not_sent_to_another_host() {
    let other = plain("HTTP/1.1 200 OK\r\n\r\n{request}").await;
    let port = plain(redirect(&format!("http://127.0.0.1:{other}/")).leak()).await;
    let url = format!("http://127.0.0.1:{port}/");
    let sent = async |header, text| {
        run(&[("url", &url), ("header", header), ("expect", text)]).await.state == State::Ok
    };
    assert!(sent("Accept-Language: de", "accept-language: de").await);
    assert!(!sent("X-Api-Key: abc", "x-api-key").await, "any header can be a key");
    assert!(!sent("Authorization: Bearer abc", "bearer").await);
    assert!(!sent("Cookie: a=b", "cookie").await);
    assert!(sent("Host: elsewhere", &format!("host: 127.0.0.1:{other}")).await);
}

#[tokio::test]
async fn an_expected_redirect_is_not_followed() {
    let port = routes(&[("/", redirect("/login")), ("/login", answer("200 OK", "log in"))]).await;
    let url = format!("http://127.0.0.1:{port}/");
    let with_status = async |status| run(&[("url", &url), ("status", status)]).await;
    for status in ["302", "200-399", "301,302"] {
        let result = with_status(status).await;
        assert_eq!(result.state, State::Ok, "{}", result.summary);
        assert!(result.summary.contains("302 Found"), "{}", result.summary);
    }
    let followed = with_status("301").await;
    assert_eq!(followed.state, State::Critical);
    assert!(followed.summary.contains("/login: 200 OK in "), "{}", followed.summary);
    assert!(followed.summary.ends_with("expected status 301 (after 1 redirect)"), "{}", followed.summary);
}

#[tokio::test]
async fn headers_that_curl_accepts_are_accepted() {
    for header in ["x-folded: one\r\n  two", "x-space : one", "x (odd): one"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\ncontent-length: 2\r\n\r\nok");
        let port = plain(answer.leak()).await;
        let result = run(&[("url", &format!("http://127.0.0.1:{port}/")), ("expect", "ok")]).await;
        assert_eq!(result.state, State::Ok, "{header:?}: {}", result.summary);
    }
}

#[tokio::test]
async fn a_certificate_is_verified_and_its_remaining_days_are_checked() {
    let authority = Authority::new();
    let server = authority.serve("localhost", 2_000, 4_000).await;
    let url = format!("https://localhost:{server}/");
    let ca = authority.file();
    let ca = ca.path().to_str().unwrap();

    let known = run(&[("url", &url), ("ca_file", ca)]).await;
    assert_eq!(known.state, State::Ok, "{}", known.summary);
    let days = known.perfdata.iter().find(|perf| perf.label == "certificate_days").unwrap();
    assert!(days.value.unwrap() > 300_000.0, "{days}");

    let warned = run(&[("url", &url), ("ca_file", ca), ("warn_days", "1000000")]).await;
    assert_eq!(warned.state, State::Warning, "{}", warned.summary);

    let stranger = run(&[("url", &url)]).await;
    assert_eq!(stranger.state, State::Critical);
    assert!(
        stranger.summary.contains("TLS handshake failed: invalid peer certificate: UnknownIssuer"),
        "{}",
        stranger.summary
    );

    let wrong_name = run(&[("url", &format!("https://127.0.0.1:{server}/")), ("ca_file", ca)]).await;
    assert_eq!(wrong_name.state, State::Critical, "{}", wrong_name.summary);
}

#[tokio::test]
async fn an_expired_certificate_is_critical_even_with_insecure() {
    let authority = Authority::new();
    let port = authority.serve("localhost", 2_000, 2_001).await;
    let url = format!("https://localhost:{port}/");
    let ca = authority.file();
    let verified = run(&[("url", &url), ("ca_file", ca.path().to_str().unwrap())]).await;
    assert_eq!(verified.state, State::Critical);
    assert!(verified.summary.contains("certificate expired"), "{}", verified.summary);
    let insecure = run(&[("url", &url), ("insecure", "true")]).await;
    assert_eq!(insecure.state, State::Critical);
    assert!(insecure.summary.ends_with("certificate has expired"), "{}", insecure.summary);
}

/// `openssl req -x509` makes a certificate that is a CA and whose only name is in its subject.
#[tokio::test]
async fn a_self_signed_certificate_is_trusted_as_its_own_ca_like_in_curl() {
    for (names, is_ca, years, state, said) in [
        (Names::Common("localhost"), true, [2_000, 4_000], State::Ok, "200 OK"),
        (Names::Alternative("localhost"), true, [2_000, 4_000], State::Ok, "200 OK"),
        (Names::Alternative("localhost"), false, [2_000, 4_000], State::Ok, "200 OK"),
        (Names::Common("elsewhere"), true, [2_000, 4_000], State::Critical, "not valid for"),
        (Names::Alternative("elsewhere"), true, [2_000, 4_000], State::Critical, "not valid for"),
        (Names::Common("localhost"), true, [2_000, 2_001], State::Critical, "certificate expired"),
        (Names::Common("localhost"), true, [3_000, 3_001], State::Critical, "not valid yet"),
    ] {
        let (port, file) = self_signed(names, is_ca, years).await;
        let url = format!("https://localhost:{port}/");
        let result = run(&[("url", &url), ("ca_file", file.path().to_str().unwrap())]).await;
        assert_eq!(result.state, state, "{}", result.summary);
        assert!(result.summary.contains(said), "{}", result.summary);
        let (_, other) = self_signed(names, is_ca, years).await;
        let result = run(&[("url", &url), ("ca_file", other.path().to_str().unwrap())]).await;
        assert_eq!(result.state, State::Critical, "a certificate with the same names but another key");
        if state == State::Ok {
            let hint = "to trust it, set ca_file to this certificate";
            assert_eq!(result.summary.ends_with(hint), is_ca, "{}", result.summary);
        }
    }
}

#[tokio::test]
async fn insecure_accepts_any_certificate_of_a_server_with_its_key() {
    let port = Authority::new().serve("elsewhere.example", 2_000, 4_000).await;
    let url = format!("https://localhost:{port}/");
    let result = run(&[("url", &url), ("insecure", "true")]).await;
    assert_eq!(result.state, State::Ok, "{}", result.summary);
}

#[tokio::test]
async fn a_server_without_tls_is_critical_for_https() {
    let port = plain(page("400 Bad Request", "")).await;
    let result = run(&[("url", &format!("https://127.0.0.1:{port}/")), ("insecure", "true")]).await;
    assert_eq!(result.state, State::Critical);
    assert!(result.summary.contains("TLS handshake failed"), "{}", result.summary);
}

#[test]
fn contradictory_options_are_errors() {
    let ca = Authority::new().file();
    let options: Options =
        [("url", "https://x/"), ("insecure", "true"), ("ca_file", ca.path().to_str().unwrap())]
            .into_iter()
            .collect();
    let errors = kind("http").unwrap().build(&options, &Host::live()).unwrap_err();
    assert_eq!(errors[0].option, "insecure");
    let options: Options =
        [("url", "example.org"), ("ca_file", "/no/such"), ("header", "x")].into_iter().collect();
    let errors = kind("http").unwrap().build(&options, &Host::live()).unwrap_err();
    let names: Vec<_> = errors.iter().map(|error| error.option.as_str()).collect();
    assert_eq!(names, ["url", "header", "ca_file"]);
}

async fn run(options: &[(&str, &str)]) -> CheckResult {
    run_for(options, Duration::from_secs(20)).await
}

async fn run_for(options: &[(&str, &str)], timeout: Duration) -> CheckResult {
    let options: Options = options.iter().copied().collect();
    match kind("http").unwrap().build(&options, &Host::live()).unwrap() {
        Check::Async(check) => check.run(timeout).await.once(),
        Check::Blocking(_) => panic!("http blocks"),
    }
}

fn page(status: &str, body: &str) -> &'static str {
    answer(status, body).leak()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// Answers every request with the same text. `{host}` in it is replaced by the start of the host
/// header, `{request}` by the request, `{endless}` by a page without end.
async fn plain(answer: &'static str) -> u16 {
    routes(&[("", answer.to_owned())]).await
}

/// Answers by path; an empty path is for all. `{port}` in an answer is replaced by the port.
async fn routes(routes: &[(&str, String)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let with_port =
        |(path, answer): &(&str, String)| (path.to_lowercase(), answer.replace("{port}", &port.to_string()));
    let routes: Arc<[_]> = routes.iter().map(with_port).collect();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let routes = routes.clone();
            tokio::spawn(async move { respond(stream, &routes).await });
        }
    });
    port
}

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin, routes: &[(String, String)]) {
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = stream.read(&mut buffer).await.unwrap_or(0);
        request.extend_from_slice(&buffer[..length]);
        // 0x16 is the start of a TLS hello. Such a client gets the same answer.
        if length == 0 || request.starts_with(&[0x16]) {
            break;
        }
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let host = request.split_once("host: ").map_or("", |(_, rest)| rest.get(..5).unwrap_or_default());
    let path = request.split(' ').nth(1).unwrap_or_default();
    let Some((_, answer)) = routes.iter().find(|(known, _)| known.is_empty() || known == path) else {
        return;
    };
    let answer = answer.replace("{host}", host).replace("{request}", &request);
    let (head, endless) = answer.split_once("{endless}").map_or((&*answer, false), |(head, _)| (head, true));
    let _ = stream.write_all(head.as_bytes()).await;
    while endless && stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
    let _ = stream.shutdown().await;
}

/// A certificate authority for the test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.0.pem()).unwrap();
        file
    }

    /// A TLS server called `name`, with a certificate for these years.
    async fn serve(&self, name: &str, from_year: i32, until_year: i32) -> u16 {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from_year, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        tls(&certificate, &key).await
    }
}

#[derive(Clone, Copy)]
enum Names {
    /// Only in the subject.
    Common(&'static str),
    Alternative(&'static str),
}

/// A TLS server with its own certificate, and the file with it.
async fn self_signed(names: Names, is_ca: bool, [from_year, until_year]: [i32; 2]) -> (u16, NamedTempFile) {
    let (common, alternative) = match names {
        Names::Common(name) => (name, vec![]),
        Names::Alternative(name) => ("dogwatch test", vec![name.to_owned()]),
    };
    let mut params = CertificateParams::new(alternative).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = date_time_ymd(from_year, 1, 1);
    params.not_after = date_time_ymd(until_year, 1, 1);
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    (tls(&certificate, &key).await, file)
}

/// A TLS server that answers every request with a page. Returns its port.
async fn tls(certificate: &Certificate, key: &KeyPair) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    respond(stream, &[(String::new(), answer("200 OK", "secret"))]).await;
                }
            });
        }
    });
    port
}
