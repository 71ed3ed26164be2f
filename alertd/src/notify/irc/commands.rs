//! The bot's commands and answers. Pure.

use dogwatch_alertd_core::rules::text;
use dogwatch_wire::ctl;
use jiff::tz::TimeZone;

/// A command that starts with `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Ack { number: u64, comment: String },
    Unack { number: u64, comment: String },
    Status,
    OnCall,
    Help,
}

/// Incidents that `!status` lists.
const INCIDENTS_MAX: usize = 3;
/// Schedules that `!oncall` lists.
const SCHEDULES_MAX: usize = 4;

impl Command {
    /// Reads `!ack 4711 looking into it`; the error is the answer to send. `None`: not one of ours,
    /// for example a command for another bot.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let rest = text.strip_prefix('!')?;
        let (verb, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let numbered = |build: fn(u64, String) -> Self| {
            let rest = rest.trim();
            let (number, comment) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let number = number.strip_prefix('#').unwrap_or(number);
            match number.parse() {
                Ok(number) => Ok(build(number, text::line(comment, 300))),
                Err(_) if number.is_empty() => Err(format!(
                    "write !{verb} NUMBER, for example !{verb} 4711; !status lists open incidents"
                )),
                Err(_) => Err(format!(
                    "{:?} is not an incident number; !status lists open incidents",
                    text::line(number, 40)
                )),
            }
        };
        Some(match verb.to_ascii_lowercase().as_str() {
            "ack" => numbered(|number, comment| Self::Ack { number, comment }),
            "unack" => numbered(|number, comment| Self::Unack { number, comment }),
            "status" => Ok(Self::Status),
            "oncall" => Ok(Self::OnCall),
            "help" => Ok(Self::Help),
            _ => return None,
        })
    }

    /// Does it change anything?
    pub fn changes(&self) -> bool {
        matches!(self, Self::Ack { .. } | Self::Unack { .. })
    }
}

pub fn help() -> Vec<String> {
    vec!["!ack NUMBER [comment] · !unack NUMBER · !status · !oncall · !help".into()]
}

pub fn status(status: &ctl::Status) -> Vec<String> {
    let open = &status.incidents;
    if open.is_empty() {
        return vec![format!("all OK: no open incidents, {}", agents(status))];
    }
    let acked = open.iter().filter(|incident| incident.ack.is_some()).count();
    let first =
        format!("{}, {acked} acknowledged, {}", text::plural(open.len(), "open incident"), agents(status));
    let one = |incident: &ctl::Incident| {
        let ack = incident.ack.as_ref();
        let ack =
            ack.map_or(String::new(), |ack| format!(" (acknowledged by {})", text::line(&ack.author, 60)));
        let silenced = if incident.silenced_by.is_empty() { "" } else { " (silenced)" };
        let title = text::line(&incident.title, 160);
        format!("#{} {title}{ack}{silenced}", incident.number)
    };
    let mut lines = vec![first];
    lines.extend(open.iter().take(INCIDENTS_MAX).map(one));
    if open.len() > INCIDENTS_MAX {
        lines.push(format!("… and {} more; run alertctl status", open.len() - INCIDENTS_MAX));
    }
    lines
}

/// One line per schedule: who is on call, until when, and who is next.
pub fn on_call(now: &ctl::OnCall) -> Vec<String> {
    if now.schedules.is_empty() {
        return vec!["no schedules are configured".into()];
    }
    let name = |user: Option<&String>| user.map_or("nobody".to_owned(), |user| text::line(user, 60));
    let one = |schedule: &ctl::OnCallSchedule| {
        let zone = TimeZone::get(&schedule.time_zone).unwrap_or(TimeZone::UTC);
        let until = schedule.until.map(|at| format!(" until {}", text::clock_time(at, &zone)));
        let then = schedule.next.as_ref().map(|next| format!(", then {}", name(next.user.as_ref())));
        let by_hand = if schedule.overridden { " (override)" } else { "" };
        let who = name(schedule.user.as_ref());
        let rest = until.unwrap_or_default() + &then.unwrap_or_default();
        format!("{}: {who}{by_hand}{rest}", text::line(&schedule.name, 60))
    };
    let mut lines: Vec<_> = now.schedules.iter().take(SCHEDULES_MAX).map(one).collect();
    if now.schedules.len() > SCHEDULES_MAX {
        lines.push(format!("… and {} more; run alertctl oncall", now.schedules.len() - SCHEDULES_MAX));
    }
    lines
}

fn agents(status: &ctl::Status) -> String {
    let silent = status.agents.iter().filter(|agent| agent.silent).count();
    let all = text::plural(status.agents.len(), "agent");
    if silent == 0 { all } else { format!("{all}, {silent} silent") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_may_be_typed_sloppily() {
        let ack = |number, comment: &str| Some(Ok(Command::Ack { number, comment: comment.into() }));
        assert_eq!(Command::parse("!ack 4711 looking into it"), ack(4711, "looking into it"));
        assert_eq!(Command::parse("!ACK  #4711 "), ack(4711, ""));
        assert_eq!(
            Command::parse("!unack 1"),
            Some(Ok(Command::Unack { number: 1, comment: String::new() }))
        );
        assert_eq!(Command::parse("!status please"), Some(Ok(Command::Status)));
        for other in ["ack 1", "!weather", "!", "", "!acknowledge 1"] {
            assert_eq!(Command::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn on_call_has_one_line_per_schedule() {
        let at = |text: &str| text.parse().unwrap();
        let (from, until) = (at("2026-11-23T08:00:00Z"), at("2026-11-30T08:00:00Z"));
        let schedule = |user: Option<&str>, next: Option<&str>| ctl::OnCallSchedule {
            name: "primary".into(),
            time_zone: "Europe/Berlin".into(),
            user: user.map(str::to_owned),
            receivers: Vec::new(),
            overridden: user == Some("bob"),
            until: next.map(|_| from),
            next: next.map(|user| ctl::Shift { user: Some(user.into()), from, until }),
            shifts: Vec::new(),
            gaps: Vec::new(),
        };
        let said = |schedules| {
            on_call(&ctl::OnCall { at: from, until, schedules, catch_all: "ops".into() }).join("|")
        };
        assert_eq!(said(Vec::new()), "no schedules are configured");
        assert_eq!(
            said(vec![schedule(Some("ann"), Some("bob"))]),
            "primary: ann until 09:00 Mon 23 Nov 2026 CET, then bob"
        );
        assert_eq!(said(vec![schedule(None, None)]), "primary: nobody");
        assert_eq!(said(vec![schedule(Some("bob"), None)]), "primary: bob (override)");
        assert!(said(vec![schedule(None, None); 9]).ends_with("… and 5 more; run alertctl oncall"));
    }

    #[test]
    fn a_bad_number_gets_a_helpful_answer() {
        let said = |text| Command::parse(text).unwrap().unwrap_err();
        assert!(said("!ack").contains("!ack NUMBER"));
        assert!(said("!unack disk").contains("\"disk\" is not an incident number"));
        assert!(said("!ack -1").contains("\"-1\""));
    }
}
