//! How much of alertd's memory one sender may use.
//!
//! Everything that a sender can make alertd remember is charged: its alerts, firing or not yet
//! forgotten, and its agents. A charge counts against three limits:
//!
//! | limit | counts |
//! | --- | --- |
//! | `host` | what one agent reports, or all tokens that are bound to one host |
//! | `token` | what one token, or one user of the unix socket, sends |
//! | `all` | everything |
//!
//! A new alert over a limit is refused. An alert that exists always takes its new state; over a
//! limit, it only cannot grow. So a sender over its quota can still resolve what it sent.
//!
//! If everything together is at its limit, senders that use little still get [`ROOM`] more, so that
//! a few senders that take all cannot silence the others.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use crate::rules::sender::Sender;

/// A number of alerts and agents, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub alerts: usize,
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quotas {
    pub all: Amount,
    pub token: Amount,
    pub host: Amount,
}

impl Quotas {
    /// For a replay of what was accepted once.
    pub const UNLIMITED: Self = {
        let all = Amount { alerts: usize::MAX, bytes: usize::MAX };
        Self { all, token: all, host: all }
    };
}

impl Default for Quotas {
    /// Meant to leave room in the 1 GiB of alertd's unit: 400 MiB by this count, which estimates
    /// what each alert costs ([`ALERT_BYTES`]) and has not been measured at the limit.
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            all: Amount { alerts: 200_000, bytes: 400 * MIB },
            token: Amount { alerts: 150_000, bytes: 300 * MIB },
            // One agent reports at most `limits::SERVICES_MAX` services.
            host: Amount { alerts: 12_000, bytes: 48 * MIB },
        }
    }
}

/// What an alert uses apart from its texts: keys in tables, its part of an incident.
pub const ALERT_BYTES: usize = 2_048;
/// What an agent uses, with the alert that it is silent.
pub const AGENT_BYTES: usize = 2_048;

/// A sender that uses less than this is small.
const SMALL: Amount = Amount { alerts: 256, bytes: 2 << 20 };
/// The part of `all` that only small senders get, beyond the limit.
const ROOM: usize = 10;

/// Who pays for an alert or an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    pub token: String,
    /// `None`: a sender for any host, which posted an alert.
    pub host: Option<String>,
}

impl Holder {
    pub fn of_post(sender: &Sender) -> Self {
        Self { token: sender.name.clone(), host: sender.host.clone() }
    }

    /// An agent pays for itself, unless its token is bound to a host: the sender chooses the ids
    /// of agents.
    pub fn of_agent(sender: &Sender, agent: &str) -> Self {
        Self {
            token: sender.name.clone(),
            host: Some(sender.host.clone().unwrap_or_else(|| format!("{agent}#"))),
        }
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Host,
    Token,
    All,
}

/// What an entry of a table costs. It is paid back when the entry is forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charge {
    pub holder: Option<Arc<Holder>>,
    pub bytes: u32,
}

#[derive(Debug, Default)]
pub struct Ledger {
    all: Amount,
    tokens: BTreeMap<String, Amount>,
    hosts: BTreeMap<String, Amount>,
    /// So that many alerts share one holder.
    holders: BTreeSet<Arc<Holder>>,
}

impl Ledger {
    pub fn all(&self) -> Amount {
        self.all
    }

    pub fn of_token(&self, token: &str) -> Amount {
        self.tokens.get(token).copied().unwrap_or_default()
    }

    pub fn of_host(&self, host: &str) -> Amount {
        self.hosts.get(host).copied().unwrap_or_default()
    }

    /// Whether `more` fits; which limit it would exceed otherwise.
    pub fn fits(&self, quotas: &Quotas, holder: &Holder, more: Amount) -> Result<(), Over> {
        let token = self.of_token(&holder.token);
        let host = holder.host.as_deref().map(|host| self.of_host(host));
        if host.is_some_and(|host| !host.plus(more).is_within(quotas.host)) {
            return Err(Over::Host);
        }
        if !token.plus(more).is_within(quotas.token) {
            return Err(Over::Token);
        }
        let small = host.unwrap_or(token).plus(more).is_within(SMALL);
        let all = if small { quotas.all.plus(quotas.all.part(ROOM)) } else { quotas.all };
        if self.all.plus(more).is_within(all) { Ok(()) } else { Err(Over::All) }
    }

    /// Charges one entry, whatever the limits.
    pub fn charge(&mut self, holder: &Holder, bytes: usize) -> Charge {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let amount = Amount { alerts: 1, bytes: bytes as usize };
        self.all = self.all.plus(amount);
        let token = self.tokens.entry(holder.token.clone()).or_default();
        *token = token.plus(amount);
        if let Some(host) = &holder.host {
            let host = self.hosts.entry(host.clone()).or_default();
            *host = host.plus(amount);
        }
        let known = self.holders.get(holder).map(Arc::clone);
        let holder = known.unwrap_or_else(|| {
            let new = Arc::new(holder.clone());
            self.holders.insert(Arc::clone(&new));
            new
        });
        Charge { holder: Some(holder), bytes }
    }

    /// Charges the growth of an entry, or pays back what it shrank.
    pub fn recharge(&mut self, charge: &mut Charge, bytes: usize) {
        let Some(holder) = charge.holder.clone() else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes != charge.bytes {
            self.pay_back(charge);
            *charge = self.charge(&holder, bytes as usize);
        }
    }

    pub fn pay_back(&mut self, charge: &Charge) {
        let Some(holder) = &charge.holder else { return };
        let amount = Amount { alerts: 1, bytes: charge.bytes as usize };
        self.all = self.all.minus(amount);
        take_from(&mut self.tokens, &holder.token, amount);
        if let Some(host) = &holder.host {
            take_from(&mut self.hosts, host, amount);
        }
        // Two references: this charge and the table.
        if Arc::strong_count(holder) <= 2 {
            self.holders.remove(holder);
        }
    }
}

fn take_from(table: &mut BTreeMap<String, Amount>, name: &str, amount: Amount) {
    if let Entry::Occupied(mut entry) = table.entry(name.to_owned()) {
        let rest = entry.get().minus(amount);
        if rest.alerts == 0 {
            entry.remove();
        } else {
            *entry.get_mut() = rest;
        }
    }
}

impl Amount {
    fn plus(self, more: Self) -> Self {
        Self { alerts: self.alerts.saturating_add(more.alerts), bytes: self.bytes.saturating_add(more.bytes) }
    }

    fn minus(self, less: Self) -> Self {
        Self { alerts: self.alerts.saturating_sub(less.alerts), bytes: self.bytes.saturating_sub(less.bytes) }
    }

    fn part(self, percent: usize) -> Self {
        Self { alerts: self.alerts / 100 * percent, bytes: self.bytes / 100 * percent }
    }

    fn is_within(self, limit: Self) -> bool {
        self.alerts <= limit.alerts && self.bytes <= limit.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas {
        all: Amount { alerts: 1_000, bytes: 100_000 },
        token: Amount { alerts: 800, bytes: 80_000 },
        host: Amount { alerts: 500, bytes: 50_000 },
    };
    const ONE: Amount = Amount { alerts: 1, bytes: 100 };

    fn holder(token: &str, host: Option<&str>) -> Holder {
        Holder { token: token.into(), host: host.map(str::to_owned) }
    }

    /// Charges as often as it fits.
    fn fill(ledger: &mut Ledger, holder: &Holder) -> (usize, Over) {
        for count in 0.. {
            if let Err(over) = ledger.fits(&QUOTAS, holder, ONE) {
                return (count, over);
            }
            ledger.charge(holder, ONE.bytes);
        }
        unreachable!("the limits end it")
    }

    #[test]
    fn each_limit_stops_its_own_sender_and_small_senders_always_have_room() {
        let mut ledger = Ledger::default();
        assert_eq!(fill(&mut ledger, &holder("a", Some("web1"))), (500, Over::Host));
        assert_eq!(fill(&mut ledger, &holder("a", None)), (300, Over::Token));
        assert_eq!(fill(&mut ledger, &holder("b", None)), (256, Over::All), "200 of all, then the room");
        assert_eq!(fill(&mut ledger, &holder("c", Some("web2"))), (44, Over::All));
    }

    #[test]
    fn bytes_count_like_alerts() {
        let mut ledger = Ledger::default();
        let web1 = holder("a", Some("web1"));
        assert_eq!(ledger.fits(&QUOTAS, &web1, Amount { alerts: 1, bytes: 50_001 }), Err(Over::Host));
        let mut charge = ledger.charge(&web1, 40_000);
        assert_eq!(ledger.fits(&QUOTAS, &web1, Amount { alerts: 1, bytes: 10_001 }), Err(Over::Host));
        ledger.recharge(&mut charge, 100);
        assert_eq!(ledger.fits(&QUOTAS, &web1, Amount { alerts: 1, bytes: 10_001 }), Ok(()));
    }

    #[test]
    fn what_is_paid_back_leaves_nothing() {
        let mut ledger = Ledger::default();
        let holders = [holder("a", None), holder("a", Some("web1")), holder("b", Some("web1"))];
        let charges: Vec<_> = (0..30).map(|n| ledger.charge(&holders[n % 3], n)).collect();
        assert_eq!((ledger.of_token("a").alerts, ledger.of_host("web1").alerts), (20, 20));
        for charge in charges {
            ledger.pay_back(&charge);
        }
        assert_eq!(ledger.all(), Amount::default());
        assert!(ledger.tokens.is_empty() && ledger.hosts.is_empty() && ledger.holders.is_empty());
        ledger.pay_back(&Charge::default());
    }
}
