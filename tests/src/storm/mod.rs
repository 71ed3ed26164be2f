//! The storm: ten thousand hosts lose a rack and a DNS upstream within ten seconds. One person is
//! on call, with a pager that accepts 120 calls a minute and one mailbox. The real core of alertd
//! in virtual time, with the default limits: which notifications arrive and when, and what became
//! of every alert.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`world`] | hosts, core, pager and mailbox in virtual time |
//! | [`account`] | every alert: notified alone, in digest N, suppressed and by what, over before it was notified |
//! | [`report`] | the table and the verdict |

mod account;
mod report;
mod world;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use self::world::World;
pub use self::{account::Account, report::Report};

/// How a storm is made.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub hosts: u32,
    pub hosts_in_a_rack: u32,
    pub seed: u64,
    /// In which all of it happens.
    pub within: Duration,
    /// Until names resolve again.
    pub dns_back: Duration,
    /// Until the rack is back.
    pub rack_back: Duration,
    pub until: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            hosts: 10_000,
            hosts_in_a_rack: 40,
            seed: 0,
            within: Duration::from_secs(10),
            dns_back: Duration::from_mins(20),
            rack_back: Duration::from_mins(40),
            until: Duration::from_mins(70),
        }
    }
}

/// What the pager takes in any minute, as PagerDuty does with a key: more is refused.
pub const PAGER_CALLS_A_MINUTE: usize = 120;
/// Whoever is told later was told too late: `group_wait` and a turn.
const FIRST_WORD_MAX: Duration = Duration::from_secs(3);
/// Until somebody has read what it is. The default rate of a receiver lets a digest go each half
/// minute.
const STORM_SAID_MAX: Duration = Duration::from_mins(1);

/// One message that a receiver took.
#[derive(Debug, Clone, Serialize)]
pub struct Arrival {
    /// Since the beginning.
    pub after_s: f64,
    pub receiver: String,
    pub kind: String,
    pub title: String,
    /// Hosts that its largest group names.
    pub storm_hosts: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub plan: Plan,
    pub arrivals: Vec<Arrival>,
    pub account: Account,
    /// The most that the pager got in any minute.
    pub pager_busiest_minute: usize,
    /// Refused by the pager.
    pub refused: usize,
    /// Of notifications that were never settled.
    pub left_waiting: u64,
    /// Alerts that a receiver still believes to fire at the end.
    pub believed: usize,
    pub broken: Vec<String>,
}

impl Run {
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }

    fn first(&self, receiver: &str) -> Option<f64> {
        self.arrivals.iter().find(|arrival| arrival.receiver == receiver).map(|arrival| arrival.after_s)
    }

    /// When a message said that it is nearly all hosts.
    fn storm_said(&self, receiver: &str) -> Option<f64> {
        let most = u64::from(self.plan.hosts) * 9 / 10;
        let said = |arrival: &&Arrival| arrival.receiver == receiver && arrival.storm_hosts >= most;
        self.arrivals.iter().find(said).map(|arrival| arrival.after_s)
    }

    fn judge(&mut self) {
        let mut broken = Vec::new();
        let account = &self.account;
        if account.lost > 0 {
            broken.push(format!("{} alerts are lost: {:?}", account.lost, account.lost_names));
        }
        if account.sum() != account.alerts {
            broken.push(format!("the account sums to {}, of {} alerts", account.sum(), account.alerts));
        }
        if self.refused > 0 || self.pager_busiest_minute > PAGER_CALLS_A_MINUTE {
            let (busiest, refused) = (self.pager_busiest_minute, self.refused);
            broken.push(format!("the pager got {busiest} calls in a minute and refused {refused}"));
        }
        if account.recoveries_owed > 0 {
            broken.push(format!("{} recoveries are owed", account.recoveries_owed));
        }
        if self.left_waiting > 0 || self.believed > 0 {
            broken.push(format!(
                "{} notifications wait, {} alerts are believed to fire",
                self.left_waiting, self.believed
            ));
        }
        for receiver in [world::PAGER, world::MAILBOX] {
            if self.first(receiver).is_none_or(|at| at > FIRST_WORD_MAX.as_secs_f64()) {
                broken.push(format!("the first word to {receiver} came after {:?} s", self.first(receiver)));
            }
            if self.storm_said(receiver).is_none_or(|at| at > STORM_SAID_MAX.as_secs_f64()) {
                broken.push(format!(
                    "{receiver} was told of the storm after {:?} s",
                    self.storm_said(receiver)
                ));
            }
        }
        self.broken = broken;
    }
}

/// Runs it.
///
/// # Errors
/// If the drill's own config cannot be read.
pub fn run(plan: Plan) -> anyhow::Result<Run> {
    let mut world = World::new(plan)?;
    world.live();
    let mut run = world.into_run();
    run.judge();
    Ok(run)
}

/// 14:02, as in every story of a storm.
fn began_at() -> Timestamp {
    Timestamp::constant(1_795_269_720, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Plan {
        Plan { hosts: 400, hosts_in_a_rack: 20, ..Plan::default() }
    }

    #[test]
    fn a_storm_is_told_within_the_limits_and_every_alert_of_it_is_accounted_for() {
        let run = run(small()).unwrap();
        assert!(run.kept(), "{}", Report(&run));
        assert!(
            run.account.alone > 0 && run.account.digested > 0 && run.account.superseded > 0,
            "{}",
            Report(&run)
        );
        assert!(run.account.withheld.len() >= 2, "{}", Report(&run));
    }

    #[test]
    fn a_broken_limit_and_a_lost_alert_are_seen() {
        let mut run = run(small()).unwrap();
        run.account.lost = 1;
        run.pager_busiest_minute = 121;
        run.judge();
        assert_eq!(run.broken.len(), 3, "{:?}", run.broken);
    }
}
