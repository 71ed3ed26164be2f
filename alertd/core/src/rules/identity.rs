//! Which host a batch comes from. Agents are known by an id from their machine id, which hosts from
//! one image share. Pure.
//!
//! ```text
//!  the process is known              ─▶ the same agent
//!  a new process, and of boot, host  ─▶ two of three agree, or the agent is silent: it was restarted
//!  and epoch of a known agent           host or epoch agrees: renamed, or a copy; both are watched
//!                                       else: a copy
//!  a process that was replaced sends ─▶ both processes run: a copy
//! ```
//!
//! A restart changes the process, a reboot also the boot id, a new name the host, and a new state
//! directory the epoch. A copy of a host always has another boot id, unless it is a container.
//!
//! The last batch of a process can arrive after the first one of its successor, and a proxy can
//! repeat it. So a replaced process counts as running only with batches that it sent after the
//! successor started, or with several different ones, if the clocks of the two hosts differ.

use jiff::Timestamp;

use crate::rules::{agent::Agent, process::Source};

/// Which of the agents with one id sent a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This agent, in the same process as before.
    Same(String),
    /// This agent, in a new process. If it is doubtful, the old process may still run elsewhere.
    Restarted { key: String, doubtful: bool },
    /// A process that this agent's process had replaced still runs: it is another host.
    Returned(String),
    /// Another host. It may be a known one with a new name or state.
    Another { maybe: Option<String> },
    /// Perhaps a late batch of a process that this agent's process has replaced.
    Late(String),
}

impl Source<'_> {
    /// How many of boot, host and epoch agree. Senders without a boot id have that of their host.
    /// The boot alone counts for nothing: all containers of a host have the same.
    pub fn agreement(&self, agent: &Agent) -> u8 {
        let host = agent.host == self.host;
        let epoch = agent.epoch == self.epoch && (host || !agent.epoch_is_copied);
        let boot = &agent.process.boot;
        let same_boot = if boot.is_empty() || self.boot.is_empty() { host } else { boot == self.boot };
        u8::from(host) + u8::from(epoch) + u8::from(same_boot && (host || epoch))
    }

    /// Finds the sender among the agents with its id.
    pub fn find<'b>(
        &self,
        agents: impl Iterator<Item = (&'b String, &'b Agent)> + Clone,
        now: Timestamp,
    ) -> Verdict {
        if let Some((key, _)) = agents.clone().find(|(_, agent)| agent.process.is(self, &agent.epoch)) {
            return Verdict::Same(key.clone());
        }
        for (key, agent) in agents.clone() {
            if let Some(former) = agent.process.former.iter().find(|former| former.run == self.run) {
                let runs = agent.process.is_outlived_by(self, Some(former.last_at));
                return if runs { Verdict::Returned(key.clone()) } else { Verdict::Late(key.clone()) };
            }
        }
        // Of equals, the one that is silent.
        let likest = agents.max_by_key(|(_, agent)| (self.agreement(agent), agent.is_overdue(now)));
        let Some((key, agent)) = likest else { return Verdict::Another { maybe: None } };
        let (agrees, overdue) = (self.agreement(agent), agent.is_overdue(now));
        match agrees {
            0 => Verdict::Another { maybe: None },
            1 if !overdue => Verdict::Another { maybe: Some(key.clone()) },
            // A repeated batch of a process from long ago, or the clock of the host was set back.
            _ if !agent.process.is_outlived_by(self, None) => Verdict::Late(key.clone()),
            _ => Verdict::Restarted { key: key.clone(), doubtful: agrees < 3 && !overdue },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::rules::{
        moment::later,
        process::{FORMER_MAX, Process},
    };

    /// `host boot epoch run`, sent so many seconds after the start.
    fn sender(words: &str, second: u64) -> Source<'_> {
        let words: Vec<_> = words.split_whitespace().collect();
        let [host, boot, epoch, run] = words[..] else { panic!("four words") };
        Source { host, boot, epoch, run, sent_at: at(second) }
    }

    fn at(second: u64) -> Timestamp {
        later(Timestamp::UNIX_EPOCH, Duration::from_secs(second))
    }

    /// One agent, last heard at 100 s, with a heartbeat of 60 s: silent from 225 s on.
    fn known(words: &str) -> BTreeMap<String, Agent> {
        let sender = sender(words, 100);
        let agent = Agent {
            process: Process::new(&sender),
            ..Agent::new(sender.host, sender.epoch, crate::rules::sender::Sender::default(), at(100))
        };
        [("id".to_owned(), agent)].into()
    }

    fn found(words: &str, second: u64) -> Verdict {
        sender(words, second).find(known("web1 b1 e1 r1").iter(), at(second))
    }

    fn restarted(doubtful: bool) -> Verdict {
        Verdict::Restarted { key: "id".into(), doubtful }
    }

    fn another(maybe: Option<&str>) -> Verdict {
        Verdict::Another { maybe: maybe.map(str::to_owned) }
    }

    #[test]
    fn two_of_boot_host_and_epoch_make_a_restart() {
        for (words, verdict) in [
            ("web1 b1 e1 r1", Verdict::Same("id".into())),
            ("web9 b9 e9 r1", Verdict::Same("id".into())), // renamed by a reload
            ("web1 b1 e1 r2", restarted(false)),
            ("web1 b2 e1 r2", restarted(true)), // rebooted
            ("web2 b1 e1 r2", restarted(true)), // renamed
            ("web1 b1 e2 r2", restarted(true)), // a new state directory
            ("web2 b2 e1 r2", another(Some("id"))),
            ("web1 b2 e2 r2", another(Some("id"))),
            ("web2 b1 e2 r2", another(None)), // a container of the same host
            ("web2 b2 e2 r2", another(None)),
        ] {
            assert_eq!(found(words, 110), verdict, "{words}");
        }
        // Nobody speaks for the agent, so it can be the one.
        for words in ["web2 b2 e1 r2", "web1 b2 e2 r2"] {
            assert_eq!(found(words, 230), restarted(false), "{words}");
        }
        for words in ["web2 b2 e2 r2", "web2 b1 e2 r2"] {
            assert_eq!(found(words, 230), another(None), "{words}");
        }
    }

    #[test]
    fn senders_without_a_process_are_known_by_epoch_and_host() {
        let old = |host, epoch| Source { host, epoch, run: epoch, boot: "", sent_at: at(110) };
        let stored = Agent::new("web1", "e1", crate::rules::sender::Sender::default(), at(100));
        let agents: BTreeMap<_, _> = [("id".to_owned(), stored)].into();
        let find = |sender: Source<'_>| sender.find(agents.iter(), at(110));
        assert_eq!(find(old("web1", "e1")), Verdict::Same("id".into()));
        assert_eq!(find(old("web1", "e2")), restarted(true));
        assert_eq!(find(old("web2", "e2")), another(None));
        // The agent was upgraded.
        assert_eq!(find(sender("web1 b1 e1 r1", 110)), restarted(false));
    }

    #[test]
    fn a_replaced_process_that_sends_again_is_another_host_but_a_late_batch_is_not() {
        let mut agents = known("web1 b1 e1 r1");
        let agent = agents.get_mut("id").unwrap();
        agent.process.replace(&sender("web1 b2 e1 r2", 110));
        let find =
            |agents: &BTreeMap<_, _>, sent_at| sender("web1 b1 e1 r1", sent_at).find(agents.iter(), at(120));
        assert_eq!(find(&agents, 110), Verdict::Returned("id".into()));
        assert_eq!(find(&agents, 109), Verdict::Late("id".into()));
        // The same late batch again and again proves nothing.
        let process = &mut agents.get_mut("id").unwrap().process;
        for _ in 0..9 {
            process.note_late(&sender("web1 b1 e1 r1", 109));
        }
        assert_eq!(find(&agents, 109), Verdict::Late("id".into()));
        // A host whose clock is behind sends on and on.
        agents.get_mut("id").unwrap().process.note_late(&sender("web1 b1 e1 r1", 109));
        assert_eq!(find(&agents, 109), Verdict::Late("id".into()));
    }

    #[test]
    fn a_clone_whose_clock_is_behind_is_found_at_its_third_batch() {
        let mut agents = known("web1 b1 e1 r1");
        agents.get_mut("id").unwrap().process.replace(&sender("web1 b2 e1 r2", 900));
        let mut verdicts = Vec::new();
        for sent_at in [101, 102, 103] {
            let sender = sender("web1 b1 e1 r1", sent_at);
            verdicts.push(sender.find(agents.iter(), at(120)));
            agents.get_mut("id").unwrap().process.note_late(&sender);
        }
        let late = || Verdict::Late("id".into());
        assert_eq!(verdicts, [late(), late(), Verdict::Returned("id".into())]);
    }

    #[test]
    fn however_often_an_agent_restarts_it_is_one_agent() {
        let mut agents = known("web1 b1 e1 r0");
        for n in 1..50 {
            let words = format!("web1 b1 e1 r{n}");
            let sender = sender(&words, 100 + n);
            assert_eq!(sender.find(agents.iter(), at(100 + n)), restarted(false), "{n}");
            agents.get_mut("id").unwrap().process.replace(&sender);
        }
        let former = &agents["id"].process.former;
        assert_eq!((former.len(), former.back().unwrap().run.as_str()), (FORMER_MAX, "r48"));
        // A repeated batch of a process that is no longer listed.
        assert_eq!(sender("web1 b1 e1 r3", 103).find(agents.iter(), at(150)), Verdict::Late("id".into()));
    }

    #[test]
    fn of_two_hosts_with_one_id_the_likest_is_meant() {
        let mut agents = known("web1 b1 e1 r1");
        agents.insert("id~r2".into(), known("web2 b2 e2 r2").remove("id").unwrap());
        let find = |words, second| sender(words, second).find(agents.iter(), at(second));
        let key = |verdict| match verdict {
            Verdict::Restarted { key, .. } => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(find("web2 b3 e2 r3", 110)), "id~r2");
        assert_eq!(key(find("web1 b3 e1 r3", 110)), "id");
        assert_eq!(find("web3 b3 e3 r3", 110), another(None), "a third one");
    }
}
