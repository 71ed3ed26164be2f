//! The checks of dogwatch, and what all checks and plugins have in common: results, thresholds,
//! performance data, plugin output.
//!
//! A check always returns a [`CheckResult`]: if it cannot read something, the result is UNKNOWN
//! with the reason. A filesystem that hangs costs one thread, once. Schedules, soft and hard
//! states, alerts and external plugins are not part of this crate. A check keeps no state between
//! runs, except what is in [`Host`].
//!
//! | kind | checks | reads |
//! | --- | --- | --- |
//! | `load` | load average per processor | `/proc/loadavg` |
//! | `memory`, `swap` | available memory, free swap | `/proc/meminfo` |
//! | `disk` | space and inodes; filesystems that hang, are missing, or became read-only | `mountinfo`, `statvfs` |
//! | `systemd` | failed units | `systemctl` |
//! | `tcp` | a port: connection, response time, expected text | the network |
//! | `http` | a page: status, content, response time, certificate | the network |

mod clock;
mod disk;
mod http;
mod http_get;
mod load;
mod memory;
mod mountinfo;
pub mod options;
pub mod output;
pub mod perfdata;
pub mod result;
pub mod root;
mod space;
mod statvfs;
mod systemd;
mod tcp;
pub mod threshold;
mod tls;
pub mod unit;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

pub use dogwatch_wire::State;
pub use options::{OptionError, OptionSpec, Options, Value};
pub use perfdata::Perf;
pub use result::CheckResult;
use root::Root;

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
    fn run(&self) -> CheckResult;
}

/// A check that waits for the network or for a process.
pub trait Async: Send + Sync {
    /// Returns within `timeout`. Dropping the future stops the check.
    fn run(self: Arc<Self>, timeout: Duration) -> Pin<Box<dyn Future<Output = CheckResult> + Send>>;
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
    asker: Arc<statvfs::Asker>,
    seen_writable: Arc<disk::SeenWritable>,
    tls: Arc<http::SystemTls>,
}

impl Host {
    pub fn live() -> Self {
        Self::new(Root::live())
    }

    pub fn new(root: Root) -> Self {
        let asker = Arc::new(statvfs::Asker::new(root.clone()));
        Self { root, asker, seen_writable: Arc::default(), tls: Arc::default() }
    }
}

/// A kind of check.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// For `dogwatch check --help`.
    pub about: &'static str,
    pub options: &'static [OptionSpec],
    /// `None` only with an error in the reader.
    make: fn(&mut options::Reader<'_>, &Host) -> Option<Check>,
}

/// All kinds of checks.
pub const KINDS: &[Kind] = &[
    Kind { name: "load", about: "load average per processor", options: load::OPTIONS, make: load::make },
    Kind {
        name: "memory",
        about: "memory available without swapping",
        options: memory::MEMORY_OPTIONS,
        make: memory::make_memory,
    },
    Kind {
        name: "swap",
        about: "free swap, if the host has swap",
        options: memory::SWAP_OPTIONS,
        make: memory::make_swap,
    },
    Kind {
        name: "disk",
        about: "space and inodes of all real filesystems; also hanging, missing and read-only ones",
        options: disk::OPTIONS,
        make: disk::make,
    },
    Kind { name: "systemd", about: "failed systemd units", options: systemd::OPTIONS, make: systemd::make },
    Kind {
        name: "tcp",
        about: "connection to a port, response time, expected text",
        options: tcp::OPTIONS,
        make: tcp::make,
    },
    Kind {
        name: "http",
        about: "status, content, response time and certificate of a page",
        options: http::OPTIONS,
        make: http::make,
    },
];

/// The kind with this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl Kind {
    /// Returns a check with these options, or all errors in them.
    pub fn build(&self, options: &Options, host: &Host) -> Result<Check, Vec<OptionError>> {
        let mut reader = options::Reader::new(options, self.options);
        let check = (self.make)(&mut reader, host);
        let errors = reader.into_errors();
        match check {
            Some(check) if errors.is_empty() => Ok(check),
            _ => Err(errors),
        }
    }
}

/// The kinds of the built-in checks for this host. They run with their default options.
pub fn defaults(host: &Host) -> Vec<&'static str> {
    let mut kinds = vec!["load", "memory", "disk"];
    if host.root.swap().is_ok_and(|swap| swap.total > 0) {
        kinds.push("swap");
    }
    if root::runs_systemd(&host.root) {
        kinds.push("systemd");
    }
    kinds
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
        let options = options.iter().copied().collect();
        match kind(name).unwrap().build(&options, host).unwrap() {
            Check::Blocking(check) => check.run(),
            Check::Async(_) => panic!("{name} does not block"),
        }
    }

    pub(crate) async fn run_async(name: &str, options: &[(&str, &str)]) -> CheckResult {
        let options = options.iter().copied().collect();
        match kind(name).unwrap().build(&options, &Host::live()).unwrap() {
            Check::Blocking(_) => panic!("{name} blocks"),
            Check::Async(check) => check.run(Duration::from_secs(10)).await,
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
    fn an_unknown_option_is_an_error_for_every_kind() {
        let options = Options::from_iter([("colour", "blue")]);
        for kind in KINDS {
            let errors = kind.build(&options, &Host::live()).unwrap_err();
            assert!(errors.iter().any(|error| error.option == "colour"), "{}", kind.name);
        }
    }
}
