//! `certificate`: how long the certificates in files are still valid.
//!
//! Each file is a service. Of a chain, the certificate that expires first counts, and the order
//! must be that of TLS: each certificate is followed by that of its issuer. Whether a server has
//! loaded the file is not checked here (see `http`), nor whether anybody trusts it.

mod chain;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use chain::Certificate;

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, State, Things, clock,
    name::escaped,
    options::{OptionSpec, PerThing, Reader},
    pattern::Pattern,
    perfdata::Perf,
    result::CheckResult,
    root::Root,
    span,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "certificate",
    about: "how long the certificates in files are still valid",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Never,
    interval: Some(Duration::from_hours(1)),
    things: Things::Paths,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "files",
        value: "PATH",
        help: "PEM or DER file; * matches any text within one directory; can be a list (required)",
    },
    OptionSpec {
        name: "warn_days",
        value: "DAYS",
        help: "WARNING if a certificate has fewer days left [14]",
    },
    OptionSpec {
        name: "crit_days",
        value: "DAYS",
        help: "CRITICAL if a certificate has fewer days left [7]",
    },
];

fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let files = reader.list("files");
    let files = reader.required("files", files)?;
    if let Some(wrong) = files.iter().find(|path| !path.starts_with('/')) {
        reader.error("files", format!("{wrong:?} must start with a slash"));
    }
    let days = reader.per_thing(days);
    Some(Check::blocking(Files { root: host.root.clone(), patterns: files, days }))
}

fn days(reader: &mut Reader<'_>) -> Thresholds {
    remaining_days(reader, WARN_DAYS, CRIT_DAYS)
}

/// The limits below which the remaining days of a certificate alert.
pub(crate) fn remaining_days(reader: &mut Reader<'_>, warn: u32, crit: u32) -> Thresholds {
    let (written, default) = (reader.whole("warn_days", 0..=DAYS_MAX), warn);
    let warn = written.unwrap_or(default);
    let crit = reader.whole("crit_days", 0..=DAYS_MAX).unwrap_or(crit);
    if warn < crit {
        reader.error(
            if written.is_some() { "warn_days" } else { "crit_days" },
            format!("the warning limit ({warn}) must not be below the critical limit ({crit})"),
        );
    }
    let below = |days: u32| Some(Range::below(days.into()));
    Thresholds { warn: below(warn), crit: below(crit) }
}

/// X.509 ends with the year 9999.
const DAYS_MAX: u32 = 3_000_000;

/// certbot renews 30 days before the end, so 14 days mean that it has failed for two weeks.
const WARN_DAYS: u32 = 14;
const CRIT_DAYS: u32 = 7;

struct Files {
    root: Root,
    /// Paths, in which `*` and `?` may occur.
    patterns: Vec<String>,
    days: PerThing<Thresholds>,
}

impl Blocking for Files {
    fn run(&self) -> Judgement {
        let now = clock::unix_seconds();
        let mut list = Vec::new();
        let mut seen = BTreeSet::new();
        for pattern in &self.patterns {
            let found = expand(&self.root, pattern);
            if found.is_empty() {
                let result = CheckResult::new(State::Critical, "no file matches");
                list.push(Finding::of(escaped(pattern), result).at_once());
            }
            for path in found {
                if seen.insert(path.clone()) {
                    let result = self.examine(&path, now);
                    list.push(Finding::of(escaped(&path), result).at_once());
                }
            }
        }
        Findings::all(list).into()
    }
}

impl Files {
    fn examine(&self, path: &Path, now: i64) -> CheckResult {
        let read = read(self.root.path(path));
        match read.map(|bytes| chain::parse(&bytes)) {
            Ok(Ok(chain)) => judge(&chain, *self.days.of(&escaped(path)), now),
            Ok(Err(problem)) => CheckResult::new(State::Critical, problem),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                CheckResult::new(State::Critical, "does not exist")
            }
            Err(error) => CheckResult::unknown(format!("cannot be read: {error}")),
        }
    }
}

fn read(path: PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A bundle of all public CAs has 0.2 MiB.
const FILE_MAX: u64 = 4 * 1_024 * 1_024;

/// The paths that match, in order. A path without `*` or `?` is returned even if it does not exist.
fn expand(root: &Root, pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let glob = Pattern::new(part);
        if glob.is_literal() {
            for path in &mut paths {
                path.push(part);
            }
            continue;
        }
        let mut next: Vec<_> = paths.iter().flat_map(|path| entries(root, path, &glob)).collect();
        next.sort();
        next.truncate(FILES_MAX);
        paths = next;
    }
    let is_glob = !Pattern::new(pattern).is_literal();
    // `/etc/letsencrypt/live/*/fullchain.pem` also matches below the file README.
    paths.retain(|path| !is_glob || root.path(path).is_file());
    paths
}

fn entries(root: &Root, directory: &Path, glob: &Pattern) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.path(directory)).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .filter(|name| {
            let shown = escaped(name);
            glob.matches(&shown) && (!shown.starts_with('.') || glob.as_str().starts_with('.'))
        })
        .map(|name| directory.join(name))
        .collect()
}

const FILES_MAX: usize = 1_000;

fn judge(chain: &[Certificate], limits: Thresholds, now: i64) -> CheckResult {
    let Some(first) = chain.iter().min_by_key(|certificate| certificate.until) else {
        return CheckResult::new(State::Critical, "contains no certificate");
    };
    let days = (first.until - now).div_euclid(SECONDS_A_DAY);
    #[expect(clippy::cast_precision_loss, reason = "days")]
    let left = days as f64;
    let mut state = limits.judge(left);
    let leaf = chain.first().filter(|leaf| leaf.name != first.name);
    let chain_of = leaf.map(|leaf| format!(" (in the chain of {})", leaf.name)).unwrap_or_default();
    let seconds = |span: i64| Duration::from_secs(span.unsigned_abs());
    let mut said = vec![if first.until <= now {
        state = State::Critical;
        format!("{}{chain_of} expired {} ago", first.name, span::human(seconds(now - first.until)))
    } else {
        format!("{}{chain_of} expires in {}", first.name, span::human(seconds(first.until - now)))
    }];
    if let Some(early) = chain.iter().find(|certificate| certificate.from > now) {
        state = State::Critical;
        said.push(format!("{} is valid only in {}", early.name, span::human(seconds(early.from - now))));
    }
    if let Some(wrong) = chain::out_of_order(chain) {
        state = state.max(State::Warning);
        said.push(format!("wrong order: {} is not followed by its issuer", wrong.name));
    }
    CheckResult::new(state, said.join("; "))
        .with_perfdata(vec![Perf::new("days", left, "").thresholds(limits.warn, limits.crit)])
}

const SECONDS_A_DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;
    use crate::{
        Options, Past, kind,
        testing::{findings, lines},
    };

    /// 2030-01-01.
    const NEW_YEAR: i64 = 1_893_456_000;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    fn params(name: &str, until: (i32, u8, u8)) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params
    }

    impl Authority {
        fn new(until: (i32, u8, u8)) -> Self {
            let mut params = params("Test CA", until);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn pem(&self) -> String {
            self.0.as_ref().pem()
        }

        fn issue(&self, until: (i32, u8, u8)) -> String {
            params("www.example", until).signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().pem()
        }
    }

    fn judged(pem: &str, days_before_new_year: i64) -> (State, String) {
        let limits = Thresholds { warn: Some(Range::below(14.0)), crit: Some(Range::below(7.0)) };
        let now = NEW_YEAR - days_before_new_year * SECONDS_A_DAY;
        let result = judge(&chain::parse(pem.as_bytes()).unwrap(), limits, now);
        (result.state, result.summary)
    }

    #[test]
    fn the_days_that_are_left_count() {
        let pem = Authority::new((2040, 1, 1)).issue((2030, 1, 1));
        assert_eq!(judged(&pem, 90), (State::Ok, "www.example expires in 90 days".into()));
        assert_eq!([14, 13, 7, 6].map(|days| judged(&pem, days).0), {
            use State::{Critical, Ok, Warning};
            [Ok, Warning, Warning, Critical]
        });
        assert_eq!(judged(&pem, -3), (State::Critical, "www.example expired 3 days ago".into()));
        let early = judged(&pem, 366 * 11);
        assert_eq!(early.0, State::Critical);
        assert!(early.1.contains("www.example is valid only in"), "{}", early.1);
    }

    #[test]
    fn the_whole_chain_counts_and_its_order() {
        let authority = Authority::new((2030, 1, 1));
        let leaf = authority.issue((2035, 1, 1));
        let text = "Test CA (in the chain of www.example) expires in 10 days";
        assert_eq!(judged(&(leaf.clone() + &authority.pem()), 10), (State::Warning, text.into()));
        let wrong = judged(&(leaf + &Authority::new((2040, 1, 1)).issue((2040, 1, 1))), 90);
        assert_eq!(wrong.0, State::Warning);
        assert!(wrong.1.ends_with("wrong order: www.example is not followed by its issuer"), "{}", wrong.1);
        let bundle = Authority::new((2040, 1, 1)).pem() + &Authority::new((2040, 1, 1)).pem();
        assert_eq!(judged(&bundle, 90).0, State::Ok, "a bundle of CAs has no order");
    }

    #[test]
    fn each_file_is_a_service_and_what_is_missing_is_critical() {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let pem = Authority::new((2999, 1, 1)).issue((2999, 1, 1));
        write("live/a/fullchain.pem", &pem);
        write("live/b/fullchain.pem", "no certificate");
        write("live/README", "");
        write("live/.hidden/fullchain.pem", "");
        let host = Host::new(Root::captured(tree.path()));
        let options = [("files", "/live/*/fullchain.pem"), ("files", "/gone.pem"), ("files", "/other/*.pem")];
        let found = findings("certificate", &options, &host, &mut Past::default(), Duration::from_hours(1));
        let said = lines(&found);
        assert!(said[0].starts_with("/live/a/fullchain.pem OK www.example expires in "), "{}", said[0]);
        assert_eq!(
            said[1..],
            [
                "/live/b/fullchain.pem CRITICAL contains no certificate",
                "/gone.pem CRITICAL does not exist",
                "/other/*.pem CRITICAL no file matches",
            ]
        );
    }

    #[test]
    fn files_are_required_and_absolute() {
        let errors = |options: &[(&str, &str)]| {
            let options: Options = options.iter().copied().collect();
            kind("certificate").unwrap().build(&options, &Host::live()).unwrap_err()[0].to_string()
        };
        assert_eq!(errors(&[]), "files: is required");
        assert_eq!(errors(&[("files", "a.pem")]), "files: \"a.pem\" must start with a slash");
        assert_eq!(
            errors(&[("files", "/a.pem"), ("warn_days", "5")]),
            "warn_days: the warning limit (5) must not be below the critical limit (7)"
        );
    }
}
