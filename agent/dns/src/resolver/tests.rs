//! Outage modes as timelines: a scripted upstream, a client that asks for one name each second, virtual time.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use super::*;
use crate::{name, wire::rcode};

/// How an upstream behaves in one second of a timeline.
///
/// `.` right, `x` silent, `S` SERVFAIL, `R` REFUSED, `e` empty without SOA, `t` truncated and no TCP, `s` five seconds late,
/// `%` loses every second packet, `u` unreachable.
type Mood = char;

/// A resolver between a client and scripted upstreams.
struct World {
    now: Moment,
    resolver: Resolver,
    moods: Vec<Mood>,
    /// Replies on their way: when, which try, what.
    wire: VecDeque<(Moment, u64, Result<Vec<u8>, TryError>)>,
    sent: usize,
    ttl_s: u32,
    answers: Vec<Heard>,
    /// Set by the address that upstreams answer with.
    generation: u8,
}

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    asked: Moment,
    answered: Moment,
    code: u8,
    ttl: Option<u32>,
    stale: bool,
    generation: Option<u8>,
}

const ROUND_TRIP: Duration = Duration::from_millis(2);
const STEP: Duration = Duration::from_millis(1);

impl World {
    fn new(upstreams: usize) -> Self {
        Self::with_settings(upstreams, Settings::default())
    }

    fn with_settings(upstreams: usize, settings: Settings) -> Self {
        let addresses =
            (0..=u8::MAX).take(upstreams).map(|n| SocketAddr::from(([192, 0, 2, n], 53))).collect();
        let now = Moment::START;
        Self {
            now,
            resolver: Resolver::new(Settings { upstreams: addresses, ..settings }, 7, now),
            moods: vec!['.'; upstreams],
            wire: VecDeque::new(),
            sent: 0,
            ttl_s: 5,
            answers: Vec::new(),
            generation: 1,
        }
    }

    fn ask(&mut self, name: &str) {
        self.ask_with(name, 1, true);
    }

    fn ask_with(&mut self, name: &str, kind: u16, edns: bool) {
        let packet = query(name, kind, edns);
        let client = self.answers.len() as u64;
        self.answers.push(Heard {
            asked: self.now,
            answered: self.now,
            code: 255,
            ttl: None,
            stale: false,
            generation: None,
        });
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
            heard.generation = wire::answers(message).next().map(|(_, data)| data[3]);
        }
        // EDE 3 in the OPT record at the end (RFC 8914 §2).
        heard.stale = message.windows(8).any(|window| window[..2] == [0, 15] && window[4..6] == [0, 3]);
    }

    /// Moves time on, a millisecond at a step while something is on its way.
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
            let SocketAddr::V4(upstream) = send.upstream else { unreachable!() };
            let mood = self.moods[usize::from(upstream.ip().octets()[3])];
            let late = if mood == 's' { Duration::from_secs(5) } else { ROUND_TRIP };
            let silent = matches!(mood, 'x') || (mood == '%' && self.sent.is_multiple_of(2));
            let what = match mood {
                _ if silent => Err(TryError::Timeout),
                'u' => Err(TryError::Network),
                't' if send.transport == Transport::Tcp => Err(TryError::Network),
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
        let mut reply = query[..end].to_vec();
        let right = !matches!(mood, 'S' | 'R' | 'e' | 't') && question.kind == 1;
        let code = match mood {
            'S' => rcode::SERVFAIL,
            'R' => rcode::REFUSED,
            _ => rcode::NOERROR,
        };
        reply[2] = 0x81 | u8::from(mood == 't') << 1;
        reply[3] = 0x80 | code;
        reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(right), 0, 0, 0, 0]);
        if right {
            reply.extend([0xc0, 12, 0, 1, 0, 1]);
            reply.extend(self.ttl_s.to_be_bytes());
            reply.extend([0, 4, 192, 0, 2, self.generation]);
        }
        reply
    }

    /// One client query a second for `www.example`; the upstreams' moods second by second. Returns what was heard:
    /// `f` fresh at once, `w` fresh after a wait, `s` stale at once, `l` stale after a wait, `!` failure, `-` nothing.
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

#[test]
fn m1_blackhole_one_short_wait_then_stale_at_once_until_it_is_back() {
    let upstream = "......xxxxxxxxxxxxxxxx.......";
    let answers_ = "fffffffffflssssssssssssssffff";
    let mut world = World::new(1);
    let heard = world.timeline(&[upstream]);
    assert_eq!(heard.len(), answers_.len());
    assert!(!heard.contains(['!', '-']), "{heard}");
    assert!(heard.matches(['l', 'w']).count() <= 1, "{heard}");
    assert!(heard.ends_with("ff"), "{heard}");
}
