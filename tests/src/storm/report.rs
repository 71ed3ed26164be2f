//! The notifications that arrived and the account of all alerts, as text.

use std::fmt;

use super::{Arrival, PAGER_CALLS_A_MINUTE, Run, world};

pub struct Report<'a>(pub &'a Run);

/// Messages of each receiver that are shown in full.
const SHOWN: usize = 30;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(run) = self;
        let plan = run.plan;
        writeln!(
            f,
            "{} hosts lose a rack of {} and a DNS upstream within {} s; names are back after {} min, the rack after {} min",
            plan.hosts,
            plan.hosts_in_a_rack,
            plan.within.as_secs(),
            plan.dns_back.as_secs() / 60,
            plan.rack_back.as_secs() / 60
        )?;
        for receiver in [world::PAGER, world::MAILBOX] {
            let arrivals: Vec<_> =
                run.arrivals.iter().filter(|arrival| arrival.receiver == receiver).collect();
            writeln!(f, "\n{receiver}: {} messages", arrivals.len())?;
            arrivals.iter().take(SHOWN).try_for_each(|arrival| line(f, arrival))?;
            if arrivals.len() > SHOWN {
                writeln!(f, "  … and {} more", arrivals.len() - SHOWN)?;
            }
        }
        let account = &run.account;
        writeln!(f, "\noutcome of {} alerts", account.alerts)?;
        writeln!(f, "  {:>6}  in a notification of their own", account.alone)?;
        writeln!(f, "  {:>6}  in one of {} digests", account.digested, account.by_digest.len())?;
        for (digest, alerts) in &account.by_digest {
            writeln!(f, "          {alerts} in digest {digest}")?;
        }
        for (why, alerts) in &account.withheld {
            writeln!(f, "  {alerts:>6}  suppressed: {}", why.replace('_', " "))?;
        }
        writeln!(f, "  {:>6}  resolved or updated before the first attempt", account.superseded)?;
        writeln!(f, "  {:>6}  lost", account.lost)?;
        writeln!(f, "  {:>6}  in total", account.sum())?;
        writeln!(
            f,
            "\nthe pager: {} calls in its busiest minute (it takes {PAGER_CALLS_A_MINUTE}), {} refused; recoveries owed: {}",
            run.pager_busiest_minute, run.refused, account.recoveries_owed
        )?;
        for words in &run.broken {
            writeln!(f, "BROKEN: {words}")?;
        }
        writeln!(f, "{}", if run.kept() { "all promises kept" } else { "BROKEN" })
    }
}

fn line(f: &mut fmt::Formatter<'_>, arrival: &Arrival) -> fmt::Result {
    writeln!(f, "  {:>8.1} s  {:<9} {}", arrival.after_s, arrival.kind, arrival.title)
}
