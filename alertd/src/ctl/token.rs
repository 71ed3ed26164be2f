//! `alertctl token`: creates, lists and revokes API tokens.

use std::fmt::Write;

use clap::{Args, Subcommand};
use dogwatch_alertd_core::rules::{
    text::{clock_time, line},
    token::{Scope, check_name},
};
use dogwatch_daemon::duration::Span;
use dogwatch_wire::ctl::{NewToken, Token, TokenMade};
use hyper::Method;

use super::{
    Alertd, Answer, Failure,
    paint::{Colour, Table},
    paint::{NAME_CHARS_MAX, View},
};

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it
    ///
    /// The token is printed only once, because alertd stores only its SHA-256.
    /// Clients send it in the header "Authorization: Bearer TOKEN".
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Examples:
  alertctl token create prometheus --scope ingest > prometheus.token
  alertctl token create web1 --scope ingest --host web1 --expires 365d > web1.token
  alertctl token create ops --scope ack,silence > ops.token"
    )]
    Create(Create),
    /// List tokens, without their secrets
    List,
    /// Revoke a token, effective immediately
    Revoke {
        /// Name of the token
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// Name of the token, such as prometheus; the audit log shows token:NAME
    #[arg(value_parser = name)]
    name: String,
    /// What the token allows: ingest, read, ack, silence or admin
    ///
    /// ingest allows reporting only; ack and silence include read.
    #[arg(long = "scope", value_name = "SCOPE,…", value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    /// Expire the token after this time, such as 90d [default: never]
    #[arg(long, value_name = "DURATION")]
    expires: Option<Span>,
    /// Treat everything that is reported with the token as reports of this host
    #[arg(long)]
    host: Option<String>,
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

pub(super) async fn token(
    alertd: &Alertd<'_>,
    command: TokenCommand,
    view: &View,
) -> Result<Answer, Failure> {
    match command {
        TokenCommand::Create(ask) => {
            let body = NewToken {
                name: ask.name,
                scopes: ask.scopes.iter().map(ToString::to_string).collect(),
                expires_s: ask.expires.map(|span| span.0.as_secs()),
                host: ask.host,
            };
            // Only the secret goes to stdout, so that it can be redirected to a file.
            let shown = |made: &TokenMade| {
                if !alertd.json {
                    eprint!("{}", about(made, view));
                }
                format!("{}\n", made.secret)
            };
            alertd.post("/v1/tokens", &body, shown).await
        }
        TokenCommand::List => alertd.get("/v1/tokens", |list: &Vec<Token>| tokens(list, view)).await,
        TokenCommand::Revoke { name } => {
            let shown = |revoked: &Token| format!("token {} revoked\n", revoked.name);
            alertd.call(Method::DELETE, &format!("/v1/tokens/{name}"), None::<&()>, shown).await
        }
    }
}

fn about(made: &TokenMade, view: &View) -> String {
    let token = &made.token;
    let mut out = String::new();
    let _ = write!(out, "token {}: {}", token.name, token.scopes.join(", "));
    if let Some(host) = &token.host {
        let _ = write!(out, ", only for host {host}");
    }
    if let Some(at) = token.expires_at {
        let _ = write!(out, ", expires {}", clock_time(at, &view.zone));
    }
    out + "; store it now, it is not shown again\n"
}

fn tokens(tokens: &[Token], view: &View) -> String {
    if tokens.is_empty() {
        return "no tokens\n".into();
    }
    let mut out = String::new();
    let mut table = Table::with_head(&["NAME", "SCOPES", "HOST", "CREATED", "BY", "LAST USED", "EXPIRES"]);
    for token in tokens {
        let colour = if token.expired { Colour::Dim } else { Colour::None };
        let used = token.last_used_at.map_or("never".into(), |at| used(at, view));
        let ends = match token.expires_at {
            None => "never".into(),
            Some(_) if token.expired => "expired".into(),
            Some(at) => view.until(at),
        };
        let cells = vec![
            (line(&token.name, NAME_CHARS_MAX), if token.expired { colour } else { Colour::Bold }),
            (token.scopes.join(","), colour),
            (line(token.host.as_deref().unwrap_or("any"), NAME_CHARS_MAX), colour),
            (format!("{} ago", view.age(token.created_at)), colour),
            (line(&token.created_by, NAME_CHARS_MAX), colour),
            (used, colour),
            (ends, colour),
        ];
        table.row(cells, String::new());
    }
    table.write(&mut out, view.paint);
    out
}

/// alertd stores only the day of the last use.
fn used(at: jiff::Timestamp, view: &View) -> String {
    match (view.now.as_second() - at.as_second()) / 86_400 {
        ..=0 => "today".into(),
        days => format!("{days} d ago"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::*;
    use crate::ctl::paint::Paint;

    #[test]
    fn a_token_is_said_once_and_the_list_says_who_made_it_and_when_it_was_used() {
        let now: Timestamp = "2026-11-21T22:00:00Z".parse().unwrap();
        let view = View { now, zone: TimeZone::UTC, paint: Paint::Plain };
        let token = Token {
            name: "web1".into(),
            scopes: vec!["ingest".into()],
            host: Some("web1".into()),
            created_at: "2026-11-18T22:00:00Z".parse().unwrap(),
            created_by: "ada".into(),
            expires_at: Some("2026-11-22T22:00:00Z".parse().unwrap()),
            last_used_at: Some("2026-11-19T21:00:00Z".parse().unwrap()),
            expired: false,
        };
        let made = TokenMade { token: token.clone(), secret: "dogwatch_00".into() };
        assert_eq!(
            about(&made, &view),
            "token web1: ingest, only for host web1, expires 22:00 Sun 22 Nov 2026 UTC; store it now, it is not shown again\n"
        );
        let old =
            Token { name: "old".into(), host: None, last_used_at: None, expired: true, ..token.clone() };
        let list = tokens(&[token, old], &view);
        let lines: Vec<_> =
            list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(lines[1].starts_with("web1 ingest web1") && lines[1].contains("ada 2 d ago"), "{list}");
        assert!(lines[2].contains("any") && lines[2].contains("never expired"), "{list}");
        assert_eq!(tokens(&[], &view), "no tokens\n");
    }
}
