//! `kind = "dns"`: the state of a sensor of `dogwatch dns`, read over its control socket.
//!
//! The agent polls the cache, so it also notices when the cache is down. A restart of the cache
//! takes less than [`RESTART`]; after that the cache counts as unreachable. Then `dns-upstream` is
//! CRITICAL, because nothing resolves names, and the other sensors are UNKNOWN.

use std::{path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use dogwatch_checks::{Async, Blind, Check, CheckResult, Findings, Judgement, State, perfdata};
use dogwatch_daemon::unix_http::Client;
use serde::Deserialize;

/// One sensor of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DnsSensor {
    pub(crate) control: PathBuf,
    pub(crate) sensor: String,
}

/// An element of `GET /v1/sensors`.
#[derive(Debug, Deserialize)]
struct Reading {
    name: String,
    state: i32,
    text: String,
    #[serde(default)]
    perfdata: String,
    /// Why it has nothing to watch.
    blind: Option<String>,
}

impl DnsSensor {
    pub(crate) fn into_check(self) -> Check {
        Check::Async(Arc::new(self))
    }

    async fn read(&self) -> Findings {
        let client = Client::new(&self.control, Duration::from_secs(2));
        let mut waited = Duration::ZERO;
        loop {
            match client.get::<Vec<Reading>>("/v1/sensors").await {
                Ok(readings) => return self.pick(readings),
                Err(error) if waited >= RESTART => return self.unreachable(&error.to_string()).into(),
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
            waited += RETRY;
        }
    }

    fn pick(&self, readings: Vec<Reading>) -> Findings {
        let names = readings.iter().map(|reading| reading.name.clone()).collect::<Vec<_>>().join(", ");
        let Some(reading) = readings.into_iter().find(|reading| reading.name == self.sensor) else {
            let message = format!("dogwatch dns has no sensor {}; it has {names}", self.sensor);
            return CheckResult::unknown(message).into();
        };
        let parsed = perfdata::parse(&reading.perfdata);
        let state = State::from_exit_code(reading.state).unwrap_or(State::Unknown);
        let mut result = CheckResult::new(state, reading.text).with_perfdata(parsed.items);
        result.unparsable = parsed.unparsable;
        let blind = reading.blind.map(|why| Blind { thing: "upstreams".to_owned(), why });
        Findings::from(result).with_blind(blind.into_iter().collect())
    }

    fn unreachable(&self, why: &str) -> CheckResult {
        let state = if self.sensor == "dns-upstream" { State::Critical } else { State::Unknown };
        CheckResult::new(state, format!("cannot reach dogwatch dns: {why}"))
    }
}

impl Async for DnsSensor {
    fn run(self: Arc<Self>, timeout: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let reading = tokio::time::timeout(timeout, self.read());
            let found = reading.await;
            found.unwrap_or_else(|_| self.unreachable("no answer in time").into()).into()
        })
    }
}

/// How often the cache is polled: an alert must go out within 60 s of the first failed refresh.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
const RESTART: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_without_upstreams_is_ok_and_listed_as_not_watched() {
        let sensor = DnsSensor { control: "/nowhere".into(), sensor: "dns-upstream".into() };
        let pick = |json: &str| sensor.pick(serde_json::from_str(json).unwrap());
        let hint = "no upstream is configured: /etc/resolv.conf does not exist";
        let found = pick(&format!(
            r#"[{{"name": "dns-upstream", "state": 0, "text": "{hint}", "perfdata": "", "blind": "{hint}"}}]"#
        ));
        assert_eq!(found.list[0].result.state, State::Ok);
        assert_eq!(found.blind, [Blind { thing: "upstreams".into(), why: hint.into() }]);
        // With an upstream, and from a cache of an older version.
        let found = pick(r#"[{"name": "dns-upstream", "state": 2, "text": "down"}]"#);
        assert_eq!((found.list[0].result.state, found.blind.len()), (State::Critical, 0));
    }
}
