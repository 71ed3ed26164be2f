//! `rate = { burst = 10, every = "30s", reserve = 3 }`: up to 10 notifications at once, then one
//! every 30 s. Notifications above the limit go into a digest. The last 3 of the burst are reserved
//! for CRITICAL problems.

use std::{num::NonZeroU32, time::Duration};

use dogwatch_alertd_core::rules::ratelimit::Rate;
use dogwatch_daemon::{
    config::{Problems, Source, Spanned},
    duration::Span,
};
use serde::Deserialize;

/// As written in `[receiver.NAME]`, `[user.NAME]` and `[alertd]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateFile {
    burst: NonZeroU32,
    every: Spanned<Span>,
    reserve: Option<Spanned<u32>>,
}

impl RateFile {
    pub(super) fn resolve(&self, source: &Source, problems: &mut Problems) -> Rate {
        let every = self.every.get_ref().0;
        if every.is_zero() {
            problems.add(source, self.every.span(), "rate: every must be longer than 0s, for example \"1m\"");
        }
        let rate = Rate::with_default_reserve(self.burst, every.max(Duration::from_millis(1)));
        let Some(reserve) = &self.reserve else { return rate };
        if *reserve.get_ref() >= self.burst.get() {
            let words = format!(
                "rate: reserve {} must be less than burst {}, or only CRITICAL problems would be sent",
                reserve.get_ref(),
                self.burst
            );
            problems.add(source, reserve.span(), words);
        }
        Rate { reserve: *reserve.get_ref(), ..rate }
    }
}
