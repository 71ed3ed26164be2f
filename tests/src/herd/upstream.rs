//! The weak upstream: a queue of one second, and the longer it is, the slower it works.

use std::time::Duration;

use dogwatch_dns_core::moment::Moment;

pub(super) struct Weak {
    /// Queries a second, with an empty queue.
    capacity: f64,
    since: Moment,
    /// When the last place of its queue is served, in seconds since its return.
    busy_until_s: f64,
}

/// Its queue.
const QUEUE_S: f64 = 1.0;

impl Weak {
    pub(super) fn new(capacity: f64, now: Moment) -> Self {
        Self { capacity, since: now, busy_until_s: 0.0 }
    }

    /// How long the answer to what comes now takes; `None` if it is lost.
    pub(super) fn on_query(&mut self, now: Moment) -> Option<Duration> {
        let queue_s = self.queue_s(now);
        if queue_s >= QUEUE_S {
            return None;
        }
        // At a full queue it does half of what it can.
        let wait_s = queue_s + (1.0 + queue_s / QUEUE_S) / self.capacity;
        self.busy_until_s = self.seconds(now) + wait_s;
        Some(Duration::from_secs_f64(wait_s))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some seconds")]
    pub(super) fn queue_ms(&self, now: Moment) -> u32 {
        (self.queue_s(now) * 1_000.0) as u32
    }

    fn queue_s(&self, now: Moment) -> f64 {
        (self.busy_until_s - self.seconds(now)).max(0.0)
    }

    fn seconds(&self, now: Moment) -> f64 {
        now.since(self.since).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_what_it_has_room_for_and_loses_what_finds_its_queue_full() {
        let run = |per_second: u64| {
            let mut weak = Weak::new(100.0, Moment::START);
            let asked = (0..60 * per_second)
                .map(|number| Moment::START + Duration::from_micros(1_000_000 * number / per_second));
            asked.filter(|&now| weak.on_query(now).is_some()).count()
        };
        assert_eq!(run(99), 60 * 99);
        // Twice too much: it is kept at half of its strength.
        assert!((3_000..3_200).contains(&run(200)), "{}", run(200));
    }
}
