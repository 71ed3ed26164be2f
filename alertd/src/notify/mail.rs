//! A notification as an email: plain text and the same in HTML. Pure; used by [`super::email`] and
//! [`super::maildir`].
//!
//! | header | value |
//! | --- | --- |
//! | `Message-ID` | id and the sender's domain: the same on every retry, so duplicates show once |
//! | `In-Reply-To`, `References` | an artificial root per `dedup_key`: one thread per incident |
//! | `Date` | when the notification was decided, not when it was sent |
//! | `Auto-Submitted: auto-generated` | prevents vacation replies (RFC 3834) |
//! | `X-Dogwatch-Id`, `X-Dogwatch-Incident`, `X-Dogwatch-State` | for filters and tests |
//! | `List-Id` | one per receiver, for filters (RFC 2919) |
//!
//! The text is written for a phone: state, host, service and value first, then since when, what to
//! do and how to acknowledge.

use std::{fmt::Write, time::SystemTime};

use data_encoding::HEXLOWER;
use dogwatch_alertd_core::rules::{
    notification::{DeliveryError, Kind, Notification, NotifiedAlert},
    text::{self, escaped},
};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{ContentType, HeaderName, HeaderValue},
    },
};
use ring::digest::{SHA256, digest};

use super::{
    facts, held,
    sender::Sender,
    words::{self, ALERTS_MAX, DIGEST_LINES_MAX},
};
use crate::web::MailLink;

/// Styles that every mail program shows as a button.
const BUTTON: &str = "display:inline-block;padding:12px 24px;border-radius:6px;background:#1a7f37;color:#ffffff;\
     text-decoration:none;font-size:18px";
/// Lines of a plugin's long output that are included.
const DETAIL_LINES_MAX: usize = 40;

/// Returns the message to one recipient.
pub fn message(
    told: &Notification,
    from: &Mailbox,
    to: &Mailbox,
    sender: &Sender,
) -> Result<Message, DeliveryError> {
    let domain = from.email.domain();
    let root = format!("<{}.incident@{domain}>", hex_of(&told.dedup_key));
    let link = sender.links.as_ref().and_then(|links| links.link(told, to.email.as_ref()));
    let text = text_of(told, sender, link);
    let own = &sender.own_words;
    let own_plain = own.text.as_ref().map(|own| format!("{own}\n\n{}", text.plain_link()));
    let own_html = own.html.as_ref().map(|own| format!("{own}\n{}", text.html_link()));
    let parts = MultiPart::alternative()
        .boundary(format!("dogwatch-{}", hex_of(&told.id)))
        .singlepart(part(ContentType::TEXT_PLAIN, own_plain.unwrap_or_else(|| text.plain())))
        .singlepart(part(ContentType::TEXT_HTML, own_html.unwrap_or_else(|| text.html())));
    Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(sender.title(told))
        .date(SystemTime::from(told.created_at))
        .message_id(Some(message_id(told, domain)))
        .in_reply_to(root.clone())
        .references(root)
        .raw_header(header("Auto-Submitted", "auto-generated".into()))
        .raw_header(header("List-Id", format!("<{}.dogwatch.{domain}>", token(&told.receiver))))
        .raw_header(header("X-Dogwatch-Id", text::line(&told.id, 200)))
        .raw_header(header("X-Dogwatch-Incident", told.incident.to_string()))
        .raw_header(header("X-Dogwatch-State", words::worst(told).name().into()))
        .multipart(parts)
        .map_err(|error| DeliveryError::Rejected { reason: format!("cannot build the email: {error}") })
}

/// `<id@domain>`; an id that is not valid in a header is hashed.
pub fn message_id(told: &Notification, domain: &str) -> String {
    format!("<{}@{domain}>", token(&told.id))
}

/// `user@HOST`; a host name that is not valid in an address becomes `localhost`.
pub(super) fn local_address(user: &str, sender: &Sender) -> Result<Address, DeliveryError> {
    let user = token(user);
    Address::new(&user, &sender.host).or_else(|_| Address::new(&user, "localhost")).map_err(|error| {
        DeliveryError::Rejected { reason: format!("{user:?} is not a valid mailbox name: {error}") }
    })
}

fn part(kind: ContentType, text: String) -> SinglePart {
    SinglePart::builder().header(kind).body(text)
}

fn header(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value)
}

/// Returns `text` if it is safe in a message id and a file name, otherwise its hash.
pub(super) fn token(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !text.is_empty() && text.len() <= 64 && text.chars().all(safe) {
        text.to_owned()
    } else {
        hex_of(text)
    }
}

/// 32 hex digits of SHA-256.
pub(super) fn hex_of(text: &str) -> String {
    HEXLOWER.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..16])
}

/// The contents of an email, before they become plain text or HTML.
struct Text {
    headline: String,
    /// Colour of the headline.
    colour: &'static str,
    sections: Vec<Section>,
    link: Option<MailLink>,
    /// What to do, and why it was sent.
    foot: Vec<(&'static str, String)>,
}

struct Section {
    head: String,
    line: String,
    rows: Vec<(String, String)>,
    block: Vec<String>,
}

fn text_of(told: &Notification, sender: &Sender, link: Option<MailLink>) -> Text {
    let mut sections = Vec::new();
    let alerts = told.firing.iter().chain(&told.resolved);
    sections.extend(alerts.take(ALERTS_MAX).map(|alert| section(alert, told, sender)));
    let more = (told.firing.len() + told.resolved.len()).saturating_sub(ALERTS_MAX);
    if more > 0 {
        sections.push(Section::only(format!("… and {}", text::plural(more, "more alert"))));
    }
    if !told.digest.is_empty() {
        sections.push(digest_section(told, sender));
    }
    if told.kind == Kind::Test {
        sections.push(Section::only(
            "This is a test; nothing is wrong. If you can read this, notifications reach you here.".into(),
        ));
    }
    Text {
        headline: words::title(told, &sender.zone),
        colour: colour(told),
        sections,
        link,
        foot: facts::how_on(told, sender),
    }
}

fn section(alert: &NotifiedAlert, told: &Notification, sender: &Sender) -> Section {
    let state = alert.state_words();
    Section {
        head: format!("{state} {}", words::alert_name(alert)),
        line: text::line(&alert.summary, 1_000),
        rows: facts::rows(alert, told, sender),
        block: text::block(&alert.detail, DETAIL_LINES_MAX),
    }
}

fn digest_section(told: &Notification, sender: &Sender) -> Section {
    let held_by = told.summary.as_ref().map_or("this receiver's rate limit", |summary| &summary.held_by);
    let mut section = Section::only(format!("These notifications exceeded {}:", text::line(held_by, 120)));
    section.block = held::lines(told, &sender.zone, DIGEST_LINES_MAX);
    section
}

impl Section {
    fn only(line: String) -> Self {
        Self { head: String::new(), line, rows: Vec::new(), block: Vec::new() }
    }
}

fn colour(told: &Notification) -> &'static str {
    use dogwatch_wire::State;
    match words::worst(told) {
        State::Critical => "#b00020",
        State::Warning => "#9a6700",
        State::Unknown => "#6b3fa0",
        State::Ok => "#1a7f37",
    }
}

impl Text {
    fn plain_link(&self) -> String {
        let link = self.link.as_ref();
        link.map_or(String::new(), |link| format!("{}:\n{}\n\n", link.does, link.url))
    }

    fn html_link(&self) -> String {
        let link = self.link.as_ref();
        link.map_or(String::new(), |MailLink { url, does }| {
            format!("<p><a href=\"{}\" style=\"{BUTTON}\">{does}</a></p>\n", escaped(url))
        })
    }

    fn plain(&self) -> String {
        let mut out = format!("{}\n", self.headline);
        for section in &self.sections {
            out.push('\n');
            for line in [&section.head, &section.line].into_iter().filter(|line| !line.is_empty()) {
                let _ = writeln!(out, "{line}");
            }
            for (name, value) in &section.rows {
                let _ = writeln!(out, "  {name:<8} {value}");
            }
            for line in &section.block {
                let _ = writeln!(out, "    {line}");
            }
        }
        out.push('\n');
        out.push_str(&self.plain_link());
        for (name, value) in &self.foot {
            let _ = writeln!(out, "{name:<12} {value}");
        }
        out
    }

    fn html(&self) -> String {
        let mut out = String::from(
            "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"></head><body style=\"font:16px sans-serif;max-width:40em\">\n",
        );
        let _ = writeln!(out, "<h2 style=\"color:{}\">{}</h2>", self.colour, escaped(&self.headline));
        for section in &self.sections {
            if !section.head.is_empty() {
                let _ = writeln!(out, "<h3>{}</h3>", escaped(&section.head));
            }
            let _ = writeln!(out, "<p>{}</p>", escaped(&section.line));
            write_table(&mut out, section.rows.iter().map(|(name, value)| (name.as_str(), value)));
            if !section.block.is_empty() {
                let _ = writeln!(
                    out,
                    "<pre style=\"overflow-x:auto\">{}</pre>",
                    escaped(&section.block.join("\n"))
                );
            }
        }
        out.push_str(&self.html_link());
        out.push_str("<hr>\n");
        write_table(&mut out, self.foot.iter().map(|(name, value)| (*name, value)));
        out.push_str("</body></html>\n");
        out
    }
}

fn write_table<'a>(out: &mut String, rows: impl Iterator<Item = (&'a str, &'a String)>) {
    out.push_str("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><th align=\"left\">{}</th><td>{}</td></tr>", escaped(name), linked(value));
    }
    out.push_str("</table>\n");
}

/// Makes a link of a value that is a URL; only `http` and `https`, so that no value can run a
/// script.
fn linked(value: &str) -> String {
    let is_link = (value.starts_with("https://") || value.starts_with("http://")) && !value.contains(' ');
    let text = escaped(value);
    if is_link { format!("<a href=\"{text}\">{text}</a>") } else { text }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{super::words::tests::problem, *};

    #[test]
    fn an_email_says_what_is_wrong_where_since_when_and_how_to_acknowledge() {
        let text = text_of(&problem(), &sender(), None).plain();
        assert_eq!(
            text,
            "[#4711] CRITICAL web1/disk: /var 96% used\n\
             \n\
             CRITICAL web1/disk\n\
             /var 96% used\n\
             \x20 since    02:12 Sat 21 Nov 2026 UTC (4 min)\n\
             \x20 value    /var 96% (warning above 80, critical above 90)\n\
             \x20 note     ask storage first\n\
             \x20 runbook  https://wiki.example/disk\n\
             \x20   /var 96% of 20 GiB\n\
             \x20   / 40% of 10 GiB\n\
             \n\
             recently     load OK 02:14, booted 01:58\n\
             acknowledge  alertctl ack 4711   (on mon1)\n\
             details      alertctl why 4711\n\
             reason       your first notification of this incident (group_wait_over)\n"
        );
    }

    #[test]
    fn a_retry_sends_the_same_bytes() {
        assert_eq!(formatted(&problem()), formatted(&problem()));
    }

    #[test]
    fn one_incident_is_one_thread_of_separate_messages() {
        let first = formatted(&problem());
        let second = formatted(&Notification { id: "n-other".into(), kind: Kind::Recovery, ..problem() });
        let header = |mail: &str, name: &str| {
            let line = mail.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap().to_owned();
            line[name.len() + 2..].to_owned()
        };
        assert_eq!(header(&first, "References"), header(&second, "References"));
        assert_eq!(header(&first, "In-Reply-To"), header(&first, "References"));
        assert_eq!(header(&first, "Message-ID"), "<n-0192f3a7-2@mon1.example>");
        assert_ne!(header(&first, "Message-ID"), header(&second, "Message-ID"));
        assert_eq!(header(&first, "Date"), "Sat, 21 Nov 2026 02:16:00 +0000");
        assert_eq!(header(&first, "Auto-Submitted"), "auto-generated");
    }

    #[test]
    fn untrusted_text_cannot_add_headers_or_tags() {
        let mut told = problem();
        let evil = "x\r\nBcc: all@example.org\r\n\r\n<script>alert(1)</script>\u{202e}";
        told.firing[0].summary = evil.into();
        told.firing[0].detail = evil.into();
        told.firing[0].labels.insert("host".into(), evil.into());
        told.firing[0].annotations.insert("runbook".into(), "javascript:alert(1)".into());
        told.firing[0].annotations.insert("link".into(), "https://x\"><script>".into());
        told.id = evil.into();
        told.receiver = evil.into();
        told.reason = evil.into();
        let mail = formatted(&told);
        let head = mail.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        let text = text_of(&told, &sender(), None);
        assert!(!text.html().contains("<script>"), "{}", text.html());
        assert!(!text.html().contains("href=\"javascript"));
        assert!(!text.plain().contains('\u{202e}'));
    }

    #[test]
    fn many_alerts_are_truncated_and_lines_fit_smtp() {
        let mut told = problem();
        told.firing[0].summary = "ü".repeat(5_000);
        told.firing = vec![told.firing[0].clone(); 400];
        let text = text_of(&told, &sender(), None).plain();
        assert!(text.contains("… and 375 more alerts"));
        assert!(formatted(&told).split("\r\n").all(|line| line.len() <= 998), "RFC 5321 §4.5.3.1.6");
        assert!(formatted(&told).is_ascii(), "no 8BITMIME needed");
    }

    fn formatted(told: &Notification) -> String {
        let from = "dogwatch <dogwatch@mon1.example>".parse().unwrap();
        let to = "Ada Övergård <ada@example.org>".parse().unwrap();
        String::from_utf8(message(told, &from, &to, &sender()).unwrap().formatted()).unwrap()
    }

    fn sender() -> Sender {
        Sender {
            host: "mon1".into(),
            zone: TimeZone::UTC,
            links: None,
            own_words: crate::notify::sender::Rendered::default(),
        }
    }
}
