//! `dogwatch check KIND [--option VALUE]…`: runs a check as a Nagios plugin.

use std::{fmt::Write as _, process::ExitCode, thread, time::Duration};

use dogwatch_checks::{Check, CheckResult, Findings, Host, Judgement, Kind, Options, Past};
use dogwatch_daemon::{config::hint, duration::Span};

use super::print;
use crate::clock;

/// The options depend on the kind, so clap cannot parse them.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Kind of check and its options, --timeout DURATION, --json. `dogwatch check --help` lists the
    /// kinds.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "KIND [OPTIONS]")]
    words: Vec<String>,
}

/// The parsed arguments.
#[derive(Debug, PartialEq)]
struct Asked {
    kind: String,
    options: Options,
    timeout: Duration,
    json: bool,
    help: bool,
}

pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let asked = match parse(&arguments.words) {
        Ok(asked) => asked,
        Err(message) => return unknown(&message),
    };
    if asked.kind.is_empty() {
        print_kinds();
        return ExitCode::from(3);
    }
    let Some(kind) = dogwatch_checks::kind(&asked.kind) else {
        if ["plugin", "passive", "job"].contains(&asked.kind.as_str()) {
            let kind = &asked.kind;
            return unknown(&format!(
                "{kind} cannot be run here; [check.NAME] with kind = \"{kind}\": docs/checks.md"
            ));
        }
        let kinds = dogwatch_checks::KINDS.iter().map(|kind| kind.name);
        return unknown(&format!("unknown kind of check `{}`; {}", asked.kind, hint(&asked.kind, kinds)));
    };
    if asked.help {
        print_options(kind);
        return ExitCode::from(3);
    }
    if let Some(wrong) = asked.options.names().find(|name| !has_option(kind, name)) {
        let options = kind.options.iter().map(|option| option.name);
        return unknown(&format!("unknown option --{}; {}", dashed(wrong), dashed(&hint(wrong, options))));
    }
    let check = match kind.build(&asked.options, &Host::live()) {
        Ok(check) => check,
        Err(errors) => {
            let errors: Vec<_> = errors
                .iter()
                .map(|error| format!("--{}: {}", dashed(&error.option), error.message))
                .collect();
            return unknown(&errors.join("; "));
        }
    };
    let findings = run_once(check, asked.timeout).await;
    let result = findings.map_or_else(|late| late, Findings::summed_up);
    if asked.json {
        print(format_args!("{}\n", json(&result)));
    } else {
        print(format_args!("{}\n", result.to_nagios(kind.name)));
    }
    ExitCode::from(result.state.exit_code())
}

/// Runs a check. A check that needs two readings (for rates) reads again after a second. Returns
/// a result in place of findings if it does not end in time.
pub(super) async fn run_once(check: Check, timeout: Duration) -> Result<Findings, CheckResult> {
    let mut past = Past::default();
    let findings = read_once(check.clone(), timeout).await?.judge(&mut past, clock::since_boot());
    if !past.is_incomplete() || timeout <= BETWEEN_READINGS {
        return Ok(findings);
    }
    tokio::time::sleep(BETWEEN_READINGS).await;
    let rest = timeout.saturating_sub(BETWEEN_READINGS);
    Ok(read_once(check, rest).await?.judge(&mut past, clock::since_boot()))
}

async fn read_once(check: Check, timeout: Duration) -> Result<Judgement, CheckResult> {
    let late = || CheckResult::unknown(format!("check timed out after {}", Span(timeout)));
    match check {
        Check::Async(check) => tokio::time::timeout(timeout, check.run(timeout)).await.map_err(|_| late()),
        Check::Blocking(check) => {
            let (answer, answered) = tokio::sync::oneshot::channel();
            // The check may hang in the kernel. The exit does not wait for this thread.
            thread::spawn(move || answer.send(check.run()));
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(judgement)) => Ok(judgement),
                Ok(Err(_)) => {
                    Err(CheckResult::unknown("check panicked (a bug in dogwatch; please report it)"))
                }
                Err(_) => Err(late()),
            }
        }
    }
}

/// Enough for rates of what a server does all the time.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);

fn parse(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked {
        kind: String::new(),
        options: Options::default(),
        timeout: Duration::from_secs(10),
        json: false,
        help: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            match word.as_str() {
                "-h" => asked.help = true,
                _ if asked.kind.is_empty() && !word.starts_with('-') => asked.kind.clone_from(word),
                _ => return Err(format!("unexpected argument {word:?}; write options as --name VALUE")),
            }
            continue;
        };
        let (name, inline) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        match name {
            "json" => asked.json = true,
            "help" => asked.help = true,
            _ if is_switch(&asked.kind, name) => {
                asked.options.set(name, inline.as_deref().unwrap_or("true"));
            }
            _ => {
                let value = inline.or_else(|| words.next().cloned());
                let value = value.ok_or_else(|| format!("--{name} needs a value"))?;
                if name == "timeout" {
                    asked.timeout = value.parse::<Span>()?.0;
                } else {
                    asked.options.set(name, value.as_str());
                }
            }
        }
    }
    Ok(asked)
}

/// The name of an option on the command line. In a config it has underscores, like all keys.
fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

fn has_option(kind: &Kind, name: &str) -> bool {
    kind.options.iter().any(|option| option.name == name)
}

fn is_switch(kind: &str, option: &str) -> bool {
    let Some(kind) = dogwatch_checks::kind(kind) else { return false };
    kind.options.iter().any(|spec| spec.name == option && spec.value.is_empty())
}

/// For a plugin, wrong arguments are UNKNOWN, with the error on stdout.
fn unknown(message: &str) -> ExitCode {
    print(format_args!("UNKNOWN - {message}\n"));
    ExitCode::from(3)
}

fn print_kinds() {
    let mut text = String::from(
        "Usage: dogwatch check KIND [--OPTION VALUE]... [--timeout DURATION] [--json]\n\nKinds:\n",
    );
    for kind in dogwatch_checks::KINDS {
        let _ = writeln!(text, "  {:<10} {}", kind.name, kind.about);
    }
    text.push_str("\n`dogwatch check KIND --help` lists the options of a kind.\n");
    print(text);
}

fn print_options(kind: &Kind) {
    let mut text = format!("{}: {}\n\nOptions (repeat an option to give a list):\n", kind.name, kind.about);
    let own = kind.options.iter().map(|option| (dashed(option.name), option.value, option.help));
    let common = [
        ("timeout".to_owned(), "DURATION", "time limit for the check [10s]"),
        ("json".to_owned(), "", "print JSON"),
    ];
    for (name, value, help) in own.chain(common) {
        let _ = writeln!(text, "  --{:<28} {help}", format!("{name} {value}"));
    }
    print(text);
}

fn json(result: &CheckResult) -> serde_json::Value {
    serde_json::json!({
        "state": result.state.name(),
        "summary": result.summary,
        "detail": result.detail,
        "perfdata": result.perfdata_text(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_accepted_in_both_forms() {
        let asked = parse(&words("load --warn 4 --crit=8 --total --timeout 2s --json")).unwrap();
        assert_eq!((asked.kind.as_str(), asked.json, asked.timeout), ("load", true, Duration::from_secs(2)));
        let expected: Options = [("warn", "4"), ("crit", "8"), ("total", "true")].into_iter().collect();
        assert_eq!(asked.options, expected);
    }

    #[test]
    fn wrong_arguments_are_errors() {
        assert_eq!(parse(&words("load --warn")).unwrap_err(), "--warn needs a value");
        assert!(parse(&words("load -w 4")).unwrap_err().contains("unexpected argument \"-w\""));
        assert!(parse(&words("load --timeout soon")).unwrap_err().contains("is not a duration"));
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }
}
