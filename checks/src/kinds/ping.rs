//! `ping`: a host answers ICMP echo requests in time, with few losses.
//!
//! Uses the kernel's ICMP sockets (`SOCK_DGRAM`), which need no privileges but a group that
//! `net.ipv4.ping_group_range` allows (also for IPv6). If it does not, the result is UNKNOWN with
//! what to set. A name that cannot be resolved, a network without a route and a host that does not
//! answer are CRITICAL. Times are measured in user space, so a busy host adds to them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use dogwatch_duration::Span;
use tokio::{net::lookup_host, time::timeout_at};

use crate::{
    Async, BuiltIn, Check, Host, Judgement, Kind, Lane, State, Things, clock,
    icmp::{self, Family},
    kinds::tcp::in_ms,
    options::{OptionSpec, Reader, time},
    perfdata::Perf,
    result::CheckResult,
    root::Root,
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "ping",
    about: "round-trip time and packet loss",
    options: OPTIONS,
    lane: Lane::Network,
    built_in: BuiltIn::Never,
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "host", value: "HOST", help: "name or address (required)" },
    OptionSpec { name: "family", value: "4|6", help: "use only IPv4 or only IPv6 [what the name has]" },
    OptionSpec { name: "packets", value: "N", help: "number of packets, from 1 to 20 [5]" },
    OptionSpec {
        name: "warn",
        value: "TIME,LOSS",
        help: "WARNING if the average time or the loss reaches this; one can be omitted [100ms,20%]",
    },
    OptionSpec { name: "crit", value: "TIME,LOSS", help: "CRITICAL if one reaches this [500ms,60%]" },
];

fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let name = reader.text("host");
    let name = reader.required("host", name);
    let family = reader.parsed("family", |text| match text {
        "4" => Ok(Family::V4),
        "6" => Ok(Family::V6),
        _ => Err("must be 4 or 6"),
    });
    let packets = reader.whole("packets", 1..=20);
    let mut limits = |name, time, loss| {
        let default = Limits { time: Some(Duration::from_millis(time)), loss: Some(loss) };
        reader.value(name).unwrap_or(default)
    };
    let warn = limits("warn", 100, 20.0);
    let crit = limits("crit", 500, 60.0);
    let both = ["warn", "crit"];
    reader.refuse_inverted(both, [warn.time.as_ref(), crit.time.as_ref()], |time| Span(*time).to_string());
    reader.refuse_inverted(both, [warn.loss.as_ref(), crit.loss.as_ref()], |loss| format!("{loss}%"));
    Some(Check::asynchronous(Ping {
        host: name?,
        family,
        packets: packets.unwrap_or(5),
        warn,
        crit,
        root: host.root.clone(),
    }))
}

/// The limits for one state. A value that reaches its limit alerts, as in `check_ping`: with five
/// packets, 20 % means one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limits {
    time: Option<Duration>,
    /// In percent.
    loss: Option<f64>,
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = Self { time: None, loss: None };
        for part in text.split(',').map(str::trim) {
            if let Some(percent) = part.strip_suffix('%') {
                let percent: Option<f64> = percent.trim().parse().ok();
                let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                limits.loss = Some(percent.ok_or_else(|| format!("{part:?} is not a percentage"))?);
            } else if part.ends_with(|c: char| c.is_ascii_digit()) {
                // Milliseconds in check_ping, seconds in our other checks.
                return Err(format!("{part:?} has no unit; write for example \"100ms,20%\""));
            } else {
                limits.time = Some(time(part)?);
            }
        }
        Ok(limits)
    }
}

impl Limits {
    fn are_reached(&self, time: Option<Duration>, loss: f64) -> bool {
        self.loss.is_some_and(|limit| loss >= limit && loss > 0.0)
            || self.time.zip(time).is_some_and(|(limit, time)| time >= limit)
    }
}

struct Ping {
    host: String,
    family: Option<Family>,
    packets: u16,
    warn: Limits,
    crit: Limits,
    root: Root,
}

impl Async for Ping {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let end = clock::now() + limit;
            let result = match timeout_at(end.into(), self.address()).await {
                Ok(Ok(address)) => self.ping(address, end).await,
                Ok(Err(problem)) => self.critical(&problem),
                Err(_) => self.critical(&format!("name not resolved within {} s", limit.as_secs_f64())),
            };
            result.into()
        })
    }
}

impl Ping {
    /// The first address; the resolver sorts them by reachability.
    async fn address(&self) -> Result<SocketAddr, String> {
        let found = lookup_host((self.host.as_str(), 0)).await;
        let found = found.map_err(|error| format!("cannot resolve {}: {error}", self.host))?;
        let mut found =
            found.filter(|address| self.family.is_none_or(|family| family == Family::of(*address)));
        found.next().ok_or_else(|| match self.family {
            Some(Family::V4) => "has no IPv4 address".to_owned(),
            Some(Family::V6) => "has no IPv6 address".to_owned(),
            None => "has no address".to_owned(),
        })
    }

    async fn ping(&self, address: SocketAddr, end: Instant) -> CheckResult {
        let socket = match icmp::open(Family::of(address)) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return CheckResult::unknown(forbidden(&self.root));
            }
            Err(error) => return CheckResult::unknown(format!("cannot open an ICMP socket: {error}")),
        };
        // Late answers count as lost, so wait for longer than what is CRITICAL anyway.
        let patience = PATIENCE.max(2 * self.crit.time.unwrap_or_default());
        let outcome = icmp::exchange(&socket, address, self.packets, patience, end).await;
        match outcome {
            Ok(times) => self.judge(address.ip(), &times),
            Err(error) => self.critical(&unreachable(address.ip(), &error)),
        }
    }

    fn critical(&self, problem: &str) -> CheckResult {
        CheckResult::new(State::Critical, format!("{}: {problem}", self.host))
    }

    /// `times` has an item for each packet; `None` if it was lost.
    fn judge(&self, address: IpAddr, times: &[Option<Duration>]) -> CheckResult {
        let answered: Vec<Duration> = times.iter().copied().flatten().collect();
        let missing = times.len() - answered.len();
        let loss = 100.0 * count(missing) / count(times.len());
        let average =
            (!answered.is_empty()).then(|| answered.iter().sum::<Duration>().div_f64(count(answered.len())));
        let state = match average {
            None => State::Critical,
            Some(_) if self.crit.are_reached(average, loss) => State::Critical,
            Some(_) if self.warn.are_reached(average, loss) => State::Warning,
            Some(_) => State::Ok,
        };
        let host = match self.host.parse::<IpAddr>() {
            Ok(_) => self.host.clone(),
            Err(_) => format!("{} ({address})", self.host),
        };
        let packets = |count: usize| if count == 1 { "packet" } else { "packets" };
        let said = match average {
            None => format!("no answer to {} {}", times.len(), packets(times.len())),
            Some(average) if missing == 0 => format!("answers in {}", in_ms(average)),
            Some(average) => format!(
                "{missing} of {} {} lost ({loss:.0} %), the others answered in {}",
                times.len(),
                packets(times.len()),
                in_ms(average)
            ),
        };
        let range = |limit: Option<f64>| limit.map(Range::above);
        let seconds = |limit: Option<Duration>| range(limit.map(|limit| limit.as_secs_f64()));
        let mut perfdata = vec![
            Perf::new("rta", average.map_or(f64::NAN, micros), "s")
                .thresholds(seconds(self.warn.time), seconds(self.crit.time))
                .bounds(0.0, None),
            Perf::new("pl", loss, "%")
                .thresholds(range(self.warn.loss), range(self.crit.loss))
                .bounds(0.0, 100.0),
        ];
        for (label, time) in [("rtmin", answered.iter().min()), ("rtmax", answered.iter().max())] {
            let time = time.map_or(f64::NAN, |time| micros(*time));
            perfdata.push(Perf::new(label, time, "s").bounds(0.0, None));
        }
        CheckResult::new(state, format!("{host}: {said}")).with_perfdata(perfdata)
    }
}

fn count(packets: usize) -> f64 {
    u32::try_from(packets).map_or(f64::MAX, f64::from)
}

/// In seconds, rounded: more digits would be noise.
fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

/// For the last answer.
const PATIENCE: Duration = Duration::from_secs(1);

fn unreachable(address: IpAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable => format!("no route to {address}"),
        io::ErrorKind::HostUnreachable => format!("{address} is unreachable"),
        io::ErrorKind::PermissionDenied => {
            format!("cannot send to {address}: {error} (a firewall rule, or a broadcast address)")
        }
        _ => format!("cannot send to {address}: {error}"),
    }
}

/// What to set, because the kernel has refused the socket.
fn forbidden(root: &Root) -> String {
    let group = rustix::process::getegid().as_raw();
    let range = root.path("/proc/sys/net/ipv4/ping_group_range");
    let range = std::fs::read_to_string(range).unwrap_or_default();
    let range = range.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "not allowed to ping: net.ipv4.ping_group_range is \"{range}\", which does not include group {group}; \
         run sysctl -w net.ipv4.ping_group_range=\"0 2147483647\", and for the next boot write \
         net.ipv4.ping_group_range=0 2147483647 to /etc/sysctl.d/60-ping.conf"
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{kind, testing::run_async};

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn ping() -> Ping {
        Ping {
            host: "db1".into(),
            family: None,
            packets: 5,
            warn: "100ms,20%".parse().unwrap(),
            crit: "500ms,60%".parse().unwrap(),
            root: Root::live(),
        }
    }

    fn judged(times: [u64; 5]) -> CheckResult {
        let times = times.map(|millis| (millis > 0).then(|| Duration::from_millis(millis)));
        ping().judge(HOME, &times)
    }

    #[test]
    fn time_and_loss_are_judged_with_the_limits_of_check_ping() {
        use State::{Critical, Ok, Warning};
        for (times, state) in [
            ([1, 1, 1, 1, 1], Ok),
            ([99, 99, 99, 99, 99], Ok),
            ([100, 100, 100, 100, 100], Warning),
            ([499, 1, 499, 1, 1], Warning),
            ([500, 500, 500, 500, 500], Critical),
            ([0, 1, 1, 1, 1], Warning),
            ([0, 0, 1, 1, 1], Warning),
            ([0, 0, 0, 1, 1], Critical),
            ([0, 0, 0, 0, 0], Critical),
        ] {
            assert_eq!(judged(times).state, state, "{times:?}");
        }
    }

    #[test]
    fn the_summary_says_how_many_packets_were_lost_and_the_perfdata_has_the_labels_of_check_icmp() {
        assert_eq!(
            judged([10, 0, 20, 30, 0]).to_nagios("ping"),
            "PING WARNING - db1 (127.0.0.1): 2 of 5 packets lost (40 %), the others answered in 20.0 ms | \
             rta=0.02s;0.1;0.5;0 pl=40%;20;60;0;100 rtmin=0.01s;;;0 rtmax=0.03s;;;0"
        );
        assert_eq!(judged([10; 5]).summary, "db1 (127.0.0.1): answers in 10.0 ms");
        let silent = judged([0; 5]);
        assert_eq!(silent.summary, "db1 (127.0.0.1): no answer to 5 packets");
        assert_eq!(silent.perfdata_text(), "rta=U;0.1;0.5;0 pl=100%;20;60;0;100 rtmin=U;;;0 rtmax=U;;;0");
    }

    #[test]
    fn silence_is_critical_whatever_the_limits() {
        let ping = Ping { crit: "9s".parse().unwrap(), warn: "5s".parse().unwrap(), ..ping() };
        assert_eq!(ping.judge(HOME, &[None]).state, State::Critical);
        let ping = Ping { crit: "100%".parse().unwrap(), warn: "0%".parse().unwrap(), ..ping };
        assert_eq!(ping.judge(HOME, &[None]).state, State::Critical);
        assert_eq!(ping.judge(HOME, &[Some(Duration::from_secs(3))]).state, State::Ok);
    }

    #[test]
    fn limits_need_units() {
        assert_eq!("0.1s".parse(), Ok(Limits { time: Some(Duration::from_millis(100)), loss: None }));
        assert_eq!("80 %".parse(), Ok(Limits { time: None, loss: Some(80.0) }));
        for wrong in ["", "100,20%", "100ms,20", "101%", "-1%", "nan%", "soon", "100ms;20%"] {
            assert!(wrong.parse::<Limits>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn options_are_validated() {
        let options =
            [("family", "5"), ("packets", "0"), ("warn", "100"), ("crit", "60%")].into_iter().collect();
        let errors = kind("ping").unwrap().build(&options, &Host::live()).unwrap_err();
        let names: Vec<_> = errors.iter().map(|error| error.option.as_str()).collect();
        assert_eq!(names, ["host", "family", "packets", "warn"]);
    }

    /// The kernel of this host may not allow it. `unshare -n`, with the range set inside, does.
    #[tokio::test]
    async fn loopback_answers_or_the_result_says_what_to_set() {
        for host in ["127.0.0.1", "localhost", "::1"] {
            let result = run_async("ping", &[("host", host), ("packets", "2")]).await;
            match result.state {
                State::Ok => assert!(result.summary.contains("answers in "), "{}", result.summary),
                State::Unknown => {
                    assert!(result.summary.contains("net.ipv4.ping_group_range=\"0 2147483647\""));
                }
                _ => assert_eq!(host, "::1", "{}", result.summary), // no IPv6 here
            }
        }
    }

    #[tokio::test]
    async fn an_unknown_name_is_critical() {
        let name = format!("{}.invalid", "x".repeat(64));
        let result = run_async("ping", &[("host", &name)]).await;
        assert_eq!(result.state, State::Critical);
        assert!(result.summary.contains("cannot resolve"), "{}", result.summary);
        let result = run_async("ping", &[("host", "127.0.0.1"), ("family", "6")]).await;
        assert_eq!(result.summary, "127.0.0.1: has no IPv6 address");
    }
}
