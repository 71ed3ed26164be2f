//! The real agent, killed with SIGKILL at any instant while states change: alertd hears of every hard change, in order,
//! once.

mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use common::{Alertd, Place};
use dogwatch_wire::{EventKind, State};

const SERVICES: [&str; 3] = ["db", "web", "mail"];
const KILLS: u32 = 60;

#[tokio::test]
async fn killed_at_any_instant_nothing_is_lost_and_nothing_said_twice() {
    let place = Place::new("");
    let mut checks = String::new();
    for service in SERVICES {
        fs::write(place.path(service), "0").unwrap();
        let _ = write!(
            checks,
            "[check.{service}]\nkind = \"plugin\"\ninterval = \"100ms\"\nmax_attempts = 1\n\
             flapping = {{ detect = false }}\n\
             command = [\"/bin/sh\", \"-c\", \"read state < {dir}/{service}; exit $state\"]\n",
            dir = place.dir.path().display()
        );
    }
    place.write_config(&checks);
    let alertd = Alertd::new();
    let _serving = alertd.serve(&place.path("alertd.sock"));
    let mut random = fastrand::Rng::with_seed(2_026);

    for kill in 0..KILLS {
        // Every third life alertd is away, so that the spool holds something when the agent dies; in the one after that
        // answers get lost, so that the agent has to repeat.
        alertd.memory(|memory| {
            memory.refuse = (kill % 3 == 1).then_some(503);
            memory.lose_answers = kill % 3 == 2;
        });
        let agent = place.start();
        for _ in 0..random.u32(1..6) {
            // Moved into place: a plugin never reads half a file.
            fs::write(place.path("next"), ["0\n", "1\n", "2\n"][random.usize(..3)]).unwrap();
            fs::rename(place.path("next"), place.path(SERVICES[random.usize(..3)])).unwrap();
            tokio::time::sleep(Duration::from_millis(random.u64(..90))).await;
        }
        agent.kill();
    }

    // One more life, which ends only after a lost answer (every second is), whatever the machine's speed made of the others.
    let earlier = alertd.memory(|memory| {
        (memory.refuse, memory.lose_answers) = (None, true);
        memory.batches.len()
    });
    let agent = place.start();
    let answer_lost = || {
        alertd.memory(|memory| {
            let batches = memory.batches.iter().enumerate().skip(earlier);
            batches.filter(|(index, _)| index % 2 == 1).any(|(_, batch)| !batch.events.is_empty())
        })
    };
    while !answer_lost() {
        let (told, db) =
            alertd.memory(|memory| (memory.events.len(), memory.states.get("db").map(|&(state, _)| state)));
        fs::write(place.path("next"), if db == Some(State::Critical) { "0" } else { "2" }).unwrap();
        fs::rename(place.path("next"), place.path("db")).unwrap();
        alertd.wait_for("another change", |memory| (memory.events.len() > told).then_some(())).await;
    }
    // Killed now, the agent would ask alertd first and repeat nothing: a repeat needs the life that missed the answer.
    alertd.wait_for("the repeat", |memory| (memory.repeats > 0).then_some(())).await;
    agent.kill();

    alertd.memory(|memory| (memory.refuse, memory.lose_answers) = (None, false));
    let _agent = place.start();
    for (service, code) in SERVICES.iter().zip(["2", "1", "0"]) {
        fs::write(place.path("next"), code).unwrap();
        fs::rename(place.path("next"), place.path(service)).unwrap();
    }
    let truth = [("db", State::Critical), ("web", State::Warning), ("mail", State::Ok)];
    alertd
        .wait_for("alertd to know the truth", |memory| {
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
        assert_ne!(transition.now.state, before, "a change was said twice: {:#?}", alertd.story());
    }
    let (gaps, repeats, epochs) = alertd.memory(|memory| {
        let epochs: std::collections::BTreeSet<_> = memory.batches.iter().map(|batch| &batch.epoch).collect();
        (memory.gaps, memory.repeats, epochs.len())
    });
    assert_eq!((gaps, epochs), (0, 1), "{}", place.log());
    println!("{KILLS} kills, {} events, {repeats} sent again and recognised", events.len());
    assert!(repeats > 0, "the test must have something to say twice");
    assert!(events.len() > 20, "the test must have something to lose: {} events", events.len());
}
