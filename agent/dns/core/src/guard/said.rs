//! Events in words, for the log.

use std::{fmt, net::IpAddr};

use dogwatch_duration::Span;

use super::{Cause, End, Event};
use crate::message::name::{self, name_of};

/// Names that a line of the log spells out.
const NAMED: usize = 3;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripStarted { cause, scope, examples } => {
                let scope = name::to_text(scope);
                let mut names: Vec<String> = examples.iter().map(|key| name::to_text(name_of(key))).collect();
                names.truncate(NAMED);
                write!(
                    f,
                    "upstream {cause} below {scope} ({}, …): last known good answers are given; if it is right: \
                     dogwatch dns accept {scope}",
                    names.join(", ")
                )
            }
            Self::TripEnded { cause, scope, end, lasted, names } => {
                let lasted = Span::secs(lasted.as_secs());
                let scope = name::to_text(scope);
                write!(
                    f,
                    "no longer held after {lasted}: upstream {cause} below {scope}, {names} so far: {end}"
                )
            }
            Self::UpstreamLies { upstream } => {
                write!(f, "upstream number {} denies names that another has; it is left out", upstream + 1)
            }
            Self::Moved { key, from, to, good_for } => write!(
                f,
                "{} moved from {from} to {to} after {}",
                name::to_text(name_of(key)),
                Span::secs(good_for.as_secs())
            ),
            Self::Changed { key, from, to, believed } => {
                let name = name::to_text(name_of(key));
                write!(f, "pinned {name} had {} and has {}", listed(from), listed(to))?;
                if *believed {
                    return Ok(());
                }
                write!(
                    f,
                    ", where nobody takes a TCP connection: the old answer is given; if it is right: dogwatch dns accept {name}"
                )
            }
            Self::Shrunk { key, from, to } => {
                write!(f, "{} has {to} records of {from}", name::to_text(name_of(key)))
            }
        }
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if all.is_empty() { "no address".into() } else { all.join(" ") }
}

/// What upstream does with the names.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("says that many names are gone"),
            Self::Nowhere => f.write_str("gives many names addresses that lead nowhere"),
            Self::Converged(address) => write!(f, "gives many names the new address {address}"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Returned => "the names are back",
            Self::Bound => "the grace is over, upstream is believed",
            Self::Accepted => "accepted by a person",
            Self::Confirmed => "other upstreams confirm it",
            Self::Few => "its neighbours are well",
            Self::SwitchedOff => "the guard is switched off",
        })
    }
}
