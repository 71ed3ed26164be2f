//! `dogwatch check KIND [--option VALUE]…`: a native check as a Nagios plugin.

use std::{process::ExitCode, thread, time::Duration};

use dogwatch_checks::{Check, CheckResult, Host, Kind, Options};
use dogwatch_daemon::{config::closest, duration::Span};

/// What stands behind `check` belongs to the kind, whose options are not known before it is.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Kind of check (`dogwatch check --help` lists them), then its options; `--timeout SPAN`, `--json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "KIND [OPTIONS]")]
    words: Vec<String>,
}

/// What the words ask for.
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
    let result = run_once(check, asked.timeout).await;
    if asked.json {
        println!("{}", json(&result));
    } else {
        println!("{}", result.to_nagios(kind.name));
    }
    ExitCode::from(result.state.exit_code())
}

async fn run_once(check: Check, timeout: Duration) -> CheckResult {
    let late = || CheckResult::unknown(format!("no result within {}", Span(timeout)));
    match check {
        Check::Async(check) => {
            tokio::time::timeout(timeout, check.run(timeout)).await.unwrap_or_else(|_| late())
        }
        Check::Blocking(check) => {
            let (answer, answered) = tokio::sync::oneshot::channel();
            // May hang in the kernel: a thread that the exit does not wait for.
            thread::spawn(move || answer.send(check.run()));
            match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => CheckResult::unknown("check panicked (a bug in dogwatch; please report it)"),
                Err(_) => late(),
            }
        }
    }
}

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
                _ => return Err(format!("{word:?} is not understood; options are written --name VALUE")),
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

/// An option's name as it is written on a command line; in a config it has underscores, like all keys.
fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

fn has_option(kind: &Kind, name: &str) -> bool {
    kind.options.iter().any(|option| option.name == name)
}

/// The name that was meant, or all names.
fn hint(wrong: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    match closest(wrong, known.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("use one of {}", known.collect::<Vec<_>>().join(", ")),
    }
}

fn is_switch(kind: &str, option: &str) -> bool {
    let Some(kind) = dogwatch_checks::kind(kind) else { return false };
    kind.options.iter().any(|spec| spec.name == option && spec.value.is_empty())
}

/// What cannot even be asked is UNKNOWN in a plugin's exit code, and said where a monitor shows it.
fn unknown(message: &str) -> ExitCode {
    println!("UNKNOWN - {message}");
    ExitCode::from(3)
}

fn print_kinds() {
    println!("usage: dogwatch check KIND [--OPTION VALUE]... [--timeout SPAN] [--json]\n");
    for kind in dogwatch_checks::KINDS {
        println!("  {:<10} {}", kind.name, kind.about);
    }
    println!("\n`dogwatch check KIND --help` lists its options.");
}

fn print_options(kind: &Kind) {
    println!("{}: {}\n", kind.name, kind.about);
    for option in kind.options {
        println!("  --{:<28} {}", format!("{} {}", dashed(option.name), option.value), option.help);
    }
    println!("  --{:<28} give up after this [10s]", "timeout SPAN");
    println!("  --{:<28} print JSON", "json");
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
    fn options_are_names_and_values_in_either_form() {
        let asked = parse(&words("load --warn 4 --crit=8 --total --timeout 2s --json")).unwrap();
        assert_eq!((asked.kind.as_str(), asked.json, asked.timeout), ("load", true, Duration::from_secs(2)));
        let expected: Options = [("warn", "4"), ("crit", "8"), ("total", "true")].into_iter().collect();
        assert_eq!(asked.options, expected);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert_eq!(parse(&words("load --warn")).unwrap_err(), "--warn needs a value");
        assert!(parse(&words("load -w 4")).unwrap_err().contains("\"-w\" is not understood"));
        assert!(parse(&words("load --timeout soon")).unwrap_err().contains("is not a duration"));
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }
}
