//! `dogwatch discover`: what is watched on this host and why, and what is not. `dogwatch list
//! --blind`: only what is not. Both run every check once, so they need no running agent.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode, time::Duration};

use dogwatch_checks::{Blind, Findings, Host, Options};

use super::{ConfigArgument, check::run_once, fail, print};
use crate::config::{self, Config, Work};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one check found.
struct Found {
    check: String,
    kind: String,
    origin: String,
    things: Vec<(String, String, String)>,
    blind: Vec<Blind>,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let config = match config::load(&arguments.config.config, &Host::live()) {
        Ok(config) => config,
        Err(problems) => return fail(&format!("invalid config:\n{problems}")),
    };
    let found = look(&config).await;
    if arguments.json {
        print(format_args!("{}\n", json(&found, &config)));
    } else {
        print(render(&found, &config));
    }
    ExitCode::SUCCESS
}

/// `dogwatch list --blind`.
pub(super) async fn blind(config: &Config, as_json: bool) -> ExitCode {
    let found = look(config).await;
    let rows = found.iter().flat_map(|found| found.blind.iter().map(|blind| (found.check.as_str(), blind)));
    let off = config.off.iter().map(|(name, at)| {
        let why = format!("switched off at {at}");
        (name.to_string(), Blind { thing: "all".to_owned(), why })
    });
    let absent = config
        .absent
        .iter()
        .map(|(name, why)| (name.to_string(), Blind { thing: "all".to_owned(), why: why.clone() }));
    let rows = rows.map(|(check, blind)| (check.to_owned(), blind.clone()));
    let rows: Vec<_> = rows.chain(off).chain(absent).collect();
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(check, blind)| serde_json::json!({"check": check, "thing": blind.thing, "why": blind.why}))
            .collect();
        print(format_args!("{}\n", serde_json::Value::from(rows)));
        return ExitCode::SUCCESS;
    }
    if rows.is_empty() {
        print(format_args!("nothing that the checks find is left out\n"));
        return ExitCode::SUCCESS;
    }
    print(table(&rows.iter().map(|(check, blind)| [check, &blind.thing, &blind.why]).collect::<Vec<_>>()));
    ExitCode::SUCCESS
}

/// Runs all native checks at once.
async fn look(config: &Config) -> Vec<Found> {
    let mut runs = Vec::new();
    for (name, check) in &config.checks {
        let (work, timeout) = (check.work.clone(), check.timeout);
        runs.push((
            name,
            check,
            tokio::spawn(async move {
                match work {
                    Work::Native(native) => findings(native, timeout).await,
                    Work::Plugin(_) | Work::Passive(_) | Work::Jobs(_) | Work::Own => Findings::default(),
                }
            }),
        ));
    }
    let mut all = Vec::new();
    for (name, check, run) in runs {
        let findings = run.await.unwrap_or_default();
        let mut blind = findings.blind;
        let mut things = Vec::new();
        for finding in findings.list {
            if check.settings(finding.thing.as_deref()).is_none() {
                let thing = finding.thing.unwrap_or_default();
                blind.push(Blind { thing, why: "switched off in the config".to_owned() });
                continue;
            }
            let state = finding.result.state.name().to_owned();
            things.push((finding.thing.unwrap_or_default(), state, finding.result.summary));
        }
        all.push(Found {
            check: name.to_string(),
            kind: check.kind.clone(),
            origin: check.origin.to_string(),
            things,
            blind,
        });
    }
    all
}

async fn findings(check: dogwatch_checks::Check, timeout: Duration) -> Findings {
    match run_once(check, timeout).await {
        Ok(findings) => findings,
        Err(late) => late.into(),
    }
}

fn render(found: &[Found], config: &Config) -> String {
    let mut text = String::from("Watched on this host:\n");
    for found in found {
        let _ = writeln!(text, "\n{} ({})", found.check, found.origin);
        let rows: Vec<_> = found.things.iter().map(|(thing, state, said)| [thing, state, said]).collect();
        if found.things.is_empty() {
            let _ = writeln!(
                text,
                "  {}",
                if runs_here(&found.kind) { "nothing found" } else { "runs in the agent" }
            );
        }
        for line in table(&rows).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    let blind: Vec<_> = found
        .iter()
        .flat_map(|found| found.blind.iter().map(move |blind| [&found.check, &blind.thing, &blind.why]))
        .collect();
    if !blind.is_empty() {
        let _ = write!(text, "\nFound but not watched:\n{}", table(&blind));
    }
    for (name, at) in &config.off {
        let _ = writeln!(text, "{name}: switched off at {at}");
    }
    for (name, why) in &config.absent {
        let _ = writeln!(text, "{name}: {why}");
    }
    let (absent, unconfigured) = others(config);
    if !absent.is_empty() {
        let _ = writeln!(text, "\nNot on this host: {}", absent.join(", "));
    }
    if !unconfigured.is_empty() {
        let _ = writeln!(text, "\nNeed configuration ([check.NAME] kind = …): {}", unconfigured.join(", "));
    }
    text
}

/// Plugins and passive checks give no result here.
fn runs_here(kind: &str) -> bool {
    !matches!(kind, "plugin" | "passive" | "job" | "self-check")
}

/// The kinds without a check: those that this host has nothing for, and those that need settings.
fn others(config: &Config) -> (Vec<&'static str>, Vec<&'static str>) {
    let used = |kind: &str| config.checks.values().any(|check| check.kind == kind);
    dogwatch_checks::KINDS
        .iter()
        .filter(|kind| !used(kind.name) && !config.off.contains_key(kind.name))
        .map(|kind| kind.name)
        .partition(|name| {
            let kind = dogwatch_checks::kind(name);
            kind.is_some_and(|kind| kind.build(&Options::default(), &Host::live()).is_ok())
        })
}

fn table<S: AsRef<str>>(rows: &[[S; 3]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].as_ref().chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for [a, b, c] in rows {
        let (a, b, c) = (a.as_ref(), b.as_ref(), c.as_ref());
        let line = format!("{a:<first$}  {b:<second$}  {c}");
        let _ = writeln!(text, "{}", line.trim());
    }
    text
}

fn json(found: &[Found], config: &Config) -> serde_json::Value {
    let (absent, unconfigured) = others(config);
    let checks: Vec<_> = found
        .iter()
        .map(|found| {
            let things: Vec<_> = found
                .things
                .iter()
                .map(|(thing, state, said)| {
                    serde_json::json!({"thing": thing, "state": state, "summary": said})
                })
                .collect();
            let blind: Vec<_> = found
                .blind
                .iter()
                .map(|blind| serde_json::json!({"thing": blind.thing, "why": blind.why}))
                .collect();
            serde_json::json!({
                "check": found.check, "kind": found.kind, "origin": found.origin,
                "things": things, "blind": blind,
            })
        })
        .collect();
    serde_json::json!({
        "checks": checks,
        "absent": config.absent.iter().map(|(name, why)| (name.to_string(), why)).collect::<BTreeMap<_, _>>(),
        "off": config.off.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "not_on_this_host": absent,
        "need_configuration": unconfigured,
    })
}
