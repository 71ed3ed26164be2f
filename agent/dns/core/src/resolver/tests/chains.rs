//! M25: a stale alias chain gets the newest answers for its targets, and nothing from another view.

use super::*;

/// A cached answer about `name`: an alias to `target`, if given, and an address of the last name.
/// AD is set.
fn kept(name: &str, target: Option<&str>, ttl_s: u8, last: u8) -> Vec<u8> {
    let wire = |name: &str| name::from_text(name).unwrap();
    let mut message = vec![0, 0, 0x81, 0xa0, 0, 1, 0, 1 + u8::from(target.is_some()), 0, 0, 0, 0];
    message.extend(wire(name));
    message.extend([0, 1, 0, 1]);
    if let Some(target) = target {
        let data = wire(target);
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, ttl_s, 0, u8::try_from(data.len()).unwrap()]);
        message.extend(data);
    }
    message.extend(wire(target.unwrap_or(name)));
    message.extend([0, 1, 0, 1, 0, 0, 0, ttl_s, 0, 4, 192, 0, 2, last]);
    message
}

struct Chains(World);

impl Chains {
    /// All upstreams are down; of two zones one serves nothing stale. `www.shop.test` led to
    /// address 1 half a minute ago.
    fn new() -> Self {
        let zone = |suffix: &str, serve_stale| ZoneSettings {
            suffix: name::from_text(suffix).unwrap().into(),
            upstreams: vec![SocketAddr::from(([192, 0, 2, 0], 53)).into()],
            max_stale: Duration::from_hours(1),
            serve_stale,
            guard: guard::Rules::default(),
            rebinding: guard::Rebinding::default(),
        };
        let zones = vec![zone("corp.test", true), zone("once.test", false)];
        let mut world = World::with_settings(1, Settings { zones, ..Settings::default() });
        world.run(Duration::from_mins(10));
        world.moods[0] = 'x';
        for name in ["x.test", "x.corp.test", "x.once.test"] {
            world.ask(name);
        }
        world.run(Duration::from_secs(30));
        assert!(world.resolver.zones().iter().all(|zone| zone.health == Upstreams::Down));
        let mut chains = Self(world);
        chains.learn(&kept("www.shop.test", Some("edge.cdn.test"), 2, 1), 30, false);
        chains
    }

    fn learn(&mut self, message: &[u8], seconds_ago: u64, dnssec_ok: bool) {
        let answer = Remembered {
            message,
            dnssec_ok,
            checking_disabled: false,
            uses: 0,
            good_for: Duration::ZERO,
            age: Duration::from_secs(seconds_ago),
            unseen: Duration::ZERO,
        };
        self.0.resolver.restore(&answer, self.0.now);
    }

    /// The answer a client gets, from the core and from a thread: the last address and the TTLs.
    fn told(&mut self, name: &str) -> (u8, Vec<u32>) {
        let packet = query(name, 1, true);
        let (mut out, mut of_thread) = (Vec::new(), Vec::new());
        let (now, world) = (self.0.now, &mut self.0);
        let outcome = world.resolver.on_query(&packet, Client::Stream(0), Transport::Udp, now, &mut out);
        assert_eq!(outcome, Outcome::Reply);
        let reader = world.resolver.reader();
        let asked = reader.read(&packet, &mut of_thread).ok().unwrap();
        assert!(matches!(reader.answer(&asked, now, &mut of_thread), Hit::Stale { .. }));
        assert_eq!(out, of_thread);
        assert_eq!(
            reader.answer_overloaded(&asked, now, &mut of_thread).map(|_| of_thread[3] & 0x20),
            Some(0)
        );
        assert_eq!(out[3] & 0x20, 0, "never marked as validated");
        let extended = out.windows(6).filter(|window| window[..2] == [0, 15] && window[4..] == [0, 3]);
        assert_eq!(extended.count(), 1, "one reason");
        let mut at = wire::read_question(&out).unwrap().1;
        let mut ttls = Vec::new();
        for _ in 0..out[7] {
            let record = wire::Record::read(&out, at).unwrap();
            let ttl_at = record.data_at - 6;
            ttls.push(u32::from_be_bytes(out[ttl_at..ttl_at + 4].try_into().unwrap()));
            at = record.end;
        }
        let last = wire::answers(&out).last().unwrap();
        assert_eq!((last.0, out[11]), (1, 1));
        (last.1[3], ttls)
    }

    fn now_leads_to(&mut self, name: &str) -> u8 {
        self.told(name).0
    }
}

#[test]
fn a_stale_chain_leads_to_the_targets_current_address() {
    let mut chains = Chains::new();
    assert_eq!(chains.told("www.shop.test"), (1, vec![2, 2]));
    // Older than the chain, so the chain wins.
    chains.learn(&kept("edge.cdn.test", None, 200, 2), 31, false);
    assert_eq!(chains.now_leads_to("www.shop.test"), 1);
    // Newer, though stale too; its TTL was one second.
    chains.learn(&kept("edge.cdn.test", None, 1, 3), 29, false);
    assert_eq!(chains.told("www.shop.test"), (3, vec![1, 1]));
    chains.learn(&kept("edge.cdn.test", None, 200, 4), 10, false);
    assert_eq!(chains.told("WWW.shop.test"), (4, vec![2, 2]));
    // A chain with a long TTL, to a target with three seconds left.
    chains.learn(&kept("long.shop.test", Some("edge.cdn.test"), 100, 1), 101, false);
    chains.learn(&kept("edge.cdn.test", None, 13, 5), 10, false);
    assert_eq!(chains.told("long.shop.test"), (5, vec![3, 3]));
    // The target is an alias itself now, and that one's target has a newer answer still.
    chains.learn(&kept("edge.cdn.test", Some("new.cdn.test"), 100, 6), 9, false);
    assert_eq!(chains.told("www.shop.test"), (6, vec![2, 2, 2]));
    chains.learn(&kept("new.cdn.test", None, 100, 7), 8, false);
    assert_eq!(chains.told("www.shop.test"), (7, vec![2, 2, 2]));
    // A loop back to the start.
    chains.learn(&kept("new.cdn.test", Some("www.shop.test"), 100, 8), 7, false);
    assert_eq!(chains.now_leads_to("www.shop.test"), 1);
}

#[test]
fn views_are_never_mixed() {
    let mut chains = Chains::new();
    chains.learn(&kept("edge.cdn.test", None, 200, 2), 10, true);
    assert_eq!(chains.now_leads_to("www.shop.test"), 1, "DO");
    // Names in another zone are answered by other upstreams, whatever either would say about the
    // other's.
    for zone in ["corp", "once"] {
        let (from, to) = (format!("{zone}.shop.test"), format!("edge.{zone}.test"));
        chains.learn(&kept(&from, Some(&to), 2, 1), 30, false);
        chains.learn(&kept(&to, None, 200, 2), 10, false);
        assert_eq!(chains.now_leads_to(&from), 1, "{zone}");
    }
    let (from, to) = ("www.corp.test", "edge.corp.test");
    chains.learn(&kept(from, Some(to), 2, 1), 30, false);
    assert_eq!(chains.now_leads_to(from), 2, "within one zone");
    // From other upstreams, before a reload.
    let mut settings = chains.0.resolver.settings.clone();
    settings.zones.retain(|zone| *zone.suffix != *name::from_text("corp.test").unwrap());
    chains.0.resolver.set(settings, chains.0.now);
    assert_eq!(chains.now_leads_to(from), 1, "another view");
}

/// S13: `nas.home.arpa` may have a private address, and a public alias must not lead there.
#[test]
fn s13_with_the_rebinding_guard_a_stale_chain_is_not_combined_with_a_newer_answer() {
    let mut chains = Chains::new();
    chains.learn(&kept("www.evil.test", Some("nas.home.arpa"), 2, 1), 30, false);
    chains.learn(&kept("nas.home.arpa", None, 200, 9), 10, false);
    assert_eq!(chains.now_leads_to("www.evil.test"), 9);
    let rebinding = guard::Rebinding { on: true, allow: Vec::new() };
    let settings = Settings { rebinding, ..chains.0.resolver.settings.clone() };
    chains.0.resolver.set(settings, chains.0.now);
    assert_eq!(chains.now_leads_to("www.evil.test"), 1);
}

#[test]
fn a_client_that_cannot_take_it_all_gets_a_truncated_answer() {
    let mut chains = Chains::new();
    let mut big = kept("edge.cdn.test", None, 200, 2);
    big[7] = 31;
    for number in 0..30 {
        big.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 200, 0, 4, 192, 0, 2, number]);
    }
    chains.learn(&big, 10, false);
    let mut out = Vec::new();
    let told = |chains: &mut Chains, edns, transport, out: &mut Vec<u8>| {
        let (packet, now) = (query("www.shop.test", 1, edns), chains.0.now);
        chains.0.resolver.on_query(&packet, Client::Stream(0), transport, now, out);
        (out[2] & 2 != 0, out[7])
    };
    assert_eq!(told(&mut chains, false, Transport::Udp, &mut out), (true, 0));
    assert_eq!(told(&mut chains, false, Transport::Tcp, &mut out), (false, 32));
    assert_eq!(told(&mut chains, true, Transport::Udp, &mut out), (false, 32));
}
