//! The command line of `alertctl`: commands, options and help texts.
//!
//! Man pages and shell completions are generated from these definitions. Long help texts are marked
//! `verbatim_doc_comment`, because clap would join their lines; keep them within 78 columns.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dogwatch_daemon::duration::Span;

use super::{token::TokenCommand, when::When};

/// Query and control alertd
///
/// Show open incidents, acknowledge them, silence alerts, schedule downtimes
/// and see who is on call.
///
/// alertd knows you by your login name on its socket, or by the name of your
/// token with --url, and records that name with every change you make. Times
/// are shown in the time zone of this host.
#[derive(Debug, Parser)]
#[command(name = "alertctl", version, verbatim_doc_comment, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// Unix socket of alertd [default: /run/alertd/alertd.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = GLOBAL)]
    pub socket: Option<PathBuf>,
    /// URL of an alertd on another host, such as https://mon1:9093
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub url: Option<String>,
    /// File with the token for --url
    ///
    /// Create a token with `alertctl token create`.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CA certificates to trust for --url
    ///
    /// Default: the CA certificates of the system.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub ca_file: Option<PathBuf>,
    /// Print the response as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Heading of the options that every command takes.
const GLOBAL: &str = "Global options";

const AFTER_HELP: &str = "\
Exit status:
  0  success
  1  alertd refused the request, a receiver did not accept the test
     notification, or the config is invalid
  2  invalid usage
  3  alertd cannot be reached, or you may not use its socket
  alertctl health exits like a Nagios plugin: 0 OK, 1 WARNING, 2 CRITICAL or
  no answer.

Environment:
  ALERTD_SOCKET, ALERTD_URL, ALERTD_TOKEN_FILE, ALERTD_CA_FILE
            same as the options --socket, --url, --token-file and --ca-file
  NO_COLOR  disable colours

Files:
  ~/.config/dogwatch/alertctl.toml
            default socket, or url, token_file and ca_file

Options override the environment, and the environment overrides the file.

Examples:
  alertctl status
  alertctl why 4711
  alertctl ack 4711 looking at it
  alertctl silence host=web1 check=disk --for 2h --comment 'disk swap'
  alertctl downtime web1 --from 22:00 --until 02:00 --comment 'new kernel'
  alertctl oncall --week
  alertctl send BackupFailed job=nightly -m 'no backup since Tuesday'
  alertctl route test host=web1 'service=disk /var' check=disk
  alertctl health

Run 'alertctl COMMAND --help' for more about a command.";

const ACK_EXAMPLES: &str = "\
Examples:
  alertctl ack 4711 looking at it
  alertctl ack 4711 --expire 2h restarting the array
  alertctl ack 4711 --sticky waiting for the new disk";

const SILENCE_EXAMPLES: &str = "\
Examples:
  alertctl silence host=web1 check=disk --for 2h --comment 'disk swap'
  alertctl silence dc=fra1 service=ping --for 1h --preview
  alertctl silence host=web1 --from '2026-12-24 22:00' --until '2026-12-25 02:00' \\
    --comment 'new kernel'
  alertctl silence service=backup --during nights --for 30d --comment 'slow tape'
  alertctl silence list
  alertctl silence extend 3 --for 1h
  alertctl silence end 3";

const DOWNTIME_EXAMPLES: &str = "\
Examples:
  alertctl downtime web1 --for 2h --comment 'new kernel'
  alertctl downtime web1 disk --from 22:00 --until 02:00 --comment 'disk swap'
  alertctl downtime web1 --from 22:00 --until 06:00 --duration 30m \\
    --comment 'one reboot tonight'
  alertctl downtime db1 --during nights --for 90d --comment 'nightly dump'
  alertctl downtime list
  alertctl downtime cancel 4";

const SEND_EXAMPLES: &str = "\
Examples:
  alertctl send BackupFailed job=nightly -m 'no backup since Tuesday' --for 26h
  alertctl send BackupFailed job=nightly --ok";

const BACKUP_EXAMPLES: &str = "\
Examples:
  alertctl backup /var/backups/alertd.db --force
  alertctl backup - | ssh nas 'cat > alertd.db'";

const OVERRIDE_EXAMPLES: &str = "\
Examples:
  alertctl override primary ben --until 18:00 --comment 'ann is on a plane'
  alertctl override primary ben --from '2026-12-24 12:00' \\
    --until '2026-12-27 09:00'
  alertctl override list
  alertctl override end 2";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show open incidents, silent agents and warnings
    ///
    /// Incidents are listed worst first, then oldest first, with their number,
    /// state, age, alerts, who acknowledged them, who was notified, and who is
    /// notified next unless somebody acknowledges.
    #[command(verbatim_doc_comment)]
    Status,
    /// Check whether alertd itself is working
    ///
    /// Checks the database, the main loop, the outbox, receivers, the auditor,
    /// agents, gaps in on-call schedules, disk space and the dead man's switch.
    ///
    /// Output and exit status are those of a Nagios plugin, so that another host
    /// can monitor alertd: 0 OK, 1 WARNING, 2 CRITICAL or no answer.
    #[command(verbatim_doc_comment)]
    Health,
    /// Acknowledge an incident: stop its escalation and reminders
    ///
    /// People who were notified of the problem are notified that you acknowledged
    /// it. The incident stays open and visible in `alertctl status`.
    ///
    /// The ack ends when the incident is resolved. Without --sticky, it also ends
    /// when an alert of the incident changes state, for example from WARNING to
    /// CRITICAL, or another alert joins it. The escalation then starts again.
    #[command(verbatim_doc_comment, after_long_help = ACK_EXAMPLES)]
    Ack(Ack),
    /// Remove an ack and start the escalation again
    Unack(Unack),
    /// Explain an incident: what happened, who was notified, and why
    Why {
        /// Number of the incident
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
    /// Silence alerts, or list, extend and end silences
    ///
    /// Alerts that match all MATCHERs stay visible in `alertctl status`, but
    /// nobody is notified of them. Matchers are Alertmanager's: LABEL=VALUE,
    /// LABEL!=VALUE, LABEL=~REGEX and LABEL!~REGEX.
    ///
    /// When the silence ends, people are notified of problems that still exist.
    /// People who already know of a problem get a reminder 15 minutes before the
    /// end, if the silence lasts at least 30 minutes.
    ///
    /// Without --broad, alertd refuses a silence that matches more than 10 hosts,
    /// all hosts (if there are at least two), more than 50 firing alerts, or all
    /// firing alerts (if there are at least five).
    ///
    /// A TIME is in the time zone of this host: "2026-12-24 12:00", 18:00 (the
    /// next one), +2h or now.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        verbatim_doc_comment,
        after_long_help = SILENCE_EXAMPLES
    )]
    Silence(Silence),
    /// Schedule a downtime, or list and cancel downtimes
    ///
    /// During a downtime, nobody is notified of problems of the host or service.
    /// People who already know of a problem are notified when the downtime starts
    /// and ends. A downtime of a host covers all its services and its agent.
    ///
    /// There are three types of downtime:
    ///   fixed      in effect from --from to --until
    ///   flexible   with --duration: starts at the first problem between --from
    ///              and --until, and lasts for the given duration
    ///   recurring  with --during: in effect only during that period
    ///
    /// A TIME is in the time zone of this host: "2026-12-24 12:00", 18:00 (the
    /// next one), +2h or now.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        verbatim_doc_comment,
        after_long_help = DOWNTIME_EXAMPLES
    )]
    Downtime(Downtime),
    /// Raise or resolve an alert, for example from a script
    ///
    /// NAME and labels together identify the alert. To report that it still fires,
    /// run the command again with the same name and labels. --ok resolves it. If
    /// neither happens within --for, the alert ends as "no longer reported", which
    /// does not mean that the problem is solved.
    #[command(verbatim_doc_comment, after_long_help = SEND_EXAMPLES)]
    Send(Send),
    /// Show what happened, newest first
    History(History),
    /// Show who changed what and what was refused, newest first
    Audit(History),
    /// Back up alertd's database to a file while alertd runs
    ///
    /// The backup contains everything that alertd knows at one moment, including
    /// history and the hashes of tokens. It does not contain the config or any
    /// secret. alertd first makes a copy next to its database, which needs as much
    /// free disk space as the database.
    ///
    /// alertctl writes FILE.part and renames it to FILE when size and SHA-256 are
    /// right, so an interrupted backup never leaves an incomplete FILE. It then
    /// prints how to restore the backup.
    #[command(verbatim_doc_comment, after_long_help = BACKUP_EXAMPLES)]
    Backup(Backup),
    /// Show who is on call, who is next, and when nobody is
    Oncall(OnCall),
    /// Put somebody else on call, or list and end overrides
    ///
    /// An override has priority over the rotation until it ends, and survives
    /// restarts of alertd. The USER `nobody` leaves the schedule empty; then the
    /// catch_all of the config is notified.
    ///
    /// A TIME is in the time zone of this host: "2026-12-24 12:00", 18:00 (the
    /// next one), +2h or now.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        verbatim_doc_comment,
        after_long_help = OVERRIDE_EXAMPLES
    )]
    Override(Override),
    /// Send a test notification to one receiver
    ///
    /// Ignores routes, rate limits and silences, and waits for the result. Run it
    /// after every change to a receiver.
    #[command(verbatim_doc_comment)]
    TestNotify {
        /// Name of the receiver, as in [receiver.NAME.…] of the config
        receiver: String,
    },
    /// Create, list and revoke API tokens
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Show how an alert would be routed
    Route {
        #[command(subcommand)]
        command: RouteCommand,
    },
    /// Compare what was sent with what another config would have sent
    ///
    /// Replays the recorded state changes, acks, silences, downtimes and overrides
    /// with the other config, and assumes that every receiver accepts everything
    /// immediately.
    #[command(verbatim_doc_comment)]
    Replay(Replay),
    /// Check a config, or compare it with the running one
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Args)]
pub struct Ack {
    /// Number of the incident
    #[arg(value_name = "N", value_parser = number)]
    pub number: u64,
    /// What you are doing about it, shown to everybody
    #[arg(value_name = "COMMENT")]
    pub comment: Vec<String>,
    /// Keep the ack until the incident is resolved, whatever changes
    #[arg(long)]
    pub sticky: bool,
    /// End the ack after this time, such as 2h
    ///
    /// You get a reminder ten minutes before.
    #[arg(long, value_name = "DURATION")]
    pub expire: Option<Span>,
}

#[derive(Debug, Args)]
pub struct Send {
    /// Name of the alert, such as BackupFailed
    #[arg(value_name = "NAME")]
    pub name: String,
    /// More labels; `host` is this host unless you give it
    #[arg(value_name = "LABEL=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// What is wrong, in one line
    #[arg(long, short = 'm', value_name = "TEXT")]
    pub summary: Option<String>,
    /// State of the alert
    #[arg(long, value_enum, default_value_t = Severity::Critical)]
    pub severity: Severity,
    /// Link to a runbook
    #[arg(long, value_name = "URL")]
    pub runbook: Option<String>,
    /// End the alert after this time (such as 26h) unless it is sent again
    ///
    /// Default: resolve_timeout of the config, which is 5m unless set.
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "ok")]
    pub lasts: Option<Span>,
    /// Resolve the alert
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
    let pair =
        pair.ok_or_else(|| format!("{text:?} is not a label; write LABEL=VALUE, for example team=db"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

#[derive(Debug, Args)]
pub struct Unack {
    /// Number of the incident
    #[arg(value_name = "N", value_parser = number)]
    pub number: u64,
    /// Reason, shown to everybody
    #[arg(value_name = "COMMENT")]
    pub comment: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Silence {
    #[command(subcommand)]
    pub command: Option<SilenceCommand>,
    /// Alerts to silence, such as host=web1 or check=disk
    #[arg(value_name = "MATCHER", required_unless_present = "broad")]
    pub matchers: Vec<String>,
    /// How long the silence lasts, such as 2h
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "until")]
    pub duration: Option<Span>,
    /// Start of the silence [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// End of the silence
    #[arg(long, value_name = "TIME", conflicts_with = "duration")]
    pub until: Option<When>,
    /// Silence only during this period, [period.NAME] in the config
    #[arg(long, value_name = "PERIOD")]
    pub during: Option<String>,
    /// Reason, shown to everybody
    #[arg(long, value_name = "TEXT", required_unless_present = "preview")]
    pub comment: Option<String>,
    /// Show which firing alerts would match, and change nothing
    #[arg(long, alias = "dry-run")]
    pub preview: bool,
    /// Allow a silence that matches many hosts or alerts
    #[arg(long)]
    pub broad: bool,
}

#[derive(Debug, Args)]
pub struct Downtime {
    #[command(subcommand)]
    pub command: Option<DowntimeCommand>,
    /// Name of the host, as shown by `alertctl status`
    #[arg(required = true)]
    pub host: Option<String>,
    /// Name of a service, for a downtime of that service only
    pub service: Option<String>,
    /// How long the downtime lasts, such as 2h
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "until")]
    pub window: Option<Span>,
    /// Start of the downtime [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// End of the downtime
    #[arg(long, value_name = "TIME", conflicts_with = "window")]
    pub until: Option<When>,
    /// Flexible downtime: this long from the first problem, such as 30m
    #[arg(long, value_name = "DURATION", conflicts_with = "during")]
    pub duration: Option<Span>,
    /// Recurring downtime: only during this period, [period.NAME] in the config
    #[arg(long, value_name = "PERIOD")]
    pub during: Option<String>,
    /// Reason, shown to everybody
    #[arg(long, value_name = "TEXT", required = true)]
    pub comment: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DowntimeCommand {
    /// List current and future downtimes
    List,
    /// End a downtime now, or cancel a future one
    Cancel {
        /// Number of the downtime
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
}

#[derive(Debug, Subcommand)]
pub enum SilenceCommand {
    /// List silences
    List,
    /// End a silence now
    #[command(visible_alias = "expire")]
    End {
        /// Number of the silence
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
    /// Change the end of a silence
    Extend {
        /// Number of the silence
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
        /// End this long from now, such as 2h
        #[arg(long = "for", value_name = "DURATION", required_unless_present = "until")]
        duration: Option<Span>,
        /// New end of the silence
        #[arg(long, value_name = "TIME", conflicts_with = "duration")]
        until: Option<When>,
    },
}

#[derive(Debug, Args)]
pub struct OnCall {
    /// Time to show, such as "2026-12-24 12:00", 18:00 or +2h [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<When>,
    /// Show every shift of the seven days from that time
    #[arg(long)]
    pub week: bool,
}

#[derive(Debug, Args)]
pub struct Override {
    #[command(subcommand)]
    pub command: Option<OverrideCommand>,
    /// Name of the schedule in the config
    #[arg(required = true)]
    pub schedule: Option<String>,
    /// User to put on call, or `nobody`
    #[arg(required = true)]
    pub user: Option<String>,
    /// Start of the override [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<When>,
    /// End of the override
    #[arg(long, value_name = "TIME", required = true)]
    pub until: Option<When>,
    /// Reason, shown to everybody
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum OverrideCommand {
    /// List current and future overrides
    List,
    /// End an override now
    End {
        /// Number of the override
        #[arg(value_name = "N", value_parser = number)]
        number: u64,
    },
}

#[derive(Debug, Args)]
pub struct History {
    /// How far to go back
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub since: Span,
    /// Maximum number of entries to show
    #[arg(long, default_value_t = 200, value_name = "COUNT", value_parser = count)]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// File to write, or - for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// Config to try; drop-ins are read from the directory with its name and .d
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// How far to go back
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub since: Span,
    /// List every notification, not only their number
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Show which routes an alert matches, and who would be notified now
    ///
    /// Shows every route that alertd tries: `->` marks a route that matches, `=>`
    /// the one that takes the alert. Below are the steps of its policy, with the
    /// people they reach now and their receivers.
    #[command(verbatim_doc_comment)]
    Test(RouteTest),
}

#[derive(Debug, Args)]
pub struct RouteTest {
    /// Labels of the alert, such as host=web1 'service=disk /var' check=disk
    #[arg(value_name = "LABEL=VALUE", required = true, value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// State of the alert; users can have different rules for CRITICAL
    #[arg(long, value_enum, default_value = "critical")]
    pub state: AskedState,
    /// Use this config instead of the running one
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
    /// Show what a new config would change for the alerts firing now
    Diff {
        /// New config; drop-ins are read from the directory with its name and .d
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a config file and its drop-ins, and list all errors
    Check {
        /// Config file [default: /etc/dogwatch/alertd.toml]
        ///
        /// Drop-ins are read from the directory with its name and .d: alertd.d/*.toml
        /// for alertd.toml, new.d/*.toml for new.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `host=web1`.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.trim_matches('"').into())),
        _ => Err(format!("{text:?} is not a label; write LABEL=VALUE, for example host=web1")),
    }
}

/// How many lines to show.
fn count(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| format!("{text:?} is not a whole number of 1 or more; write for example 50"))
}

/// `4711` or `#4711`.
fn number(text: &str) -> Result<u64, String> {
    text.strip_prefix('#')
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("{text:?} is not a number; write one that alertctl shows, for example 4711"))
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
    fn invalid_requests_are_refused_with_a_reason() {
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
            ("history --limit many", "is not a whole number of 1 or more"),
            ("history --limit 0", "is not a whole number of 1 or more"),
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
