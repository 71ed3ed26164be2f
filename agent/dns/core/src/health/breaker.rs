//! Is this upstream healthy? Evidence goes in, a state comes out. Probes are sent when in doubt,
//! and without end while it is down: every few seconds at first, five or six a minute in a long
//! outage, and faster again when a client asks for a new name or the network changes.
//!
//! ```text
//!            late, or failed            both probes failed
//!  Healthy ─────────────────▶ Suspect ─────────────────────────────▶ Down ◀──────────┐
//!     ▲ ▲        any answer      │                                     │ any prompt   │ any failure
//!     │ └────────────────────────┘                                     ▼ answer       │
//!     └──────────────────────── enough answers over the hold time ── Recovering ──────┘
//! ```
//!
//! A failure for one name says little: that domain's own servers may be dead. So it only raises
//! suspicion; two immediate probes, with two questions that were answered recently, decide. A late
//! answer proves that the upstream is alive but not that it can serve waiting clients: it stays
//! down, and is known to be slow.
//!
//! Every state but `Healthy` waits for a verdict and sends its probes again if none comes: a probe
//! can be lost on this host, or be dropped with the list of upstreams that it was sent for.

use std::time::Duration;

use crate::{health::loss::Loss, moment::Moment};

/// Why a query got no usable answer; also gives metric labels and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Timeout,
    /// Connection refused, no route and similar.
    Network,
    /// The connection was closed before an answer came.
    Closed,
    /// The TLS handshake failed.
    Handshake,
    CertificateExpired,
    CertificateName,
    CertificateUntrusted,
    Servfail,
    Refused,
    /// FORMERR, NOTIMP and other codes that a forwarder should not return.
    BadCode,
    /// Truncated, and the retry over TCP failed too.
    TruncatedWithoutTcp,
    /// Not a DNS answer to our question, or a negative one without SOA.
    Malformed,
    /// It denies names that another upstream has.
    Lies,
}

impl Failure {
    pub const ALL: [Self; 13] = [
        Self::Timeout,
        Self::Network,
        Self::Closed,
        Self::Handshake,
        Self::CertificateExpired,
        Self::CertificateName,
        Self::CertificateUntrusted,
        Self::Servfail,
        Self::Refused,
        Self::BadCode,
        Self::TruncatedWithoutTcp,
        Self::Malformed,
        Self::Lies,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Closed => "closed",
            Self::Handshake => "handshake",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateName => "certificate_name",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::Servfail => "servfail",
            Self::Refused => "refused",
            Self::BadCode => "bad_code",
            Self::TruncatedWithoutTcp => "truncated_without_tcp",
            Self::Malformed => "malformed",
            Self::Lies => "lies",
        }
    }

    /// A failure to reach the upstream, which does not depend on the question.
    pub fn is_of_the_way(self) -> bool {
        match self {
            Self::Network
            | Self::Handshake
            | Self::CertificateExpired
            | Self::CertificateName
            | Self::CertificateUntrusted => true,
            Self::Timeout
            | Self::Closed
            | Self::Servfail
            | Self::Refused
            | Self::BadCode
            | Self::TruncatedWithoutTcp
            | Self::Malformed
            | Self::Lies => false,
        }
    }

    /// The upstream replied, but not usefully.
    pub fn is_an_answer(self) -> bool {
        matches!(self, Self::Servfail | Self::Refused | Self::BadCode | Self::Malformed | Self::Lies)
    }

    /// Human-readable text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Timeout => "no answer",
            Self::Network => "unreachable",
            Self::Closed => "closes the connection",
            Self::Handshake => "TLS handshake fails (is that a TLS port?)",
            Self::CertificateExpired => "its certificate has expired or is not valid yet",
            Self::CertificateName => "its certificate is for another name",
            Self::CertificateUntrusted => "its certificate is not signed by a trusted authority",
            Self::Servfail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::BadCode => "error code",
            Self::TruncatedWithoutTcp => "truncated, and TCP fails",
            Self::Malformed => "unusable answers",
            Self::Lies => "denies names that exist",
        }
    }
}

/// How strongly a failure counts against the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A probe failed, or the upstream is unreachable: the name is not to blame.
    Strong,
    /// A client's query failed: perhaps only that name is broken.
    Weak,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Healthy,
    Suspect { since: Moment, strikes: u8, probe_at: Moment },
    Down { since: Moment, why: Failure, probe_at: Moment, probes: u8 },
    Recovering { down_since: Moment, why: Failure, since: Moment, successes: u8, probe_at: Moment },
}

/// One upstream's breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    probes_due: u8,
    last_probe: Option<Moment>,
    /// Since when probes while down are not slowed.
    hurried: Moment,
    /// Recoveries that did not last; each makes the next one harder to pass.
    relapses: u8,
    closed_at: Option<Moment>,
    /// The last answer, late or not; initially the start time.
    heard: Moment,
    /// The last answer that came in time.
    answered: Option<Moment>,
    /// Answers come, but too late for a waiting client; assumed until this time.
    slow_until: Option<Moment>,
    loss: Loss,
    /// When to probe next while it is lossy.
    loss_probe_at: Moment,
}

/// Failed probes until it opens, and probes sent at once on suspicion: one may be lost, or its name
/// broken.
const STRIKES: u8 = 2;
/// Minimum time between probes caused by weak or late evidence.
const PROBE_GAP: Duration = Duration::from_millis(500);
/// In doubt and without a verdict, it is probed again after this, when any probe is over.
const PROBE_AGAIN: Duration = Duration::from_secs(2);
/// Delay before the first probe while down, doubling …
const PROBE_FIRST: Duration = Duration::from_millis(250);
/// … up to this, minus jitter, for this long, because most outages are short …
const PROBE_SOON: Duration = Duration::from_secs(3);
const FASTEST_FOR: Duration = Duration::from_mins(1);
/// … then this until so much of the outage is over …
const PROBE_DOWN: Duration = Duration::from_secs(5);
const FAST_FOR: Duration = Duration::from_mins(3);
/// … then this, for as long again, and then a few a minute without end, because a thousand hosts
/// probe the same upstream. (Unbound can leave upstreams unused for days: NLnetLabs/unbound#1461.)
const PROBE_SLOWER: Duration = Duration::from_secs(10);
const PROBE_SLOWEST: Duration = Duration::from_secs(12);
/// Probe interval while recovering, if the pace of the recovery permits it …
const PROBE_RECOVERING: Duration = Duration::from_millis(400);
/// … and at most this, so that a quiet host ends its recovery too.
const PROBE_RECOVERING_MOST: Duration = Duration::from_secs(2);
const SUCCESSES: u8 = 3;
/// How long a recovering upstream must keep answering; doubled by each relapse …
const HOLD_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const HOLD_LONGEST: Duration = Duration::from_secs(32);
/// After being closed this long, earlier relapses are forgotten.
const RELAPSE_WINDOW: Duration = Duration::from_mins(2);

/// Probe interval of a healthy but idle upstream, so that an outage is found before the next client
/// finds it.
const PROBE_IDLE: Duration = Duration::from_secs(30);
/// Probe interval of a lossy upstream, since its queries may be going elsewhere; also the minimum
/// time between suspicions.
const PROBE_LOSSY: Duration = Duration::from_secs(2);
/// After a late answer, how long the upstream counts as slow rather than dead.
const SLOW_FOR: Duration = Duration::from_secs(15);

impl Breaker {
    pub fn new(now: Moment) -> Self {
        Self {
            state: State::Healthy,
            probes_due: 0,
            last_probe: None,
            hurried: now,
            relapses: 0,
            closed_at: None,
            heard: now,
            answered: None,
            slow_until: None,
            loss: Loss::default(),
            loss_probe_at: now,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Whether clients' queries may be sent to it normally.
    pub fn usable(&self) -> bool {
        matches!(self.state, State::Healthy | State::Suspect { .. })
    }

    /// Since when it has been answering some queries but losing many.
    pub fn lossy_since(&self) -> Option<Moment> {
        self.loss.since().filter(|_| self.usable())
    }

    /// How many of the last [`crate::health::loss::WINDOW`] queries for names that resolved before
    /// got no answer.
    pub fn unanswered(&self) -> u32 {
        self.loss.unanswered()
    }

    /// Usable, and not lossy.
    pub fn sound(&self) -> bool {
        self.usable() && self.loss.since().is_none()
    }

    /// A query for a name that resolved before was answered; `late` if [`Self::note_unanswered`]
    /// was called for it.
    pub fn note_answered(&mut self, late: bool) {
        if late {
            self.loss.on_late_answer();
        } else {
            self.loss.on_answer();
        }
    }

    /// Such a query got no answer in time.
    pub fn note_unanswered(&mut self, now: Moment) {
        self.loss.on_late(now);
    }

    /// How strongly to count the failure of a probe sent at `sent`. While other queries are
    /// answered it says little: a packet was lost or the name is broken. Losing half of all packets
    /// is no reason to serve stale.
    pub fn weight_of_probe(&self, sent: Moment) -> Weight {
        let answers = self.usable() && self.answered.is_some_and(|at| at > sent);
        if answers { Weight::Weak } else { Weight::Strong }
    }

    /// It is back, but has relapsed before.
    pub fn relapsed(&self) -> bool {
        self.relapses > 0
    }

    /// An answer came in time.
    pub fn on_success(&mut self, now: Moment) {
        self.slow_until = None;
        self.heard = now;
        self.answered = Some(now);
        match &mut self.state {
            State::Healthy => {}
            State::Suspect { .. } => {
                self.state = State::Healthy;
                self.probes_due = 0;
            }
            &mut State::Down { since, why, .. } => {
                self.state = State::Recovering {
                    down_since: since,
                    why,
                    since: now,
                    successes: 1,
                    probe_at: now + PROBE_RECOVERING,
                };
            }
            State::Recovering { since, successes, .. } => {
                *successes = successes.saturating_add(1);
                let hold = (HOLD_FIRST * (1 << self.relapses.min(5))).min(HOLD_LONGEST);
                if *successes >= SUCCESSES && now.since(*since) >= hold {
                    self.state = State::Healthy;
                    self.closed_at = Some(now);
                    self.loss = Loss::default();
                }
            }
        }
    }

    /// An answer came after we had given up on it.
    pub fn on_late_success(&mut self, now: Moment) {
        self.heard = now;
        self.slow_until = Some(now + SLOW_FOR);
    }

    /// Down, but alive: it answers too late for a waiting client.
    pub fn slow(&self, now: Moment) -> bool {
        matches!(self.state, State::Down { .. }) && self.slow_until.is_some_and(|until| now < until)
    }

    /// An answer is overdue.
    pub fn on_late(&mut self, now: Moment) {
        if self.state == State::Healthy && self.may_probe(now) {
            self.suspect(0, now);
        }
    }

    pub fn on_failure(&mut self, why: Failure, weight: Weight, now: Moment) {
        let may_probe = self.may_probe(now);
        match (&mut self.state, weight) {
            (State::Suspect { .. } | State::Recovering { .. }, Weight::Weak) => {}
            (State::Healthy, Weight::Weak) if !may_probe => {}
            (State::Healthy, _) => {
                self.suspect(u8::from(weight == Weight::Strong), now);
            }
            (State::Suspect { strikes, .. }, Weight::Strong) => {
                *strikes += 1;
                if *strikes >= STRIKES {
                    self.open(why, now);
                }
            }
            (State::Down { why: last, .. }, _) => *last = why,
            (&mut State::Recovering { down_since, .. }, Weight::Strong) => {
                // The same outage continues, with its original start.
                self.relapses = self.relapses.saturating_add(1);
                self.hurried = now;
                self.state = State::Down { since: down_since, why, probe_at: now + PROBE_FIRST, probes: 0 };
            }
        }
    }

    /// Marks it as unusable without a probe.
    pub fn condemn(&mut self, why: Failure, now: Moment) {
        match &mut self.state {
            State::Down { why: last, .. } => *last = why,
            State::Recovering { why: last, .. } => {
                *last = why;
                self.on_failure(why, Weight::Strong, now);
            }
            State::Healthy | State::Suspect { .. } => self.open(why, now),
        }
    }

    fn open(&mut self, why: Failure, now: Moment) {
        let relapse = self.closed_at.is_some_and(|closed| now.since(closed) < RELAPSE_WINDOW);
        self.relapses = if relapse { self.relapses.saturating_add(1) } else { 0 };
        self.probes_due = 0;
        self.hurried = now;
        self.state = State::Down { since: now, why, probe_at: now + PROBE_FIRST, probes: 0 };
    }

    fn suspect(&mut self, strikes: u8, now: Moment) {
        self.state = State::Suspect { since: now, strikes, probe_at: now + PROBE_AGAIN };
        self.probes_due = STRIKES;
    }

    /// A client waits for a name that only upstreams can answer, or the network has changed: if it
    /// is down, it is probed at the fast rate again.
    pub fn hurry(&mut self, now: Moment) {
        self.hurried = now;
        let soonest = self.last_probe.map_or(now, |last| (last + PROBE_DOWN).max(now));
        if let State::Down { probe_at, .. } = &mut self.state {
            *probe_at = soonest.min(*probe_at);
        }
    }

    /// The recovery has no query to spare for a probe. Returns whether the probe can wait.
    pub fn postpone_probe(&mut self, wait: Duration, now: Moment) -> bool {
        let latest = self.last_probe.map_or(now, |last| last + PROBE_RECOVERING_MOST);
        let State::Recovering { probe_at, .. } = &mut self.state else { return false };
        *probe_at = (now + wait).min(latest).max(now);
        *probe_at > now
    }

    /// Whether a probe is due that the recovery has to spare a query for.
    pub fn wants_paced_probe(&self, now: Moment) -> bool {
        matches!(self.state, State::Recovering { probe_at, .. } if probe_at <= now)
    }

    /// How long to wait between probes while down.
    fn down_gap(&self, probes: u8, now: Moment) -> Duration {
        match now.since(self.hurried) {
            first if first < FASTEST_FOR => (PROBE_FIRST * (1 << probes.min(5))).min(PROBE_SOON),
            fast if fast < FAST_FOR => PROBE_DOWN,
            slower if slower < FAST_FOR * 2 => PROBE_SLOWER,
            _ => PROBE_SLOWEST,
        }
    }

    fn may_probe(&self, now: Moment) -> bool {
        let gap = if self.loss.since().is_some() { PROBE_LOSSY } else { PROBE_GAP };
        self.last_probe.is_none_or(|last| now.since(last) >= gap)
    }

    /// Whether to send a probe now. `jitter` (0.0..1.0) shortens the wait by up to a quarter.
    pub fn poll_probe(&mut self, now: Moment, jitter: f64) -> bool {
        let spread = |wait: Duration| wait.mul_f64(1.0 - jitter / 4.0);
        let lossy = self.loss.since().is_some() && self.loss_probe_at <= now;
        if let State::Suspect { probe_at, .. } = &mut self.state
            && *probe_at <= now
        {
            *probe_at = now + PROBE_AGAIN;
            self.probes_due = STRIKES;
        }
        let down_gap = match self.state {
            State::Down { probes, .. } => self.down_gap(probes.saturating_add(1), now),
            _ => PROBE_DOWN,
        };
        let due = match &mut self.state {
            State::Healthy if now.since(self.heard) >= PROBE_IDLE => {
                // Whatever the result, the next idle probe waits as long again.
                self.heard = now;
                true
            }
            State::Suspect { .. } if self.probes_due > 0 => {
                self.probes_due -= 1;
                true
            }
            State::Healthy | State::Suspect { .. } if lossy => true,
            State::Down { probe_at, probes, .. } if *probe_at <= now => {
                *probes = probes.saturating_add(1);
                *probe_at = now + spread(down_gap);
                true
            }
            State::Recovering { probe_at, .. } if *probe_at <= now => {
                *probe_at = now + spread(PROBE_RECOVERING);
                true
            }
            State::Healthy | State::Suspect { .. } | State::Down { .. } | State::Recovering { .. } => false,
        };
        if due {
            self.last_probe = Some(now);
            self.loss_probe_at = now + spread(PROBE_LOSSY);
        }
        due
    }

    pub fn next_wakeup(&self) -> Option<Moment> {
        let lossy = self.loss.since().map(|_| self.loss_probe_at);
        match self.state {
            State::Healthy => {
                Some(lossy.map_or(self.heard + PROBE_IDLE, |at| at.min(self.heard + PROBE_IDLE)))
            }
            State::Suspect { since, .. } if self.probes_due > 0 => Some(since),
            State::Suspect { probe_at, .. } => Some(lossy.map_or(probe_at, |at| at.min(probe_at))),
            State::Down { probe_at, .. } | State::Recovering { probe_at, .. } => Some(probe_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `evidence`, one character per 200 ms: `.` answer, `F` failed probe, `w` failed query,
    /// `l` late, `L` late answer, ` ` nothing. Returns the state after each: `H`ealthy, `S`uspect,
    /// `D`own, `R`ecovering.
    fn states(evidence: &str) -> String {
        let mut now = Moment::START;
        let mut breaker = Breaker::new(now);
        evidence
            .chars()
            .map(|sign| {
                now = now + Duration::from_millis(200);
                match sign {
                    '.' => breaker.on_success(now),
                    'F' => breaker.on_failure(Failure::Servfail, Weight::Strong, now),
                    'w' => breaker.on_failure(Failure::Timeout, Weight::Weak, now),
                    'l' => breaker.on_late(now),
                    'L' => breaker.on_late_success(now),
                    _ => {}
                }
                breaker.poll_probe(now, 0.0);
                match breaker.state() {
                    State::Healthy => 'H',
                    State::Suspect { .. } => 'S',
                    State::Down { .. } => 'D',
                    State::Recovering { .. } => 'R',
                }
            })
            .collect()
    }

    #[test]
    fn two_failures_open_it_and_answers_over_a_second_close_it() {
        let evidence = "..FF  F.......";
        let expected = "HHSDDDDRRRRRHH";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn a_late_answer_and_two_failed_probes_open_it_within_a_second() {
        let evidence = "..lFF";
        let expected = "HHSSD";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn one_lost_packet_opens_nothing() {
        let evidence = "..l.....F.....";
        let expected = "HHSHHHHHSHHHHH";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn names_that_are_broken_themselves_never_open_it() {
        let evidence = "..wwwwwwww.wwww";
        let expected = "HHSSSSSSSSHSSSS";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn a_failure_while_recovering_falls_back_and_doubles_the_hold() {
        let evidence = "FF..F............";
        let expected = "SDRRDRRRRRRRRRRHH";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn slow_answers_do_not_close_it() {
        let evidence = "lFFLLLL.";
        let expected = "SSDDDDDR";
        assert_eq!(states(evidence), expected);
    }

    #[test]
    fn losing_half_of_all_packets_means_lossy_not_down_and_probes_never_stop() {
        let mut now = Moment::START;
        let mut breaker = Breaker::new(now);
        let mut probes = 0;
        for step in 0..1_000 {
            now = now + Duration::from_millis(100);
            if step % 2 == 0 {
                breaker.note_unanswered(now);
                breaker.on_late(now);
            } else {
                breaker.note_answered(false);
                breaker.on_success(now);
            }
            probes += u32::from(breaker.poll_probe(now, 0.0));
        }
        let since = breaker.lossy_since().unwrap();
        assert!(breaker.usable() && !breaker.sound() && since < Moment::START + Duration::from_secs(3));
        // Two probes every two seconds on suspicion; without other queries it is still probed.
        assert!(probes <= 110, "{probes}");
        for _ in 0..20 {
            let next = breaker.next_wakeup().unwrap();
            assert!(next <= now + Duration::from_secs(2));
            now = next.max(now);
            assert!(breaker.poll_probe(now, 0.0));
        }
        (0..40).for_each(|_| breaker.note_answered(false));
        assert!(breaker.sound());
    }

    #[test]
    fn f8_probes_never_stop_and_become_few_in_a_long_outage() {
        let mut now = Moment::START;
        let mut breaker = Breaker::new(now);
        breaker.on_failure(Failure::Timeout, Weight::Strong, now);
        breaker.on_failure(Failure::Timeout, Weight::Strong, now);
        let (start, mut last) = (now, now);
        for _ in 0..1_000 {
            now = breaker.next_wakeup().unwrap();
            let most = if now.since(start) < FAST_FOR { PROBE_DOWN } else { PROBE_SLOWEST };
            assert!(now.since(last) <= most);
            assert!(breaker.poll_probe(now, 0.5));
            breaker.on_failure(Failure::Timeout, Weight::Strong, now);
            last = now;
        }
        assert!(now.since(start) > Duration::from_hours(2), "six a minute at most");
        breaker.hurry(now);
        assert!(breaker.next_wakeup().unwrap() <= now + PROBE_DOWN);
        assert!(breaker.next_wakeup().unwrap() >= now + PROBE_DOWN, "hurrying again and again sends no more");
    }
}
