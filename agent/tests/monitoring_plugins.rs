//! Real Nagios plugins from Debian (`monitoring-plugins-basic`), compared with our own thresholds.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};

use dogwatch::plugin::Plugin;
use dogwatch_checks::{CheckResult, Perf, State, threshold::Thresholds, unit::BaseUnit};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

#[tokio::test]
async fn check_dummy_returns_the_given_state_and_text() {
    let Some(run) = plugins() else { return };
    for state in State::ALL {
        let result = run(&["check_dummy", &state.exit_code().to_string(), "so it is"]).await;
        assert_eq!((result.state, result.summary), (state, format!("{}: so it is", state.name())));
        assert_eq!(result.perfdata, []);
    }
    let result = run(&["check_dummy", "7"]).await;
    assert_eq!(result.state, State::Unknown);
}

#[tokio::test]
async fn check_load_agrees_with_our_thresholds() {
    let Some(run) = plugins() else { return };
    for (warn, crit) in
        [("1000,1000,1000", "2000,2000,2000"), ("0,0,0", "2000,2000,2000"), ("0,0,0", "0,0,0")]
    {
        let result = run(&["check_load", "-w", warn, "-c", crit]).await;
        assert_eq!(labels(&result), ["load1", "load5", "load15"]);
        assert!(result.unparsable.is_empty());
        // The plugin alerts from the limit on, a range only above it: with a load of exactly 0.00
        // they may differ.
        if result.perfdata.iter().all(|perf| perf.value > Some(0.0)) {
            assert_eq!(result.state, ours(&result), "{result:?}");
        }
    }
}

#[tokio::test]
async fn check_disk_reports_bytes_and_agrees_with_our_thresholds() {
    let Some(run) = plugins() else { return };
    for (warn, crit) in [("0%", "0%"), ("100%", "0%"), ("100%", "100%")] {
        let result = run(&["check_disk", "-w", warn, "-c", crit, "-p", "/"]).await;
        assert_eq!(labels(&result), ["/"]);
        let (used, unit) = result.perfdata[0].in_base_units().unwrap();
        assert_eq!(unit, BaseUnit::Bytes);
        assert!(used > 1e6, "{result:?}");
        assert_eq!(result.state, ours(&result), "{result:?}");
    }
}

#[tokio::test]
async fn check_tcp_reports_seconds_and_a_refused_connection_is_critical() {
    let Some(run) = plugins() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let result = run(&["check_tcp", "-H", "127.0.0.1", "-p", &port]).await;
    assert_eq!((result.state, labels(&result)), (State::Ok, vec!["time"]));
    assert_eq!(result.perfdata[0].in_base_units().unwrap().1, BaseUnit::Seconds);
    // Bound and not listening: connections are refused, and nobody else can take the port.
    let (_closed, port) = closed_port();
    let refused = run(&["check_tcp", "-H", "127.0.0.1", "-p", &port]).await;
    assert_eq!(refused.state, State::Critical);
    assert!(refused.summary.contains("refused"), "{}", refused.summary);
}

fn closed_port() -> (OwnedFd, String) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, address.port().to_string())
}

/// `check_procs` accepts every form of range, so it can be compared with ours for each.
#[tokio::test]
async fn ranges_mean_the_same_as_in_a_plugin() {
    let Some(run) = plugins() else { return };
    for range in [
        "1000000",
        "1000000:",
        "~:1000000",
        "1:1000000",
        "@1:1000000",
        "@1000000:2000000",
        ":0",
        "0:0",
        "@~:0",
        "1:1",
    ] {
        let result = run(&["check_procs", "-w", range]).await;
        let count =
            result.perfdata.iter().find(|perf| perf.label == "procs").and_then(|perf| perf.value).unwrap();
        let thresholds = Thresholds { warn: Some(range.parse().unwrap()), crit: None };
        assert_eq!(thresholds.judge(count), result.state, "{count} against {range}: {result:?}");
    }
}

/// The state of the plugin's numbers with our thresholds.
fn ours(result: &CheckResult) -> State {
    result
        .perfdata
        .iter()
        .map(|perf| Thresholds { warn: perf.warn, crit: perf.crit }.judge(perf.value.unwrap()))
        .fold(State::Ok, State::max)
}

fn labels(result: &CheckResult) -> Vec<&str> {
    result.perfdata.iter().map(|perf: &Perf| perf.label.as_str()).collect()
}

/// Runs plugins by name. Skips the test, with a message, if they are not installed.
fn plugins() -> Option<impl AsyncFn(&[&str]) -> CheckResult> {
    if !Path::new("/usr/lib/nagios/plugins/check_dummy").exists() {
        let why = "monitoring-plugins-basic is not installed";
        assert!(std::env::var_os("DOGWATCH_TEST_STRICT").is_none_or(|strict| strict != "1"), "{why}");
        eprintln!("SKIPPED: {why}");
        return None;
    }
    Some(async |argv: &[&str]| {
        let argv = argv.iter().map(|&text| text.to_owned()).collect();
        let plugin = Plugin::new(argv, BTreeMap::new(), State::Unknown).unwrap();
        plugin.run(Duration::from_secs(20)).await
    })
}
