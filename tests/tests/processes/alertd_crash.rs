//! alertd killed between every two steps of an alert, and at random under load: no notification is
//! lost, and one that is repeated has the same id and the same text. Also with a full disk.
//!
//! Real alertd, real agents' protocol, real HTTP; only the receiver's far end is a stand-in that
//! counts.

#![expect(clippy::unwrap_used, reason = "a test says where it failed")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use dogwatch_tests::{
    crash::{
        campaign,
        heard::Heard,
        victim::{Agent, Alertd, LOST_AFTER},
    },
    process::{skip, wait_for},
};
use dogwatch_wire::{
    State,
    ctl::{self, Status},
};

fn assert_no_faults(heard: &Heard) {
    assert_eq!(heard.faults(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_steps_alertd_loses_nothing_and_repeats_only_under_the_same_id() {
    for point in ["decided", "committed", "leased", "sent", "recorded"] {
        for nth in [1, 2, 3] {
            let heard = Heard::default();
            let mut alertd = Alertd::new(heard.listen().unwrap(), None, None).unwrap();
            alertd.start(Some(&format!("{point}:{nth}")));
            let mut agent = Agent::new("web1", alertd.client());
            let play = tokio::spawn({
                let heard = heard.clone();
                async move {
                    for episode in 1..=3 {
                        agent.one_episode(&heard, episode).await.unwrap();
                    }
                }
            });
            tokio::task::block_in_place(|| {
                let status = alertd.process.as_mut().unwrap().wait();
                assert!(!status.success(), "{point}:{nth} did not crash");
            });
            alertd.start(None);
            play.await.unwrap_or_else(|error| panic!("{point}:{nth}: {error}\n{}", alertd.log()));
            assert_no_faults(&heard);
            if point == "sent" {
                assert!(heard.repeated() >= 1, "what was sent and not recorded is sent again");
            }
        }
    }
}

/// The thousand of `cargo xtask drill crash` in short.
#[test]
fn killed_at_random_under_load_alertd_loses_nothing_and_repeats_only_under_the_same_id() {
    let plan = campaign::Plan { kills: 100, hosts: 64, rate: 100, life_ms: 400, ..campaign::Plan::default() };
    let report = campaign::run(&plan, &|_| ()).unwrap();
    assert!(report.kept(), "{report}");
    // Else it was not under load. A busy machine gets less done between two kills.
    assert!(report.changes > 200, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_disk_alertd_still_tells_people_and_catches_up_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let heard = Heard::default();
    let mut alertd = Alertd::new(heard.listen().unwrap(), None, Some(&disk.path().join("state"))).unwrap();
    alertd.start(None);
    let mut agent = Agent::new("web1", alertd.client());
    agent.one_episode(&heard, 1).await.unwrap();

    let filler = disk.fill();
    agent.report(State::Critical);
    wait_for_async("somebody to be told from memory", async || {
        let refused = agent.send().await.unwrap_err();
        assert!(refused.to_string().contains("keep these events and send them again"), "{refused}");
        heard.count("web1", "problem") == 2
    })
    .await;
    let status: Status = alertd.client().get("/v1/status").await.unwrap();
    assert!(status.warnings[0].contains("cannot write to the store"), "{:?}", status.warnings);
    assert_eq!(alertd.metric("alertd_store_up"), Some(0.0));
    let acked: ctl::Incident =
        alertd.client().post("/v1/incidents/2/ack", &ctl::Ack::default()).await.unwrap();
    assert!(acked.ack.is_some());

    fs::remove_file(filler).unwrap();
    wait_for("the store to catch up", || alertd.metric("alertd_store_up") == Some(1.0));
    agent.send_until_acked().await;
    tokio::task::block_in_place(|| {
        alertd.kill();
        alertd.start(None);
    });
    wait_for_async("alertd to answer", async || alertd.client().get::<Status>("/v1/status").await.is_ok())
        .await;
    let status: Status = alertd.client().get("/v1/status").await.unwrap();
    assert!(status.incidents[0].ack.is_some(), "what was decided while the disk was full is durable now");
    agent.report(State::Ok);
    agent.send_until_acked().await;
    wait_for("the recovery", || heard.count("web1", "recovery") == 2);
    assert_eq!(heard.count("web1", "problem"), 2);
    assert_no_faults(&heard);
}

/// Awaits a condition that has to be asked for.
async fn wait_for_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LOST_AFTER, waiting).await.is_ok(), "waited in vain for {what}");
}

/// A tmpfs of 4 MiB; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, loudly, where that is not allowed; a failure where it has to be.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path()).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skip(&format!("the full disk: mounting a tmpfs needs root: {mounted:?}"));
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
