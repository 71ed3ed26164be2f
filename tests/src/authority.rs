//! What is true of each name, and how an upstream answers: correctly, or failing in one of many
//! ways. No sockets.
//!
//! Some names say what is right: `n<NUMBER>.t<TTL>.test.` has the A record `10.x.y.z` made of
//! NUMBER, with that TTL, so a test knows the right answer without asking. Others are put into
//! [`Data`], and what is true of a name may change; what was true before stays known, to tell an
//! old answer from a wrong one. How an upstream behaves is a [`Mood`], for all names or for some.

use std::{collections::HashMap, fmt, net::Ipv4Addr, str::FromStr, time::Duration};

use crate::dns_message::{A, NOERROR, NXDOMAIN, REFUSED, Reply, SERVFAIL, push_name, read_name};

/// How an upstream behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Right,
    /// Receives and does not answer.
    Silent,
    /// The port is closed: ICMP reports it at once.
    Unreachable,
    Servfail,
    Refused,
    /// Every name is NXDOMAIN with a SOA.
    Nxdomain,
    /// NOERROR without any record.
    Empty,
    /// NOERROR without an answer, with a SOA.
    NoData,
    /// A referral upwards, as of a server that does not know the zone.
    Lame,
    /// The answers' signatures are wrong: SERVFAIL with EDE 6 (RFC 8914 §4.7).
    Bogus,
    /// TC over UDP, and no connection over TCP.
    Truncated,
    /// Right, but late.
    Slow(Duration),
    /// Drops so many percent.
    Loss(u8),
    /// Right for a while and silent for a while; each lasts between these.
    Flapping(Duration, Duration),
    /// Every name has this address.
    Sinkhole([u8; 4]),
    /// One address of several.
    Partial,
    /// What was true before the last change.
    Old,
    /// Right, but the question comes back in lower case, whatever it was asked in.
    LowerCase,
}

/// As long as the Azure outage of 1 April 2021 made people wait, about.
const SLOW: Duration = Duration::from_secs(5);

impl Mood {
    const SIMPLE: [(&'static str, Self); 15] = [
        ("right", Self::Right),
        ("silent", Self::Silent),
        ("unreachable", Self::Unreachable),
        ("servfail", Self::Servfail),
        ("refused", Self::Refused),
        ("nxdomain", Self::Nxdomain),
        ("empty", Self::Empty),
        ("nodata", Self::NoData),
        ("lame", Self::Lame),
        ("bogus", Self::Bogus),
        ("truncated", Self::Truncated),
        ("slow", Self::Slow(SLOW)),
        ("partial", Self::Partial),
        ("old", Self::Old),
        ("lowercase", Self::LowerCase),
    ];
}

/// `servfail`, `slow`, `slow 3s`, `loss 50%`, `flapping 1s..10s`, `sinkhole 0.0.0.0`.
impl FromStr for Mood {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("no such mood: {text:?}");
        if let Some(&(_, mood)) = Self::SIMPLE.iter().find(|(name, _)| *name == text) {
            return Ok(mood);
        }
        let (word, value) = text.split_once(' ').ok_or_else(unknown)?;
        match word {
            "slow" => Ok(Self::Slow(span(value)?)),
            "loss" => {
                let percent = value.strip_suffix('%').and_then(|number| number.parse().ok());
                percent.filter(|&percent| percent <= 100).map(Self::Loss).ok_or_else(unknown)
            }
            "flapping" => {
                let (shortest, longest) = value.split_once("..").ok_or_else(unknown)?;
                let (shortest, longest) = (span(shortest)?, span(longest)?);
                if shortest > longest { Err(unknown()) } else { Ok(Self::Flapping(shortest, longest)) }
            }
            "sinkhole" => {
                value.parse::<Ipv4Addr>().map(|ip| Self::Sinkhole(ip.octets())).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

/// `500ms`, `20s`, `2m30s`, `4h30m`, `3d`.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time like \"500ms\", \"20s\" or \"2m30s\"");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        sum += match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_mins(number),
            "h" => Duration::from_hours(number),
            "d" => Duration::from_hours(24 * number),
            _ => return Err(wrong()),
        };
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

/// What is true of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Addresses { ttl_s: u32, addresses: Vec<[u8; 4]> },
    Alias { ttl_s: u32, target: String },
    Gone,
}

/// All that is and was true of names beyond those that say it themselves.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// By name in lower case with its last dot; oldest first.
    facts: HashMap<String, Vec<Fact>>,
}

impl Data {
    /// From now on this is true of `name`.
    pub fn set(&mut self, name: &str, fact: Fact) {
        let facts = self.facts.entry(name.to_ascii_lowercase()).or_default();
        if facts.is_empty() {
            facts.extend(told_by_itself(name));
        }
        facts.push(fact);
    }

    /// What is true now.
    pub fn fact(&self, name: &str) -> Fact {
        self.all(name).pop().unwrap_or(Fact::Gone)
    }

    /// Oldest first; empty for a name that never was.
    fn all(&self, name: &str) -> Vec<Fact> {
        let lower = name.to_ascii_lowercase();
        self.facts.get(&lower).cloned().unwrap_or_else(|| told_by_itself(&lower).into_iter().collect())
    }

    fn before(&self, name: &str) -> Fact {
        let mut all = self.all(name);
        let last = all.pop();
        all.pop().or(last).unwrap_or(Fact::Gone)
    }

    /// The addresses that a client should get now; `None`: the name does not exist.
    pub fn addresses(&self, name: &str) -> Option<Vec<[u8; 4]>> {
        match self.fact(name) {
            Fact::Addresses { addresses, .. } => Some(sorted(addresses)),
            Fact::Alias { target, .. } => self.addresses(&target),
            Fact::Gone => None,
        }
    }

    /// All that was ever right, `None` for a time without the name.
    fn ever(&self, name: &str) -> Vec<Option<Vec<[u8; 4]>>> {
        let all = self.all(name).into_iter().flat_map(|fact| match fact {
            Fact::Addresses { addresses, .. } => vec![Some(sorted(addresses))],
            Fact::Alias { target, .. } => self.ever(&target),
            Fact::Gone => vec![None],
        });
        all.collect()
    }

    /// Judges the answer that a client got for `name`.
    pub fn judge(&self, name: &str, reply: &Reply) -> Judgement {
        self.judge_told(name, (reply.rcode, reply.truncated), &sorted(reply.addresses()))
    }

    /// The same of what was read from a reply: code, TC, and the addresses, sorted.
    pub fn judge_told(&self, name: &str, (rcode, truncated): (u8, bool), told: &[[u8; 4]]) -> Judgement {
        if !matches!(rcode, NOERROR | NXDOMAIN) || truncated {
            return Judgement::Failed;
        }
        let told = Some(told.to_vec()).filter(|addresses| !addresses.is_empty());
        if told == self.addresses(name) {
            Judgement::Right
        } else if self.ever(name).contains(&told) {
            Judgement::Old
        } else {
            Judgement::Wrong
        }
    }
}

/// What an answer was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Right,
    /// True once, changed since.
    Old,
    /// Never true.
    Wrong,
    /// An error, or silence.
    Failed,
}

fn sorted(mut addresses: Vec<[u8; 4]>) -> Vec<[u8; 4]> {
    addresses.sort_unstable();
    addresses
}

/// The address that is right for `n<number>.…`.
pub fn right_address(number: u32) -> [u8; 4] {
    let [_, b, c, d] = number.to_be_bytes();
    [10, b, c, d]
}

/// Name number `number` with a TTL.
pub fn name(number: u32, ttl_s: u32) -> String {
    format!("n{number}.t{ttl_s}.test.")
}

fn told_by_itself(name: &str) -> Option<Fact> {
    let lower = name.to_ascii_lowercase();
    let (number, rest) = lower.strip_prefix('n')?.split_once('.')?;
    let ttl_s = rest.strip_prefix('t')?.strip_suffix(".test.")?.parse().ok()?;
    Some(Fact::Addresses { ttl_s, addresses: vec![right_address(number.parse().ok()?)] })
}

/// What an upstream does about one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Reply(Vec<u8>),
    Late(Duration, Vec<u8>),
    Silence,
    Unreachable,
}

/// One upstream's moods: one for all names, others for some.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    mood: Mood,
    /// By the end of the name; the last that fits wins.
    only: Vec<(String, Mood)>,
    /// While it flaps: whether it is up, and until when.
    up: bool,
    turns_at: Duration,
}

impl Behaviour {
    /// For all names; moods of single names are dropped.
    pub fn set(&mut self, mood: Mood) {
        self.only.clear();
        self.mood = mood;
    }

    /// For names that end so.
    pub fn set_only(&mut self, suffix: &str, mood: Mood) {
        self.only.push((suffix.to_ascii_lowercase(), mood));
    }

    /// Whether its port is closed.
    pub fn closed(&self) -> bool {
        self.mood == Mood::Unreachable
    }

    /// What it does about `query`; `now` is any clock that only goes forwards.
    pub fn act(
        &mut self,
        query: &[u8],
        over_tcp: bool,
        data: &Data,
        now: Duration,
        random: &mut fastrand::Rng,
    ) -> Act {
        let name = read_name(query, 12).0.to_ascii_lowercase();
        let own = self.only.iter().rev().find(|(suffix, _)| name.ends_with(suffix.as_str()));
        let mood = own.map_or(self.mood, |&(_, mood)| mood);
        match mood {
            Mood::Silent => Act::Silence,
            Mood::Unreachable => Act::Unreachable,
            Mood::Truncated if over_tcp => Act::Silence,
            Mood::Loss(percent) if random.u8(..100) < percent => Act::Silence,
            Mood::Flapping(shortest, longest) => {
                while self.turns_at <= now {
                    self.up = !self.up;
                    let lasts = shortest + longest.saturating_sub(shortest).mul_f64(random.f64());
                    self.turns_at = self.turns_at.max(now) + lasts.max(Duration::from_millis(1));
                }
                if self.up { Act::Reply(written(query, data, mood)) } else { Act::Silence }
            }
            Mood::Slow(late) => Act::Late(late, written(query, data, mood)),
            mood => Act::Reply(written(query, data, mood)),
        }
    }
}

/// The answer to a query for a name that says what is right; `None` for silence.
pub fn reply(query: &[u8], mood: Mood) -> Option<Vec<u8>> {
    (query.len() >= QUERY_LEN_MIN && mood != Mood::Silent).then(|| written(query, &Data::default(), mood))
}

/// A question for the root is the shortest.
pub const QUERY_LEN_MIN: usize = 17;

/// The answer to a query in this mood.
fn written(query: &[u8], data: &Data, mood: Mood) -> Vec<u8> {
    let (name, after) = read_name(query, 12);
    let kind = u16::from_be_bytes([query[after], query[after + 1]]);
    let mut records = Records::default();
    let rcode = match mood {
        Mood::Servfail | Mood::Bogus => SERVFAIL,
        Mood::Refused => REFUSED,
        Mood::Nxdomain => NXDOMAIN,
        Mood::Empty | Mood::NoData | Mood::Truncated | Mood::Lame => NOERROR,
        // The root's NS question is the probe of many a forwarder: right for any healthy upstream.
        _ if name.is_empty() => NOERROR,
        _ => records.add(data, &name, kind, mood),
    };
    let truncated = mood == Mood::Truncated;
    let negative = !records.positive
        && matches!(rcode, NOERROR | NXDOMAIN)
        && !matches!(mood, Mood::Empty | Mood::Truncated | Mood::Lame);
    let authorities = u8::from(negative || mood == Mood::Lame);
    let mut reply = query[..after + 4].to_vec();
    if mood == Mood::LowerCase {
        // A label's length is below any letter.
        reply[12..after].make_ascii_lowercase();
    }
    reply[2] = 0x80 | query[2] & 0x01 | u8::from(truncated) << 1;
    reply[3] = 0x80 | rcode;
    reply[4..12].copy_from_slice(&[0, 1, 0, records.count, 0, authorities, 0, u8::from(mood == Mood::Bogus)]);
    reply.extend(records.bytes);
    if negative {
        push_soa(&mut reply);
    }
    if mood == Mood::Lame {
        // . NS a.root-servers.net., TTL one day
        reply.extend([0, 0, 2, 0, 1, 0, 1, 0x51, 0x80, 0, 20]);
        push_name(&mut reply, "a.root-servers.net.");
    }
    if mood == Mood::Bogus {
        reply.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2, 0, 6]);
    }
    reply
}

/// An answer section in the making.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    count: u8,
    aliases: u8,
    /// There is more than aliases.
    positive: bool,
}

impl Records {
    /// Adds what is known of `name`, following its aliases. Returns the rcode.
    fn add(&mut self, data: &Data, name: &str, kind: u16, mood: Mood) -> u8 {
        let fact = if mood == Mood::Old { data.before(name) } else { data.fact(name) };
        match fact {
            Fact::Gone => NXDOMAIN,
            Fact::Alias { ttl_s, target } => {
                let mut rdata = Vec::new();
                push_name(&mut rdata, &target);
                self.push(name, CNAME, ttl_s, &rdata);
                self.aliases += 1;
                self.add(data, &target, kind, mood)
            }
            Fact::Addresses { ttl_s, addresses } if kind == A => {
                let addresses = match mood {
                    Mood::Sinkhole(address) => vec![address],
                    Mood::Partial => addresses.into_iter().take(1).collect(),
                    _ => addresses,
                };
                for address in addresses {
                    self.push(name, A, ttl_s, &address);
                }
                self.positive = true;
                NOERROR
            }
            Fact::Addresses { .. } => NOERROR,
        }
    }

    fn push(&mut self, name: &str, kind: u16, ttl_s: u32, rdata: &[u8]) {
        if self.aliases == 0 {
            // The name in the question.
            self.bytes.extend([0xc0, 12]);
        } else {
            push_name(&mut self.bytes, name);
        }
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend([0, 1]);
        self.bytes.extend(ttl_s.to_be_bytes());
        self.bytes.extend(u16::try_from(rdata.len()).expect("a name or an address is short").to_be_bytes());
        self.bytes.extend(rdata);
        self.count += 1;
    }
}

const CNAME: u16 = 5;

/// A SOA of `test.` whose TTL and minimum are 30 s (RFC 2308).
fn push_soa(reply: &mut Vec<u8>) {
    push_name(reply, "test.");
    reply.extend([0, 6, 0, 1, 0, 0, 0, 30]);
    let mut data = Vec::new();
    push_name(&mut data, "ns.test.");
    push_name(&mut data, "admin.test.");
    for value in [1_u32, 3_600, 600, 86_400, 30] {
        data.extend(value.to_be_bytes());
    }
    reply.extend(u16::try_from(data.len()).expect("a SOA is short").to_be_bytes());
    reply.extend(data);
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { addresses, .. } => {
                let all: Vec<_> = addresses.iter().map(|&ip| Ipv4Addr::from(ip).to_string()).collect();
                f.write_str(&all.join(" "))
            }
            Self::Alias { target, .. } => write!(f, "-> {target}"),
            Self::Gone => f.write_str("gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns_message::{Glance, query};

    fn told(data: &Data, mood: &str, name: &str) -> Act {
        let mut behaviour = Behaviour::default();
        behaviour.set(mood.parse().unwrap());
        let query = query(7, name, A, true);
        behaviour.act(&query, false, data, Duration::ZERO, &mut fastrand::Rng::with_seed(1))
    }

    fn judged(data: &Data, mood: &str, name: &str) -> Judgement {
        match told(data, mood, name) {
            Act::Reply(bytes) | Act::Late(_, bytes) => data.judge(name, &Reply::parse(&bytes)),
            Act::Silence | Act::Unreachable => Judgement::Failed,
        }
    }

    #[test]
    fn each_mood_is_ill_in_its_own_way() {
        let mut data = Data::default();
        let addresses = vec![[192, 0, 2, 1], [192, 0, 2, 2]];
        data.set("db.test.", Fact::Addresses { ttl_s: 60, addresses });
        data.set("www.test.", Fact::Alias { ttl_s: 300, target: "db.test.".into() });
        for name in ["db.test.", "www.test.", "n4711.t60.test.", "nobody.test."] {
            assert_eq!(judged(&data, "right", name), Judgement::Right, "{name}");
            for ill in ["servfail", "refused", "bogus", "silent", "unreachable", "truncated"] {
                assert_eq!(judged(&data, ill, name), Judgement::Failed, "{name} {ill}");
            }
        }
        for lie in ["nxdomain", "empty", "nodata", "lame", "sinkhole 0.0.0.0", "partial"] {
            assert_eq!(judged(&data, lie, "www.test."), Judgement::Wrong, "{lie}");
        }
        assert!(matches!(told(&data, "slow 3s", "db.test."), Act::Late(late, _) if late.as_secs() == 3));
    }

    #[test]
    fn what_was_true_once_is_old_and_not_wrong() {
        let mut data = Data::default();
        let name = name(7, 60);
        data.set(&name, Fact::Addresses { ttl_s: 60, addresses: vec![[192, 0, 2, 9]] });
        assert_eq!(judged(&data, "right", &name), Judgement::Right);
        assert_eq!(judged(&data, "old", &name), Judgement::Old);
        data.set(&name, Fact::Gone);
        assert_eq!(
            (judged(&data, "right", &name), judged(&data, "old", &name)),
            (Judgement::Right, Judgement::Old)
        );
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(span("2m30s").unwrap(), Duration::from_secs(150));
        assert_eq!(span("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(span("3d").unwrap(), Duration::from_hours(72));
        assert!(["", "5", "s", "5 s", "1.5s"].iter().all(|text| span(text).is_err()));
    }

    #[test]
    fn a_glance_sees_what_a_whole_parse_sees() {
        let mut data = Data::default();
        let addresses = vec![[192, 0, 2, 9], [192, 0, 2, 1]];
        data.set("db.test.", Fact::Addresses { ttl_s: 70_000, addresses });
        data.set("www.test.", Fact::Alias { ttl_s: 90_000, target: "db.test.".into() });
        for name in ["n7.t30.test.", "www.test.", "unknown.test."] {
            for mood in [Mood::Right, Mood::Bogus, Mood::NoData, Mood::Truncated] {
                let question = query(4711, name, A, true);
                let mut upstream = Behaviour::default();
                upstream.set(mood);
                let mut random = fastrand::Rng::with_seed(1);
                let act = upstream.act(&question, false, &data, Duration::ZERO, &mut random);
                let Act::Reply(message) = act else { panic!("{act:?}") };
                let (glance, reply) = (Glance::at(&message, &question), Reply::parse(&message));
                let mut addresses = reply.addresses();
                addresses.sort_unstable();
                assert_eq!(
                    (glance.rcode, glance.truncated),
                    (reply.rcode, reply.truncated),
                    "{name} {mood:?}"
                );
                assert_eq!(glance.addresses(), addresses, "{name} {mood:?}");
                assert_eq!(glance.extended_error, reply.extended_error.map(|(code, _)| code));
                assert_eq!(glance.ttl_s, reply.answers.iter().map(|record| record.ttl).max().unwrap_or(0));
            }
        }
    }

    #[test]
    #[should_panic(expected = "another question's answer")]
    fn an_answer_to_another_question_is_none() {
        let (asked, other) = (query(1, "n1.t5.test.", A, true), query(1, "n2.t5.test.", A, true));
        let message = reply(&other, Mood::Right).unwrap();
        Glance::at(&message, &asked);
    }
}
