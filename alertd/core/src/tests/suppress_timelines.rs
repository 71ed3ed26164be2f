//! Suppressed alerts, and what is sent when the suppression ends. [`play`] explains the notation.

use std::time::Duration;

use super::play::play;
use crate::testing::World;

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);
const FIVE: Duration = Duration::from_secs(5);

/// Email immediately, the pager after five minutes; one incident per service; no waiting.
const TWO_STEPS: &str = r#"
    [alertd]
    settle = "30s"
    [[route]]
    policy = "two"
    group_by = ["host", "service"]
    group_wait = "0s"
    group_interval = "3m"
    repeat_interval = "1d"
    [policy.two]
    step = [{ notify = ["mail"] }, { after = "5m", notify = ["pager"] }]
    [receiver.mail.maildir]
    path = "/m"
    [receiver.pager.maildir]
    path = "/p"
"#;

/// Everything to one mailbox immediately.
const ONE_STEP: &str = r#"
    [alertd]
    settle = "30s"
    [[route]]
    receiver = "mail"
    group_by = ["host", "service"]
    group_wait = "0s"
    group_interval = "3m"
    repeat_interval = "10m"
    [receiver.mail.maildir]
    path = "/m"
"#;

fn with(config: &str, rule: &str) -> String {
    format!("{config}\n{rule}")
}

/// Service and reason of each notification, in order.
fn told(world: &World) -> Vec<String> {
    let line = |heard: &crate::testing::Heard| {
        let told = &heard.notification;
        let alerts = if told.firing.is_empty() { &told.resolved } else { &told.firing };
        let services: Vec<_> =
            alerts.iter().map(|a| format!("{}/{}", a.labels["host"], a.labels["service"])).collect();
        format!("{} {}", services.join(","), told.reason)
    };
    world.heard.iter().map(line).collect()
}

fn withheld(world: &World) -> Vec<String> {
    let open = world.open_incidents();
    let mut all: Vec<_> = open
        .iter()
        .flat_map(|incident| &incident.withheld)
        .map(|w| format!("{} {} {}", w.alert, w.reason, w.by))
        .collect();
    all.sort();
    all
}

#[test]
fn a_silent_host_is_one_page_and_its_services_go_on_where_they_were_once_it_is_back() {
    // Silent in the third minute. The escalation for disk stops until half a minute after the
    // return.
    let web1 = "h q . . . . . . . h . . .";
    let disk = "C . . . . . . . . . . . .";
    let mail = "P . P . . . . . . R . . .";
    let page = ". . . . . . . P . R . . P";
    let inputs = [("web1/disk", disk), ("host web1", web1)];
    let world = play(TWO_STEPS, MINUTE, &inputs, &[("mail", mail), ("pager", page)]);
    assert_eq!(
        told(&world),
        [
            "web1/disk first_notification",
            "web1/agent first_notification",
            "web1/agent escalation_step",
            "web1/agent all_resolved",
            "web1/agent all_resolved",
            "web1/disk escalation_step"
        ]
    );
}

#[test]
fn services_of_a_silent_host_cause_no_reminders_and_recover_at_once_when_it_is_back() {
    let web1 = "h q . . . . . . . . . . . . h .";
    let disk = "C . . . . . . . . . . . . . O .";
    let mail = "P . P . . . . . . . . . M . RR .";
    let world = play(ONE_STEP, MINUTE, &[("web1/disk", disk), ("host web1", web1)], &[("mail", mail)]);
    assert_eq!(world.open_incidents(), []);
}

#[test]
fn what_a_host_reports_when_it_is_back_waits_a_moment_for_its_own_recovery() {
    // Cut off, not down: both problems started while the agent was silent. One ends 20 s after the
    // return.
    let mut web1 = vec!["."; 60];
    (web1[0], web1[1], web1[40]) = ("h", "q", "h");
    let (mut disk, mut swap) = (vec!["."; 60], vec!["."; 60]);
    (disk[30], swap[30], swap[44]) = ("C", "C", "O");
    let mut mail = vec!["."; 60];
    (mail[25], mail[40], mail[46]) = ("P", "R", "P");
    let (web1, disk, swap, mail) = (web1.join(" "), disk.join(" "), swap.join(" "), mail.join(" "));
    let inputs = [("host web1", web1.as_str()), ("web1/disk", &disk), ("web1/swap", &swap)];
    let world = play(ONE_STEP, FIVE, &inputs, &[("mail", &mail)]);
    assert_eq!(told(&world)[2..], ["web1/disk host_back"]);
}

#[test]
fn a_restart_while_a_returned_host_settles_changes_nothing() {
    let mut web1 = vec!["."; 60];
    (web1[0], web1[1], web1[40]) = ("h", "q", "h");
    let (mut disk, mut kill) = (vec!["."; 60], vec!["."; 60]);
    (disk[30], kill[42]) = ("C", "!");
    let mut mail = vec!["."; 60];
    (mail[25], mail[40], mail[46]) = ("P", "R", "P");
    let (web1, disk, kill, mail) = (web1.join(" "), disk.join(" "), kill.join(" "), mail.join(" "));
    let inputs = [("host web1", web1.as_str()), ("web1/disk", &disk), ("process", &kill)];
    play(ONE_STEP, FIVE, &inputs, &[("mail", &mail)]);
}

#[test]
fn an_old_agent_with_the_same_host_name_does_not_suppress_a_reinstalled_host() {
    let mut world = World::new(ONE_STEP, 1);
    world.report("web1", "disk", 'O');
    world.agents_send(None);
    // The old machine never returns; the new one has a different id and the same name.
    world.hosts.get_mut("web1").unwrap().quiet = true;
    world.pass(5 * MINUTE);
    world.rename_agent("web1", "id-new");
    world.hosts.get_mut("web1").unwrap().quiet = false;
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    assert_eq!(told(&world), ["web1/agent first_notification", "web1/disk first_notification"]);
}

const BEHIND_SWITCH: &str = r#"
    [[dependency]]
    of = ["host=~web.*"]
    on = ["host=switch1", "service=ping"]
"#;

#[test]
fn a_dependent_alert_is_notified_only_if_it_remains_after_its_cause_is_over() {
    let ping = ". C . . . . O . .";
    let web1 = ". . C . . . . . .";
    let web2 = ". . C . O . . . .";
    let mail = ". P . . . . RP . ."; // the switch is OK; half a minute later web1
    let config = with(ONE_STEP, BEHIND_SWITCH);
    let inputs = [("switch1/ping", ping), ("web1/http", web1), ("web2/http", web2)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    assert_eq!(
        told(&world),
        ["switch1/ping first_notification", "switch1/ping all_resolved", "web1/http dependency_back"]
    );
}

#[test]
fn a_silent_switch_suppresses_alerts_that_depend_on_its_host() {
    let config = with(ONE_STEP, "[[dependency]]\nof = [\"host=web1\"]\non = [\"host=switch1\"]");
    let switch1 = "h q . . . . . . .";
    let web1 = ". . . C . . . . .";
    let mail = ". . P . . . . . .";
    let inputs = [("host switch1", switch1), ("web1/http", web1)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    assert_eq!(withheld(&world), ["web1/http dependency_down switch1/agent"]);
}

const MAINTENANCE: &str = r#"
    [[inhibit]]
    source = ["service=maintenance"]
    target = ["service!=maintenance"]
    equal = ["host"]
"#;

#[test]
fn receivers_notified_before_an_inhibition_get_only_the_recovery() {
    let disk = "C . . . O .";
    let work = ". C . . . O";
    let mail = "P P . . R R";
    let config = with(ONE_STEP, MAINTENANCE);
    play(&config, MINUTE, &[("web1/disk", disk), ("web1/maintenance", work)], &[("mail", mail)]);
}

#[test]
fn an_alert_that_got_worse_while_inhibited_is_notified_afterwards() {
    let disk = "W . C . . . .";
    let work = ". C . . O . .";
    let mail = "P P . . RU . .";
    let config = with(ONE_STEP, MAINTENANCE);
    let inputs = [("web1/disk", disk), ("web1/maintenance", work)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    assert_eq!(told(&world).last().unwrap(), "web1/disk worsened");
}

#[test]
fn inhibition_is_by_host_and_shown_with_its_reason() {
    let disk = ". C . .";
    let work = "C . . .";
    let mail = "P P . .";
    let config = with(ONE_STEP, MAINTENANCE);
    let inputs = [("web1/disk", disk), ("web2/disk", disk), ("web1/maintenance", work)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    assert_eq!(told(&world), ["web1/maintenance first_notification", "web2/disk first_notification"]);
    assert_eq!(withheld(&world), ["web1/disk inhibited web1/maintenance"]);
}

#[test]
fn a_rule_added_or_removed_by_a_reload_applies_at_once() {
    let mut world = World::new(ONE_STEP, 1);
    world.report("web1", "maintenance", 'C');
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    world.reload(&with(ONE_STEP, MAINTENANCE));
    world.turn(None);
    assert_eq!(withheld(&world), ["web1/disk inhibited web1/maintenance"]);
    world.report("web1", "swap", 'C');
    world.agents_send(None);
    for _ in 0..15 {
        world.pass(MINUTE);
        world.agents_send(None);
    }
    let before = told(&world);
    assert!(before.contains(&"web1/maintenance repeat_interval".to_owned()), "{before:?}");
    assert!(!before.contains(&"web1/disk repeat_interval".to_owned()), "{before:?}");
    world.reload(ONE_STEP);
    world.turn(None);
    world.pass(MINUTE);
    let all = told(&world);
    assert_eq!(all.iter().filter(|line| *line == "web1/swap inhibition_ended").count(), 1, "{all:?}");
}

/// `switch1` could report why `web1` cannot be reached; both were known before the restart.
fn restarted(silent_switch: bool) -> World {
    let mut world = World::new(&with(ONE_STEP, BEHIND_SWITCH), 1);
    for host in ["web1", "web3", "db1", "switch1"] {
        world.report(host, "ping", 'O');
    }
    world.agents_send(None);
    if silent_switch {
        world.hosts.get_mut("switch1").unwrap().quiet = true;
        for _ in 0..3 {
            world.pass(MINUTE);
            world.agents_send(None);
        }
        world.heard.clear();
    }
    world.restart();
    world
}

#[test]
fn after_a_restart_a_target_waits_for_the_host_that_could_report_its_cause() {
    let mut world = restarted(false);
    world.hosts.get_mut("switch1").unwrap().quiet = true;
    world.report("web1", "http", 'C');
    world.report("db1", "http", 'C');
    world.agents_send(None);
    assert_eq!(told(&world), ["db1/http first_notification"], "db1 depends on nothing");
    assert_eq!(withheld(&world), ["web1/http settling agents that have not reported since the start"]);
    world.pass(10 * SECOND);
    world.hosts.get_mut("switch1").unwrap().quiet = false;
    world.report("switch1", "ping", 'C');
    world.agents_send(None);
    world.pass(MINUTE);
    assert_eq!(told(&world), ["db1/http first_notification", "switch1/ping first_notification"]);
}

#[test]
fn the_wait_after_a_restart_ends_when_that_host_reports_or_after_the_settle_time() {
    for (speaks, at) in [(true, 10), (false, 30)] {
        let mut world = restarted(false);
        world.hosts.get_mut("switch1").unwrap().quiet = true;
        world.report("web1", "http", 'C');
        world.agents_send(None);
        world.pass((at - 1) * SECOND);
        assert_eq!(told(&world), [""; 0]);
        world.pass(SECOND);
        world.hosts.get_mut("switch1").unwrap().quiet = !speaks;
        world.agents_send(None);
        world.turn(None);
        assert_eq!(told(&world), ["web1/http first_notification"], "{at}");
    }
}

#[test]
fn after_a_restart_nothing_waits_for_a_host_that_was_silent_before() {
    let config = with(ONE_STEP, BEHIND_SWITCH);
    assert!(config.contains("service=ping"), "a silent agent alone is not a source of this rule");
    let mut world = restarted(true);
    world.report("web1", "http", 'C');
    world.agents_send(None);
    assert_eq!(told(&world), ["web1/http first_notification"]);
}

#[test]
fn what_is_withheld_alone_in_an_incident_that_recovered_begins_at_the_first_step() {
    // One incident for the host. Notifications for the silent agent and its recovery; then disk
    // still fails.
    let config = TWO_STEPS.replace("group_by = [\"host\", \"service\"]", "group_by = [\"host\"]");
    let web1 = "h q . . . . . . . h . . . . . . .";
    let disk = ". . . . . C . . . . . . . . . . .";
    let mail = ". . P . . . . . . RP . . . . . . .";
    let page = ". . . . . . . P . R . . . . P . .";
    let inputs = [("web1/disk", disk), ("host web1", web1)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail), ("pager", page)]);
    assert_eq!(told(&world)[4], "web1/disk host_back");
}

#[test]
fn receivers_of_two_problems_are_notified_that_one_is_over_while_the_other_is_suppressed() {
    let config = ONE_STEP.replace("group_by = [\"host\", \"service\"]", "group_by = [\"host\"]");
    let config = with(&config, "[[inhibit]]\nsource = [\"service=net\"]\ntarget = [\"host=web1\"]");
    let disk = "C . . . O . . . . .";
    let swap = "W . . . . . . . O .";
    let net = ". . C . . . . . . .";
    let mail = "P . P . U . . . R .";
    let inputs = [("web1/disk", disk), ("web1/swap", swap), ("web2/net", net)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    let update = &world.heard[2].notification;
    assert_eq!((update.resolved.len(), update.firing.len(), update.reason.as_str()), (1, 1, "some_resolved"));
}

/// The world starts at 01:46:40 UTC; muted from 3 min 20 s until 8 min 20 s.
fn quiet_hours(config: &str, route: &str) -> String {
    let config = config.replacen("[[route]]", &format!("[[route]]\n{route}"), 1);
    with(&config, "[period.quiet]\ntime_zone = \"UTC\"\nhours = [\"01:50-01:55\"]")
}

#[test]
fn alerts_in_a_muted_period_are_notified_when_it_ends_unless_they_are_over() {
    let config = quiet_hours(ONE_STEP, "mute_during = [\"quiet\"]");
    let disk = ". . . . C . . . . . .";
    let swap = ". . . . C . O . . . .";
    let mail = ". . . . . . . . P . .";
    let world = play(&config, MINUTE, &[("web1/disk", disk), ("web1/swap", swap)], &[("mail", mail)]);
    assert_eq!(told(&world), ["web1/disk mute_ended"]);
    assert_eq!(world.heard[0].notification.created_at.to_string(), "2001-09-09T01:55:00Z");
}

#[test]
fn a_recovery_is_notified_in_a_muted_period_and_a_restart_changes_nothing() {
    let config = quiet_hours(ONE_STEP, "mute_during = [\"quiet\"]");
    let disk = "C . . . . . O . . . .";
    let swap = ". . . . . C . . . . .";
    let kill = ". . . . . . ! . ! . .";
    let mail = "P . . . . . R . P . .";
    let inputs = [("process", kill), ("web1/disk", disk), ("web1/swap", swap)];
    play(&config, MINUTE, &inputs, &[("mail", mail)]);
}

#[test]
fn the_policys_clock_stands_still_in_a_muted_period() {
    let config = quiet_hours(TWO_STEPS, "mute_during = [\"quiet\"]");
    let disk = "C . . . . . . . . . . .";
    let mail = "P . . . . . . . . . . .";
    let page = ". . . . . . . . . . P .";
    let world = play(&config, MINUTE, &[("web1/disk", disk)], &[("mail", mail), ("pager", page)]);
    // 5 min from 01:46:40, not counting the 5 min from 01:50.
    assert_eq!(world.heard[1].notification.created_at.to_string(), "2001-09-09T01:56:40Z");
}

#[test]
fn a_route_active_in_a_period_notifies_only_then() {
    let config = quiet_hours(ONE_STEP, "active_during = [\"quiet\"]");
    let disk = "C . . . . . . . . . . .";
    let swap = ". . . . . . . . . C . .";
    let mail = ". . . P . . . . . . . .";
    let inputs = [("web1/disk", disk), ("web1/swap", swap)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    assert_eq!(
        withheld(&world),
        ["web1/disk muted outside period quiet", "web1/swap muted outside period quiet"]
    );
}

#[test]
fn a_route_inherits_muted_periods_and_may_override_them() {
    let child = "mute_during = [\"quiet\"]\n[[route.route]]\nmatch = [\"service=raid\"]\nmute_during = []\n[[route.route]]\nmatch = [\"service=swap\"]\n";
    let config = with(ONE_STEP, "[period.quiet]\ntime_zone = \"UTC\"\nhours = [\"01:50-01:55\"]");
    let config = config.replacen("[receiver.mail", &format!("{child}[receiver.mail"), 1);
    let fires = ". . . . C . . . . . .";
    let mail = ". . . . P . . . P . .";
    let world = play(&config, MINUTE, &[("web1/raid", fires), ("web1/swap", fires)], &[("mail", mail)]);
    assert_eq!(told(&world), ["web1/raid first_notification", "web1/swap mute_ended"]);
}

#[test]
fn a_muted_period_removed_by_a_reload_is_over() {
    let config = quiet_hours(ONE_STEP, "mute_during = [\"quiet\"]");
    let mut world = World::new(&config, 1);
    world.pass(4 * MINUTE);
    world.report("web1", "disk", 'C');
    world.agents_send(None);
    assert_eq!(withheld(&world), ["web1/disk muted period quiet"]);
    world.reload(ONE_STEP);
    world.turn(None);
    assert_eq!(told(&world), ["web1/disk mute_ended"]);
}

#[test]
fn a_silent_host_is_notified_at_once_in_an_incident_already_notified() {
    let config = ONE_STEP.replace("group_by = [\"host\", \"service\"]", "group_by = [\"host\"]");
    let config = config.replace("group_interval = \"3m\"", "group_interval = \"30m\"");
    let web1 = "h q . . .";
    let disk = "C . . . .";
    let mail = "P . U . .";
    let inputs = [("web1/disk", disk), ("host web1", web1)];
    let world = play(&config, MINUTE, &inputs, &[("mail", mail)]);
    assert_eq!(told(&world)[1], "web1/agent new_alerts");
}
