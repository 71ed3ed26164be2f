use super::*;
use crate::testing::{lines, run_async};

/// A host whose clocks go on, minute by minute.
struct World {
    past: Past,
    reading: Reading,
}

impl World {
    /// Has been up for an hour.
    fn new(sync: Option<Sync>) -> Self {
        let up = Duration::from_hours(1);
        let clocks = Clocks { wall: Duration::from_secs(1_796_077_900), boot: up, awake: up };
        Self { past: Past::default(), reading: Reading { clocks, sync, portable: false } }
    }

    fn minute(&mut self) -> Vec<String> {
        self.wait(Duration::from_mins(1))
    }

    fn wait(&mut self, span: Duration) -> Vec<String> {
        let clocks = &mut self.reading.clocks;
        clocks.wall += span;
        clocks.boot += span;
        clocks.awake += span;
        let reading = self.reading.clone();
        let limits = Limits {
            offset: Thresholds { warn: Some(Range::above(0.05)), crit: Some(Range::above(0.5)) },
            step: Thresholds { warn: Some(Range::above(1.0)), crit: Some(Range::above(60.0)) },
        };
        let judgement = Judgement::new(move |past| judge(past, &reading, &[], limits));
        lines(&judgement.judge(&mut self.past, self.reading.clocks.boot))
    }

    fn sleep(&mut self, span: Duration) {
        self.reading.clocks.wall += span;
        self.reading.clocks.boot += span;
    }
}

fn chrony(offset: f64) -> Sync {
    Sync { service: "chrony", synchronised: true, offset: Some(offset) }
}

fn lost() -> Sync {
    Sync { service: "chrony", synchronised: false, offset: Some(0.0) }
}

const NO_JUMP: &str = "step OK no jump";

#[test]
fn the_offset_is_judged_in_both_directions() {
    let mut world = World::new(Some(chrony(0.000_121)));
    assert_eq!(world.minute(), ["sync OK synchronised by chrony, 0.121 ms off", NO_JUMP]);
    world.reading.sync = Some(chrony(-0.06));
    assert_eq!(world.minute(), ["sync WARNING synchronised by chrony, 60.000 ms off", NO_JUMP]);
    world.reading.sync = Some(chrony(0.7));
    assert_eq!(world.minute(), ["sync CRITICAL synchronised by chrony, 700.000 ms off", NO_JUMP]);
}

#[test]
fn a_clock_without_a_server_is_a_warning_but_not_just_after_a_boot() {
    let mut world = World::new(Some(lost()));
    let said = ["sync WARNING not synchronised: chrony has no time server", NO_JUMP];
    assert_eq!(world.minute(), said);
    world.reading.clocks.boot = Duration::from_mins(3);
    world.past = Past::default();
    assert!(world.minute()[0].starts_with("sync OK"));
    let mut world = World::new(Some(lost()));
    world.reading.portable = true;
    assert!(world.minute()[0].starts_with("sync OK"), "a laptop on a train");
}

#[test]
fn a_container_without_a_time_service_is_not_judged_but_one_that_had_a_service_is() {
    let mut world = World::new(None);
    assert_eq!(world.minute(), [NO_JUMP]);
    world.reading.sync = Some(chrony(0.0));
    world.minute();
    world.past = world.past.facts_only();
    world.reading.sync = None;
    assert_eq!(world.minute()[0], "sync WARNING not synchronised: no time service answers any more");
}

#[test]
fn a_jump_is_shown_for_ten_minutes() {
    let mut world = World::new(Some(chrony(0.0)));
    world.minute();
    world.reading.clocks.wall += Duration::from_hours(1);
    let jumped = "step CRITICAL the clock jumped forward by 60 min within the last 10 min";
    assert_eq!(world.minute()[1], jumped);
    assert_eq!(world.wait(Duration::from_mins(7))[1], jumped);
    assert_eq!(world.wait(Duration::from_mins(10))[1], NO_JUMP);
    world.reading.clocks.wall -= Duration::from_secs(2);
    assert_eq!(world.minute()[1], "step WARNING the clock jumped back by 2.0 s within the last 10 min");
}

#[test]
fn slewing_is_no_jump() {
    let mut world = World::new(Some(chrony(0.0)));
    for _ in 0..60 {
        // 500 ppm, the most that ntpd does.
        world.reading.clocks.wall += Duration::from_millis(30);
        assert_eq!(world.minute()[1], NO_JUMP);
    }
}

#[test]
fn suspend_is_no_jump_nor_is_the_clock_being_set_after_it() {
    let mut world = World::new(Some(chrony(0.0)));
    world.minute();
    world.sleep(Duration::from_hours(8));
    assert_eq!(world.minute()[1], NO_JUMP);
    world.reading.clocks.wall += Duration::from_secs(5);
    let mut said = Vec::new();
    for _ in 0..30 {
        said.push(world.minute().remove(1));
    }
    assert!(said.iter().all(|line| line.contains("OK")), "{said:?}");
    world.reading.clocks.wall += Duration::from_secs(5);
    assert!(world.minute()[1].contains("WARNING"));
}

#[test]
fn a_board_without_a_clock_that_is_set_after_its_boot_has_not_jumped() {
    let mut world = World::new(Some(lost()));
    world.reading.clocks.boot = Duration::from_mins(1);
    world.reading.clocks.wall = Duration::from_secs(0);
    world.minute();
    world.reading.clocks.wall += Duration::from_secs(1_796_077_900);
    world.reading.sync = Some(chrony(0.0));
    for _ in 0..40 {
        let said = world.minute();
        assert!(said[1].contains("OK"), "{said:?}");
    }
    // After an hour without network.
    let mut world = World::new(Some(lost()));
    world.minute();
    world.reading.clocks.wall += Duration::from_secs(90);
    world.reading.sync = Some(chrony(0.0));
    for _ in 0..9 {
        assert_eq!(world.minute()[1], "step OK the clock was set by +90.0 s, as expected");
    }
    assert_eq!(world.wait(Duration::from_mins(5))[1], NO_JUMP);
}

#[tokio::test]
async fn the_clocks_of_this_host_can_be_read() {
    let result = run_async("time", &[]).await;
    assert_ne!(result.state, State::Unknown, "{}", result.summary);
    let clocks = clock::clocks();
    assert!(clocks.boot >= clocks.awake && clocks.wall > clocks.boot);
}
