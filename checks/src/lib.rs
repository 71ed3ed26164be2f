//! Native checks, and what every check speaks: results, thresholds, perfdata, plugin output.
//!
//! Promises: a check answers with a [`CheckResult`], whatever it meets; what it could not read is UNKNOWN with the reason,
//! and a hung filesystem costs one thread, once. Deliberately not here: schedules, soft and hard states, alerts, and
//! running external plugins. A check remembers nothing between runs, except which mounts hang ([`Host`]).
//!
//! | kind | asserts | reads |
//! | --- | --- | --- |
//! | `load` | load average per processor | `/proc/loadavg` |
//! | `memory`, `swap` | what is available, what is free | `/proc/meminfo` |
//! | `disk` | space and inodes; hung, lost and missing filesystems | `mountinfo`, `statvfs` |
//! | `systemd` | no failed units | `systemctl` |
//! | `tcp` | a port answers, in time, and says what it should | the network |
//! | `http` | a page answers, right, in time, under a certificate that lasts | the network |

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

/// A check, ready to run as often as wanted. By how it must be run: [`Blocking`] ones on a thread that may hang, so on a
/// capped number of them and never on one of the runtime's; [`Async`] ones as a task.
#[derive(Clone)]
pub enum Check {
    Blocking(Arc<dyn Blocking>),
    Async(Arc<dyn Async>),
}

/// Reads this host: files, `statvfs`. Usually microseconds; may hang when the kernel does.
pub trait Blocking: Send + Sync {
    fn run(&self) -> CheckResult;
}

/// Waits for others: the network, a helper process.
pub trait Async: Send + Sync {
    /// Answers within `timeout`; dropping the future ends what it began.
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

/// What checks of one process share. Make one, keep it: it remembers which mounts hang, which were writable, and the
/// system's certificates.
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

/// A kind of native check: a row of the table from name to constructor.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// For `dogwatch check --help`.
    pub about: &'static str,
    pub options: &'static [OptionSpec],
    /// `None` only after it has noted an error.
    make: fn(&mut options::Reader<'_>, &Host) -> Option<Check>,
}

/// All native checks.
pub const KINDS: &[Kind] = &[
    Kind { name: "load", about: "load average per processor", options: load::OPTIONS, make: load::make },
    Kind {
        name: "memory",
        about: "memory that can be had without swapping",
        options: memory::MEMORY_OPTIONS,
        make: memory::make_memory,
    },
    Kind {
        name: "swap",
        about: "free swap, where there is any",
        options: memory::SWAP_OPTIONS,
        make: memory::make_swap,
    },
    Kind {
        name: "disk",
        about: "space and inodes of all real filesystems; hung, lost and missing ones",
        options: disk::OPTIONS,
        make: disk::make,
    },
    Kind { name: "systemd", about: "no failed units", options: systemd::OPTIONS, make: systemd::make },
    Kind {
        name: "tcp",
        about: "a port answers, in time, and says what it should",
        options: tcp::OPTIONS,
        make: tcp::make,
    },
    Kind {
        name: "http",
        about: "a page answers, right, in time, under a certificate that lasts",
        options: http::OPTIONS,
        make: http::make,
    },
];

/// The kind with this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl Kind {
    /// A check with these options, or everything that is wrong with them.
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

/// The checks worth running on this host without being told: names of kinds, each with its default options.
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

    /// A captured tree below `tests/fixtures`; its origin stands in `tests/fixtures/README.md`.
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
    fn every_kind_can_be_built_or_says_which_option_it_misses() {
        let host = Host::live();
        for kind in KINDS {
            if let Err(errors) = kind.build(&Options::default(), &host) {
                assert!(
                    errors.iter().all(|error| error.message.contains("missing")),
                    "{}: {errors:?}",
                    kind.name
                );
            }
        }
        assert!(kind("laod").is_none());
    }

    #[test]
    fn an_option_no_kind_knows_is_refused_by_all() {
        let options = Options::from_iter([("colour", "blue")]);
        for kind in KINDS {
            let errors = kind.build(&options, &Host::live()).unwrap_err();
            assert!(errors.iter().any(|error| error.option == "colour"), "{}", kind.name);
        }
    }
}
