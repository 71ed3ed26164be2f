//! The config files that `up` and `bench` write.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::{part::Part, stage::Stage};
use crate::{files, sh};

/// A unix socket's path has at most 107 bytes (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// Creates the directories and writes the config files.
pub(crate) fn prepare(stage: &Stage, checks: &Checks) -> Result<()> {
    let longest = sh::root().join(stage.socket(Part::Alertd));
    let length = longest.as_os_str().len();
    ensure!(
        length <= SOCKET_PATH_MAX || stage.dir.is_relative(),
        "{} is too long for a unix socket ({length} bytes of {SOCKET_PATH_MAX}): use a shorter --dir",
        longest.display()
    );
    for folder in ["run", "log", "etc", "mail", "bin"] {
        let path = sh::root().join(&stage.dir).join(folder);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    for part in [Part::Dns, Part::Alertd, Part::Agent] {
        fs::create_dir_all(sh::root().join(stage.state(part)))?;
        fs::write(sh::root().join(stage.config(part)), text(stage, part, checks))?;
    }
    for program in ["dogwatch", "alertctl"] {
        let script = wrapper(stage, program);
        files::write(&sh::root().join(&stage.dir).join("bin").join(program), script.as_bytes(), 0o755)?;
    }
    Ok(())
}

/// The config of one daemon.
fn text(stage: &Stage, part: Part, checks: &Checks) -> String {
    let head = "# Written by `cargo xtask` at every start.\n";
    let body = match part {
        Part::Upstream => String::new(),
        Part::Dns => dns(stage),
        Part::Alertd => alertd(stage),
        Part::Agent => format!("{}\n{}", agent(stage, checks.auto), checks.text),
    };
    format!("{head}{body}")
}

fn dns(stage: &Stage) -> String {
    format!(
        "[dns]\nlisten = [\"{}\"]\nupstreams = [\"{}\"]\nstate_dir = {}\ncontrol_socket = {}\nmetrics = \"{}\"\n",
        stage.dns(),
        stage.relay(),
        quoted(&stage.state(Part::Dns)),
        quoted(&stage.socket(Part::Dns)),
        stage.metrics(Part::Dns),
    )
}

fn alertd(stage: &Stage) -> String {
    format!(
        "[alertd]\nsocket = {}\nstate_dir = {}\nmetrics = \"{}\"\n\n\
         # One incident per service, so that the demo's is separate from real problems of this host.\n\
         [[route]]\nreceiver = \"local\"\ngroup_by = [\"host\", \"service\"]\n\n[receiver.local.maildir]\npath = {}\n",
        quoted(&stage.socket(Part::Alertd)),
        quoted(&stage.state(Part::Alertd)),
        stage.metrics(Part::Alertd),
        quoted(&stage.mail()),
    )
}

fn agent(stage: &Stage, auto_checks: bool) -> String {
    format!(
        "[agent]\nsocket = {}\nstate_dir = {}\nmetrics = \"{}\"\nauto_checks = {auto_checks}\n\n[alertd]\nsockets = [{}]\n\n[dns]\ncontrol = {}\n",
        quoted(&stage.socket(Part::Agent)),
        quoted(&stage.state(Part::Agent)),
        stage.metrics(Part::Agent),
        quoted(&stage.socket(Part::Alertd)),
        quoted(&stage.socket(Part::Dns)),
    )
}

/// What the agent watches.
pub(crate) struct Checks {
    /// With the built-in checks of this host.
    pub(crate) auto: bool,
    pub(crate) text: String,
}

/// Checks for a first try: this host at short intervals, and one check that you can break.
pub(crate) fn demo_checks() -> Checks {
    let text = "\
[defaults]
interval = \"15s\"
retry_interval = \"5s\"

[check.demo]
kind = \"passive\"
note = \"you broke it yourself; `dogwatch submit demo OK` repairs it\"
";
    Checks { auto: true, text: text.into() }
}

/// A wrapper that adds the paths: `var/bin/dogwatch submit …`, `var/bin/alertctl ack …`.
fn wrapper(stage: &Stage, program: &str) -> String {
    let (path, top) = (quoted(&stage.binaries.join(program)), quoted(sh::root()));
    let [alertd, agent] = [Part::Alertd, Part::Agent].map(|part| quoted(&stage.socket(part)));
    let [alertd_config, agent_config, dns_config] =
        [Part::Alertd, Part::Agent, Part::Dns].map(|part| quoted(&stage.config(part)));
    format!(
        "#!/bin/sh
cd {top} || exit
export ALERTD_SOCKET={alertd}
verb=$1
case \"{program} $verb $2\" in
\"alertctl config check\") shift 2; set -- config check --config {alertd_config} \"$@\" ;;
\"dogwatch config check\") shift 2; set -- config check --config {agent_config} \"$@\" ;;
\"dogwatch submit \"* | \"dogwatch status \"*) shift; set -- $verb --socket {agent} \"$@\" ;;
\"dogwatch list \"*) shift; set -- list --config {agent_config} \"$@\" ;;
\"dogwatch dns \"*) what=$2; shift 2; set -- dns \"$what\" --config {dns_config} \"$@\" ;;
esac
exec {path} \"$@\"
"
    )
}

/// The path as a TOML string. It is a shell word too, unless the path contains `$` or a backtick.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
