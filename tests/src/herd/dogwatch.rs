//! The real core as the cache of a host.

use std::{
    hash::RandomState,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dogwatch_dns_core::{
    message::{reply::Transport, wire::read_question},
    moment::Moment,
    resolver::{Client, Remembered, Resolver, Seeds, TryError},
    settings::Settings,
};

use super::{
    Plan,
    host::{Ask, Cache, World},
};
use crate::upstream::{Mood, reply};

pub(super) struct Dogwatch {
    resolver: Resolver,
    out: Vec<u8>,
}

impl Dogwatch {
    pub(super) fn new(host: u32, plan: &Plan, world: &World) -> Self {
        let settings = Settings {
            upstreams: vec![SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 53)).into()],
            host_phase: u64::from(host),
            ..Settings::default()
        };
        let seed = plan.seed << 32 | u64::from(host);
        let mut random = fastrand::Rng::with_seed(seed);
        let seeds = Seeds::repeatable(seed, RandomState::new());
        let mut resolver = Resolver::new(settings, seeds, Moment::START);
        // It has been up for long: every name is known.
        for packet in &world.packets {
            if let Some(message) = reply(packet, Mood::Right) {
                let age = Duration::from_secs(random.u64(0..600));
                resolver.restore(&Remembered { age, ..Remembered::new(&message) }, Moment::START);
            }
        }
        Self { resolver, out: Vec::with_capacity(512) }
    }
}

impl Cache for Dogwatch {
    fn on_query(&mut self, name: u32, now: Moment, world: &World) {
        let packet = &world.packets[name as usize];
        self.resolver.on_query(packet, Client::Stream(0), Transport::Udp, now, &mut self.out);
    }

    fn on_answer(&mut self, ask: &Ask, now: Moment, _: &World) {
        if let Some(answer) = reply(&ask.message, Mood::Right) {
            self.resolver.on_reply(ask.try_id, &answer, now);
            // As the daemon does: evidence may call for a probe at once.
            self.resolver.on_wakeup(now);
        }
    }

    fn on_timeout(&mut self, try_id: u64, now: Moment) {
        self.resolver.on_error(try_id, TryError::Timeout, now);
        self.resolver.on_wakeup(now);
    }

    fn on_wakeup(&mut self, now: Moment) {
        self.resolver.on_wakeup(now);
    }

    fn poll_ask(&mut self, world: &World) -> Option<Ask> {
        while self.resolver.poll_reply().is_some() {}
        while self.resolver.poll_learned().is_some() {}
        let send = self.resolver.poll_send()?;
        let name = read_question(&send.message)
            .and_then(|(question, _)| world.numbers.get(&question.name.to_ascii_lowercase()).copied());
        // Probes ask for other names too.
        let name = name.unwrap_or(u32::MAX);
        Some(Ask { try_id: send.try_id, name, timeout: Some(send.timeout), message: send.message })
    }

    fn next_wakeup(&self) -> Option<Moment> {
        self.resolver.next_wakeup()
    }
}
