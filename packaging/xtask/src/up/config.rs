//! The configs that `up` and `bench` write: what the defaults cannot know on a host where we are nobody.

use std::path::Path;

use super::stage::{Part, Stage};
use crate::sh;

/// The config of one daemon.
pub(crate) fn text(stage: &Stage, part: Part, checks: &str) -> String {
    let head = "# Written by `cargo xtask` at every start.\n";
    let body = match part {
        Part::Upstream => String::new(),
        Part::Dns => dns(stage),
        Part::Alertd => alertd(stage),
        Part::Agent => format!("{}\n{checks}", agent(stage)),
    };
    format!("{head}{body}")
}

fn dns(stage: &Stage) -> String {
    format!(
        "listen = [\"{}\"]\nstate_dir = {}\ncontrol_socket = {}\nmetrics_listen = \"{}\"\nupstream = [\"{}\"]\n",
        stage.dns(),
        quoted(&stage.state(Part::Dns)),
        quoted(&stage.socket(Part::Dns)),
        stage.metrics(Part::Dns),
        stage.relay(),
    )
}

fn alertd(stage: &Stage) -> String {
    format!(
        "socket = {}\nstate_dir = {}\nmetrics_listen = \"{}\"\n\n[receiver.local.maildir]\npath = {}\n",
        quoted(&stage.socket(Part::Alertd)),
        quoted(&stage.state(Part::Alertd)),
        stage.metrics(Part::Alertd),
        quoted(&stage.mail()),
    )
}

fn agent(stage: &Stage) -> String {
    format!(
        "[agent]\nsocket = {}\nstate_dir = {}\nmetrics = \"{}\"\n\n[alertd]\nsockets = [{}]\n\n[dns]\ncontrol = {}\n",
        quoted(&stage.socket(Part::Agent)),
        quoted(&stage.state(Part::Agent)),
        stage.metrics(Part::Agent),
        quoted(&stage.socket(Part::Alertd)),
        quoted(&stage.socket(Part::Dns)),
    )
}

/// The checks of a newcomer's first minutes: this host, quickly, and one that is easy to break.
pub(crate) const DEMO_CHECKS: &str = "\
[check.demo]
passive = true
";

/// A script that saves typing the paths: `var/bin/dogwatch submit …`, `var/bin/alertctl ack …`.
pub(crate) fn wrapper(stage: &Stage, program: &str, part: Part) -> String {
    let (program, socket) = (quoted(&stage.binaries.join(program)), quoted(&stage.socket(part)));
    let top = quoted(sh::root());
    format!("#!/bin/sh\ncd {top} || exit\nexec {program} \"$@\" --socket {socket}\n")
}

/// The path as a TOML string, which is a shell word too unless the path has a `$` or a backtick.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
