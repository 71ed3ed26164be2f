//! The events that alertd does not have yet, and when to send them.
//!
//! ```text
//!  push ─▶ in memory ─▶ spooled ─▶ sent ─▶ acknowledged: gone
//!             └────── disk fails: sent from memory ────┘
//! ```
//!
//! - Events are sent in the order of their numbers, one batch at a time.
//! - A batch that is not acknowledged is sent again, after a back-off with full jitter (a random
//!   part of a limit that doubles) or after the time that alertd asked for.
//! - A heartbeat is part of a batch, or is sent alone when it is due.
//! - Memory is bounded. If there is no room, the oldest events are dropped and counted; alertd sees
//!   the gap and asks for the states.
//! - Numbers are never used twice. Before a process sends its first event, an empty batch asks for
//!   the last number that alertd has. If the spool does not know it, the disk has lost events
//!   ([`Verdict::Amnesia`]).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use dogwatch_wire::{BatchReply, Event, EventKind, limits};
use jiff::Timestamp;

use crate::{moment::Moment, schedule::phase};

/// The limits of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// JSON size of all waiting events.
    pub bytes_max: usize,
    pub heartbeat: Duration,
}

/// The events in order, and the state of the exchange with alertd.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    queue: VecDeque<Queued>,
    bytes: usize,
    dropped: u64,
    next_seq: u64,
    /// On disk up to this number.
    spooled: u64,
    /// The disk fails, so events are sent from memory: an alert matters more than a clean restart.
    memory_only: bool,
    phase: Phase,
    in_flight: Option<InFlight>,
    /// Events per batch. Halved when alertd answers that a batch is too large.
    batch_max: usize,
    failures: u32,
    not_before: Moment,
    /// A hash of the host's id, which spreads heartbeats.
    host: u64,
    /// Until then, a host without events does not begin the exchange.
    hello_at: Moment,
    next_heartbeat: Moment,
    want_states: bool,
    /// The states are to be sent although alertd did not ask, and have not been since.
    offered: bool,
    /// The part of the states that follows is the one after this service.
    states_after: Option<Arc<str>>,
    states_not_before: Moment,
    /// When a new epoch may be started because alertd asks for it.
    epoch_not_before: Moment,
}

#[derive(Debug)]
struct Queued {
    event: Event,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has been exchanged yet: ask for the last number first.
    Asking,
    Open,
}

#[derive(Debug, Clone)]
struct InFlight {
    /// The number of the last event in it, if any.
    through: Option<u64>,
    heartbeat: bool,
    states: bool,
    /// Its states are a part that ends with this service, and others follow.
    states_through: Option<Arc<str>>,
}

/// A batch to send now. The caller adds the digest and the states after the last event.
#[derive(Debug, Clone, PartialEq)]
pub struct NextBatch {
    pub events: Vec<Event>,
    pub heartbeat: bool,
    pub states: bool,
    /// The states are those after this service. `None`: from the first.
    pub states_after: Option<Arc<str>>,
}

/// Why alertd did not accept a batch, by what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer, an error, or a request to try again after some time.
    Later { retry_after: Option<Duration> },
    /// 413: send fewer events at once.
    TooLarge,
}

/// The meaning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted. Acknowledged events may leave the disk.
    Accepted,
    /// alertd has events of this epoch that the spool does not have: the disk has lost them. Start
    /// a new epoch ([`Outbox::start_epoch`]), or alertd will take new events for repeats.
    Amnesia,
    /// Accepted, but another host has this epoch too, so this spool is a copy of its spool, or the
    /// other way round. Start a new epoch.
    Copied,
}

impl Outbox {
    /// An outbox with the events from the spool. `next_seq` is the first number that was never
    /// used. `host` is a hash of the host's id: agents that are started in the same second, as in
    /// an upgrade of a fleet, begin the exchange within a third of a heartbeat's interval, and
    /// send each further heartbeat in a slot of their own. Events never wait for that.
    pub fn new(limits: Limits, host: u64, events: Vec<Event>, next_seq: u64, now: Moment) -> Self {
        let mut outbox = Self {
            limits,
            queue: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            next_seq,
            spooled: next_seq.saturating_sub(1),
            memory_only: false,
            phase: Phase::Asking,
            in_flight: None,
            batch_max: limits::EVENTS_MAX,
            failures: 0,
            not_before: now,
            host,
            hello_at: now + phase(host.rotate_left(32), limits.heartbeat / 3),
            next_heartbeat: now,
            want_states: false,
            offered: false,
            states_after: None,
            states_not_before: now,
            epoch_not_before: now,
        };
        for event in events {
            outbox.enqueue(event);
        }
        outbox
    }

    /// Sets new limits after a reload.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds an event. It is sent when it is on disk ([`Self::on_spooled`]).
    pub fn push(&mut self, at: Timestamp, kind: EventKind) {
        let event = Event { seq: self.next_seq, at, kind };
        self.next_seq += 1;
        self.enqueue(event);
    }

    fn enqueue(&mut self, event: Event) {
        let bytes = json_bytes(&event);
        self.bytes += bytes;
        self.queue.push_back(Queued { event, bytes });
        while self.bytes > self.limits.bytes_max && self.queue.len() > 1 {
            self.pop();
            self.dropped += 1;
        }
    }

    fn pop(&mut self) {
        if let Some(gone) = self.queue.pop_front() {
            self.bytes -= gone.bytes;
        }
    }

    /// The events that are not on disk yet, in order.
    pub fn unspooled(&self) -> impl Iterator<Item = &Event> {
        let on_disk = self.spooled;
        self.events().filter(move |event| event.seq > on_disk)
    }

    /// The events that are not acknowledged, in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.queue.iter().map(|queued| &queued.event)
    }

    /// All events up to `seq` are on disk.
    pub fn on_spooled(&mut self, seq: u64) {
        self.spooled = self.spooled.max(seq);
        self.memory_only = false;
    }

    /// The disk fails. Until [`Self::on_spooled`], new events do not wait for it.
    pub fn on_spool_failed(&mut self) {
        self.memory_only = true;
    }

    /// The batch to send now, if any. It counts as sent until `on_reply` or `on_failure`.
    pub fn poll_send(&mut self, now: Moment) -> Option<NextBatch> {
        if self.in_flight.is_some() || now < self.not_before {
            return None;
        }
        if self.phase == Phase::Asking && self.queue.is_empty() && now < self.hello_at {
            return None;
        }
        let next = match self.phase {
            Phase::Asking => {
                NextBatch { events: Vec::new(), heartbeat: false, states: false, states_after: None }
            }
            Phase::Open => self.next_batch(now)?,
        };
        self.offered &= !next.states;
        self.in_flight = Some(InFlight {
            through: next.events.last().map(|event| event.seq),
            heartbeat: next.heartbeat,
            states: next.states,
            states_through: None,
        });
        Some(next)
    }

    /// The batch of the last [`Self::poll_send`] has a part of the states, up to this service. The
    /// next part follows when alertd has accepted this one.
    pub fn on_part(&mut self, through: Arc<str>) {
        if let Some(sent) = &mut self.in_flight {
            sent.states_through = Some(through);
        }
    }

    fn next_batch(&self, now: Moment) -> Option<NextBatch> {
        let mut bytes = 0;
        let events: Vec<Event> = self
            .sendable()
            .take(self.batch_max)
            .take_while(|queued| {
                bytes += queued.bytes;
                bytes <= BATCH_BYTES_MAX || bytes == queued.bytes
            })
            .map(|queued| queued.event.clone())
            .collect();
        // Digest and states are those after the last event, so they are sent only with that event.
        let all = events.len() == self.queue.len();
        let states = all && (self.want_states || self.offered) && now >= self.states_not_before;
        let heartbeat = all && (now >= self.next_heartbeat || states || !events.is_empty());
        let nothing = events.is_empty() && !heartbeat;
        let states_after = self.states_after.clone().filter(|_| states);
        (!nothing).then_some(NextBatch { events, heartbeat, states, states_after })
    }

    fn sendable(&self) -> impl Iterator<Item = &Queued> {
        let through = if self.memory_only { u64::MAX } else { self.spooled };
        self.queue.iter().take_while(move |queued| queued.event.seq <= through)
    }

    /// alertd has answered.
    pub fn on_reply(&mut self, reply: &BatchReply, now: Moment, random: f64) -> Verdict {
        let Some(sent) = self.in_flight.take() else { return Verdict::Accepted };
        if reply.acked_seq >= self.next_seq {
            return Verdict::Amnesia;
        }
        while self.queue.front().is_some_and(|queued| queued.event.seq <= reply.acked_seq) {
            self.pop();
        }
        self.phase = Phase::Open;
        self.want_states = reply.want_states;
        if sent.states {
            // If alertd asks again after a part, it wants them from the first.
            self.states_after = sent.states_through.filter(|_| !reply.want_states && !self.offered);
            let more = self.states_after.is_some();
            self.offered |= more;
            self.states_not_before = if more { now } else { now + STATES_APART };
        }
        if sent.heartbeat {
            self.next_heartbeat = self.slot_after(now);
        }
        if sent.through.is_some_and(|through| reply.acked_seq < through) {
            // alertd answered but did not accept all events. Sending at once would be a loop.
            self.back_off(None, now, random);
        } else {
            self.failures = 0;
            self.not_before = now;
            self.batch_max = limits::EVENTS_MAX;
        }
        if reply.start_epoch && now >= self.epoch_not_before {
            self.epoch_not_before = now + EPOCHS_APART;
            return Verdict::Copied;
        }
        Verdict::Accepted
    }

    /// The next slot of this host, at most an interval from now.
    fn slot_after(&self, now: Moment) -> Moment {
        let interval = self.limits.heartbeat;
        let since = now.0.saturating_sub(phase(self.host, interval));
        let slots = since.as_nanos() / interval.as_nanos().max(1) + 1;
        let until = Duration::from_nanos_u128(slots * interval.as_nanos()).saturating_sub(since);
        now + until.min(interval)
    }

    /// The batch was not accepted. `random` is in 0..1.
    pub fn on_failure(&mut self, failure: Failure, now: Moment, random: f64) {
        self.offered |= self.in_flight.take().is_some_and(|sent| sent.states);
        match failure {
            Failure::Later { retry_after } => self.back_off(retry_after, now, random),
            Failure::TooLarge => {
                self.batch_max = (self.batch_max / 2).max(1);
                self.back_off(None, now, random);
            }
        }
    }

    /// Full jitter: any time between now and the limit, so that a fleet that lost alertd in the
    /// same second does not return in the same second.
    fn back_off(&mut self, retry_after: Option<Duration>, now: Moment, random: f64) {
        let limit = BACK_OFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        let told = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        self.not_before = now + told + limit.mul_f64(random.clamp(0.0, 1.0));
    }

    /// Starts a new epoch: all waiting events get new numbers, from 1.
    pub fn start_epoch(&mut self, now: Moment) {
        self.next_seq = 1;
        for queued in &mut self.queue {
            queued.event.seq = self.next_seq;
            self.next_seq += 1;
        }
        self.spooled = 0;
        self.in_flight = None;
        self.states_after = None;
        self.phase = Phase::Asking;
        self.not_before = now;
    }

    /// Sends the states with the next batch, although alertd did not ask: labels have changed, and
    /// no transition reports that.
    pub fn offer_states(&mut self, now: Moment) {
        self.offered = true;
        self.states_after = None;
        self.states_not_before = self.states_not_before.max(now);
    }

    /// When to call [`Self::poll_send`] next; `None` while a batch is in flight, and while events
    /// wait for the disk.
    pub fn next_wakeup(&self) -> Option<Moment> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.phase == Phase::Asking && self.queue.is_empty() {
            return Some(self.hello_at.max(self.not_before));
        }
        if self.phase == Phase::Asking || self.sendable().next().is_some() {
            return Some(self.not_before);
        }
        if !self.queue.is_empty() {
            // A heartbeat goes after the last event, and that waits for the disk.
            return None;
        }
        let states = (self.want_states || self.offered).then_some(self.states_not_before);
        let next = states.map_or(self.next_heartbeat, |states| states.min(self.next_heartbeat));
        Some(next.max(self.not_before))
    }

    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// All events up to this number are acknowledged or were dropped.
    pub fn settled(&self) -> u64 {
        self.queue.front().map_or(self.next_seq, |queued| queued.event.seq) - 1
    }

    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events dropped because of [`Limits::bytes_max`].
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Failed batches since the last accepted one.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// The first and the largest limit of the random delay.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// A server that asks for more is misconfigured. An alert must not wait for it.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// If alertd asks for the states again and again, something is wrong there. It gets them this
/// often.
const STATES_APART: Duration = Duration::from_secs(10);

/// The same for new epochs.
const EPOCHS_APART: Duration = Duration::from_mins(1);

/// Leaves room in the body for the envelope.
const BATCH_BYTES_MAX: usize = limits::BODY_BYTES_MAX - 64 * 1_024;

fn json_bytes(event: &Event) -> usize {
    serde_json::to_string(event).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_asks_for_the_last_number_and_the_next_has_the_events() {
        let mut outbox = outbox();
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        assert_eq!(sent(&mut outbox, 0), Some(vec![]));
        assert_eq!(outbox.on_reply(&acked(0), at(0), 0.5), Verdict::Accepted);
        assert_eq!(sent(&mut outbox, 0), Some(vec![1]));
        assert_eq!(outbox.on_reply(&acked(1), at(0), 0.5), Verdict::Accepted);
        assert_eq!((sent(&mut outbox, 0), outbox.depth()), (None, 0));
    }

    /// G28.
    #[test]
    fn events_are_sent_after_they_are_on_disk_unless_the_disk_fails() {
        let mut outbox = open();
        push(&mut outbox, "a");
        assert_eq!(sent(&mut outbox, 0), None);
        outbox.on_spool_failed();
        assert_eq!(sent(&mut outbox, 0), Some(vec![1]));
    }

    #[test]
    fn one_batch_is_in_flight_and_later_events_wait_for_its_answer() {
        let mut outbox = open();
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        assert_eq!(sent(&mut outbox, 0), Some(vec![1]));
        push(&mut outbox, "b");
        outbox.on_spooled(2);
        assert_eq!((sent(&mut outbox, 99), outbox.next_wakeup()), (None, None));
        outbox.on_reply(&acked(1), at(100), 0.0);
        assert_eq!(sent(&mut outbox, 100), Some(vec![2]));
    }

    #[test]
    fn the_back_off_doubles_to_thirty_seconds_and_one_success_resets_it() {
        let mut outbox = open();
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(sent(&mut outbox, now).is_some());
            outbox.on_failure(Failure::Later { retry_after: None }, at(now), 1.0);
            let next = outbox.next_wakeup().unwrap().0.as_secs();
            waits.push(next - now);
            assert_eq!(sent(&mut outbox, next - 1), None);
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(sent(&mut outbox, now).is_some());
        outbox.on_reply(&acked(1), at(now), 1.0);
        push(&mut outbox, "b");
        outbox.on_spooled(2);
        assert_eq!(outbox.next_wakeup(), Some(at(now)));
    }

    #[test]
    fn retry_after_is_obeyed_and_spread() {
        let mut outbox = open();
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        sent(&mut outbox, 0);
        outbox.on_failure(Failure::Later { retry_after: Some(Duration::from_secs(20)) }, at(0), 0.5);
        assert_eq!(outbox.next_wakeup().unwrap().0, Duration::from_millis(20_500));
    }

    #[test]
    fn a_heartbeat_is_sent_alone_when_due_and_with_events_otherwise() {
        let mut outbox = open();
        assert_eq!(outbox.next_wakeup(), Some(at(30)));
        assert_eq!(outbox.poll_send(at(29)), None);
        let beat = outbox.poll_send(at(30)).unwrap();
        assert!(beat.heartbeat && beat.events.is_empty() && !beat.states);
        outbox.on_reply(&acked(0), at(30), 0.5);
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        assert!(outbox.poll_send(at(40)).unwrap().heartbeat);
        outbox.on_reply(&acked(1), at(40), 0.5);
        assert_eq!(outbox.next_wakeup(), Some(at(60)), "the next slot");
    }

    #[test]
    fn states_are_sent_on_request_but_not_in_a_loop() {
        let mut outbox = open();
        outbox.poll_send(at(30)).unwrap();
        outbox.on_reply(&BatchReply { want_states: true, ..acked(0) }, at(30), 0.5);
        assert!(outbox.poll_send(at(30)).unwrap().states);
        outbox.on_reply(&BatchReply { want_states: true, ..acked(0) }, at(30), 0.5);
        assert_eq!((outbox.poll_send(at(39)), outbox.next_wakeup()), (None, Some(at(40))));
        assert!(outbox.poll_send(at(40)).unwrap().states);
        outbox.on_reply(&acked(0), at(40), 0.5);
        assert!(!outbox.poll_send(at(70)).unwrap().states);
    }

    #[test]
    fn states_that_do_not_fit_into_one_body_follow_part_by_part() {
        let mut outbox = open();
        outbox.poll_send(at(30)).unwrap();
        outbox.on_reply(&BatchReply { want_states: true, ..acked(0) }, at(30), 0.5);
        let part = |outbox: &mut Outbox, now| {
            let next = outbox.poll_send(at(now)).filter(|next| next.states).unwrap();
            next.states_after.map(|after| after.to_string())
        };
        assert_eq!(part(&mut outbox, 40), None);
        outbox.on_part("disk".into());
        outbox.on_reply(&acked(0), at(40), 0.5);
        assert_eq!(outbox.next_wakeup(), Some(at(40)), "the next part follows at once");
        assert_eq!(part(&mut outbox, 40).as_deref(), Some("disk"));
        outbox.on_part("load".into());
        outbox.on_failure(Failure::Later { retry_after: None }, at(41), 0.0);
        assert_eq!(part(&mut outbox, 41).as_deref(), Some("disk"), "the same part again");
        outbox.on_part("load".into());
        outbox.on_reply(&acked(0), at(42), 0.5);
        assert_eq!(part(&mut outbox, 42).as_deref(), Some("load"));
        outbox.on_reply(&acked(0), at(42), 0.5);
        assert!(!outbox.poll_send(at(90)).unwrap().states, "that was the last part");
        outbox.on_reply(&BatchReply { want_states: true, ..acked(0) }, at(90), 0.5);

        // New labels, or an alertd that has forgotten: from the first part.
        assert_eq!(part(&mut outbox, 100), None);
        outbox.on_part("disk".into());
        outbox.offer_states(at(100));
        outbox.on_reply(&acked(0), at(100), 0.5);
        assert_eq!(part(&mut outbox, 110), None);
        outbox.on_part("disk".into());
        outbox.on_reply(&BatchReply { want_states: true, ..acked(0) }, at(110), 0.5);
        assert_eq!(part(&mut outbox, 120), None);
    }

    #[test]
    fn digest_and_states_wait_for_the_last_event() {
        let mut outbox = open();
        for _ in 0..=limits::EVENTS_MAX {
            push(&mut outbox, "a");
        }
        outbox.on_spooled(501);
        let first = outbox.poll_send(at(60)).unwrap();
        assert_eq!((first.events.len(), first.heartbeat), (limits::EVENTS_MAX, false));
        outbox.on_reply(&acked(500), at(60), 0.5);
        let second = outbox.poll_send(at(60)).unwrap();
        assert_eq!((second.events.len(), second.heartbeat), (1, true));
    }

    #[test]
    fn a_batch_fits_the_body_limit_and_shrinks_on_request() {
        let mut outbox = open();
        let long = "x".repeat(200_000);
        for _ in 0..10 {
            push(&mut outbox, &long);
        }
        outbox.on_spooled(10);
        assert_eq!(sent(&mut outbox, 0), Some(vec![1, 2, 3, 4]));
        for (halved, expected) in [(1, 4), (2, 4), (3, 4), (8, 1)] {
            for _ in 0..halved {
                outbox.on_failure(Failure::TooLarge, at(0), 0.0);
            }
            assert_eq!(sent(&mut outbox, 0).map(|events| events.len()), Some(expected));
        }
    }

    #[test]
    fn a_full_outbox_drops_and_counts_the_oldest_events() {
        let mut outbox = open();
        outbox.set_limits(Limits { bytes_max: 1_000, ..LIMITS });
        for _ in 0..100 {
            push(&mut outbox, "a");
        }
        assert!(outbox.bytes() <= 1_000);
        assert_eq!(outbox.dropped(), 100 - outbox.depth() as u64);
        assert_eq!(outbox.events().last().unwrap().seq, 100);
        assert_eq!(outbox.settled(), outbox.dropped());
    }

    #[test]
    fn if_alertd_has_more_than_the_spool_a_new_epoch_starts() {
        let mut outbox = Outbox::new(LIMITS, 0, Vec::new(), 4, at(0));
        push(&mut outbox, "a");
        outbox.on_spooled(4);
        outbox.poll_send(at(0)).unwrap();
        // The disk lost events 4 to 9 in a power cut. alertd would take the new 4 for the old one.
        assert_eq!(outbox.on_reply(&acked(9), at(0), 0.5), Verdict::Amnesia);
        outbox.start_epoch(at(0));
        assert_eq!(sent(&mut outbox, 0), Some(vec![]), "asks again");
        outbox.on_reply(&acked(0), at(0), 0.5);
        outbox.on_spooled(1);
        assert_eq!(sent(&mut outbox, 0), Some(vec![1]));
    }

    #[test]
    fn an_answer_that_accepts_nothing_does_not_lead_to_a_loop() {
        let mut outbox = open();
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        sent(&mut outbox, 0);
        outbox.on_reply(&acked(0), at(0), 1.0);
        assert_eq!(outbox.next_wakeup(), Some(at(1)));
    }

    #[test]
    fn g2_a_copied_spool_gets_its_own_epoch_and_loses_no_event() {
        let mut outbox = open();
        push(&mut outbox, "a");
        push(&mut outbox, "b");
        outbox.on_spooled(1);
        assert_eq!(sent(&mut outbox, 0), Some(vec![1]));
        let copied = BatchReply { start_epoch: true, ..acked(1) };
        assert_eq!(outbox.on_reply(&copied, at(0), 0.5), Verdict::Copied);
        outbox.start_epoch(at(0));
        assert_eq!((outbox.depth(), outbox.next_seq()), (1, 2), "b has a new number");
        assert_eq!(sent(&mut outbox, 0), Some(vec![]), "asks again");
        // An alertd that asks again and again does not start a loop.
        assert_eq!(
            outbox.on_reply(&BatchReply { start_epoch: true, ..acked(0) }, at(0), 0.5),
            Verdict::Accepted
        );
        outbox.on_spooled(1);
        assert_eq!(sent(&mut outbox, 0), Some(vec![1]));
        assert_eq!(outbox.on_reply(&copied, at(60), 0.5), Verdict::Copied, "after a minute it counts");
    }

    const LIMITS: Limits = Limits { bytes_max: 4_000_000, heartbeat: Duration::from_secs(30) };

    #[test]
    fn states_that_are_offered_while_a_batch_is_on_its_way_are_not_forgotten() {
        let mut outbox = open();
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        assert!(outbox.poll_send(at(0)).is_some_and(|batch| !batch.states));
        outbox.offer_states(at(0));
        outbox.on_reply(&acked(1), at(0), 0.5);
        assert!(outbox.poll_send(at(1)).is_some_and(|batch| batch.states));
        outbox.on_failure(Failure::Later { retry_after: None }, at(1), 0.0);
        assert!(outbox.poll_send(at(2)).is_some_and(|batch| batch.states), "the first try failed");
        outbox.on_reply(&acked(1), at(2), 0.5);
        assert!(outbox.poll_send(at(3)).is_none());
    }

    /// G28.
    #[test]
    fn a_heartbeat_that_is_due_while_the_disk_stalls_does_not_keep_the_loop_awake() {
        let mut outbox = open();
        push(&mut outbox, "a");
        let later = at(3_600);
        assert_eq!(outbox.poll_send(later), None, "the event is not on disk yet");
        assert_eq!(outbox.next_wakeup(), None, "the disk's answer or its deadline wakes the loop");
        outbox.on_spool_failed();
        assert!(outbox.next_wakeup().is_some_and(|at| at <= later));
        assert!(outbox.poll_send(later).is_some_and(|batch| batch.heartbeat));
    }

    /// F3, and its siblings: a fleet that is back after an outage of alertd, and one with events.
    #[test]
    fn agents_that_start_together_do_not_beat_together() {
        let started = Moment(Duration::from_hours(24));
        let most_in_a_second = |moments: &[Moment]| {
            let mut per_second = std::collections::BTreeMap::new();
            for moment in moments {
                *per_second.entry(moment.0.as_secs()).or_insert(0_usize) += 1;
            }
            per_second.into_values().max().unwrap()
        };
        let (mut hellos, mut beats, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for host in 0..3_000_u64 {
            let host = crate::schedule::host_hash(&format!("{host:032x}"));
            let mut outbox = Outbox::new(LIMITS, host, Vec::new(), 1, started);
            let hello = outbox.next_wakeup().unwrap();
            assert!(hello.since(started) <= Duration::from_secs(10));
            assert!(outbox.poll_send(hello).is_some());
            outbox.on_reply(&acked(0), hello, 0.5);
            outbox.poll_send(hello).unwrap();
            // All answers arrive in the same moment.
            let answered = started + Duration::from_secs(12);
            outbox.on_reply(&acked(0), answered, 0.5);
            let beat = outbox.next_wakeup().unwrap();
            assert!(beat.since(answered) <= LIMITS.heartbeat);
            outbox.poll_send(beat).unwrap();
            outbox.on_reply(&acked(0), beat + Duration::from_millis(40), 0.5);
            hellos.push(hello);
            beats.push(beat);
            again.push(outbox.next_wakeup().unwrap());
        }
        // Even shares would be 300 and 100.
        assert!(most_in_a_second(&hellos) < 400);
        assert!(most_in_a_second(&beats) < 150);
        assert!(most_in_a_second(&again) < 150);

        let mut outbox = Outbox::new(LIMITS, u64::MAX, Vec::new(), 1, started);
        assert!(outbox.next_wakeup().unwrap() > started);
        push(&mut outbox, "a");
        outbox.on_spooled(1);
        assert_eq!(outbox.next_wakeup(), Some(started), "an event does not wait");
        assert!(outbox.poll_send(started).is_some());
    }

    fn outbox() -> Outbox {
        Outbox::new(LIMITS, 0, Vec::new(), 1, at(0))
    }

    /// After the first exchange, with a heartbeat sent at 0.
    fn open() -> Outbox {
        let mut outbox = outbox();
        for _ in 0..2 {
            outbox.poll_send(at(0)).unwrap();
            outbox.on_reply(&acked(0), at(0), 0.5);
        }
        outbox
    }

    fn push(outbox: &mut Outbox, service: &str) {
        outbox.push(Timestamp::UNIX_EPOCH, EventKind::Removed { service: service.into() });
    }

    fn sent(outbox: &mut Outbox, now: u64) -> Option<Vec<u64>> {
        outbox.poll_send(at(now)).map(|next| next.events.iter().map(|event| event.seq).collect())
    }

    fn acked(seq: u64) -> BatchReply {
        BatchReply {
            protocol: dogwatch_wire::PROTOCOL,
            acked_seq: seq,
            want_states: false,
            start_epoch: false,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }
}
