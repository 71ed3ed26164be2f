//! Log messages for guard events.

use std::{fmt, net::IpAddr};

use dogwatch_duration::Span;

use super::{Cause, End, Event};
use crate::message::name::{self, name_of};

/// Most names that a log line lists.
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
                    "upstream {cause} below {scope} ({}, …); serving last known good answers; to accept the change: \
                     dogwatch dns accept {scope}",
                    names.join(", ")
                )
            }
            Self::TripEnded { cause, scope, end, lasted, names } => {
                let lasted = Span::secs(lasted.as_secs());
                let scope = name::to_text(scope);
                write!(f, "hold ended after {lasted}: upstream {cause} below {scope} ({names} so far): {end}")
            }
            Self::UpstreamLies { upstream } => {
                write!(
                    f,
                    "upstream number {} denies names that another upstream has; it is not used for now",
                    upstream + 1
                )
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
                    ", which accept no TCP connection; serving the old answer; to accept the change: dogwatch dns accept {name}"
                )
            }
            Self::Rebinding { key, address } => {
                let name = name::to_text(name_of(key));
                write!(
                    f,
                    "blocked: {name} leads to the private address {address}; if that is intended, add it or a domain \
                     above it to rebinding_allow in dns.toml"
                )
            }
            Self::Shrunk { key, from, to } => {
                write!(f, "{} has {to} records, down from {from}", name::to_text(name_of(key)))
            }
        }
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if all.is_empty() { "no address".into() } else { all.join(" ") }
}

/// What the upstream answers for these names.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("says that many names are gone"),
            Self::Nowhere => f.write_str("gives many names unusable addresses"),
            Self::Converged(address) => write!(f, "gives many names the new address {address}"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Returned => "the names are back",
            Self::Bound => "the grace period is over; the new answers are believed",
            Self::Accepted => "accepted by an operator",
            Self::Confirmed => "confirmed by other upstreams",
            Self::Few => "most other names there resolve",
            Self::SwitchedOff => "the guard is switched off",
        })
    }
}
