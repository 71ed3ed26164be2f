//! The real agent, killed with SIGKILL at random times while states change: every hard change
//! reaches alertd once and in order.

mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use common::{AgentDir, Alertd};
use dogwatch_wire::{EventKind, State};

const SERVICES: [&str; 3] = ["db", "web", "mail"];
const KILLS: u32 = 60;

#[tokio::test]
async fn an_agent_killed_at_any_time_loses_and_repeats_nothing() {
    let agent_dir = AgentDir::new("");
    let mut checks = String::new();
    for service in SERVICES {
        fs::write(agent_dir.path(service), "0").unwrap();
        let _ = write!(
            checks,
            "[check.{service}]\nkind = \"plugin\"\ninterval = \"100ms\"\nmax_attempts = 1\n\
             flapping = {{ detect = false }}\n\
             command = [\"/bin/sh\", \"-c\", \"read state < {dir}/{service}; exit $state\"]\n",
            dir = agent_dir.dir.path().display()
        );
    }
    agent_dir.write_config(&checks);
    let alertd = Alertd::new();
    let _serving = alertd.serve(&agent_dir.path("alertd.sock"));
    let mut random = fastrand::Rng::with_seed(2_026);

    for kill in 0..KILLS {
        // In every third run alertd is down, so that the spool is not empty when the agent is
        // killed. In the run after that answers get lost, so that the agent has to repeat.
        alertd.memory(|memory| {
            memory.refuse = (kill % 3 == 1).then_some(503);
            memory.lose_answers = kill % 3 == 2;
        });
        let agent = agent_dir.start();
        for _ in 0..random.u32(1..6) {
            // Renamed, so that a plugin never reads half a file.
            fs::write(agent_dir.path("next"), ["0\n", "1\n", "2\n"][random.usize(..3)]).unwrap();
            fs::rename(agent_dir.path("next"), agent_dir.path(SERVICES[random.usize(..3)])).unwrap();
            tokio::time::sleep(Duration::from_millis(random.u64(..90))).await;
        }
        agent.kill();
    }

    // One more run, which ends only after a lost answer (every second one is), however fast the
    // machine is.
    let earlier = alertd.memory(|memory| {
        (memory.refuse, memory.lose_answers) = (None, true);
        memory.batches.len()
    });
    let agent = agent_dir.start();
    let answer_lost = || {
        alertd.memory(|memory| {
            let batches = memory.batches.iter().enumerate().skip(earlier);
            batches.filter(|(index, _)| index % 2 == 1).any(|(_, batch)| !batch.events.is_empty())
        })
    };
    while !answer_lost() {
        let (told, db) =
            alertd.memory(|memory| (memory.events.len(), memory.states.get("db").map(|&(state, _)| state)));
        fs::write(agent_dir.path("next"), if db == Some(State::Critical) { "0" } else { "2" }).unwrap();
        fs::rename(agent_dir.path("next"), agent_dir.path("db")).unwrap();
        alertd.wait_for("another change", |memory| (memory.events.len() > told).then_some(())).await;
    }
    // After a kill the agent would ask alertd first and repeat nothing: only the run that missed
    // the answer repeats.
    alertd.wait_for("the repeat", |memory| (memory.repeats > 0).then_some(())).await;
    agent.kill();

    alertd.memory(|memory| (memory.refuse, memory.lose_answers) = (None, false));
    let _agent = agent_dir.start();
    for (service, code) in SERVICES.iter().zip(["2", "1", "0"]) {
        fs::write(agent_dir.path("next"), code).unwrap();
        fs::rename(agent_dir.path("next"), agent_dir.path(service)).unwrap();
    }
    let truth = [("db", State::Critical), ("web", State::Warning), ("mail", State::Ok)];
    alertd
        .wait_for("alertd to have the current state", |memory| {
            let known = |(service, state): &(&str, State)| {
                memory.states.get(*service).map_or(State::Ok, |&(state, _)| state) == *state
            };
            truth.iter().all(known).then_some(())
        })
        .await;

    let mut last: BTreeMap<String, State> = BTreeMap::new();
    let events = alertd.memory(|memory| memory.events.clone());
    for event in &events {
        let EventKind::Transition(transition) = &event.kind else { panic!("nothing was removed") };
        let before = last.insert(transition.now.service.clone(), transition.now.state).unwrap_or(State::Ok);
        assert_eq!(transition.from, before, "a change was lost: {:#?}", alertd.story());
        assert_ne!(transition.now.state, before, "a change was reported twice: {:#?}", alertd.story());
    }
    let (gaps, repeats, epochs) = alertd.memory(|memory| {
        let epochs: std::collections::BTreeSet<_> = memory.batches.iter().map(|batch| &batch.epoch).collect();
        (memory.gaps, memory.repeats, epochs.len())
    });
    assert_eq!((gaps, epochs), (0, 1), "{}", agent_dir.log());
    println!("{KILLS} kills, {} events, {repeats} sent again and recognized", events.len());
    assert!(repeats > 0, "too little happened: nothing was sent twice");
    assert!(events.len() > 20, "too little happened: {} events", events.len());
}
