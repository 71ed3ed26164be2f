//! One SMTP session over lettre's connection, step by step, so that every reply code is checked.
//!
//! lettre's transport (0.11.23) is not used for three reasons. Its timeout limits only the TCP
//! connect. A cancelled send leaves a half-used connection in its pool, whose replies are then off
//! by one, so a refused message counts as sent. One refused recipient refuses the whole message.
//!
//! Here each call has its own session, and a reply must have exactly the code that its step expects
//! (RFC 5321 §4.3.2), so the reply to another step cannot be taken for success.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use dogwatch_alertd_core::rules::{notification::DeliveryError, text};
use lettre::{
    Address,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters},
        commands::{Data, Mail, Quit, Rcpt, Rset},
        extension::ClientId,
        response::Response,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::{
    email::{Email, Tls},
    sender::Sender,
};

/// Bytes that a server may send in one session, TLS certificates included. Usually a few thousand.
const SAID_BYTES_MAX: usize = 1024 * 1024;
/// How long to wait for the reply to QUIT; the message is already accepted.
const QUIT_PATIENCE: Duration = Duration::from_secs(2);

/// A connection that is ready for a message.
pub(super) struct Session<'a> {
    connection: AsyncSmtpConnection,
    /// The current step, for error messages.
    at: &'a Mutex<&'static str>,
    used: bool,
}

/// Why a step failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// 5xx: a retry would fail the same way.
    pub(super) permanent: bool,
    /// The session cannot be used any more.
    session_over: bool,
}

impl Refusal {
    fn configured(reason: String) -> Self {
        Self { reason, permanent: true, session_over: true }
    }

    pub(super) fn ends_session(&self) -> bool {
        self.session_over
    }

    pub(super) fn into_error(self, email: &Email) -> DeliveryError {
        let reason = format!("{}:{}: {}", email.server, email.port, self.reason);
        if self.permanent {
            DeliveryError::Rejected { reason }
        } else {
            DeliveryError::Retry { after: None, reason }
        }
    }
}

impl<'a> Session<'a> {
    /// Connects, encrypts and logs in according to the config.
    pub(super) async fn open(
        email: &Email,
        sender: &Sender,
        at: &'a Mutex<&'static str>,
    ) -> Result<Self, Refusal> {
        let hello = ClientId::Domain(text::line(&sender.host, 255).replace(' ', "-"));
        let connection = connect(email, &hello, at).await?;
        let mut session = Self { connection, at, used: false };
        let encrypt = match email.tls {
            Tls::Required => true,
            Tls::Opportunistic => session.connection.can_starttls(),
            Tls::Implicit | Tls::None => false,
        };
        if encrypt {
            if !session.connection.can_starttls() {
                let reason = "the server does not offer STARTTLS; nothing was sent (tls = \"required\")";
                return Err(Refusal::configured(reason.into()));
            }
            session.now("starting TLS");
            let parameters = tls_parameters(email).await?;
            session
                .connection
                .starttls(parameters, &hello)
                .await
                .map_err(|error| refusal("STARTTLS", &error))?;
        }
        if let Some(login) = &email.login {
            session.now("logging in");
            let password = login.password.read().map_err(Refusal::configured)?;
            let credentials = Credentials::new(login.username.clone(), password);
            let said = session.connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            expect("login", said, &[235])?;
        }
        Ok(session)
    }

    /// Sends one message to one recipient. Returns the text of the final 250 reply, which contains
    /// the queue id.
    pub(super) async fn deliver(
        &mut self,
        from: &Address,
        to: &Address,
        message: &[u8],
    ) -> Result<String, Refusal> {
        if self.used {
            self.now("sending RSET");
            expect("RSET", self.connection.command(Rset).await, &[250])?;
        }
        self.used = true;
        self.now("sending MAIL");
        let mail = Mail::new(Some(from.clone()), Vec::new());
        expect("MAIL", self.connection.command(mail).await, &[250])?;
        self.now("sending RCPT");
        let rcpt = Rcpt::new(to.clone(), Vec::new());
        expect("RCPT", self.connection.command(rcpt).await, &[250, 251])?;
        self.now("sending DATA");
        expect("DATA", self.connection.command(Data).await, &[354])?;
        self.now("sending the message");
        expect("message", self.connection.message(message).await, &[250])
    }

    pub(super) async fn close(mut self) {
        let _ = timeout(QUIT_PATIENCE, self.connection.command(Quit)).await;
    }

    fn now(&self, step: &'static str) {
        set(self.at, step);
    }
}

fn set(at: &Mutex<&'static str>, step: &'static str) {
    *at.lock().unwrap_or_else(PoisonError::into_inner) = step;
}

async fn connect(
    email: &Email,
    hello: &ClientId,
    at: &Mutex<&'static str>,
) -> Result<AsyncSmtpConnection, Refusal> {
    let server = (email.server.as_str(), email.port);
    if email.tls == Tls::Implicit {
        // lettre does TLS and greeting in one call. The byte limit is not needed: the certificate
        // is verified before the server can send anything.
        set(at, "connecting with TLS");
        let parameters = tls_parameters(email).await?;
        return AsyncSmtpConnection::connect_tokio1(server, None, hello, Some(parameters), None)
            .await
            .map_err(|error| refusal("TLS connection", &error));
    }
    let stream = TcpStream::connect(server).await.map_err(|error| Refusal {
        reason: format!("cannot connect: {error}"),
        permanent: false,
        session_over: true,
    })?;
    set(at, "waiting for the greeting");
    let stream = Box::new(Bounded { stream, left: SAID_BYTES_MAX });
    AsyncSmtpConnection::connect_with_transport(stream, hello)
        .await
        .map_err(|error| refusal("greeting", &error))
}

async fn tls_parameters(email: &Email) -> Result<TlsParameters, Refusal> {
    let mut builder = TlsParameters::builder(email.server.clone());
    if let Some(path) = &email.ca_file {
        let wrong = |error: &dyn std::fmt::Display| {
            Refusal::configured(format!("cannot read ca_file {}: {error}", path.display()))
        };
        let pem = tokio::fs::read(path).await.map_err(|error| wrong(&error))?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| wrong(&error))?);
    }
    if email.tls == Tls::Opportunistic {
        builder = builder.dangerous_accept_invalid_certs(true).dangerous_accept_invalid_hostnames(true);
    }
    builder.build().map_err(|error| Refusal::configured(format!("cannot set up TLS: {error}")))
}

/// Returns the text of the reply if its code is one of `codes`.
fn expect(step: &str, said: Result<Response, Error>, codes: &[u16]) -> Result<String, Refusal> {
    let reply = said.map_err(|error| refusal(step, &error))?;
    if codes.iter().any(|&code| reply.has_code(code)) {
        return Ok(reply.message().collect::<Vec<_>>().join(" "));
    }
    let text = text::line(&reply.message().collect::<Vec<_>>().join(" "), 200);
    let reason = format!("unexpected reply to {step}: {} {text}", reply.code());
    Err(Refusal { reason, permanent: false, session_over: true })
}

fn refusal(step: &str, error: &Error) -> Refusal {
    let mut reason = format!("{step}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let text = source.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = source.source();
    }
    // 421 closes the channel (RFC 5321 §3.8). Without a reply, the session is in an unknown state.
    let code = error.status().map(u16::from);
    let session_over = code.is_none() || code == Some(421);
    Refusal {
        reason: text::line(&reason, 400),
        permanent: error.is_permanent() || error.is_client(),
        session_over,
    }
}

/// A stream that fails after [`SAID_BYTES_MAX`]: lettre itself reads lines of any length.
#[derive(Debug)]
struct Bounded {
    stream: TcpStream,
    left: usize,
}

impl AsyncTokioStream for Bounded {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server sent more than 1 MiB",
            )));
        }
        let before = buf.filled().len();
        let ready = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        ready
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;

    type Answers = Box<dyn Fn(&str) -> Option<String> + Send>;

    /// A server that accepts everything unless `answer` returns another reply; an empty reply means
    /// that it never answers.
    ///
    /// Steps are `greeting`, the command lines, and `.` for the end of a message.
    pub(in crate::notify) struct Server {
        pub(in crate::notify) address: SocketAddr,
        answers: Arc<Mutex<Answers>>,
        recipients: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        pub(in crate::notify) async fn start(
            answer: impl Fn(&str) -> Option<String> + Send + 'static,
        ) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let server = Self {
                address: listener.local_addr().unwrap(),
                answers: Arc::new(Mutex::new(Box::new(answer))),
                recipients: Arc::default(),
            };
            let (answers, recipients) = (Arc::clone(&server.answers), Arc::clone(&server.recipients));
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&recipients)));
                }
            });
            server
        }

        pub(in crate::notify) fn answer(&self, answer: impl Fn(&str) -> Option<String> + Send + 'static) {
            *self.answers.lock().unwrap() = Box::new(answer);
        }

        /// Recipients of accepted messages, in order.
        pub(in crate::notify) fn recipients(&self) -> Vec<String> {
            self.recipients.lock().unwrap().clone()
        }
    }

    async fn serve(
        stream: TcpStream,
        answers: Arc<Mutex<Answers>>,
        recipients: Arc<Mutex<Vec<String>>>,
    ) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let (mut step, mut to, mut in_message) = (String::from("greeting"), String::new(), false);
        loop {
            if !in_message || step == "." {
                let usual = match step.as_str() {
                    "greeting" => "220 fake",
                    "DATA" => "354 go on",
                    "." => "250 queued as 17",
                    _ => "250 fine",
                };
                let answer = answers.lock().unwrap()(&step).unwrap_or_else(|| usual.into());
                if let Some(address) = step.strip_prefix("RCPT TO:<") {
                    to = address.trim_end_matches('>').into();
                }
                if step == "." && answer.starts_with("250") {
                    recipients.lock().unwrap().push(to.clone());
                }
                in_message = step == "DATA" && answer.starts_with("354");
                if !answer.is_empty() {
                    stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
                }
            }
            step.clear();
            if stream.read_line(&mut step).await? == 0 {
                return Ok(());
            }
            step = step.trim_end().to_owned();
        }
    }
}
