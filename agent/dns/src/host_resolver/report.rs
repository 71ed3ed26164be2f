//! The output of `dogwatch dns enable|disable`, and of `dogwatch dns status` about the host.

use std::{fmt::Write as _, io, net::IpAddr, path::PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    journal::Phase,
    layout::{Host, Node},
    plan::Manager,
    switch::{ANY_NAME, Disabled, Enabled, Preview, Switch, SwitchError},
    system::{Answer, System},
    text,
};

/// Whether programs on this host use the cache.
#[derive(Debug, Clone, Serialize)]
pub struct HostStatus {
    pub state: State,
    pub since: Option<Timestamp>,
    /// What manages resolv.conf, if known.
    pub manager: Option<Manager>,
    pub cache: IpAddr,
    /// How the cache answered a test query, and its name.
    pub answer: Answer,
    pub asked: String,
    /// The servers in resolv.conf, in order.
    pub servers: Vec<IpAddr>,
    /// The servers used if the cache does not answer.
    pub old_servers: Vec<IpAddr>,
    /// Files that `enable` changed.
    pub changed: Vec<PathBuf>,
    /// Files that differ from what `enable` writes. While disabled: the files that it would change.
    pub differing: Vec<Differing>,
    pub remarks: Vec<String>,
    /// Why `enable` would refuse.
    pub refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Disabled,
    Enabled,
    /// A switch was interrupted.
    Interrupted,
}

#[derive(Debug, Clone, Serialize)]
pub struct Differing {
    pub path: PathBuf,
    pub why: String,
}

/// Inspects the host.
pub fn look<S: System>(switch: &mut Switch<'_, S>) -> io::Result<HostStatus> {
    let host = switch.host()?;
    let journal = switch.journal()?;
    let asked = host.names.first().cloned().unwrap_or_else(|| ANY_NAME.into());
    let (cache, answer) = switch.ask_cache(&asked);
    let mut status = HostStatus {
        state: match journal.as_ref().map(|journal| journal.phase) {
            None => State::Disabled,
            Some(Phase::Enabled) => State::Enabled,
            Some(Phase::Switching | Phase::Reverting) => State::Interrupted,
        },
        since: journal.as_ref().map(|journal| journal.since),
        manager: journal.as_ref().map(|journal| journal.manager),
        cache,
        answer,
        asked,
        servers: text::all_servers(host.text().unwrap_or_default()),
        old_servers: journal.as_ref().map(|journal| journal.old_servers.clone()).unwrap_or_default(),
        changed: Vec::new(),
        differing: Vec::new(),
        remarks: Vec::new(),
        refusal: None,
    };
    if let Some(journal) = journal {
        status.changed =
            journal.stages.into_iter().flat_map(|stage| stage.puts).map(|record| record.path).collect();
    }
    match switch.preview() {
        Ok(Preview { plan, changes }) => {
            status.manager.get_or_insert(plan.manager);
            if status.old_servers.is_empty() {
                status.old_servers = plan.old_servers;
            }
            status.remarks = plan.remarks;
            let differing = changes.into_iter().map(|put| Differing { path: put.path, why: put.why.into() });
            status.differing = differing.collect();
        }
        Err(SwitchError::Io(error)) => return Err(error),
        Err(error) => status.refusal = Some(error.to_string()),
    }
    if matches!(host, Host { resolv_conf: Node::Absent, .. }) {
        status
            .remarks
            .push("/etc/resolv.conf does not exist: no program on this host can resolve names".into());
    }
    Ok(status)
}

/// The status as text.
pub fn text(status: &HostStatus) -> String {
    let mut out = String::new();
    let list = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let old = list(&status.old_servers);
    let managed =
        status.manager.map(|manager| format!("; resolv.conf is managed by {manager}")).unwrap_or_default();
    let _ = match (status.state, status.since) {
        (State::Enabled, Some(since)) => {
            writeln!(out, "this host has used the cache since {since:.0}, with {old} as fallback{managed}")
        }
        (State::Interrupted, Some(since)) => writeln!(
            out,
            "a switch that started {since:.0} was interrupted: run `dogwatch dns disable` to restore the old configuration, or `dogwatch dns enable` to start again{managed}"
        ),
        _ => writeln!(out, "this host does not use the cache{managed}"),
    };
    let answers = if status.answer.settles() { "answers" } else { "DOES NOT ANSWER" };
    let _ = writeln!(
        out,
        "  cache     {} {answers} ({} for {})",
        status.cache,
        status.answer.text(),
        status.asked
    );
    let _ = writeln!(out, "  servers   in /etc/resolv.conf: {}", list(&status.servers));
    if status.manager == Some(Manager::SystemdResolved) && status.state == State::Enabled {
        let _ = writeln!(out, "            systemd-resolved queries the cache and {old} at the same time");
    }
    for path in &status.changed {
        let _ = writeln!(out, "  changed   {}", path.display());
    }
    for differing in &status.differing {
        let word = if status.state == State::Enabled { "differs  " } else { "to change" };
        let _ = writeln!(out, "  {word} {}: {}", differing.path.display(), differing.why);
    }
    if status.state == State::Enabled && !status.differing.is_empty() {
        let _ = writeln!(out, "            changed since `enable`; to repair it, run `dogwatch dns enable`");
    }
    for remark in &status.remarks {
        let _ = writeln!(out, "  note      {remark}");
    }
    if let Some(refusal) = &status.refusal {
        let _ = writeln!(out, "  enable    {refusal}");
    } else if status.state == State::Disabled {
        let _ =
            writeln!(out, "  enable    possible; to see the changes, run `dogwatch dns enable --dry-run`");
    }
    out
}

/// The output of `enable --dry-run`.
pub fn preview(preview: &Preview) -> String {
    let mut out = String::new();
    let Preview { plan, changes } = preview;
    let old: Vec<_> = plan.old_servers.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        out,
        "resolv.conf is managed by {}; fallback if the cache does not answer: {}",
        plan.manager,
        old.join(", ")
    );
    for stage in &plan.stages {
        let here: Vec<_> = stage.puts.iter().filter(|put| changes.contains(put)).collect();
        for put in &here {
            let _ = writeln!(out, "would write {} ({}):", put.path.display(), put.why);
            for line in String::from_utf8_lossy(&put.bytes).lines() {
                let _ = writeln!(out, "  | {line}");
            }
        }
        if let (Some(command), false) = (&stage.then, here.is_empty()) {
            let _ = writeln!(out, "would run {}", command.join(" "));
        }
    }
    if changes.is_empty() {
        out += "nothing to change\n";
    }
    for remark in &plan.remarks {
        let _ = writeln!(out, "note: {remark}");
    }
    out
}

/// The output of `enable`.
pub fn enabled(done: &Enabled) -> String {
    let mut out = String::new();
    let old: Vec<_> = done.old_servers.iter().map(ToString::to_string).collect();
    if done.changed.is_empty() {
        out += "already enabled, nothing changed: ";
    }
    let _ = writeln!(
        out,
        "this host now uses {}, with {} as fallback (resolv.conf is managed by {})",
        done.cache,
        old.join(", "),
        done.manager
    );
    for path in &done.changed {
        let _ = writeln!(out, "  changed   {}", path.display());
    }
    if !done.verified.is_empty() {
        let _ = writeln!(
            out,
            "  verified  {} resolved through the host's own resolver",
            done.verified.join(", ")
        );
    }
    for remark in &done.remarks {
        let _ = writeln!(out, "  note      {remark}");
    }
    out += "  to undo   dogwatch dns disable\n";
    out
}

/// The output of `disable`.
pub fn disabled(done: Option<&Disabled>) -> String {
    let Some(done) = done else { return "not enabled, nothing to undo\n".into() };
    let mut out = String::from("this host no longer uses the cache\n");
    for path in &done.restored {
        let _ = writeln!(out, "  restored  {}", path.display());
    }
    for path in &done.kept {
        let _ = writeln!(
            out,
            "  kept      {}: edited since `enable`; only our lines were removed",
            path.display()
        );
    }
    for error in &done.failed {
        let _ = writeln!(out, "  failed    {error}");
    }
    out
}
