use std::{path::PathBuf, time::Duration};

use dogwatch_alertd_core::{LOCAL_RECEIVER, rules::route::Timing};

use super::Config;

fn said(text: &str) -> Vec<String> {
    let problems = Config::from_text(text).err();
    problems.map_or(Vec::new(), |all| all.0.iter().map(ToString::to_string).collect())
}

#[test]
fn without_a_config_everything_reaches_a_local_maildir() {
    let config = Config::from_text("").unwrap();
    let ways = config.rules.routes.matches_for(&[("host".into(), "web1".into())].into());
    assert_eq!(ways.len(), 1);
    let policy = &config.rules.policies[&ways[0].policy];
    assert_eq!(policy.steps[0].notify, [LOCAL_RECEIVER]);
    assert!(config.rules.receivers.contains_key(LOCAL_RECEIVER));
    assert_eq!(config.socket, PathBuf::from("/run/alertd/alertd.sock"));
}

#[test]
fn every_problem_is_said_at_once_with_its_place_and_what_was_meant() {
    let said = said(
        r#"
[alertd]
metrics = "localhost"
[[route]]
match = ["host=~("]
policy = "oncal"
[[route.route]]
receiver = "pagr"
[[route]]
policy = "oncall"
receiver = "pager"
[policy.oncall]
repeat_every = "1m"
step = [{ after = "5m", notify = ["pager"] }, { after = "2m", notify = ["mial"] }, { notify = [] }]
[policy."on call"]
step = []
[receiver.pager]
fallback = "mail"
rate = { burst = 1, every = "0s" }
[receiver.pager.maildir]
path = "/p"
[receiver.mail]
fallback = "pager"
[receiver.mail.maildir]
path = "/m"
"#,
    );
    let expected = [
        "3:11: metrics: \"localhost\" is not an address",
        "5:10: match: \"(\" is not a regular expression",
        "6:10: there is no policy \"oncal\"; did you mean \"oncall\"?",
        "8:12: there is no receiver \"pagr\"; did you mean \"pager\"?",
        "10:10: a route can have a policy or a receiver, not both",
        "13:16: repeat_every must be longer than the last step's after",
        "14:47: after = 2m follows 5m, but after counts from the start",
        "14:73: there is no receiver, user or schedule \"mial\"; did you mean \"mail\"?",
        "14:84: this step notifies nobody",
        "14:84: after = 0s follows 2m, but after counts from the start",
        "15:9: policy \"on call\": names may contain letters",
        "18:12: fallback of \"pager\" leads back to itself",
        "19:29: rate: every must be longer than 0s",
        "23:12: fallback of \"mail\" leads back to itself",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(&format!("alertd.toml:{expected}")), "{said}\nbut expected {expected}");
    }
}

#[test]
fn rates_are_of_receivers_users_and_all_and_a_reserve_leaves_something_for_the_rest() {
    let text = r#"
[alertd]
rate = { burst = 100, every = "1s" }
[user.ann]
rules = [{ notify = ["pager", "chat"] }]
rate = { burst = 8, every = "1m", reserve = 5 }
[user.ben]
rules = [{ notify = ["chat"] }]
[receiver.pager]
rate = { burst = 120, every = "500ms" }
[receiver.pager.maildir]
path = "/p"
[receiver.chat.maildir]
path = "/c"
"#;
    let rules = Config::from_text(text).unwrap().rules;
    let shown = |rate: dogwatch_alertd_core::rules::ratelimit::Rate| {
        (rate.burst.get(), rate.every.as_millis(), rate.reserve)
    };
    assert_eq!(rules.rate.map(shown), Some((100, 1_000, 25)));
    assert_eq!(shown(rules.users["ann"].rate), (8, 60_000, 5));
    assert_eq!(shown(rules.users["ben"].rate), (15, 20_000, 4));
    assert_eq!(shown(rules.receivers["pager"].rate), (120, 500, 30));
    assert_eq!(shown(rules.receivers["chat"].rate), (10, 30_000, 3));
    let said = said(&text.replace("reserve = 5", "reserve = 8").replace("[alertd]\nrate", "[alertd]\nraet"));
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].contains("3:1: unknown field `raet`"), "{said:#?}");
    assert!(said[1].starts_with("alertd.toml:6:45: rate: reserve 8 must be less than burst 8"), "{said:#?}");
}

#[test]
fn people_and_their_schedules_are_read_and_what_is_wrong_with_them_is_said_with_what_was_meant() {
    let said = said(
        r#"
[alertd]
catch_all = "primary"
[policy.default]
step = [{ notify = ["primry"] }, { notify = ["zzzzzzzzzz"] }]
[user.ann]
rules = [{ notify = ["pager"] }, { after = "5m", notify = ["primary"] }]
email = "ann@example.org"
[user.ben]
[user.nobody]
rules = [{ notify = ["pager"] }]
[user.pager]
rules = [{ notify = ["pager"] }]
[receiver.pager.maildir]
path = "/p"
[schedule.primary]
time_zone = "Europe/Berln"
[[schedule.primary.layer]]
users = ["anna", "ben"]
rotate = "biweekly"
[[schedule.primary.layer]]
users = []
since = "soon"
hours = ["mon-fri 9-17"]
[schedule.ann]
time_zone = "UTC"
[[schedule.ann.override]]
user = "bena"
from = "2026-01-01 09:00"
until = "2026-01-01 08:00"
"#,
    );
    let expected = [
        "3:13: catch_all cannot be a schedule",
        "5:21: there is no receiver, user or schedule \"primry\"; did you mean \"primary\"?",
        "5:46: there is no receiver, user or schedule \"zzzzzzzzzz\"; define [receiver.zzzzzzzzzz], [user.zz",
        "7:60: there is no receiver \"primary\"; define it with [receiver.primary]",
        "8:9: email is set, but no rule of user \"ann\" names an email receiver",
        "9:7: user \"ben\" has no rules; add rules",
        "10:7: user \"nobody\": this name is reserved",
        "12:7: \"pager\" is also the name of a receiver; rename the user or the receiver",
        "17:13: there is no time zone \"Europe/Berln\"; did you mean \"Europe/Berlin\"?",
        "18:1: with several users, since is required",
        "19:10: there is no user \"anna\"; did you mean \"ann\"?",
        "20:10: rotate: \"biweekly\" is not a rotation",
        "21:1: this layer has no users",
        "23:9: since: \"soon\" is not a time",
        "24:10: \"mon-fri 9-17\" is not a time of the week",
        "25:11: \"ann\" is also the name of a user",
        "25:11: schedule \"ann\" has no layers",
        "28:8: there is no user \"bena\"; did you mean \"ben\"?",
    ];
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(&format!("alertd.toml:{expected}")), "{said}\nbut expected {expected}");
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");
}

#[test]
fn a_users_own_address_is_a_receiver_of_its_own_and_the_catch_all_needs_no_word() {
    let text = r#"
        [policy.default]
        step = [{ notify = ["primary"] }, { after = "5m", notify = ["ann"] }]
        [user.ann]
        email = "Ann <ann@example.org>"
        rules = [{ notify = ["mail", "chat"] }]
        [schedule.primary]
        time_zone = "Europe/Berlin"
        [[schedule.primary.layer]]
        users = ["ann"]
        hours = ["mon-fri 09:00-17:00"]
        [receiver.mail]
        fallback = "chat"
        [receiver.mail.email]
        to = ["ops@example.org"]
        [receiver.chat.maildir]
        path = "/c"
    "#;
    let config = Config::from_text(text).map_err(|problems| problems.to_string()).unwrap();
    assert_eq!(config.rules.users["ann"].rules[0].notify, ["mail/ann", "chat"]);
    assert_eq!(config.rules.receivers["mail/ann"], config.rules.receivers["mail"]);
    assert_eq!(config.rules.catch_all, "ann", "the first target of policy default that is not a schedule");
    let config = Config::from_text(&text.replace(", { after = \"5m\", notify = [\"ann\"] }", "")).unwrap();
    assert_eq!(config.rules.catch_all, LOCAL_RECEIVER);
    let said = said(&text.replace("ann@example.org", "ann at home"));
    assert!(said[0].contains("is not an email address"), "{said:?}");
}

#[test]
fn a_route_inherits_what_it_does_not_say() {
    let config = Config::from_text(
        r#"
            [[route]]
            group_by = ["team"]
            repeat_interval = "1d"
            receiver = "local"
            [[route.route]]
            match = ["host=db1"]
            group_wait = "9s"
            "#,
    )
    .unwrap();
    let way = &config.rules.routes.matches_for(&[("host".into(), "db1".into())].into())[0];
    assert_eq!((way.policy.as_str(), way.timing.group_wait), ("receiver local", Duration::from_secs(9)));
    assert_eq!(way.timing.repeat_interval, Duration::from_hours(24));
    assert_eq!(way.timing.group_interval, Timing::DEFAULT.group_interval);
    assert_eq!(way.group, [("team".to_owned(), String::new())].into());
}

#[test]
fn the_packaged_example_is_right_as_it_stands_and_with_everything_uncommented() {
    let text = include_str!("../../../packaging/etc/alertd.toml");
    assert_eq!(said(text), Vec::<String>::new());
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(code) if code.starts_with('[') || code.split(' ').nth(1) == Some("=") => code.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<_> = text.lines().map(uncomment).collect();
    let text = lines.join("\n").replace("/etc/dogwatch/pagerduty.key", key.to_str().unwrap());
    let config = Config::from_text(&text).map_err(|problems| problems.to_string()).unwrap();
    assert_eq!(config.rules.policies["default"].steps.len(), 2);
    assert_eq!(config.rules.receivers["pager"].fallback.as_deref(), Some("ops"));
    assert_eq!(config.rules.routes.children.len(), 1);
    assert_eq!(config.rules.inhibit.len(), 2);
}

#[test]
fn rules_of_inhibition_need_both_sides_and_say_where_they_are_wrong() {
    let said = said(
        r#"
[alertd]
settle = "soon"
[[inhibit]]
source = []
target = ["host=~("]
[[dependency]]
of = ["host=web1"]
on = ["switch1"]
"#,
    );
    let expected = [
        "3:10: ",
        "5:10: source is empty",
        "6:11: target: \"(\" is not",
        "9:7: on: \"switch1\" is not a matcher",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(&format!("alertd.toml:{expected}")), "{said}\nbut expected {expected}");
    }
}

#[test]
fn periods_say_what_is_wrong_with_each_entry_and_routes_know_their_names() {
    let said = said(
        r#"
[[route]]
mute_during = ["nigths"]
[period.nights]
time_zone = "Europe/Berlim"
hours = ["22:00-07:00", "9-17", "08:00-24:01", "12:00-12:00"]
weekdays = ["mo", "fri-mon"]
days = ["0", "32", "-1..-3", "-1..5", "5..2", "1..-1"]
months = ["jan-foo"]
years = ["2028-2027", "0"]
[period.never]
time_zone = "UTC"
[period.both]
time_zone = "UTC"
hours = ["08:00-09:00"]
any = [{ weekdays = ["sat"] }, {}]
"#,
    );
    let all = said.join("\n");
    for words in [
        "3:16: there is no period \"nigths\"; did you mean \"nights\"?",
        "5:13: there is no time zone \"Europe/Berlim\"; did you mean \"Europe/Berlin\"?",
        "6:10: hours: \"22:00-07:00\" crosses midnight; split it into \"22:00-24:00\" and \"00:00-07:00\"",
        "6:25: hours: \"9-17\" is not a time range",
        "6:33: hours: \"08:00-24:01\" is not a time range",
        "6:48: hours: \"12:00-12:00\" ends when it begins",
        "7:13: weekdays: \"mo\" is not a weekday",
        "8:9: days: \"0\" is not a day of the month",
        "8:14: days: \"32\" is not a day",
        "8:20: days: \"-1..-3\" ends before it begins",
        "8:30: days: \"-1..5\" ends before it begins",
        "8:39: days: \"5..2\" ends before it begins",
        "9:11: months: \"jan-foo\" is not a month",
        "10:10: years: \"2028-2027\" is not a year",
        "10:23: years: \"0\" is not a year",
        "11:9: period \"never\" is empty",
        "13:9: period \"both\" has both any and fields next to it",
        "16:32: this entry is empty and would always be in effect",
    ] {
        assert!(all.contains(&format!("alertd.toml:{words}")), "{words}\nis not in\n{all}");
    }
    assert_eq!(said.len(), 18, "{all}");
}
