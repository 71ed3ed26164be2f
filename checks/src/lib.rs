//! The checks of dogwatch, and what all checks and plugins have in common: results, thresholds,
//! performance data, plugin output.
//!
//! A run reads the host and returns a [`Judgement`], which turns what was read and the check's
//! [`Past`] into [`Findings`]: one result for the check as a whole, or one for each thing. If
//! something cannot be read, the result is UNKNOWN with the reason. A filesystem that hangs costs
//! one thread, once. Schedules, soft and hard states, alerts and external plugins are not part of
//! this crate. A check keeps no state between runs, except its past and what is in [`Host`].
//!
//! [`KINDS`] has all kinds of checks; `read/` has one reader for each file of the kernel.

mod clock;
mod dns_client;
mod finding;
mod http_get;
mod icmp;
mod kinds;
mod lane;
mod name;
pub mod options;
pub mod output;
mod past;
pub mod pattern;
pub mod perfdata;
mod read;
pub mod result;
pub mod root;
pub mod space;
mod span;
mod statvfs;
mod things;
pub mod threshold;
mod tls;
pub mod unit;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

pub use dogwatch_wire::State;
pub use finding::{Blind, Finding, Findings, Judgement};
pub use kinds::KINDS;
pub use lane::Lane;
pub use options::{OptionError, OptionSpec, Options, Value};
pub use past::Past;
pub use pattern::Pattern;
pub use perfdata::Perf;
pub use result::CheckResult;
use root::Root;
pub use things::Things;

/// A check, ready to run any number of times. A [`Blocking`] check must run on a thread that may
/// hang, so not on a thread of the runtime; an [`Async`] check runs as a task.
#[derive(Clone)]
pub enum Check {
    Blocking(Arc<dyn Blocking>),
    Async(Arc<dyn Async>),
}

/// A check that reads files and `statvfs`. It usually takes microseconds, but can hang in the
/// kernel.
pub trait Blocking: Send + Sync {
    /// Reads the host. The judgement reads nothing.
    fn run(&self) -> Judgement;
}

/// A check that waits for the network or for a process.
pub trait Async: Send + Sync {
    /// Returns within `timeout`. Dropping the future stops the check.
    fn run(self: Arc<Self>, timeout: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>>;
}

impl Check {
    fn blocking(check: impl Blocking + 'static) -> Self {
        Self::Blocking(Arc::new(check))
    }

    fn asynchronous(check: impl Async + 'static) -> Self {
        Self::Async(Arc::new(check))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blocking(_) => "Blocking",
            Self::Async(_) => "Async",
        })
    }
}

/// What all checks of a process share: which mounts hang, which were writable, and the system's
/// certificates. Create it once and keep it.
#[derive(Debug, Clone)]
pub struct Host {
    root: Root,
    readings: Arc<read::Readings>,
    asker: Arc<statvfs::Asker>,
    seen_writable: Arc<kinds::disk::SeenWritable>,
    tls: Arc<kinds::http::SystemTls>,
}

impl Host {
    pub fn live() -> Self {
        Self::new(Root::live())
    }

    pub fn new(root: Root) -> Self {
        let asker = Arc::new(statvfs::Asker::new(root.clone()));
        let readings = Arc::new(read::Readings::new(root.clone()));
        Self { root, readings, asker, seen_writable: Arc::default(), tls: Arc::default() }
    }
}

/// A kind of check.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// For `dogwatch check --help`.
    pub about: &'static str,
    pub options: &'static [OptionSpec],
    /// Whose turn it takes when it runs.
    pub lane: Lane,
    /// Whether the agent runs it without any configuration.
    built_in: BuiltIn,
    /// How often it runs, if not as often as most.
    pub interval: Option<Duration>,
    /// The things that it finds, with a service for each.
    pub things: Things,
    /// `None` only with an error in the reader.
    make: fn(&mut options::Reader<'_>, &Host) -> Option<Check>,
}

/// On which hosts a kind runs without any configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BuiltIn {
    Always,
    /// It must be configured.
    Never,
    /// On a host that has this.
    With(&'static str, fn(&Host) -> bool),
}

/// The kind with this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl Kind {
    /// Whether the agent runs it on this host without any configuration.
    fn is_built_in(&self, host: &Host) -> bool {
        match self.built_in {
            BuiltIn::Always => true,
            BuiltIn::Never => false,
            BuiltIn::With(_, has) => has(host),
        }
    }

    /// Why a built-in kind has nothing to check on this host. `None` if it has, and for a kind that
    /// must be configured.
    pub fn absent(&self, host: &Host) -> Option<String> {
        match self.built_in {
            BuiltIn::With(what, _) if !self.is_built_in(host) => Some(format!("this host has no {what}")),
            BuiltIn::Always | BuiltIn::Never | BuiltIn::With(..) => None,
        }
    }

    /// Returns a check with these options, or all errors in them.
    pub fn build(&self, options: &Options, host: &Host) -> Result<Check, Vec<OptionError>> {
        let mut reader = options::Reader::new(options, self.options);
        reader.refuse_inverted_limits();
        let check = (self.make)(&mut reader, host);
        reader.refuse_lost_options();
        let errors = reader.into_errors();
        match check {
            Some(check) if errors.is_empty() => Ok(check),
            _ => Err(errors),
        }
    }
}

/// The kinds of the built-in checks for this host. They run with their default options.
pub fn built_in(host: &Host) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| kind.is_built_in(host))
}

#[cfg(test)]
mod testing {
    use super::*;

    /// A captured tree in `tests/fixtures`. `tests/fixtures/README.md` has the origin of each.
    pub(crate) fn fixture(name: &str) -> Host {
        Host::new(Root::captured(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))))
    }

    pub(crate) fn run(name: &str, host: &Host) -> CheckResult {
        run_with(name, &[], host)
    }

    pub(crate) fn run_with(name: &str, options: &[(&str, &str)], host: &Host) -> CheckResult {
        findings(name, options, host, &mut Past::default(), Duration::from_hours(1)).summed_up()
    }

    /// One run of a check with a past, `now` after boot.
    pub(crate) fn findings(
        name: &str,
        options: &[(&str, &str)],
        host: &Host,
        past: &mut Past,
        now: Duration,
    ) -> Findings {
        let options = options.iter().copied().collect();
        match kind(name).unwrap().build(&options, host).unwrap() {
            Check::Blocking(check) => check.run().judge(past, now),
            Check::Async(_) => panic!("{name} does not block"),
        }
    }

    /// State and summary of each thing, for comparison with a list.
    pub(crate) fn lines(findings: &Findings) -> Vec<String> {
        let line = |finding: &Finding| {
            let thing = finding.thing.as_deref().unwrap_or("-");
            format!("{thing} {} {}", finding.result.state, finding.result.summary)
        };
        findings.list.iter().map(line).collect()
    }

    pub(crate) async fn run_async(name: &str, options: &[(&str, &str)]) -> CheckResult {
        let options = options.iter().copied().collect();
        match kind(name).unwrap().build(&options, &Host::live()).unwrap() {
            Check::Blocking(_) => panic!("{name} blocks"),
            Check::Async(check) => check.run(Duration::from_secs(10)).await.once(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_built_or_names_the_required_options() {
        let host = Host::live();
        for kind in KINDS {
            if let Err(errors) = kind.build(&Options::default(), &host) {
                assert!(
                    errors.iter().all(|error| error.message.contains("required")),
                    "{}: {errors:?}",
                    kind.name
                );
            }
        }
        assert!(kind("laod").is_none());
    }

    #[test]
    fn a_critical_limit_before_the_warning_limit_is_an_error() {
        let build = |warn: &str, crit: &str| {
            let options = Options::from_iter([("warn", warn), ("crit", crit)]);
            kind("cpu").unwrap().build(&options, &Host::live()).map(drop)
        };
        assert_eq!(build("90", "80").unwrap_err()[0].option, "crit");
        for (warn, crit) in [("80", "90"), ("80", "80"), ("10:", "5:"), ("@1:2", "5")] {
            assert_eq!(build(warn, crit), Ok(()), "{warn} {crit}");
        }
        assert!(build("5:", "10:").is_err());
    }

    #[test]
    fn an_unknown_option_is_an_error_for_every_kind() {
        let options = Options::from_iter([("colour", "blue")]);
        for kind in KINDS {
            let errors = kind.build(&options, &Host::live()).unwrap_err();
            assert!(errors.iter().any(|error| error.option == "colour"), "{}", kind.name);
        }
    }
}
