//! A cache that answers stale and refreshes on demand: equal questions share one try, a try is repeated after 376 ms and
//! twice that each time (as Unbound does with an upstream it knows nothing of), five in all, and a name that failed rests 5 s.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use dogwatch_dns_core::moment::Moment;

use super::host::{Ask, Cache, World};

pub(super) struct Naive {
    names: Vec<Held>,
    asks: Vec<Ask>,
    timers: BinaryHeap<Reverse<(Moment, u32)>>,
    next_id: u64,
}

#[derive(Clone, Copy)]
struct Held {
    expires: Moment,
    rests_until: Moment,
    tries: u32,
    retry_at: Option<Moment>,
}

const FIRST_RETRY: Duration = Duration::from_millis(376);
const TRIES: u32 = 5;
const REST: Duration = Duration::from_secs(5);

impl Naive {
    pub(super) fn new(world: &World) -> Self {
        let held = Held { expires: Moment::START, rests_until: Moment::START, tries: 0, retry_at: None };
        Self {
            names: vec![held; world.packets.len()],
            asks: Vec::new(),
            timers: BinaryHeap::new(),
            next_id: 1,
        }
    }

    fn ask(&mut self, name: u32, now: Moment) {
        let held = &mut self.names[name as usize];
        let wait = FIRST_RETRY * (1 << held.tries);
        held.tries += 1;
        held.retry_at = Some(now + wait);
        self.timers.push(Reverse((now + wait, name)));
        self.next_id += 1;
        self.asks.push(Ask { try_id: self.next_id, name, timeout: None, message: Vec::new() });
    }
}

impl Cache for Naive {
    fn on_query(&mut self, name: u32, now: Moment, _: &World) {
        let held = self.names[name as usize];
        if now >= held.expires && now >= held.rests_until && held.retry_at.is_none() {
            self.ask(name, now);
        }
    }

    fn on_answer(&mut self, ask: &Ask, now: Moment, world: &World) {
        let ttl = Duration::from_secs(world.ttl_s[ask.name as usize].into());
        self.names[ask.name as usize] =
            Held { expires: now + ttl, rests_until: now, tries: 0, retry_at: None };
    }

    fn on_timeout(&mut self, _: u64, _: Moment) {}

    fn on_wakeup(&mut self, now: Moment) {
        while let Some(&Reverse((at, name))) = self.timers.peek().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            let held = &mut self.names[name as usize];
            if held.retry_at != Some(at) {
                continue;
            }
            if held.tries < TRIES {
                self.ask(name, now);
            } else {
                *held = Held { rests_until: now + REST, tries: 0, retry_at: None, ..*held };
            }
        }
    }

    fn poll_ask(&mut self, _: &World) -> Option<Ask> {
        self.asks.pop()
    }

    fn next_wakeup(&self) -> Option<Moment> {
        self.timers.peek().map(|&Reverse((at, _))| at)
    }
}
