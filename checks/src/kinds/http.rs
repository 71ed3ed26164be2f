//! `http`: a page has the expected status and content, arrives in time, and its certificate is
//! valid for long enough.
//!
//! Every failure of the target is CRITICAL: connection refused, unknown name, no answer, wrong
//! status, invalid certificate. Certificates are verified with the system's store (read once, when
//! first needed) and `ca_file`; with `insecure` they are not verified, but their remaining days are
//! still checked. Only the server's own certificate is checked for that, because others renew the
//! intermediates. UNKNOWN means that this host has no certificate store.
//!
//! Redirects are followed, but not those with an expected status (`status = 302`).

use std::{
    fmt,
    path::Path,
    pin::Pin,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{
    StatusCode,
    header::{HeaderName, HeaderValue},
};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::{
    Async, BuiltIn, Check, Host, Judgement, Kind, Lane, State, Things, clock,
    http_get::{self, Answer, BODY_MAX, Get},
    kinds::{
        certificate::remaining_days,
        tcp::{in_ms, time_perf, times},
    },
    options::{OptionSpec, Reader},
    perfdata::Perf,
    result::CheckResult,
    threshold::Thresholds,
    tls::{self, Trust},
};

pub(crate) const KIND: Kind = Kind {
    name: "http",
    about: "status, content, response time and certificate of a page",
    options: OPTIONS,
    lane: Lane::Network,
    built_in: BuiltIn::Never,
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "url", value: "URL", help: "URL to fetch (required)" },
    OptionSpec {
        name: "address",
        value: "HOST",
        help: "connect to this address, also after redirects to the same host; \
               the host of the URL is still used in the request",
    },
    OptionSpec { name: "header", value: "NAME: VALUE", help: "header to send; can be a list" },
    OptionSpec { name: "redirects", value: "N", help: "number of redirects to follow [5]" },
    OptionSpec {
        name: "status",
        value: "CODES",
        help: "expected status, for example 200,401 or 200-299; an expected redirect is not followed \
               [200-299]",
    },
    OptionSpec { name: "expect", value: "TEXT", help: "text that the page must contain" },
    OptionSpec { name: "warn", value: "DURATION", help: "WARNING if the page takes longer [1s]" },
    OptionSpec { name: "crit", value: "DURATION", help: "CRITICAL if the page takes longer [5s]" },
    OptionSpec {
        name: "warn_days",
        value: "DAYS",
        help: "WARNING if the certificate has fewer days left [14]",
    },
    OptionSpec {
        name: "crit_days",
        value: "DAYS",
        help: "CRITICAL if the certificate has fewer days left [7]",
    },
    OptionSpec {
        name: "ca_file",
        value: "FILE",
        help: "PEM file with CA certificates, or the server's own, to trust in addition to the system's",
    },
    OptionSpec {
        name: "insecure",
        value: "",
        help: "accept any certificate; its remaining days are still checked",
    },
];

fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let url = reader.parsed("url", http_get::parse_url);
    let url = reader.required("url", url);
    let headers =
        reader.list("header").unwrap_or_default().iter().filter_map(|line| header(reader, line)).collect();
    let extra = reader.parsed("ca_file", |path| tls::read_pem(Path::new(path)));
    let insecure = reader.flag("insecure");
    if insecure && extra.is_some() {
        reader.error("insecure", "cannot be used together with ca_file");
    }
    let tls = match extra {
        _ if insecure => Tls::Own(tls::client_config(Trust::Anybody)),
        Some(extra) => Tls::Own(tls::client_config(Trust::System(extra))),
        None => Tls::Shared(host.tls.clone()),
    };
    let judge = Judge {
        status: reader.value("status").unwrap_or(Statuses(vec![(200, 299)])),
        expect: reader.text("expect"),
        time: times(reader, [Some(Duration::from_secs(1)), Some(Duration::from_secs(5))]),
        days: remaining_days(reader, 14, 7),
    };
    let get = Get {
        url: url?,
        address: reader.text("address"),
        headers,
        redirects: reader.whole("redirects", 0..=20).unwrap_or(5),
    };
    Some(Check::asynchronous(Http { get, tls, judge }))
}

fn header(reader: &mut Reader<'_>, line: &str) -> Option<(HeaderName, HeaderValue)> {
    let parsed = line.split_once(':').and_then(|(name, value)| {
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true); // it may be a credential
        Some((name.trim().parse().ok()?, value))
    });
    if parsed.is_none() {
        reader.error("header", "must be a name, a colon and a value");
    }
    parsed
}

/// The expected status codes, as ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statuses(Vec<(u16, u16)>);

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
        let range = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((code(from)?, code(to)?)).filter(|(from, to)| from <= to)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| {
            format!("{text:?} is not a list of status codes; write for example \"200\" or \"200-299,401\"")
        })
    }
}

impl Statuses {
    fn contain(&self, status: StatusCode) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status.as_u16()))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (from, to)) in self.0.iter().enumerate() {
            write!(f, "{}{from}", if at == 0 { "" } else { "," })?;
            if from != to {
                write!(f, "-{to}")?;
            }
        }
        Ok(())
    }
}

struct Http {
    get: Get,
    tls: Tls,
    judge: Judge,
}

/// The TLS settings, or why this host cannot verify certificates.
type Config = Result<Arc<ClientConfig>, rustls::Error>;

enum Tls {
    /// The system's store, read once for all checks because it takes half a megabyte.
    Shared(Arc<SystemTls>),
    Own(Config),
}

/// Read when first needed.
#[derive(Debug, Default)]
pub(crate) struct SystemTls(OnceLock<Config>);

impl Tls {
    fn config(&self) -> &Config {
        match self {
            Self::Shared(shared) => shared.0.get_or_init(|| tls::client_config(Trust::System(Vec::new()))),
            Self::Own(config) => config,
        }
    }
}

struct Judge {
    status: Statuses,
    expect: Option<String>,
    time: Thresholds,
    days: Thresholds,
}

impl Async for Http {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let tls = || self.tls.config().as_ref().map(Arc::clone);
            if http_get::is_tls(&self.get.url)
                && let Err(error) = tls()
            {
                return CheckResult::unknown(format!("cannot verify certificates on this host: {error}"))
                    .into();
            }
            let started = clock::now();
            let wanted = |status| self.judge.status.contain(status);
            let outcome = timeout(limit, http_get::get(&self.get, &wanted, &tls)).await;
            let outcome =
                outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f64())));
            match outcome {
                Ok(answer) => self.judge.judge(&answer, started.elapsed(), clock::unix_seconds()).into(),
                Err(problem) => {
                    CheckResult::new(State::Critical, format!("{}: {problem}", self.get.url)).into()
                }
            }
        })
    }
}

impl Judge {
    fn judge(&self, answer: &Answer, took: Duration, now: i64) -> CheckResult {
        let seconds = took.as_secs_f64();
        let mut state = self.time.judge(seconds);
        let mut said =
            vec![format!("{} in {}, {}", shown(answer.status), in_ms(took), size(answer.body.len()))];
        let mut perfdata = vec![time_perf(seconds, self.time), body_perf(answer.body.len())];
        if !self.status.contain(answer.status) {
            state = State::Critical;
            said.push(format!("expected status {}{}", self.status, redirected(answer.redirects)));
        }
        if let Some(wanted) = &self.expect
            && !answer.body.windows(wanted.len()).any(|window| window == wanted.as_bytes())
        {
            state = State::Critical;
            said.push(format!("page does not contain {wanted:?}"));
        }
        if let Some(until) = answer.valid_until {
            let days = (until - now).div_euclid(SECONDS_A_DAY);
            #[expect(clippy::cast_precision_loss, reason = "days")]
            let days = days as f64;
            state = state.max(self.days.judge(days));
            said.push(if days < 0.0 {
                "certificate has expired".into()
            } else {
                format!("certificate has {days} days left")
            });
            perfdata.push(Perf::new("certificate_days", days, "").thresholds(self.days.warn, self.days.crit));
        }
        CheckResult::new(state, format!("{}: {}", answer.url, said.join(", "))).with_perfdata(perfdata)
    }
}

fn redirected(times: u32) -> String {
    match times {
        0 => String::new(),
        1 => " (after 1 redirect)".to_owned(),
        times => format!(" (after {times} redirects)"),
    }
}

const SECONDS_A_DAY: i64 = 86_400;

fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn size(bytes: usize) -> String {
    format!("{}{bytes} bytes", if bytes >= BODY_MAX { "at least " } else { "" })
}

fn body_perf(bytes: usize) -> Perf {
    #[expect(clippy::cast_precision_loss, reason = "at most a mebibyte")]
    let bytes = bytes as f64;
    Perf::new("size", bytes, "B").bounds(0.0, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threshold::Range;

    const DAY: i64 = SECONDS_A_DAY;

    fn judge() -> Judge {
        Judge {
            status: "200-299,401".parse().unwrap(),
            expect: Some("fine".into()),
            time: Thresholds { warn: Some(Range::above(1.0)), crit: Some(Range::above(5.0)) },
            days: Thresholds { warn: Some(Range::below(14.0)), crit: Some(Range::below(7.0)) },
        }
    }

    fn answer(status: u16, body: &str, valid_until: Option<i64>) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            url: "https://a.example/".parse().unwrap(),
            redirects: 0,
            body: body.into(),
            valid_until,
        }
    }

    fn state(status: u16, body: &str, millis: u64, valid_until: Option<i64>) -> State {
        judge().judge(&answer(status, body, valid_until), Duration::from_millis(millis), 1_000 * DAY).state
    }

    #[test]
    fn status_content_time_and_certificate_are_all_checked() {
        assert_eq!(state(200, "all fine", 10, None), State::Ok);
        assert_eq!(state(401, "all fine", 10, None), State::Ok);
        assert_eq!(state(500, "all fine", 10, None), State::Critical);
        assert_eq!(state(200, "all lost", 10, None), State::Critical);
        assert_eq!(state(200, "all fine", 2_000, None), State::Warning);
        assert_eq!(state(200, "all fine", 6_000, None), State::Critical);
    }

    #[test]
    fn a_certificate_is_checked_by_whole_days() {
        let with_days = |days: i64| state(200, "fine", 10, Some((1_000 + days) * DAY));
        assert_eq!([90, 14, 13, 7, 6, 0, -1].map(with_days), {
            use State::{Critical as C, Ok, Warning as W};
            [Ok, Ok, W, W, C, C, C]
        });
    }

    #[test]
    fn the_summary_names_every_problem() {
        let result =
            judge().judge(&answer(503, "sorry", Some(1_010 * DAY)), Duration::from_millis(12), 1_000 * DAY);
        assert_eq!(
            result.to_nagios("http"),
            "HTTP CRITICAL - https://a.example/: 503 Service Unavailable in 12.0 ms, 5 bytes, expected status 200-299,401, page does not contain \"fine\", \
             certificate has 10 days left | time=0.012s;1;5;0 size=5B;;;0 certificate_days=10;14:;7:"
        );
    }

    #[test]
    fn status_codes_are_lists_of_ranges() {
        assert_eq!("200, 300-399".parse(), Ok(Statuses(vec![(200, 200), (300, 399)])));
        for wrong in ["", "ok", "99", "299-200", "200;301", "600"] {
            assert!(wrong.parse::<Statuses>().is_err(), "{wrong:?}");
        }
    }
}
