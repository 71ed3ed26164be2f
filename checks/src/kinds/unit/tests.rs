use super::*;
use crate::{
    Judgement, Options,
    kinds::unit::{KIND, enabled},
    options,
    read::systemctl,
    root::Root,
    testing::lines,
};

/// A host over time.
struct World {
    units: Vec<Unit>,
    enabled: Vec<(String, &'static str)>,
    settings: std::sync::Arc<Settings>,
    past: Past,
    now: Duration,
}

impl World {
    /// The captured host.
    fn captured() -> Self {
        let root = Root::captured(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/units"));
        Self {
            units: systemctl::parse(include_str!("../../../tests/fixtures/units/show.txt")),
            enabled: enabled(&root),
            ..Self::with(Vec::new())
        }
    }

    fn with(mut units: Vec<Unit>) -> Self {
        units.push(Unit { id: "multi-user.target".into(), active: "active".into(), ..Unit::default() });
        Self {
            units,
            enabled: Vec::new(),
            settings: settings(&[]),
            past: Past::default(),
            now: Duration::from_millis(14_293_620),
        }
    }

    fn configured(self, options: &[(&str, &str)]) -> Self {
        Self { settings: settings(options), ..self }
    }

    fn look(&mut self) -> Findings {
        let reading = Reading {
            units: self.units.clone(),
            enabled: self.enabled.clone(),
            monotonic: self.now,
            unix: 1_796_077_190,
        };
        let settings = self.settings.clone();
        Judgement::new(move |past| judge(&reading, &settings, past)).judge(&mut self.past, self.now)
    }

    fn after(&mut self, span: Duration) -> Vec<String> {
        self.now += span;
        lines(&self.look())
    }
}

fn settings(options: &[(&str, &str)]) -> std::sync::Arc<Settings> {
    let options: Options = options.iter().copied().collect();
    let mut reader = options::Reader::new(&options, KIND.options);
    let settings = crate::kinds::unit::settings(&mut reader);
    assert!(reader.into_errors().is_empty());
    settings.into()
}

fn service(id: &str) -> Unit {
    let text = |text: &str| text.to_owned();
    Unit {
        id: text(id),
        load: text("loaded"),
        active: text("active"),
        sub: text("running"),
        result: text("success"),
        entered: Duration::from_secs(10),
        wanted: true,
        ..Unit::default()
    }
}

fn failed(id: &str) -> Unit {
    Unit {
        active: "failed".into(),
        sub: "failed".into(),
        result: "exit-code".into(),
        exit_status: 1,
        ..service(id)
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_real_host_with_broken_services_is_judged() {
    let findings = World::captured().look();
    let mut said = lines(&findings);
    said.sort();
    assert_eq!(
        said,
        [
            "crash.service CRITICAL failed: exited with status 1",
            "cron.service OK running",
            "ended.service OK not running; it ended by itself 1 s after its start",
            "job.service WARNING failed: exited with status 1",
            "killed.service WARNING failed: exited with status 2",
            "limit.service CRITICAL failed after 7 restarts: exited with status 1",
            "loop.service WARNING not running, waits for its restart: exited with status 3",
            "slow.service WARNING failed: timed out",
            "stopped.service OK stopped on request",
            "tmpl@a.service OK running",
            "tmpl@b.service OK running",
            "web.service OK running",
        ]
    );
    let lasting = |thing: &str| {
        findings.list.iter().find(|finding| finding.thing.as_deref() == Some(thing)).unwrap().lasting
    };
    assert_eq!(lasting("crash.service"), Some(Duration::ZERO));
    assert_eq!(lasting("limit.service"), Some(MINUTE), "a unit with Restart=");
}

#[test]
fn a_failed_unit_gets_one_ok_and_then_ends() {
    let mut world = World::with(vec![failed("job.service")]);
    assert_eq!(world.after(MINUTE), ["job.service CRITICAL failed: exited with status 1"]);
    world.units[0] = Unit { active: "activating".into(), oneshot: true, ..service("job.service") };
    assert_eq!(world.after(MINUTE), ["job.service CRITICAL is starting again after a problem"]);
    world.units.remove(0);
    assert_eq!(world.after(MINUTE), ["job.service OK no longer failed"]);
    assert_eq!(world.after(MINUTE), [""; 0]);
}

#[test]
fn what_can_wait_is_a_warning() {
    let state = |unit: Unit| World::with(vec![unit]).look().list[0].result.state;
    assert_eq!(state(failed("db.service")), State::Critical);
    assert_eq!(state(Unit { oneshot: true, ..failed("db.service") }), State::Warning);
    assert_eq!(state(Unit { triggered_by: "a.timer".into(), ..failed("a.service") }), State::Warning);
    assert_eq!(state(failed("user@1000.service")), State::Warning);
    assert_eq!(state(Unit { triggered_by: "ssh.socket".into(), ..failed("ssh@1.service") }), State::Warning);
    assert_eq!(state(Unit { wanted: false, ..failed("packagekit.service") }), State::Warning);
    assert_eq!(state(Unit { required: true, ..failed("srv.mount") }), State::Critical);
    assert_eq!(state(failed("mnt-usb.mount")), State::Warning, "nofail: only wanted");
    assert_eq!(state(failed("ssh.socket")), State::Critical);
    assert_eq!(state(failed("run-r1.scope")), State::Warning);
}

#[test]
fn a_restart_loop_is_noticed_and_a_counter_that_goes_back_is_not_a_restart() {
    let running = |restarts| Unit { restarts_itself: true, restarts, ..service("a.service") };
    let mut world = World::with(vec![running(50)]);
    world.enabled = vec![("a.service".into(), "multi-user.target")];
    assert_eq!(world.after(MINUTE), ["a.service OK running"], "restarts before the first look");
    world.units[0] = running(52);
    assert_eq!(world.after(MINUTE), ["a.service OK running"]);
    world.units[0] = running(53);
    assert_eq!(world.after(MINUTE), ["a.service WARNING restarted 3 times within 10 minutes"]);
    world.units[0] = running(60);
    assert_eq!(world.after(MINUTE), ["a.service CRITICAL restarted 10 times within 10 minutes"]);
    world.units[0] = running(0);
    assert_eq!(world.after(MINUTE), ["a.service OK running"], "restarted by hand");
    world.units[0] = running(2);
    assert_eq!(world.after(MINUTE), ["a.service OK running"]);
}

#[test]
fn a_service_that_ends_on_purpose_and_starts_again_is_no_restart_loop() {
    let mut world = World::with(vec![Unit { restarts_itself: true, ..service("poll.service") }]);
    world.enabled = vec![("poll.service".into(), "multi-user.target")];
    for round in 0..20 {
        world.units[0].restarts = round;
        let (active, sub) =
            if round % 2 == 0 { ("activating", "auto-restart") } else { ("active", "running") };
        (world.units[0].active, world.units[0].sub) = (active.into(), sub.into());
        assert!(world.after(MINUTE)[0].starts_with("poll.service OK"), "{round}");
    }
}

#[test]
fn named_units_must_be_active() {
    let mut world = World::captured().configured(&[
        ("units", "web"),
        ("units", "stopped"),
        ("units", "cond"),
        ("units", "gone"),
        ("units", "tmpl@*"),
        ("units", "nothing*"),
        ("units", "job"),
    ]);
    let said = lines(&world.look());
    for line in [
        "web.service OK running",
        "stopped.service CRITICAL stopped on request",
        "cond.service CRITICAL not started: a condition of the unit does not hold",
        "gone.service CRITICAL no unit has this name",
        "tmpl@a.service OK running",
        "nothing* CRITICAL no unit has this name",
        "job.service CRITICAL failed: exited with status 1",
    ] {
        assert!(said.iter().any(|said| said == line), "{line} in {said:#?}");
    }
}

#[test]
fn an_alias_is_a_name() {
    let mut unit = service("mariadb.service");
    unit.names = vec!["mariadb.service".into(), "mysql.service".into()];
    let mut world = World::with(vec![unit]).configured(&[("units", "mysql")]);
    assert_eq!(lines(&world.look()), ["mysql.service OK running"]);
}

#[test]
fn an_enabled_service_that_ended_after_a_long_run_is_a_warning_unless_ignored() {
    let seconds = Duration::from_secs;
    let mut ended = Unit { active: "inactive".into(), sub: "dead".into(), ..service("a.service") };
    (ended.exited, ended.left) = (seconds(5_000), seconds(5_001));
    let world = |unit: &Unit, options: &[(&str, &str)]| {
        let mut world = World::with(vec![unit.clone()]).configured(options);
        world.enabled = vec![("a.service".into(), "multi-user.target")];
        let findings = world.look();
        (lines(&findings).join(""), findings.list.first().and_then(|finding| finding.lasting))
    };
    let said = "a.service WARNING not running; it ended by itself 83 min after its start";
    assert_eq!(world(&ended, &[]), (said.into(), Some(5 * MINUTE)));
    assert!(world(&ended, &[("stopped", "ignore")]).0.starts_with("a.service OK"));
    let never =
        Unit { entered: Duration::ZERO, left: Duration::ZERO, exited: Duration::ZERO, ..ended.clone() };
    assert_eq!(world(&never, &[]).0, "a.service WARNING enabled, but not started since boot");
    assert_eq!(world(&Unit { triggered_by: "a.socket".into(), ..never.clone() }, &[]).0, "");
    assert_eq!(world(&Unit { condition_failed: true, ..never.clone() }, &[]).0, "");
    assert_eq!(world(&Unit { oneshot: true, ..never }, &[]).0, "");
}

#[test]
fn excluded_units_are_listed_as_not_watched() {
    let mut world = World::captured().configured(&[("exclude", "crash.service"), ("ignore", "l*")]);
    let findings = world.look();
    let blind: Vec<_> = findings.blind.iter().map(|blind| blind.thing.as_str()).collect();
    assert_eq!(blind, ["crash.service", "limit.service", "loop.service"]);
    assert_eq!(findings.blind[0].why, "excluded by exclude = \"crash.service\"");
    assert!(!lines(&findings).iter().any(|line| line.starts_with("crash")));
}

#[test]
fn hundreds_of_failed_instances_become_one_service() {
    let mut units: Vec<_> = (0..300).map(|at| failed(&format!("fetch@{at}.service"))).collect();
    units.extend((0..1_000).map(|at| failed(&format!("run-r{at}.scope"))));
    let findings = World::with(units).look();
    assert!(findings.list.len() <= UNITS_MAX + 2, "{}", findings.list.len());
    let said = lines(&findings);
    assert!(said[0].starts_with("fetch@*.service CRITICAL 300 units have a problem: "), "{}", said[0]);
}

#[test]
fn a_timer_is_late_after_two_periods() {
    let hours = Duration::from_hours;
    let mut unit = Unit { sub: "waiting".into(), ..service("backup.timer") };
    unit.timer.period = Some(hours(24));
    unit.timer.last_monotonic = Some(hours(10));
    let said = |unit: &Unit, up| {
        let mut world = World::with(vec![unit.clone()]);
        world.now = up;
        lines(&world.look()).join("")
    };
    assert_eq!(said(&unit, hours(57)), "");
    assert_eq!(
        said(&unit, hours(59)),
        "backup.timer WARNING last triggered 2 days ago, more than two periods"
    );
    unit.sub = "running".into();
    assert_eq!(
        said(&unit, hours(90)),
        "backup.timer WARNING its job has been running for 3 days, longer than two periods"
    );
    // Switched off for a month, then on again.
    unit.sub = "waiting".into();
    unit.timer.last_monotonic = None;
    unit.timer.last_wall = Some(1_796_077_190 - 30 * 86_400);
    assert_eq!(said(&unit, hours(2)), "", "not persistent: it waits for its time");
    unit.timer.persistent = true;
    assert_eq!(said(&unit, Duration::from_mins(30)), "");
    assert_eq!(
        said(&unit, hours(2)),
        "backup.timer WARNING last triggered 30 days ago, more than two periods"
    );
}
