//! Outage modes as timelines: a scripted upstream, a client that asks for one name each second,
//! virtual time.

use std::{collections::VecDeque, hash::RandomState, net::SocketAddr, time::Duration};

mod casing;
mod chains;
mod checking;
mod guarding;
mod pauses;
mod reloading;
mod restoring;
mod search_list;
mod states;
mod views;
mod warming;

use super::*;
use crate::{
    guard,
    health::endpoint::Endpoint,
    message::{name, wire::rcode},
    settings::ZoneSettings,
    zones::pinned::Pinned,
};

/// How an upstream behaves in one second of a timeline.
///
/// `.` correct, `x` silent, `S` SERVFAIL, `R` REFUSED, `e` empty without SOA, `t` truncated and no
/// TCP, `s` five seconds late, `%` loses every second packet, `u` unreachable. False answers: `n`
/// NXDOMAIN, `E` empty, both with SOA; `z` 0.0.0.0, `c` one address for all names, `p` a private
/// one. Letter case: `L` correct but in lower case; `B` the same and no TCP, `b` the same and
/// silent over TCP; `d` ignores mixed case.
type Mood = char;

/// A resolver between a client and scripted upstreams.
struct World {
    now: Moment,
    resolver: Resolver,
    moods: Vec<Mood>,
    /// Replies on their way: arrival time, try, result.
    wire: VecDeque<(Moment, u64, Result<Vec<u8>, TryError>)>,
    sent: usize,
    ttl_s: u32,
    answers: Vec<Heard>,
    /// A name, including all below it, for which upstreams return SERVFAIL.
    broken: Option<&'static str>,
    /// A name, including all below it, that upstreams correctly report as gone.
    gone: Option<&'static str>,
    /// The same for single names.
    gone_names: Vec<String>,
    /// Whether names have AAAA records; `None` if such answers are malformed.
    ipv6: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    asked: Moment,
    answered: Moment,
    code: u8,
    ttl: Option<u32>,
    stale: bool,
}

/// The hash keys differ on each run, as in production; no test depends on them.
fn seeds() -> Seeds {
    #[expect(clippy::disallowed_methods, reason = "a test is its own shell")]
    let hash_keys = RandomState::new();
    Seeds::repeatable(7, hash_keys)
}

const ROUND_TRIP: Duration = Duration::from_millis(2);
const STEP: Duration = Duration::from_millis(1);

impl World {
    fn new(upstreams: usize) -> Self {
        Self::with_settings(upstreams, Settings::default())
    }

    fn with_settings(upstreams: usize, settings: Settings) -> Self {
        let addresses =
            (0..=u8::MAX).take(upstreams).map(|n| SocketAddr::from(([192, 0, 2, n], 53)).into()).collect();
        let now = Moment::START;
        Self {
            now,
            resolver: Resolver::new(Settings { upstreams: addresses, ..settings }, seeds(), now),
            moods: vec!['.'; upstreams],
            wire: VecDeque::new(),
            sent: 0,
            ttl_s: 5,
            answers: Vec::new(),
            broken: None,
            gone: None,
            gone_names: Vec::new(),
            ipv6: None,
        }
    }

    fn ask(&mut self, name: &str) {
        self.ask_with(name, 1, true);
    }

    fn ask_with(&mut self, name: &str, kind: u16, edns: bool) {
        let packet = query(name, kind, edns);
        let client = self.answers.len() as u64;
        self.answers.push(Heard { asked: self.now, answered: self.now, code: 255, ttl: None, stale: false });
        let mut out = Vec::new();
        let outcome =
            self.resolver.on_query(&packet, Client::Stream(client), Transport::Udp, self.now, &mut out);
        if outcome == Outcome::Reply {
            self.hear(client, &out);
        }
        self.pump();
    }

    fn hear(&mut self, client: u64, message: &[u8]) {
        let heard = &mut self.answers[usize::try_from(client).unwrap()];
        heard.answered = self.now;
        heard.code = message[3] & 0xf;
        let (_, question_end) = wire::read_question(message).unwrap();
        if message[7] > 0 {
            heard.ttl =
                Some(u32::from_be_bytes(message[question_end + 6..question_end + 10].try_into().unwrap()));
        }
        // EDE 3 in the OPT record at the end (RFC 8914 §2).
        heard.stale = message.windows(8).any(|window| window[..2] == [0, 15] && window[4..6] == [0, 3]);
    }

    /// Advances time, by a millisecond per step while something is on its way.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let next = self.wire.iter().map(|(at, ..)| *at).chain(self.resolver.next_wakeup()).min();
            self.now = next.unwrap_or(end).clamp(self.now + STEP, end);
            self.resolver.on_wakeup(self.now);
            self.pump();
            let due: Vec<_> = self.wire.iter().filter(|(at, ..)| *at <= self.now).cloned().collect();
            self.wire.retain(|(at, ..)| *at > self.now);
            for (_, try_id, what) in due {
                match what {
                    Ok(message) => self.resolver.on_reply(try_id, &message, self.now),
                    Err(error) => self.resolver.on_error(try_id, error, self.now),
                }
                self.pump();
            }
        }
    }

    fn pump(&mut self) {
        while let Some(send) = self.resolver.poll_send() {
            self.sent += 1;
            let SocketAddr::V4(upstream) = send.upstream.address else { unreachable!() };
            let mood = self.moods[usize::from(upstream.ip().octets()[3])];
            let late = if mood == 's' { Duration::from_secs(5) } else { ROUND_TRIP };
            let over_tcp = send.transport == Transport::Tcp;
            let mixed = send.message[12..].iter().any(u8::is_ascii_uppercase);
            let silent = match mood {
                'x' => true,
                '%' => self.sent.is_multiple_of(2),
                _ if send.message.windows(8).any(|part| part.eq_ignore_ascii_case(b"\x06silent\x04")) => true,
                'd' => mixed,
                'b' => over_tcp,
                _ => false,
            };
            let what = match mood {
                _ if silent => Err(TryError::Timeout),
                'u' => Err(TryError::Network),
                't' | 'B' if over_tcp => Err(TryError::Network),
                mood => Ok(self.reply(&send.message, mood)),
            };
            let late = if silent { send.timeout } else { late };
            self.wire.push_back((self.now + late, send.try_id, what));
        }
        while let Some((Client::Stream(client), message)) = self.resolver.poll_reply() {
            self.hear(client, &message);
        }
        while self.resolver.poll_learned().is_some() {}
    }

    fn reply(&self, query: &[u8], mood: Mood) -> Vec<u8> {
        let (question, end) = wire::read_question(query).unwrap();
        let asked = question.name.to_ascii_lowercase();
        let broken = self.broken.is_some_and(|broken| name::to_text(&asked).ends_with(broken));
        let mood = if broken { 'S' } else { mood };
        let gone = self.gone.is_some_and(|gone| name::to_text(&asked).ends_with(gone))
            || self.gone_names.contains(&name::to_text(&asked));
        let mood = if gone && mood == '.' { 'n' } else { mood };
        let mood = if question.kind == 28 && self.ipv6 == Some(false) { 'E' } else { mood };
        let mut reply = query[..end].to_vec();
        if matches!(mood, 'L' | 'B' | 'b') {
            reply[12..end].make_ascii_lowercase();
        }
        let ipv6 = question.kind == 28 && self.ipv6 == Some(true);
        let right = !matches!(mood, 'S' | 'R' | 'e' | 't' | 'n' | 'E') && (question.kind == 1 || ipv6);
        let soa = matches!(mood, 'n' | 'E');
        let code = match mood {
            'S' => rcode::SERVFAIL,
            'R' => rcode::REFUSED,
            'n' => rcode::NXDOMAIN,
            _ => rcode::NOERROR,
        };
        reply[2] = 0x81 | u8::from(mood == 't') << 1;
        reply[3] = 0x80 | code;
        reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(right), 0, u8::from(soa), 0, 0]);
        if right {
            reply.extend([0xc0, 12, 0, if ipv6 { 28 } else { 1 }, 0, 1]);
            reply.extend(self.ttl_s.to_be_bytes());
            let address = match mood {
                'z' => [0, 0, 0, 0],
                'c' => [203, 0, 113, 66],
                'p' => [192, 168, 1, 1],
                // A different address for each name.
                _ => [192, 0, 2, asked.iter().fold(1, |sum, &byte| byte.wrapping_add(sum))],
            };
            reply.extend([0, if ipv6 { 16 } else { 4 }]);
            if ipv6 {
                reply.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            reply.extend(address);
        }
        if soa {
            // At the root, TTL and minimum of one minute.
            reply.extend([0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
            reply.extend([0; 16]);
            reply.extend([0, 0, 0, 60]);
        }
        reply
    }

    /// One client query per second for `www.example`, with the upstreams' mood for each second.
    /// Returns the outcomes: `f` fresh at once, `w` fresh after a wait, `s` stale at once, `l`
    /// stale after a wait, `!` failure, `-` nothing.
    fn timeline(&mut self, moods: &[&str]) -> String {
        let start = self.answers.len();
        for second in 0..moods[0].len() {
            for (upstream, line) in moods.iter().enumerate() {
                self.moods[upstream] = line.as_bytes()[second].into();
            }
            self.ask("www.example");
            self.run(Duration::from_secs(1));
        }
        self.run(Duration::from_secs(7));
        self.answers[start..].iter().map(Heard::sign).collect()
    }

    fn state(&mut self, sensor: usize) -> u8 {
        self.resolver.sensors(self.now, jiff::Timestamp::UNIX_EPOCH)[sensor].state
    }
}

impl Heard {
    fn sign(&self) -> char {
        let at_once = self.answered.since(self.asked) <= ROUND_TRIP * 3;
        match (self.code, self.stale, at_once) {
            (rcode::NOERROR, false, true) => 'f',
            (rcode::NOERROR, false, false) => 'w',
            (rcode::NOERROR, true, true) => 's',
            (rcode::NOERROR, true, false) => 'l',
            (255, ..) => '-',
            _ => '!',
        }
    }
}

fn query(name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let name = name::from_text(name).unwrap();
    let mut packet = Vec::new();
    wire::write_query(&mut packet, 4711, &wire::Question { name: &name, kind, class: 1 }, false, false);
    if !edns {
        packet.truncate(packet.len() - 11);
        packet[11] = 0;
    }
    packet
}

// TTL 5: the answer of second 6 is fresh until second 11, so the outage that begins at second 7
// shows at second 12.

/// When the first fresh answer after the outage comes depends on the jitter of the probes.
fn recovers_in_time(heard: &str, through_the_outage: &str) {
    let rest = heard.strip_prefix(through_the_outage).unwrap_or_else(|| panic!("{heard}"));
    assert!(["fffffffff", "sffffffff", "ssfffffff"].contains(&rest), "{heard}");
}

#[test]
fn m1_blackhole_costs_one_short_wait_then_stale_is_instant() {
    let upstream = ".......xxxxxxxxxxxxxxxxxxxx..........";
    recovers_in_time(&World::new(1).timeline(&[upstream]), "fffffffffffflsssssssssssssss");
}

#[test]
fn m2_unreachable_costs_no_wait_at_all() {
    let upstream = ".......uuuuuuuuuuuuuuuuuuuu..........";
    recovers_in_time(&World::new(1).timeline(&[upstream]), "ffffffffffffssssssssssssssss");
}

#[test]
fn m3_m4_m6_m9_errors_and_unusable_answers_never_displace_a_good_one() {
    // SERVFAIL, REFUSED, empty without SOA, truncated without TCP.
    for mood in ["S", "R", "e", "t"] {
        let upstream = ".......xxxxxxxxxxxxxxxxxxxx..........".replace('x', mood);
        let heard = World::new(1).timeline(&[&upstream]);
        assert!(heard.starts_with("ffffffffffffssssssssssssssss"), "{mood}: {heard}");
        assert!(heard.ends_with("fffff"), "{mood}: {heard}");
    }
}

#[test]
fn m8_a_slow_upstreams_late_answers_still_refresh() {
    let upstream = ".......ssssssssssssssssssss..........";
    let mut world = World::new(1);
    let heard = world.timeline(&[upstream]);
    assert!(heard.starts_with("fffffffffffflssss"), "{heard}");
    // No client waits a second time, and the late answers are used.
    assert_eq!((heard.matches('l').count(), heard.matches(['!', '-', 'w']).count()), (1, 0), "{heard}");
    assert!(heard[13..27].contains('f'), "{heard}");
}

#[test]
fn m11_half_of_the_packets_lost_is_bridged_by_second_tries() {
    let upstream = ".......%%%%%%%%%%%%%%%%%%%%..........";
    let mut world = World::new(1);
    let heard = world.timeline(&[upstream]);
    assert_eq!(heard.matches(['!', '-', 's', 'l']).count(), 0, "{heard}");
    assert_eq!(world.resolver.counts.transitions, 0);
}

#[test]
fn m13_a_flapping_upstream_does_not_affect_clients() {
    let upstream = ".......xx..xx..xx..xx..xx............";
    let mut world = World::new(1);
    let heard = world.timeline(&[upstream]);
    assert_eq!(heard.matches(['!', '-']).count(), 0, "{heard}");
    assert!(heard.matches(['w', 'l']).count() <= 2, "{heard}");
}

#[test]
fn m14_an_answer_with_ttl_zero_is_kept_for_the_outage_and_its_ttl_never_grows() {
    let upstream = ".......xxxxxxxxxxxxxxxxxxxx..........";
    let mut world = World::new(1);
    world.ttl_s = 0;
    let heard = world.timeline(&[upstream]);
    assert!(heard.starts_with("ffffffflssssssssssssssssss"), "{heard}");
    assert!(heard.ends_with("ff"), "{heard}");
    // Never 0 while stale, because clients would spin (RFC 8767 §4).
    let ttls: Vec<_> = world.answers.iter().filter(|answer| answer.stale).map(|answer| answer.ttl).collect();
    assert!(ttls.iter().all(|&ttl| ttl == Some(1)), "{ttls:?}");
}

#[test]
fn m19_one_failing_upstream_of_two_is_left_out_within_a_second() {
    for mood in ["S", "R", "x", "u", "t"] {
        let well = ".....................................";
        let ill_ = ".......xxxxxxxxxxxxxxxxxxxx..........".replace('x', mood);
        let mut world = World::new(2);
        let heard = world.timeline(&[&ill_, well]);
        assert_eq!(heard.matches(['!', '-', 's', 'l']).count(), 0, "{mood}: {heard}");
        assert!(heard.matches('w').count() <= 1, "{mood}: {heard}");
        assert_eq!(world.resolver.counts.transitions, 0, "{mood}");
    }
}

#[test]
fn m15_after_an_outage_known_names_are_refreshed_no_faster_than_before_it() {
    let mut world = World::new(1);
    world.ttl_s = 60;
    let names: Vec<String> = (0..1_200).map(|n| format!("n{n}.example")).collect();
    // Twenty names per second, all names each minute: twenty upstream queries per second.
    let minute = |world: &mut World| {
        for chunk in names.chunks(20) {
            for name in chunk {
                world.ask(name);
            }
            world.run(Duration::from_secs(1));
        }
    };
    (0..4).for_each(|_| minute(&mut world));
    let before = world.sent;
    minute(&mut world);
    let normal = world.sent - before;
    world.moods[0] = 'x';
    (0..10).for_each(|_| minute(&mut world));
    world.moods[0] = '.';
    world.run(Duration::from_secs(6));
    let before = world.sent;
    // All names are asked for at once.
    for name in &names {
        world.ask(name);
    }
    world.run(Duration::from_mins(1));
    let after = world.sent - before;
    assert!(after <= normal && after > normal / 2, "{after} after, {normal} in a normal minute");
    assert!(world.answers[1_200 * 3..].iter().all(|answer| answer.code == rcode::NOERROR));
}

#[test]
fn m16_a_restart_during_an_outage_loses_no_names() {
    let mut world = World::new(1);
    world.ask("www.example");
    world.run(Duration::from_secs(1));
    let slot = world.resolver.cache.iter().next().unwrap().0;
    let entry = world.resolver.cache.get(slot).unwrap();
    let message = entry.kept().message.to_vec();

    let mut world = World::new(1);
    world.moods[0] = 'x';
    let remembered =
        |hours| Remembered { uses: 3, age: Duration::from_hours(hours), ..Remembered::new(&message) };
    assert!(world.resolver.restore(&remembered(40), world.now));
    assert!(!world.resolver.restore(&remembered(50), world.now), "older than the cached answer");
    let heard = world.timeline(&["xxxx"]);
    assert_eq!(heard, "lsss");
}

#[test]
fn a_restart_in_a_long_outage_reports_the_same_runway() {
    let mut world = World::new(1);
    world.ask("www.example");
    world.run(Duration::from_mins(20));
    world.ask("db.example");
    world.run(Duration::from_secs(10));
    let kept: Vec<_> = world.resolver.cache.iter().map(|(_, entry)| entry.kept().message.to_vec()).collect();
    let learned: Vec<_> = world.resolver.cache.iter().map(|(_, entry)| entry.learned()).collect();
    world.moods[0] = 'x';
    // Longer than a name counts as used after its last query.
    for _ in 0..30 {
        world.ask("www.example");
        world.ask("db.example");
        world.run(Duration::from_hours(1));
    }
    let before = world.resolver.masking(world.now);
    assert!(before.runway_s > 0);

    let (now, mut world) = (world.now, World::new(1));
    (world.now, world.moods[0]) = (now, 'x');
    for (message, learned) in kept.iter().zip(learned) {
        let age = now.since(learned);
        let (good_for, unseen) = (Duration::ZERO, Duration::ZERO);
        let remembered = Remembered {
            message,
            dnssec_ok: false,
            checking_disabled: false,
            uses: 0,
            good_for,
            age,
            unseen,
        };
        assert!(world.resolver.restore(&remembered, now));
    }
    assert_eq!(world.resolver.masking(now).runway_s, before.runway_s);
    // A day later, with no queries for them.
    let later = now + Duration::from_hours(25);
    assert_eq!(world.resolver.masking(later).runway_s, 72 * 3_600);
}

#[test]
fn m24_uncounted_time_ends_freshness_and_nothing_else() {
    let mut world = World::new(1);
    world.ttl_s = 3_600;
    world.ask("www.example");
    world.run(Duration::from_secs(1));
    // Suspended for a year, or someone set the clock. Either way upstreams are asked, and in an
    // outage the name still resolves.
    world.resolver.on_unseen_time(Duration::from_hours(365 * 24), world.now);
    assert_eq!(world.timeline(&["...."]), "ffff");
    assert_eq!(world.sent, 2);
    world.resolver.on_unseen_time(Duration::from_mins(30), world.now);
    world.moods[0] = 'x';
    assert_eq!(world.timeline(&["xxxx"]), "ffff", "half an hour is left");
    world.resolver.on_unseen_time(Duration::from_hours(365 * 24), world.now);
    assert_eq!(world.timeline(&["xxxx"]), "lsss");
}

#[test]
fn m17_a_pinned_name_is_cached_before_any_query_and_outlives_max_stale_in_an_outage() {
    let name = name::from_text("www.example").unwrap();
    let key = Key::new(&wire::Question { name: &name, kind: 1, class: 1 }, false, false);
    let pinned = vec![Pinned { key: key.as_bytes().into(), check_tcp: None }];
    let mut world = World::with_settings(
        1,
        Settings { max_stale: Duration::from_mins(1), pinned, ..Settings::default() },
    );
    world.run(Duration::from_secs(1));
    assert_eq!(world.sent, 1);
    world.ask("other.example");
    world.run(Duration::from_mins(10));
    assert!(world.sent > 60, "kept fresh without a client: {}", world.sent);
    world.moods[0] = 'x';
    world.run(Duration::from_hours(20));
    world.ask("other.example");
    world.ask("www.example");
    world.run(Duration::from_secs(7));
    let heard: String = world.answers[1..].iter().map(Heard::sign).collect();
    assert_eq!(heard, "!s");
    let stale = world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH).swap_remove(STALE);
    assert!(stale.state == 2 && stale.text.contains("pinned names that are stale: 1"), "{}", stale.text);
    world.run(Duration::from_hours(7 * 24));
    world.ask("www.example");
    world.run(Duration::from_secs(7));
    assert_eq!(world.answers.last().map(Heard::sign), Some('!'));
    // It comes back without a client query.
    world.moods[0] = '.';
    world.run(Duration::from_secs(15));
    world.moods[0] = 'x';
    world.ask("www.example");
    world.run(Duration::from_secs(7));
    assert!(matches!(world.answers.last().map(Heard::sign), Some('f' | 's' | 'l')));
}

#[test]
fn past_max_stale_an_answer_is_no_longer_served() {
    let mut world =
        World::with_settings(1, Settings { max_stale: Duration::from_mins(1), ..Settings::default() });
    world.ask("www.example");
    world.run(Duration::from_secs(1));
    world.moods[0] = 'x';
    world.run(Duration::from_secs(50));
    let heard = world.timeline(&["xxxxxxxxxxxxxxxxxxxxxxxxx"]);
    assert!(heard.starts_with('s') && heard.ends_with("!!!!!!"), "{heard}");
}

#[test]
fn the_breaker_opens_within_a_second_for_all_names_and_the_check_result_says_so() {
    let mut world = World::new(1);
    for name in ["a.example", "b.example", "c.example"] {
        world.ask(name);
    }
    world.run(Duration::from_secs(6));
    assert_eq!((world.state(UPSTREAM), world.state(STALE)), (0, 0));
    world.moods[0] = 'x';
    world.ask("a.example");
    world.run(Duration::from_secs(1));
    assert_eq!(world.state(UPSTREAM), 2);
    let sensors = world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH);
    assert!(sensors[0].text.contains("UTC (192.0.2.0:53 no answer); serving cached"), "{}", sensors[0].text);
    // Names not asked for since then are stale at once too.
    world.ask("b.example");
    assert_eq!(world.answers.last().map(Heard::sign), Some('s'));
    assert_eq!(world.state(STALE), 1);
    world.moods[0] = '.';
    world.run(Duration::from_secs(90));
    assert_eq!((world.state(UPSTREAM), world.state(STALE)), (0, 0));
}

#[test]
fn an_outage_is_found_without_client_queries() {
    let mut world = World::new(1);
    world.ask("www.example");
    world.run(Duration::from_secs(1));
    world.moods[0] = 'x';
    world.run(Duration::from_secs(32));
    assert_eq!(world.state(UPSTREAM), 2);
}

#[test]
fn a_broken_name_is_masked_but_does_not_count_as_an_outage() {
    // The name's own servers are down: upstreams return SERVFAIL for it alone.
    let mut world = World::new(1);
    world.ask("www.example");
    world.ask("broken.example");
    world.run(Duration::from_secs(6));
    world.broken = Some("broken.example");
    for _ in 0..20 {
        world.ask("www.example");
        world.ask("broken.example");
        world.ask("never.broken.example");
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.state(UPSTREAM), 0);
    assert_eq!(world.resolver.counts.transitions, 0);
    assert_eq!(world.state(STALE), 1);
}

#[test]
fn a_domain_that_breaks_with_all_its_names_does_not_count_as_an_outage_either() {
    let mut world = World::new(1);
    let names: Vec<String> = (0..20).map(|n| format!("n{n}.zone.example")).collect();
    for name in names.iter().map(String::as_str).chain(["www.example", "mail.example"]) {
        world.ask(name);
        world.run(Duration::from_secs(1));
    }
    world.broken = Some("zone.example");
    for _ in 0..20 {
        for name in names.iter().map(String::as_str).chain(["www.example", "mail.example"]) {
            world.ask(name);
        }
        world.run(Duration::from_secs(1));
        assert_eq!(world.state(UPSTREAM), 0);
    }
    assert!(world.answers.iter().all(|answer| answer.code == rcode::NOERROR));
}

#[test]
fn equal_questions_share_one_flight_and_each_client_gets_its_own_case() {
    let mut world = World::new(1);
    for _ in 0..100 {
        world.ask("www.example");
    }
    world.ask("WWW.Example");
    world.run(Duration::from_secs(1));
    assert_eq!(world.sent, 1);
    assert!(world.answers.iter().all(|answer| answer.code == rcode::NOERROR));
}

#[test]
fn a_failure_is_remembered_for_five_seconds() {
    let mut world = World::new(1);
    world.broken = Some("broken.example");
    for _ in 0..40 {
        world.ask("broken.example");
        world.run(Duration::from_millis(100));
    }
    assert!(world.sent <= 3, "{}", world.sent);
    assert!(world.answers.iter().all(|answer| answer.code == rcode::SERVFAIL));
}

#[test]
fn only_clients_with_edns_get_the_reason() {
    let mut world = World::new(1);
    world.ask("www.example");
    world.run(Duration::from_secs(6));
    world.moods[0] = 'u';
    world.ask_with("www.example", 1, true);
    world.run(Duration::from_secs(1));
    world.ask_with("www.example", 1, false);
    let stale: Vec<_> = world.answers.iter().map(|answer| answer.stale).collect();
    assert_eq!(stale, [false, true, false]);
}

/// The root zone asks upstream 0, `corp.example` asks upstream 1.
fn two_zones(serve_stale: bool) -> World {
    let endpoint = |n: u8| SocketAddr::from(([192, 0, 2, n], 53)).into();
    let zone = ZoneSettings {
        suffix: name::from_text("corp.example").unwrap().into(),
        upstreams: vec![endpoint(1)],
        max_stale: Duration::from_hours(1),
        serve_stale,
        guard: guard::Rules::default(),
        rebinding: guard::Rebinding::default(),
    };
    let mut world = World::with_settings(1, Settings { zones: vec![zone], ..Settings::default() });
    world.moods.push('.');
    world
}

#[test]
fn a_zone_in_an_outage_serves_stale_without_affecting_other_zones() {
    let mut world = two_zones(true);
    for name in ["www.example", "a.corp.example", "b.corp.example"] {
        world.ask(name);
    }
    world.run(Duration::from_secs(6));
    world.moods[1] = 'x';
    world.ask("a.corp.example");
    world.run(Duration::from_secs(2));
    let start = world.answers.len();
    for _ in 0..20 {
        for name in ["www.example", "a.corp.example", "b.corp.example"] {
            world.ask(name);
        }
        world.run(Duration::from_secs(1));
    }
    let heard: String = world.answers[start..].iter().map(Heard::sign).collect();
    assert_eq!(heard, "fss".repeat(20));
    let sensors = world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH);
    let said = &sensors[UPSTREAM].text;
    assert!(said.starts_with("zone corp.example: all upstreams down since"), "{said}");
    assert!(said.contains("(2 names)"), "{said}");
    assert!(
        sensors[STALE].text.contains("upstreams of zone corp.example down since"),
        "{}",
        sensors[STALE].text
    );
    // Both down: the worst first, the other one named.
    world.moods = vec!['S', '.'];
    world.run(Duration::from_secs(32));
    let sensors = world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH);
    assert!(sensors[UPSTREAM].text.starts_with("all upstreams down since"), "{}", sensors[UPSTREAM].text);
}

#[test]
fn a_zone_that_opted_out_of_stale_answers_fails_when_its_upstream_does() {
    let mut world = two_zones(false);
    world.ttl_s = 0;
    world.ask("a.corp.example");
    world.ask("www.example");
    world.run(Duration::from_secs(1));
    assert!(world.answers.iter().all(|answer| answer.sign() == 'f'), "an answer with TTL zero is not stale");
    world.moods = vec!['x', 'x'];
    let start = world.answers.len();
    for _ in 0..3 {
        world.ask("a.corp.example");
        world.ask("www.example");
        world.run(Duration::from_secs(6));
    }
    let heard: String = world.answers[start..].iter().map(Heard::sign).collect();
    assert_eq!(heard, "!l!s!s");
}

#[test]
fn new_settings_do_not_disturb_flights_in_unchanged_zones() {
    let mut world = two_zones(true);
    world.moods = vec!['s', 's'];
    world.ask("www.example");
    world.ask("a.corp.example");
    let mut settings = world.resolver.settings.clone();
    settings.zones[0].upstreams = vec![SocketAddr::from(([192, 0, 2, 2], 53)).into()];
    world.moods.push('.');
    world.resolver.set(settings.clone(), world.now);
    world.pump();
    world.run(Duration::from_millis(10));
    // The zone's new upstream was asked at once; the root's slow one is still being waited for.
    let codes: Vec<_> = world.answers.iter().map(|answer| answer.code).collect();
    assert_eq!(codes, [255, rcode::NOERROR]);
    settings.zones.clear();
    world.resolver.set(settings, world.now);
    world.moods[0] = '.';
    world.run(Duration::from_secs(3));
    world.ask("c.corp.example");
    world.run(Duration::from_secs(1));
    assert_eq!(world.answers.last().map(|answer| answer.code), Some(rcode::NOERROR));
}

/// Indexes in the result of `sensors`.
const UPSTREAM: usize = 0;
const STALE: usize = 1;
