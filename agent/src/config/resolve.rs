//! Turns the files as written into a valid [`Config`].

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use dogwatch_checks::Host;
use dogwatch_daemon::{
    config::{FilePath, Problems, Source, Spanned},
    duration::Span,
    http_client::Remote,
};
use dogwatch_wire::limits;

use super::{
    Agent, Alertd, Config, DEFAULT_SOCKET, Origin, RemoteAlertd,
    check::{self, Defaults},
    file::ConfigFile,
};

/// Merges the files and validates the result. A later file wins; a check may be in only one file.
pub(super) fn resolve(
    files: &[(Source, ConfigFile)],
    system_host_name: &str,
    host: &Host,
    problems: &mut Problems,
) -> Config {
    let agent = agent(files, system_host_name, problems);
    let alertd = alertd(files, problems);
    let defaults = defaults(files, problems);
    let mut labels = BTreeMap::new();
    for (source, file) in files {
        labels.extend(check::labels(&file.agent.labels, source, problems));
    }
    let dns_control = last(files, |file| file.dns.control.clone())
        .map_or_else(|| PathBuf::from("/run/dogwatch-dns/control.sock"), |FilePath(path)| path);

    let context = check::Context {
        defaults,
        labels,
        dns_control: dns_control.clone(),
        state_dir: agent.state_dir.clone(),
        host,
    };
    let auto_checks = last(files, |file| file.agent.auto_checks).unwrap_or(true);
    let mut checks: BTreeMap<_, _> =
        if auto_checks { check::built_in(&context).into_iter().collect() } else { BTreeMap::new() };
    let mut replaced = Vec::new();
    let (mut off, mut absent) = (BTreeMap::new(), BTreeMap::new());
    let mut written: BTreeMap<&str, &Source> = BTreeMap::new();
    for (source, file) in files {
        for (name, entry) in &file.check {
            if let Some(first) = written.insert(name.get_ref(), source) {
                let message = format!(
                    "check {:?} is already defined in {}; put all tables of a check into one file",
                    name.get_ref(),
                    first.path.display()
                );
                problems.add(source, name.span(), message);
                continue;
            }
            if let Some(mut check) = check::resolve(name, entry, source, &context, problems) {
                if check::is_off(entry) {
                    let name: Arc<str> = Arc::from(name.get_ref().as_str());
                    checks.remove(&name);
                    off.insert(name, check.origin);
                    continue;
                }
                // Such a table only changes a built-in check, and must not bring one that can only
                // fail. With `kind = "dns"` it adds one: then a cache that is gone is a problem.
                let is_added =
                    check.kind == "dns" && entry.entries.iter().any(|(key, _)| key.get_ref() == "kind");
                if !is_added && let Some(why) = check::absent(name.get_ref(), &check.kind, &context) {
                    let why = format!("{why} (settings at {})", check.origin);
                    absent.insert(Arc::from(name.get_ref().as_str()), why);
                    continue;
                }
                let built_in = checks.get(name.get_ref().as_str());
                let name: Arc<str> = Arc::from(name.get_ref().as_str());
                if let (Some(built_in), Origin::File { path, line }) = (built_in, &check.origin) {
                    if built_in.kind == check.kind {
                        check.origin = Origin::Changed { path: path.clone(), line: *line };
                    } else {
                        replaced.push(Arc::clone(&name));
                    }
                }
                checks.insert(name, check);
            }
        }
    }
    for (source, file) in files {
        for name in file.check.keys() {
            let text = name.get_ref().as_str();
            let owner = text.match_indices(' ').find_map(|(at, _)| {
                let (owner, check) = checks.get_key_value(&text[..at])?;
                check.has_things.then_some(owner)
            });
            if let Some(owner) = owner {
                let message = format!(
                    "{text:?} is the name of a service of the check {owner:?}; use another name, \
                     or [check.{owner}.{:?}] to change that service",
                    &text[owner.len() + 1..]
                );
                problems.add(source, name.span(), message);
            }
        }
    }
    if checks.len() > limits::SERVICES_MAX
        && let Some((source, _)) = files.first()
    {
        let message = format!("{} checks; an agent can have at most {}", checks.len(), limits::SERVICES_MAX);
        problems.add_whole(&source.path, message);
    }
    Config { agent, alertd, dns_control, checks, auto_checks, replaced, off, absent }
}

fn agent(files: &[(Source, ConfigFile)], system_host_name: &str, problems: &mut Problems) -> Agent {
    let mut host = system_host_name.to_owned();
    let mut metrics = "127.0.0.1:9847".parse().ok();
    // Twice the cores, because most checks wait. At least four, or one slow plugin blocks half of
    // the checks of a small host.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut max_concurrent = (2 * cores).max(4);
    // Some thousand events, enough for hours without alertd, and small enough for the agent's
    // memory.
    let mut spool_bytes_max = 2 * 1_024 * 1_024;
    // Services start one after another; a slow database takes two minutes.
    let mut boot_grace = Duration::from_mins(2);
    for (source, file) in files {
        if let Some(name) = &file.agent.host {
            if name.get_ref().trim().is_empty() || name.get_ref().len() > 253 {
                problems.add(source, name.span(), "must be a host name of 1 to 253 bytes");
            }
            name.get_ref().clone_into(&mut host);
        }
        if let Some(address) = &file.agent.metrics {
            metrics = match address.get_ref().as_str() {
                "off" => None,
                text => text
                    .parse()
                    .map_err(|_| {
                        let message = format!(
                            "{text:?} is not an address and port; write \"127.0.0.1:9847\" or \"off\""
                        );
                        problems.add(source, address.span(), message);
                    })
                    .ok(),
            };
        }
        let longest = Span::secs(86_400);
        between(source, file.agent.boot_grace.as_ref(), &mut boot_grace, Span::secs(0), longest, problems);
        let counts = [
            (&file.agent.max_concurrent, &mut max_concurrent, 1, 256, "checks at once"),
            (&file.agent.spool_bytes_max, &mut spool_bytes_max, 64 * 1_024, 256 * 1_024 * 1_024, "bytes"),
        ];
        for (written, value, least, most, what) in counts {
            let Some(written) = written else { continue };
            if (least..=most).contains(written.get_ref()) {
                *value = *written.get_ref();
            } else {
                problems.add(source, written.span(), format!("must be {least} to {most} {what}"));
            }
        }
    }
    let path = |get: fn(&ConfigFile) -> Option<FilePath>, default: &str| {
        last(files, get).map_or_else(|| PathBuf::from(default), |FilePath(path)| path)
    };
    Agent {
        host,
        state_dir: path(|file| file.agent.state_dir.clone(), "/var/lib/dogwatch"),
        socket: path(|file| file.agent.socket.clone(), DEFAULT_SOCKET),
        metrics,
        machine_id_file: path(|file| file.agent.machine_id_file.clone(), "/etc/machine-id"),
        boot_grace,
        max_concurrent,
        spool_bytes_max,
        history: last(files, |file| file.agent.history).unwrap_or(true),
    }
}

fn alertd(files: &[(Source, ConfigFile)], problems: &mut Problems) -> Alertd {
    let mut sockets = vec![PathBuf::from(super::DEFAULT_ALERTD)];
    let mut heartbeat = Duration::from_secs(30);
    let mut timeout = Duration::from_secs(10);
    for (source, file) in files {
        if let Some(written) = &file.alertd.sockets {
            if written.get_ref().is_empty() {
                problems.add(source, written.span(), "must name the socket of at least one alertd");
            }
            sockets = written.get_ref().iter().map(|FilePath(path)| path.clone()).collect();
        }
        let spans = [
            (&file.alertd.heartbeat, &mut heartbeat, Span::secs(1), Span::secs(3_600)),
            (&file.alertd.timeout, &mut timeout, Span::secs(1), Span::secs(60)),
        ];
        for (written, value, least, most) in spans {
            between(source, written.as_ref(), value, least, most, problems);
        }
    }
    let remote = remote(files, problems);
    if remote.is_some() {
        sockets.clear();
    }
    Alertd { sockets, remote, heartbeat, timeout }
}

/// The last file with any of these keys counts. A token or a CA needs a url.
fn remote(files: &[(Source, ConfigFile)], problems: &mut Problems) -> Option<RemoteAlertd> {
    let (source, file) = files.iter().rev().find(|(_, file)| {
        let alertd = &file.alertd;
        alertd.url.is_some() || alertd.token_file.is_some() || alertd.ca_file.is_some()
    })?;
    let written = &file.alertd;
    let Some(url) = &written.url else {
        let lone = written.token_file.as_ref().or(written.ca_file.as_ref()).map(Spanned::span);
        let words = "is for an alertd on another host; add its url in the same file";
        problems.add(source, lone.unwrap_or_default(), words);
        return None;
    };
    if let Some((other, sockets)) =
        files.iter().find_map(|(source, file)| Some((source, file.alertd.sockets.as_ref()?)))
    {
        problems.add(other, sockets.span(), "use either sockets or a url, not both");
    }
    let Some(token_file) = &written.token_file else {
        let words =
            "needs a token_file; run on alertd's host: alertctl token create NAME --scope ingest --host HOST";
        problems.add(source, url.span(), words);
        return None;
    };
    let remote = RemoteAlertd {
        url: url.get_ref().clone(),
        token_file: token_file.get_ref().0.clone(),
        ca_file: written.ca_file.as_ref().map(|file| file.get_ref().0.clone()),
    };
    match Remote::new(&remote.url, remote.token_file.clone(), remote.ca_file.clone()) {
        Ok(_) => Some(remote),
        Err(words) => {
            problems.add(source, url.span(), words);
            None
        }
    }
}

fn defaults(files: &[(Source, ConfigFile)], problems: &mut Problems) -> Defaults {
    let mut defaults = Defaults {
        // A problem is soft after at most a minute and hard 30 s later.
        interval: Duration::from_mins(1),
        retry_interval: Duration::from_secs(15),
        max_attempts: 3,
        timeout: Duration::from_secs(10),
    };
    for (source, file) in files {
        let spans = [
            (&file.defaults.interval, &mut defaults.interval),
            (&file.defaults.retry_interval, &mut defaults.retry_interval),
            (&file.defaults.timeout, &mut defaults.timeout),
        ];
        for (written, value) in spans {
            between(source, written.as_ref(), value, check::SHORTEST, check::LONGEST, problems);
        }
        if let Some(written) = &file.defaults.max_attempts {
            if *written.get_ref() == 0 {
                problems.add(source, written.span(), "max_attempts must be 1 to 255");
            } else {
                defaults.max_attempts = *written.get_ref();
            }
        }
        if defaults.retry_interval > defaults.interval
            && let Some(retry) = &file.defaults.retry_interval
        {
            let message = format!(
                "retry_interval {} must not be longer than interval {}",
                Span(defaults.retry_interval),
                Span(defaults.interval)
            );
            problems.add(source, retry.span(), message);
        }
    }
    defaults
}

fn between(
    source: &Source,
    written: Option<&Spanned<Span>>,
    value: &mut Duration,
    least: Span,
    most: Span,
    problems: &mut Problems,
) {
    let Some(written) = written else { return };
    if (least..=most).contains(written.get_ref()) {
        *value = written.get_ref().0;
    } else {
        problems.add(source, written.span(), format!("must be {least} to {most}"));
    }
}

fn last<T>(files: &[(Source, ConfigFile)], get: impl Fn(&ConfigFile) -> Option<T>) -> Option<T> {
    files.iter().rev().find_map(|(_, file)| get(file))
}
