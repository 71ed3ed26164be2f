//! `[alertd.quota]`: how much senders may make alertd remember.

use dogwatch_alertd_core::rules::quota::{Amount, Quotas};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::Deserialize;

/// What is not given has its default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaFile {
    alerts: Option<Spanned<usize>>,
    mib: Option<Spanned<usize>>,
    token_alerts: Option<Spanned<usize>>,
    token_mib: Option<Spanned<usize>>,
    host_alerts: Option<Spanned<usize>>,
    host_mib: Option<Spanned<usize>>,
}

impl QuotaFile {
    pub(super) fn resolve(&self, source: &Source, problems: &mut Problems) -> Quotas {
        let default = Quotas::default();
        let amount =
            |alerts: &Option<Spanned<usize>>, mib: &Option<Spanned<usize>>, default: Amount| Amount {
                alerts: alerts.as_ref().map_or(default.alerts, |it| *it.get_ref()),
                bytes: mib.as_ref().map_or(default.bytes, |it| it.get_ref().saturating_mul(1 << 20)),
            };
        let all = amount(&self.alerts, &self.mib, default.all);
        let part = |amount: Amount| Amount {
            alerts: amount.alerts.min(all.alerts),
            bytes: amount.bytes.min(all.bytes),
        };
        let quotas = Quotas {
            all,
            token: amount(&self.token_alerts, &self.token_mib, part(default.token)),
            host: amount(&self.host_alerts, &self.host_mib, part(default.host)),
        };
        let all_of = [
            (&self.alerts, 1, usize::MAX),
            (&self.mib, 1, usize::MAX),
            (&self.token_alerts, 1, all.alerts),
            (&self.token_mib, 1, all.bytes >> 20),
            (&self.host_alerts, 1, all.alerts),
            (&self.host_mib, 1, all.bytes >> 20),
        ];
        for (written, least, most) in all_of {
            let Some(written) = written else { continue };
            if *written.get_ref() < least {
                problems.add(source, written.span(), "a quota must be at least 1, or nothing is accepted");
            } else if *written.get_ref() > most {
                let words = format!("the part of one sender is larger than the {most} of all together");
                problems.add(source, written.span(), words);
            }
        }
        quotas
    }
}
