//! What `alertctl` can be told, and its help: the man page and the completions are made from this.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dogwatch_daemon::duration::Span;

use super::{token::TokenCommand, when::When};

/// Talks to alertd: what is wrong, who knows, who is on it.
///
/// alertd takes your name from the socket, or from your token with --url, so whatever you do is recorded as done by you. Times are shown in this
/// machine's time zone.
#[derive(Debug, Parser)]
#[command(name = "alertctl", version, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// alertd's socket [default: /run/alertd/alertd.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// An alertd on another host, like https://mon1:9093
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Holds the token for --url; see `alertctl token create`
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) of those to believe that --url is that alertd [default: this host's store]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print alertd's answer as JSON, for machines
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  alertd refused, a test notification was not accepted, or a config has problems
  2  wrong usage
  3  alertd cannot be reached, or you may not use its socket
  alertctl health: 0 OK, 1 WARNING, 2 CRITICAL or no answer

Environment:
  ALERTD_SOCKET, ALERTD_URL, ALERTD_TOKEN_FILE, ALERTD_CA_FILE
                 as the options of these names, where they are not given
  NO_COLOR       no colours, even on a terminal

Files:
  ~/.config/dogwatch/alertctl.toml
                 url, token_file, ca_file, or socket, where nothing else says

Examples:
  alertctl status
  alertctl health
  alertctl ack 4711 looking at it
  alertctl ack 4711 --expire 2h restarting the array
  alertctl why 4711
  alertctl send BackupFailed job=nightly -m 'no backup since Tuesday' --for 26h
  alertctl send BackupFailed job=nightly --ok
  alertctl silence host=web1 'service=~disk.*' --for 2h --comment 'disk swap, ticket 88'
  alertctl oncall --week
  alertctl override primary ben --until 18:00 --comment 'ann is on a plane'
  alertctl route test host=web1 service=disk
  alertctl config diff --config new.toml
  alertctl replay --since 24h --config new.toml
  alertctl downtime web1 --from 22:00 --until 02:00 --comment 'new kernel'
  alertctl test-notify oncall
  alertctl backup /var/backups/alertd.db --force";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show open incidents, agents, and what is wrong with alertd itself
    ///
    /// One block an incident, worst and oldest first: its number, state, age, where, who acknowledged, who was told, and
    /// what happens next if nobody acknowledges.
    Status,
    /// Show whether alertd itself is well
    ///
    /// Store, loop, outbox, receivers, auditor, agents, people on call, disk and the dead-man's ping. The first line and the exit
    /// status (0 OK, 1 WARNING, 2 CRITICAL or no answer) are as of a Nagios plugin, so another host can watch this one.
    Health,
    /// Say "I am on it": stops the escalation and the reminders of one incident
    ///
    /// Those who were told of the problem are told that you have it. The ack ends by itself when everything is OK; unless
    /// --sticky, also when a state changes (a WARNING that becomes CRITICAL, a further alert): then the escalation starts
    /// again. It is not a silence: the incident stays open and visible.
    Ack(Ack),
    /// Take an ack back: the escalation goes on
    Unack(Unack),
    /// Explain one incident: how it came about, every decision with its reason, who was told and what came of it
    Why {
        /// The incident's number
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
    /// Mute notifications for everything that matches, for a time; or list and end silences
    ///
    /// Every MATCHER must match: LABEL=VALUE, LABEL!=VALUE, LABEL=~REGEX, LABEL!~REGEX, as in Alertmanager. What is
    /// silenced stays visible in `alertctl status`. When the silence ends and the problem is still there, people are told;
    /// those who know of it are reminded a quarter of an hour before. One that would mute more than 10 hosts, more than 50
    /// firing alerts or all there are is refused unless --broad. Times are of this machine's time zone: "2026-12-24 12:00",
    /// 18:00 (the next one), +2h.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Silence(Silence),
    /// Announce work on a host, or on one service there; or list and cancel downtimes
    ///
    /// While it is in effect its problems are told to nobody; those who know of one already hear that it begins and ends. A
    /// host's downtime covers all its services and the silence of its agent. With --duration it is flexible: it begins with
    /// the first problem between --from and --until, and lasts that long. With --during it comes again with a period.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Downtime(Downtime),
    /// Say that something is wrong, or well again: from a script, a cron job, by hand
    ///
    /// An alert is its NAME and its labels: the same again is the same alert, and says that it still fires. It ends when you say
    /// so with --ok, or after --for without a further word (then alertd says that it is no longer reported, not that all is
    /// well). Routes, silences and people see it like any other.
    Send(Send),
    /// Show what happened, newest first
    History(History),
    /// Show who did what, from where, and what was refused, newest first
    Audit(History),
    /// Write a copy of alertd's store to a file while alertd runs
    ///
    /// Everything that is in it at one moment: incidents, acks, silences, downtimes, overrides, history, tokens (their hashes only),
    /// checked and compared with its SHA-256. alertd makes the copy beside its store first and needs that much room there. FILE
    /// is whole or not there: it is written as FILE.part. The answer says how to restore it. No config and no secret is in it.
    Backup(Backup),
    /// Show who is on call, until when, who comes next, and when nobody is
    Oncall(OnCall),
    /// Put somebody else on call for a while; or list and end overrides
    ///
    /// Counts before the rotation until it ends, and survives restarts. Times are of this machine's time zone: "2026-12-24
    /// 12:00", 18:00 (the next one), +2h, now. The USER `nobody` leaves the schedule empty: then the catch-all is told.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Override(Override),
    /// Send a marked test message to one receiver and wait for what comes of it
    ///
    /// Goes past routes, limits and silences. Use it after every change to a receiver: a pager that was never tried does
    /// not work.
    TestNotify {
        /// The receiver's name in the config: [receiver.NAME.…]
        receiver: String,
    },
    /// Make, list and revoke tokens: who may ask alertd over TCP
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Ask where alerts go
    Route {
        #[command(subcommand)]
        command: RouteCommand,
    },
    /// Show what another config would have sent, beside what was sent
    ///
    /// Takes the transitions, acks, silences and overrides of that time and lets them happen again by the other config, every
    /// receiver taking everything at once.
    Replay(Replay),
    /// Look at the config without touching the running alertd
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Args)]
pub struct Ack {
    /// The incident's number
    #[arg(value_name = "N", value_parser = number)]
    pub number: u64,
    /// What you are doing about it; others will read it
    #[arg(value_name = "COMMENT")]
    pub comment: Vec<String>,
    /// Keep the ack until everything is OK, whatever changes
    #[arg(long)]
    pub sticky: bool,
    /// Take the ack back by itself after this time, like 2h; ten minutes before, you are reminded
    #[arg(long, value_name = "TIME")]
    pub expire: Option<Span>,
}

#[derive(Debug, Args)]
pub struct Send {
    /// What is wrong, as a name: BackupFailed
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Further labels; without host=… it is this host's
    #[arg(value_name = "LABEL=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// One line for whoever is woken: what, how bad, since when
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub summary: Option<String>,
    #[arg(long, value_enum, default_value_t = Severity::Critical)]
    pub severity: Severity,
    /// Where it says what to do
    #[arg(long, value_name = "URL")]
    pub runbook: Option<String>,
    /// It ends after this long unless it is sent again; else after alertd's resolve_timeout (5m)
    #[arg(long = "for", value_name = "TIME", conflicts_with = "ok")]
    pub lasts: Option<Span>,
    /// It is well again
    #[arg(long)]
    pub ok: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Severity {
    Critical,
    Warning,
    Unknown,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let pair = pair.ok_or_else(|| format!("{text:?} is not a label; write NAME=VALUE, like team=db"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

#[derive(Debug, Args)]
pub struct Unack {
    /// The incident's number
    #[arg(value_name = "N", value_parser = number)]
    pub number: u64,
    /// Why; others will read it
    #[arg(value_name = "COMMENT")]
    pub comment: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Silence {
    #[command(subcommand)]
    pub command: Option<SilenceCommand>,
    /// What to mute: LABEL=VALUE, LABEL!=VALUE, LABEL=~REGEX, LABEL!~REGEX
    #[arg(value_name = "MATCHER", required_unless_present = "broad")]
    pub matchers: Vec<String>,
    /// How long, like 2h
    #[arg(long = "for", value_name = "TIME", required_unless_present = "until")]
    pub duration: Option<Span>,
    /// From when [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// Until when
    #[arg(long, value_name = "TIME", conflicts_with = "duration")]
    pub until: Option<When>,
    /// Only while this period of the config is inside, again and again: [period.NAME]
    #[arg(long, value_name = "PERIOD")]
    pub during: Option<String>,
    /// Why; others will read it
    #[arg(long, value_name = "TEXT", required_unless_present = "preview")]
    pub comment: Option<String>,
    /// Only show which firing alerts it would match
    #[arg(long, alias = "dry-run")]
    pub preview: bool,
    /// Yes, that many hosts or alerts
    #[arg(long)]
    pub broad: bool,
}

#[derive(Debug, Args)]
pub struct Downtime {
    #[command(subcommand)]
    pub command: Option<DowntimeCommand>,
    /// The host's name, as `alertctl status` shows it
    #[arg(required = true)]
    pub host: Option<String>,
    /// Only this service
    pub service: Option<String>,
    /// How long, like 2h
    #[arg(long = "for", value_name = "TIME", required_unless_present = "until")]
    pub window: Option<Span>,
    /// From when [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// Until when
    #[arg(long, value_name = "TIME", conflicts_with = "window")]
    pub until: Option<When>,
    /// Flexible: this long, from the first problem on
    #[arg(long, value_name = "TIME", conflicts_with = "during")]
    pub duration: Option<Span>,
    /// Only while this period of the config is inside, again and again: [period.NAME]
    #[arg(long, value_name = "PERIOD")]
    pub during: Option<String>,
    /// What is done; others will read it
    #[arg(long, value_name = "TEXT", required = true)]
    pub comment: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DowntimeCommand {
    /// Show the downtimes that are not over
    List,
    /// End a downtime now, or take one back that is to come
    Cancel {
        /// The downtime's number
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum SilenceCommand {
    /// Show the silences
    List,
    /// End a silence now
    #[command(visible_alias = "expire")]
    End {
        /// The silence's number
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
    /// Move the end of a silence
    Extend {
        /// The silence's number
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
        /// From now, like 2h
        #[arg(long = "for", value_name = "TIME", required_unless_present = "until")]
        duration: Option<Span>,
        /// Until when
        #[arg(long, value_name = "TIME", conflicts_with = "duration")]
        until: Option<When>,
    },
}

#[derive(Debug, Args)]
pub struct OnCall {
    /// At this time, like "2026-12-24 12:00", 18:00 or +2h [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<When>,
    /// Show every shift of the seven days from then
    #[arg(long)]
    pub week: bool,
}

#[derive(Debug, Args)]
pub struct Override {
    #[command(subcommand)]
    pub command: Option<OverrideCommand>,
    /// The schedule's name in the config
    #[arg(required = true)]
    pub schedule: Option<String>,
    /// Who is on call instead, or nobody
    #[arg(required = true)]
    pub user: Option<String>,
    /// From when [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// Until when
    #[arg(long, value_name = "TIME", required = true)]
    pub until: Option<When>,
    /// Why; others will read it
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum OverrideCommand {
    /// Show the overrides that are not over
    List,
    /// End an override now
    End {
        /// The override's number
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
}

#[derive(Debug, Args)]
pub struct History {
    /// How far back
    #[arg(long, default_value = "24h", value_name = "TIME")]
    pub since: Span,
    /// How many entries at most
    #[arg(long, default_value_t = 200, value_name = "COUNT")]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// Where to; - for stdout
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace FILE if it is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// The other config; the drop-ins beside it are read too
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// How far back
    #[arg(long, default_value = "24h", value_name = "TIME")]
    pub since: Span,
    /// Show every notification, not only how many
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Show the way of an alert through the routes, and who would be told now
    ///
    /// Every route that is looked at: `->` matches, `=>` takes the alert. Below it the policy's steps with the people that are
    /// meant now, and by which receivers they are told.
    Test(RouteTest),
}

#[derive(Debug, Args)]
pub struct RouteTest {
    /// The alert's labels, like host=web1 service=disk
    #[arg(value_name = "LABEL=VALUE", required = true, value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// People may have other rules for what is critical
    #[arg(long, value_enum, default_value = "critical")]
    pub state: AskedState,
    /// By this config instead of the running alertd's
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AskedState {
    Critical,
    Warning,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show what a new config would change for the alerts that fire now: old way and new way of each, only where they differ
    Diff {
        /// The new file; the drop-ins beside it are read too
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a config file and its drop-ins: every problem at once, with line and column
    Check {
        /// The file; the drop-ins beside it (alertd.d/*.toml) are read too [default: /etc/dogwatch/alertd.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `host=web1`.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.trim_matches('"').into())),
        _ => Err(format!("{text:?} is not a label; write it like host=web1")),
    }
}

/// `4711` or `#4711`.
fn number(text: &str) -> Result<u64, String> {
    text.strip_prefix('#')
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("{text:?} is not a number; write the one in brackets, like 4711"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_people_type_is_understood() {
        let Command::Ack(ack) = parse("ack #4711 looking at it --expire 2h --sticky").unwrap().command else {
            panic!()
        };
        assert_eq!((ack.number, ack.comment.join(" ").as_str(), ack.sticky), (4711, "looking at it", true));
        assert_eq!(ack.expire, Some(Span::secs(7_200)));
        let Command::Silence(silence) =
            parse("silence host=web1 a!=b --for 2h --comment x --json").unwrap().command
        else {
            panic!()
        };
        assert_eq!(silence.matchers, ["host=web1", "a!=b"]);
        let list = parse("silence list").unwrap().command;
        assert!(matches!(list, Command::Silence(Silence { command: Some(SilenceCommand::List), .. })));
        let end = parse("silence end 7").unwrap().command;
        assert!(matches!(
            end,
            Command::Silence(Silence { command: Some(SilenceCommand::End { number: 7 }), .. })
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_words() {
        for (line, words) in [
            ("ack", "N"),
            ("ack web1", "is not a number"),
            ("ack -- -5", "is not a number"),
            ("ack 0", "is not a number"),
            ("ack 99999999999999999999", "is not a number"),
            ("ack 1 --expire 2", "is not a duration"),
            ("silence host=web1 --comment x", "--for"),
            ("silence host=web1 --for 2h", "--comment"),
            ("silence --for 2h --comment x", "MATCHER"),
            ("silence end", "N"),
            ("silence extend 3", "--for"),
            ("downtime web1 --comment x", "--for"),
            ("downtime --for 2h --comment x", "HOST"),
            ("downtime web1 --for 2h", "--comment"),
            ("downtime web1 --for 2h --duration 1h --during nights --comment x", "--during"),
            ("override primary ben", "--until"),
            ("override primary --until 18:00", "USER"),
            ("override primary ben --until soon", "is not a time"),
            ("route test", "LABEL=VALUE"),
            ("route test web1", "is not a label"),
            ("config diff", "--config"),
            ("oncall --at yesterday", "is not a time"),
            ("history --limit many", "limit"),
            ("backup", "FILE"),
            ("stauts", "status"),
        ] {
            let said = parse(line).unwrap_err().to_string();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["alertctl"].into_iter().chain(line.split(' ')))
    }
}
