//! A fire drill: for a limited time the upstreams of some names are treated as failing, on a live
//! host.
//!
//! The drill sits between the core and the transport: queries from the core are dropped, or
//! answered with the failure being rehearsed. Everything else is real: breaker, stale answers,
//! check results, pages. The upstreams receive none of it. A drill ends on its own, does not
//! survive a restart, and every check result says that it is on.

use std::{str::FromStr, time::Duration};

use crate::{
    message::{
        name,
        wire::{self, rcode},
    },
    moment::Moment,
};

/// How the upstreams appear to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Blackhole,
    Servfail,
    Refused,
    /// Every name is reported as nonexistent.
    Nxdomain,
    /// Every name exists, without records.
    Empty,
}

impl Mode {
    pub const ALL: [Self; 5] = [Self::Blackhole, Self::Servfail, Self::Refused, Self::Nxdomain, Self::Empty];

    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Servfail => "servfail",
            Self::Refused => "refused",
            Self::Nxdomain => "nxdomain",
            Self::Empty => "empty",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is not a drill mode; use one of {names}")
        })
    }
}

/// Longer than any rehearsal, and short enough that a forgotten drill ends within the shift.
pub const LASTS_MAX: Duration = Duration::from_hours(4);

/// One drill, from start to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireDrill {
    pub mode: Mode,
    /// Applies to names at and below this one (wire format, lower case); the root means all names.
    pub zone: Box<[u8]>,
    /// Login name of the person who started it.
    pub by: String,
    pub since: Moment,
    pub until: Moment,
}

/// What happens to a query to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pretended {
    /// It is sent as usual.
    No,
    /// It is lost.
    Lost,
    /// This reply comes back at once.
    Reply(Vec<u8>),
}

impl FireDrill {
    pub fn is_over(&self, now: Moment) -> bool {
        now >= self.until
    }

    /// Whether a question for this name (wire format, any case) is part of the drill.
    pub fn covers(&self, name: &[u8]) -> bool {
        name::is_below(name, &self.zone)
    }

    /// What happens to `message`, a query that the core wants to send.
    pub fn pretend(&self, message: &[u8]) -> Pretended {
        let Ok(query) = wire::read_query(message) else { return Pretended::No };
        if !self.covers(query.question.name) {
            return Pretended::No;
        }
        let (code, soa) = match self.mode {
            Mode::Blackhole => return Pretended::Lost,
            Mode::Servfail => (rcode::SERVFAIL, false),
            Mode::Refused => (rcode::REFUSED, false),
            Mode::Nxdomain => (rcode::NXDOMAIN, true),
            Mode::Empty => (rcode::NOERROR, true),
        };
        Pretended::Reply(negative(message, query.question.name.len(), code, soa))
    }
}

/// An answer without records to `query`; `soa` adds the root's SOA, which makes it cacheable (RFC
/// 2308 §5).
fn negative(query: &[u8], name_len: usize, code: u8, soa: bool) -> Vec<u8> {
    let mut reply = query.get(..12 + name_len + 4).unwrap_or_default().to_vec();
    if let [_, _, flags, code_byte, _, _, counts @ ..] = reply.as_mut_slice() {
        // Sets QR and RA; keeps the question's RD.
        *flags |= 0x80;
        *code_byte = 0x80 | code;
        counts[..6].copy_from_slice(&[0, 0, 0, u8::from(soa), 0, 0]);
    }
    if soa {
        let seconds: [u32; 5] = [1, 3_600, 600, 86_400, 5];
        // Owner ".", type SOA, class IN, TTL 5; MNAME "." and RNAME "."; serial, refresh, retry,
        // expire, minimum.
        reply.extend([0, 0, 6, 0, 1, 0, 0, 0, 5, 0, 22, 0, 0]);
        reply.extend(seconds.iter().flat_map(|number| number.to_be_bytes()));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::wire::{Question, Verdict, read_answer, write_query};

    fn drill(mode: Mode, zone: &str) -> FireDrill {
        let zone = name::from_text(zone).unwrap().into();
        FireDrill { mode, zone, by: "root".into(), since: Moment::START, until: Moment::START }
    }

    fn asked(name: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        write_query(&mut message, 7, &Question { name, kind: 1, class: 1 }, false, false);
        message
    }

    #[test]
    fn each_mode_answers_like_such_an_upstream() {
        let name = name::from_text("db.corp.example").unwrap();
        let question = Question { name: &name, kind: 1, class: 1 };
        assert_eq!(drill(Mode::Blackhole, ".").pretend(&asked(&name)), Pretended::Lost);
        for (mode, verdict) in [(Mode::Nxdomain, Verdict::NxDomain), (Mode::Empty, Verdict::NoData)] {
            let Pretended::Reply(reply) = drill(mode, ".").pretend(&asked(&name)) else { panic!("{mode:?}") };
            let answer = read_answer(&reply, &question).unwrap();
            assert_eq!((answer.verdict, answer.ttl_s), (verdict, Some(5)));
        }
        for mode in [Mode::Servfail, Mode::Refused] {
            let Pretended::Reply(reply) = drill(mode, ".").pretend(&asked(&name)) else { panic!("{mode:?}") };
            assert!(read_answer(&reply, &question).is_err());
        }
    }

    #[test]
    fn only_names_in_its_zone_are_affected() {
        let drill = drill(Mode::Blackhole, "corp.example");
        for (name, part) in
            [("corp.example", true), ("a.Corp.example", true), ("xcorp.example", false), ("example", false)]
        {
            let name = name::from_text(name).unwrap();
            assert_eq!(drill.pretend(&asked(&name)) == Pretended::Lost, part, "{name:?}");
        }
    }
}
