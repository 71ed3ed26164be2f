//! `[receiver.NAME.template]`: templates that replace the built-in texts.
//!
//! ```toml
//! [receiver.ops.template]
//! subject = "{{ state }} {{ firing[0].name if firing else group.host }}"
//! text = "{% for a in firing %}{{ a.name }}: {{ a.summary }} ({{ a.age }})\n{% endfor %}{{ how_to_ack }}"
//! ```
//!
//! Jinja as implemented by minijinja. docs/templates.md lists the variables: the webhook's body and
//! some texts for people. Templates are tried when the config is loaded, with a sample of each kind
//! of notification, with and without annotations, so that most mistakes are found before an alert.
//!
//! A template never stops a notification: if it fails or its output is too large, the built-in text
//! is sent, and an internal alert reports the failure. Templates cannot access files, the network
//! or other templates; their steps ([`FUEL`]) and output ([`OUTPUT_BYTES_MAX`]) are limited.

use std::{io, sync::Arc};

use dogwatch_alertd_core::rules::{
    lately::Happened,
    notification::{DigestLine, Kind, Notification, NotifiedAlert},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use dogwatch_wire::{State, ctl::AckInfo};
use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, value::Serde};
use serde::Deserialize;
use serde_json::Value;

use super::{
    perfdata,
    sender::{Rendered, Sender},
    webhook, words,
};

/// `[receiver.NAME.template]` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    subject: Option<Spanned<String>>,
    text: Option<Spanned<String>>,
    html: Option<Spanned<String>>,
    json: Option<Spanned<String>>,
}

/// Compiled and tried.
#[derive(Clone)]
pub struct Templates(Arc<Environment<'static>>);

/// Instructions per rendering: enough for a loop over some thousand alerts, a few milliseconds.
const FUEL: u64 = 200_000;
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
const SUBJECT_CHARS_MAX: usize = 200;
const PARTS: [&str; 4] = ["subject", "text", "html", "json"];

impl File {
    /// Compiles and tries the templates; `allowed` are the parts that this kind of receiver has.
    pub(super) fn resolve(
        self,
        kind: &str,
        allowed: &[&str],
        source: &Source,
        problems: &mut Problems,
    ) -> Option<Templates> {
        let before = problems.0.len();
        let mut environment = environment();
        let mut places = Vec::new();
        let written = PARTS.into_iter().zip([self.subject, self.text, self.html, self.json]);
        for (part, text) in written.filter_map(|(part, text)| Some((part, text?))) {
            let span = text.span();
            if !allowed.contains(&part) {
                let words = format!(
                    "{kind} receivers have no template part {part:?}; they have {}",
                    allowed.join(", ")
                );
                problems.add(source, span, words);
            } else if let Err(error) = environment.add_template_owned(part, text.into_inner()) {
                problems.add(source, span, said(part, &error));
            } else {
                places.push((part, span));
            }
        }
        let templates = Templates(Arc::new(environment));
        for (part, span) in places {
            let wrong = samples().iter().find_map(|told| templates.part(part, told, &sample_sender()).err());
            if let Some(words) = wrong {
                problems.add(source, span, words);
            }
        }
        (problems.0.len() == before).then_some(templates)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // Adds positions to errors.
    environment.set_debug(true);
    environment.set_fuel(Some(FUEL));
    // A missing label or annotation may be tested with `if`, but not printed.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment
        .set_auto_escape_callback(|part| if part == "html" { AutoEscape::Html } else { AutoEscape::None });
    environment
}

impl Templates {
    /// Renders all parts; also returns the first error.
    pub(super) fn render(&self, told: &Notification, sender: &Sender) -> (Rendered, Option<String>) {
        let mut trouble = None;
        let mut part = |name: &str| {
            self.0.get_template(name).ok()?;
            self.part(name, told, sender).map_err(|words| trouble.get_or_insert(words).len()).ok()
        };
        let rendered =
            Rendered { subject: part("subject"), text: part("text"), html: part("html"), json: part("json") };
        (rendered, trouble)
    }

    fn part(&self, part: &str, told: &Notification, sender: &Sender) -> Result<String, String> {
        let template = self.0.get_template(part).map_err(|error| said(part, &error))?;
        let context = context(told, sender)?;
        let mut out = Bounded::default();
        let rendered =
            template.render_captured_to(minijinja::Value::from(Serde(&context)), &mut out).map(drop);
        if out.full {
            return Err(format!("template {part}: the output is larger than {OUTPUT_BYTES_MAX} bytes"));
        }
        rendered.map_err(|error| said(part, &error))?;
        let text = String::from_utf8(out.bytes).map_err(|error| format!("template {part}: {error}"))?;
        match part {
            "subject" => {
                let line = text::line(&text, SUBJECT_CHARS_MAX);
                if line.is_empty() { Err("template subject: the output is empty".into()) } else { Ok(line) }
            }
            "json" => match serde_json::from_str::<Value>(&text) {
                Ok(_) => Ok(text),
                Err(error) => {
                    Err(format!("template json: the output is not JSON: {error}; write values with |tojson"))
                }
            },
            "text" => Ok(text::block(&text, usize::MAX).join("\n")),
            _ => Ok(text),
        }
    }
}

impl std::fmt::Debug for Templates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(PARTS.iter().filter(|part| self.0.get_template(part).is_ok())).finish()
    }
}

/// The error with its position in the template.
fn said(part: &str, error: &minijinja::Error) -> String {
    let mut what = error.kind().to_string();
    if let Some(detail) = error.detail() {
        what = format!("{what}: {detail}");
    }
    let mut place = String::new();
    if let (Some(line), source) = (error.line(), error.template_source()) {
        place = format!(", line {line}");
        if let (Some(range), Some(source)) = (error.range(), source) {
            let before = source.get(..range.start).unwrap_or_default();
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let shown = text::line(source.get(range).unwrap_or_default(), 60);
            place = format!(", line {line} column {column} at {shown:?}");
        }
    }
    format!("template {part}{place}: {}", text::line(&what, 300))
}

/// The variables: the webhook's body, and texts for people.
fn context(told: &Notification, sender: &Sender) -> Result<Value, String> {
    let body = webhook::body(told, sender).map_err(|error| error.to_string())?;
    let mut body: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    for (list, alerts) in [("firing", &told.firing), ("resolved", &told.resolved)] {
        for (at, alert) in alerts.iter().enumerate() {
            let until = alert.resolved_at.unwrap_or(told.created_at);
            let value = &mut body[list][at];
            value["name"] = words::alert_name(alert).into();
            value["value"] = perfdata::in_words(&alert.perfdata, 500).into();
            value["age"] = text::age(alert.since, until).into();
            value["since_local"] = text::clock_time(alert.since, &sender.zone).into();
        }
    }
    body["group_text"] = words::group(told).into();
    body["why"] = words::why_told(told).into();
    let number = told.incident;
    let how = if number > 0 { format!("alertctl ack {number} (on {})", sender.host) } else { String::new() };
    body["how_to_ack"] = how.into();
    body["lately_text"] = words::lately(told, &sender.zone).into();
    Ok(body)
}

#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One notification of each kind; alerts with and without annotations and values.
pub(super) fn samples() -> Vec<Notification> {
    let at = Timestamp::from_second(1_795_227_360).unwrap_or_default();
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    let alert = |host: &str, annotations: &[(&str, &str)], perfdata: &str| NotifiedAlert {
        labels: pairs(&[("host", host), ("service", "disk /var"), ("check", "disk"), ("thing", "/var")]),
        annotations: pairs(annotations),
        state: State::Critical,
        flapping: false,
        summary: "4% free (0.8 GiB), limit 5%".into(),
        detail: "mounted from /dev/sda2\nhandler not run: its cooldown is not over".into(),
        perfdata: perfdata.into(),
        since: at,
        resolved_at: None,
        joined: false,
    };
    let full = alert("web1", &[("runbook", "https://wiki.example/disk")], "/var=96%;80;90");
    let bare = alert("web2", &[], "");
    let ack = AckInfo {
        author: "ann".into(),
        comment: "looking into it".into(),
        at,
        sticky: false,
        expires_at: None,
    };
    let line = DigestLine { incident: 17, kind: Kind::Problem, title: "CRITICAL web1/disk /var".into(), at };
    let happened = Happened { at, service: Some("load".into()), what: "OK".into() };
    let kinds = [
        Kind::Problem,
        Kind::Update,
        Kind::Reminder,
        Kind::Recovery,
        Kind::Acknowledged,
        Kind::Digest,
        Kind::Test,
    ];
    let sample = |kind: Kind| {
        let over = |alert: &NotifiedAlert| NotifiedAlert { resolved_at: Some(at), ..alert.clone() };
        let many = matches!(kind, Kind::Digest | Kind::Test);
        Notification {
            id: "sample-1".into(),
            incident: if many { 0 } else { 4711 },
            dedup_key: "sample/4711".into(),
            receiver: "sample".into(),
            kind,
            reason: "first_notification".into(),
            created_at: at,
            group: pairs(&[("host", "web1")]),
            firing: match kind {
                Kind::Recovery | Kind::Digest | Kind::Test => Vec::new(),
                _ => vec![bare.clone(), full.clone()],
            },
            resolved: match kind {
                Kind::Recovery => vec![over(&full), over(&bare)],
                Kind::Update => vec![over(&bare)],
                _ => Vec::new(),
            },
            digest: if kind == Kind::Digest { vec![line.clone()] } else { Vec::new() },
            summary: None,
            ack: (kind == Kind::Acknowledged).then(|| ack.clone()),
            note: None,
            lately: if kind == Kind::Problem { vec![happened.clone()] } else { Vec::new() },
        }
    };
    kinds.into_iter().map(sample).collect()
}

fn sample_sender() -> Sender {
    Sender { host: "mon1".into(), zone: jiff::tz::TimeZone::UTC, links: None, own_words: Rendered::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dogwatch_daemon::config;

    use super::{super::words::tests::problem, *};

    #[test]
    fn the_example_in_the_docs_has_the_documented_output() {
        let page = include_str!("../../../docs/templates.md");
        let block =
            |fence: &str| page.split(&format!("```{fence}\n")).nth(1).unwrap().split("```").next().unwrap();
        let text = block("toml").replace("[receiver.ops.template]\n", "");
        // As an agent reports it.
        let mut told = problem();
        told.group = BTreeMap::from([("host".into(), "web1".into())]);
        let alert = &mut told.firing[0];
        let labels = [("host", "web1"), ("service", "disk /var"), ("check", "disk"), ("thing", "/var")];
        alert.labels = labels.map(|(name, value)| (name.into(), value.into())).into();
        alert.summary = "4% free (0.8 GiB), limit 5% and 5.0 GiB".into();
        alert.perfdata = "/var=20615843021B;19327352832;20401094656;0;21474836480".into();
        let (rendered, trouble) = resolve(&text).unwrap().render(&told, &sample_sender());
        assert_eq!(trouble, None);
        let said = format!("{}\n\n{}\n", rendered.subject.unwrap(), rendered.text.unwrap());
        assert_eq!(said, block("text"));
    }

    #[test]
    fn mistakes_are_found_at_load_with_their_position() {
        for (text, parts) in [
            (
                "subject = \"{{ sate }}\"",
                &["1:11", "template subject, line 1 column 4 at \"sate\"", "undefined"][..],
            ),
            ("text = \"{% for a in firing %}\"", &["1:8", "template text", "line 1"]),
            ("text = \"{{ firing[0].annotations.runbook }}\"", &["undefined"]),
            ("text = \"{{ now() }}\"", &["now"]),
            ("text = \"{% include 'x' %}\"", &["template text"]),
            ("subject = \"{# nothing #}\"", &["the output is empty"]),
            (
                "text = \"{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}\"",
                &["fuel"],
            ),
            ("json = \"{ {{ title }} }\"", &["not JSON"]),
            ("colour = \"red\"", &["unknown field"]),
        ] {
            let said = resolve(text).unwrap_err().to_string();
            for part in parts {
                assert!(said.contains(part), "{text}\nsaid {said}\nwithout {part}");
            }
        }
    }

    #[test]
    fn a_missing_value_may_be_tested_with_if() {
        let text = "text = \"{% for a in firing %}{% if a.annotations.runbook %}{{ a.annotations.runbook }}{% endif %}{% endfor %}\"";
        let (rendered, trouble) = resolve(text).unwrap().render(&problem(), &sample_sender());
        assert_eq!((rendered.text.as_deref(), trouble), (Some("https://wiki.example/disk"), None));
    }

    #[test]
    fn a_failure_at_run_time_is_reported_and_leaves_other_parts_alone() {
        let text = "subject = \"{% if firing and firing[0].labels.team %}{{ firing[0].labels.team.x.y }}{% else %}s{% endif %}\"\ntext = \"t\"";
        let templates = resolve(text).unwrap();
        let mut told = problem();
        told.firing[0].labels.insert("team".into(), "db".into());
        let (rendered, trouble) = templates.render(&told, &sample_sender());
        assert_eq!((rendered.subject, rendered.text.as_deref()), (None, Some("t")));
        assert!(trouble.unwrap().starts_with("template subject, line 1"));
    }

    #[test]
    fn untrusted_text_is_neither_rendered_nor_markup() {
        let text = "subject = \"{{ firing[0].summary if firing else 1 }}\"\nhtml = \"<b title='{{ title }}'>{{ firing[0].summary if firing else 1 }}</b>\"";
        let mut told = problem();
        told.firing[0].summary = "a\r\nBcc: x<script>{{ 7 * 7 }}\u{202e}".into();
        let (rendered, trouble) = resolve(text).unwrap().render(&told, &sample_sender());
        assert_eq!(trouble, None);
        assert_eq!(rendered.subject.unwrap(), "a Bcc: x<script>{{ 7 * 7 }}");
        assert!(!rendered.html.unwrap().contains("<script>"));
    }

    fn resolve(text: &str) -> Result<Templates, Problems> {
        let source = Source { path: "alertd.toml".into(), text: text.into() };
        let mut problems = Problems::default();
        let found = config::parse::<File>(&source, &mut problems)
            .and_then(|file| file.resolve("email", &PARTS, &source, &mut problems));
        problems.or(found).map(|found| found.expect("a problem otherwise"))
    }
}
