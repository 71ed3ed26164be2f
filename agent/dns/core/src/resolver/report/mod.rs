//! What the resolver reports about itself.
//!
//! | module | what it does |
//! | --- | --- |
//! | `sensors` | the check results `dns-upstream` and `dns-stale`, `status`, and the explanation of one name |
//! | `guard_sensor` | the check result `dns-guard`, and the explanation of one held name |
//! | `inspect` | `top`, `dump`, `flush`, and the fire drill |
//! | `counts` | counters for metrics, and the totals of the last minute |
//! | `words` | types and texts that these share |

pub(super) mod counts;
pub(super) mod guard_sensor;
pub(super) mod inspect;
pub(super) mod sensors;
pub(super) mod words;
