//! The upstreams that can answer the same questions: which to ask, how long to wait, and how
//! healthy the group is.

use std::time::Duration;

use crate::{
    health::{
        breaker::{Breaker, Failure, State},
        endpoint::Endpoint,
        forgery::Forgeries,
        letter_case::LetterCase,
    },
    moment::Moment,
    policy::Upstreams,
};

/// One upstream: its breaker and its response times.
#[derive(Debug)]
pub struct Upstream {
    pub endpoint: Endpoint,
    pub breaker: Breaker,
    pub letter_case: LetterCase,
    pub forgeries: Forgeries,
    /// Pauses of this daemon since the upstream's last answer.
    pub pauses: u8,
    round_trip: RoundTrip,
    pub counts: UpstreamCounts,
}

/// Outcomes of the queries to one upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamCounts {
    pub sent: u64,
    pub answered: u64,
    pub failed: [u64; Failure::ALL.len()],
    /// Answers rejected because they did not repeat the case of our letters (0x20).
    pub other_case: u64,
}

/// Smoothed round trip and its deviation (RFC 6298 §2).
#[derive(Debug, Default)]
struct RoundTrip(Option<(Duration, Duration)>);

impl RoundTrip {
    fn on_sample(&mut self, sample: Duration) {
        self.0 = Some(match self.0 {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                let error = mean.abs_diff(sample);
                ((mean * 7 + sample) / 8, (deviation * 3 + error) / 4)
            }
        });
    }

    fn usual_longest(&self) -> Option<Duration> {
        self.0.map(|(mean, deviation)| mean + deviation * 4)
    }
}

#[derive(Debug)]
pub struct Group {
    upstreams: Vec<Upstream>,
}

/// A client waiting longer than this has often given up: stub timeouts are commonly 2 s or more
/// (RFC 8767 §5).
pub const CLIENT_TIMER_MAX: Duration = Duration::from_millis(1_800);
/// Even the fastest upstream may need a few round trips for an uncached name.
const CLIENT_TIMER_MIN: Duration = Duration::from_millis(500);
const LATE_MIN: Duration = Duration::from_millis(150);
/// Bounds detection time: one late answer plus one late probe within a second.
const LATE_MAX: Duration = Duration::from_millis(400);

impl Group {
    pub fn new(endpoints: &[Endpoint], now: Moment) -> Self {
        let upstream = |endpoint: &Endpoint| Upstream {
            endpoint: endpoint.clone(),
            breaker: Breaker::new(now),
            letter_case: LetterCase::UNKNOWN,
            forgeries: Forgeries::default(),
            pauses: 0,
            round_trip: RoundTrip::default(),
            counts: UpstreamCounts::default(),
        };
        Self { upstreams: endpoints.iter().map(upstream).collect() }
    }

    /// Applies a new list; upstreams on both lists keep their state.
    pub fn set(&mut self, endpoints: &[Endpoint], now: Moment) {
        let mut old = std::mem::replace(self, Self::new(endpoints, now));
        for upstream in &mut self.upstreams {
            if let Some(at) = old.upstreams.iter().position(|known| known.endpoint == upstream.endpoint) {
                *upstream = old.upstreams.swap_remove(at);
            }
        }
    }

    pub fn all(&self) -> &[Upstream] {
        &self.upstreams
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut Upstream> {
        self.upstreams.get_mut(index)
    }

    pub fn health(&self, now: Moment) -> Upstreams {
        let any =
            |test: &dyn Fn(&Breaker) -> bool| self.upstreams.iter().any(|upstream| test(&upstream.breaker));
        if any(&Breaker::sound) {
            Upstreams::Healthy
        } else if any(&|breaker| matches!(breaker.state(), State::Recovering { .. })) {
            Upstreams::Recovering
        } else if any(&|breaker| breaker.usable() || breaker.slow(now)) {
            Upstreams::Slow
        } else {
            Upstreams::Down
        }
    }

    pub fn usable(&self, index: usize) -> bool {
        self.upstreams.get(index).is_some_and(|upstream| upstream.breaker.usable())
    }

    /// Since when every usable upstream has been losing packets.
    pub fn lossy_since(&self) -> Option<Moment> {
        self.upstreams.iter().filter_map(|upstream| upstream.breaker.lossy_since()).max()
    }

    /// The last failure of an upstream that is down.
    pub fn last_failure(&self) -> Failure {
        let failures = self.upstreams.iter().filter_map(|upstream| match upstream.breaker.state() {
            State::Down { why, .. } | State::Recovering { why, .. } => Some(why),
            State::Healthy | State::Suspect { .. } => None,
        });
        failures.into_iter().next_back().unwrap_or(Failure::Timeout)
    }

    /// Since when no upstream has been usable.
    pub fn down_since(&self) -> Option<Moment> {
        let since = |upstream: &Upstream| match upstream.breaker.state() {
            State::Down { since, .. } | State::Recovering { down_since: since, .. } => Some(since),
            State::Healthy | State::Suspect { .. } => None,
        };
        // Counted from when the last of them went down.
        self.upstreams.iter().map(since).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The best upstream to ask: sound before lossy before recovering before down; then the
    /// fastest; never one of `tried`.
    pub fn choose(&self, tried: &[usize]) -> Option<usize> {
        let rank = |upstream: &Upstream| match upstream.breaker.state() {
            State::Healthy | State::Suspect { .. } if !upstream.breaker.sound() => 2,
            State::Healthy => 0,
            State::Suspect { .. } => 1,
            State::Recovering { .. } => 3,
            State::Down { .. } => 4,
        };
        self.upstreams
            .iter()
            .enumerate()
            .filter(|(index, _)| !tried.contains(index))
            .min_by_key(|(_, upstream)| (rank(upstream), upstream.round_trip.0.unwrap_or_default()))
            .map(|(index, _)| index)
    }

    /// How long to wait for this upstream before its answer counts as late.
    pub fn late_after(&self, index: usize) -> Duration {
        let usual = self
            .upstreams
            .get(index)
            .and_then(|upstream| Some((upstream.round_trip.usual_longest()?, upstream.round_trip.0?.0)));
        let Some((longest, mean)) = usual else { return LATE_MAX };
        // A distant upstream (over a satellite link) is judged by its own usual times.
        longest.clamp(LATE_MIN, LATE_MAX.max(mean * 2)).min(CLIENT_TIMER_MAX)
    }

    /// How long a client waits before it gets a stale answer: twice the usual maximum, within
    /// bounds.
    pub fn patience(&self, most: Duration) -> Duration {
        let usual = self
            .choose(&[])
            .and_then(|index| self.upstreams.get(index)?.round_trip.usual_longest())
            .map_or(most, |longest| longest * 2);
        usual.clamp(CLIENT_TIMER_MIN.min(most), most)
    }

    /// An upstream answered; `round_trip` is `None` if this daemon paused meanwhile.
    pub fn on_answer(&mut self, index: usize, round_trip: Option<Duration>) {
        if let Some(upstream) = self.upstreams.get_mut(index) {
            upstream.counts.answered += 1;
            upstream.pauses = 0;
            if let Some(round_trip) = round_trip {
                upstream.round_trip.on_sample(round_trip);
            }
        }
    }

    /// This daemon did not run for a while.
    pub fn on_pause(&mut self) {
        self.upstreams.iter_mut().for_each(|upstream| upstream.pauses = upstream.pauses.saturating_add(1));
    }

    /// See [`Breaker::hurry`].
    pub fn hurry(&mut self, now: Moment) {
        self.upstreams.iter_mut().for_each(|upstream| upstream.breaker.hurry(now));
    }

    /// Forged replies came in the name of this upstream.
    pub fn on_forged(&mut self, endpoint: &Endpoint, packets: u32, now: Moment) {
        for upstream in self.upstreams.iter_mut().filter(|upstream| upstream.endpoint == *endpoint) {
            upstream.forgeries.on_forged(packets, now);
        }
    }

    pub fn next_wakeup(&self) -> Option<Moment> {
        self.upstreams.iter().filter_map(|upstream| upstream.breaker.next_wakeup()).min()
    }
}
