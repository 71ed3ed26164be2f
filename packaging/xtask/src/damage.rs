//! `cargo xtask drill damage`: random damage in every state file of every daemon.
//!
//! Each run copies the files of one daemon, damages one of them, and opens them as the daemon does
//! at its start. A start that fails, or panics, is a failure, and so is a loss that nobody is told
//! of.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    hash::RandomState,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use dogwatch::{
    history::{
        Key, Sample,
        file::{History, Reader},
    },
    report::spool::Spool,
    state::{Saved, SavedService},
};
use dogwatch_alertd::{
    config::Config,
    store::{Archive as _, Store as _, sqlite::Sqlite},
};
use dogwatch_alertd_core::{
    Core, Loaded,
    rules::{
        sender::Sender,
        token::{Hash, text_of},
    },
};
use dogwatch_dns::snapshot::{self, Anchor, Learned, Limits};
use dogwatch_dns_core::resolver::Remembered;
use dogwatch_wire::{Batch, Event, EventKind, Heartbeat, PROTOCOL, ServiceState, State, Transition, ctl};
use jiff::Timestamp;

#[derive(Parser)]
#[command(name = "damage", about = "Damage state files at random and start from them")]
pub(crate) struct Options {
    /// How many times to damage and start
    #[arg(long, default_value_t = 1_200)]
    runs: u32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What a start found.
struct Found {
    /// Everything that was stored, as text.
    content: String,
    /// What people are told of damage.
    said: Option<String>,
}

/// The state of one kind, and how its daemon reads it.
struct Kind {
    name: &'static str,
    files: BTreeMap<String, Vec<u8>>,
    content: String,
    open: fn(&Path) -> Result<Found>,
}

#[derive(Debug, Default)]
struct Score {
    starts: u32,
    failed: u32,
    whole: u32,
    reported: u32,
    unreported: u32,
}

const SECTOR: usize = 512;
/// Failures that are printed.
const SHOWN_MAX: usize = 10;

pub(crate) fn run(options: &Options) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("dogwatch-damage-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let outcome = campaign(options, &scratch);
    let _ = fs::remove_dir_all(&scratch);
    outcome
}

/// For `cargo xtask test`.
pub(crate) fn short() -> Result<()> {
    run(&Options { runs: 120, seed: 1 })
}

fn campaign(options: &Options, scratch: &Path) -> Result<()> {
    let kinds = kinds(scratch)?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let mut shown = 0;
    for run in 0..options.runs {
        let kind = &kinds[run as usize % kinds.len()];
        let names: Vec<_> = kind.files.keys().collect();
        let name = names[random.usize(..names.len())].clone();
        let mut files = kind.files.clone();
        let bytes = files.get_mut(&name).context("it is one of the names")?;
        let (what, at) = damage(bytes, &mut random);
        let dir = scratch.join("run");
        write_all(&dir, &files)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| (kind.open)(&dir)));
        fs::remove_dir_all(&dir)?;
        let score = scores.entry(format!("{} {name}", kind.name)).or_default();
        score.starts += 1;
        let problem = match outcome {
            Ok(Ok(found)) if found.content == kind.content => {
                score.whole += 1;
                None
            }
            Ok(Ok(Found { said: Some(_), .. })) => {
                score.reported += 1;
                None
            }
            Ok(Ok(_)) => {
                score.unreported += 1;
                Some("a loss that nobody is told of".to_owned())
            }
            Ok(Err(error)) => {
                score.failed += 1;
                Some(format!("does not start: {error:#}"))
            }
            Err(_) => {
                score.failed += 1;
                Some("panics".to_owned())
            }
        };
        if let Some(problem) = problem.filter(|_| shown < SHOWN_MAX) {
            shown += 1;
            println!("run {run}: {name}: {what} at {at}: {problem}");
        }
    }
    print(&scores);
    let sum = |of: fn(&Score) -> u32| scores.values().map(of).sum::<u32>();
    let (failed, unreported) = (sum(|score| score.failed), sum(|score| score.unreported));
    ensure!(failed == 0 && unreported == 0, "{failed} failed starts, {unreported} losses not reported");
    Ok(())
}

fn print(scores: &BTreeMap<String, Score>) {
    println!(
        "{:<24} {:>7} {:>7} {:>13} {:>9} {:>13}",
        "file", "starts", "failed", "nothing lost", "reported", "not reported"
    );
    let mut all = Score::default();
    let line = |name: &str, score: &Score| {
        println!(
            "{name:<24} {:>7} {:>7} {:>13} {:>9} {:>13}",
            score.starts, score.failed, score.whole, score.reported, score.unreported
        );
    };
    for (name, score) in scores {
        line(name, score);
        all.starts += score.starts;
        all.failed += score.failed;
        all.whole += score.whole;
        all.reported += score.reported;
        all.unreported += score.unreported;
    }
    line("all", &all);
}

/// Flips a bit, zeroes a sector or cuts the file; where there is something, not in a hole.
fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) -> (&'static str, usize) {
    let mut at = random.usize(..bytes.len());
    for _ in 0..10_000 {
        let sector = at / SECTOR * SECTOR;
        if bytes[sector..bytes.len().min(sector + SECTOR)].iter().any(|byte| *byte != 0) {
            break;
        }
        at = random.usize(..bytes.len());
    }
    match random.u8(..4) {
        0 => {
            bytes.truncate(at);
            ("a cut", at)
        }
        1 => {
            let sector = at / SECTOR * SECTOR;
            let end = bytes.len().min(sector + SECTOR);
            bytes[sector..end].fill(0);
            ("a zeroed sector", sector)
        }
        _ => {
            bytes[at] ^= 1 << random.u8(..8);
            ("a flipped bit", at)
        }
    }
}

fn write_all(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}

fn read_all(dir: &Path, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |name: &&str| Ok(((*name).to_owned(), fs::read(dir.join(name)).context((*name).to_owned())?));
    names.iter().map(read).collect()
}

fn kinds(scratch: &Path) -> Result<Vec<Kind>> {
    let dir = |name: &str| -> Result<PathBuf> {
        let dir = scratch.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    };
    let alertd = dir("alertd")?;
    // Open, as after a kill, so that there is a WAL.
    let open = fill_alertd(&alertd)?;
    let files = read_all(&alertd, &["alertd.db", "alertd.db-wal", "alertd.commits"])?;
    drop(open);
    let mut kinds = vec![kind("alertd", files, open_alertd, scratch)?];
    let agent = dir("agent")?;
    fill_agent(&agent)?;
    kinds.push(kind("agent", read_all(&agent, &["state.json", "spool.log"])?, open_agent, scratch)?);
    let history = dir("history")?;
    fill_history(&history)?;
    kinds.push(kind("agent", read_all(&history, &["history.ring"])?, open_history, scratch)?);
    let dns = dir("dns")?;
    fill_dns(&dns)?;
    let names: Vec<_> = ["cache.snapshot", "cache.log", "cache.length"]
        .into_iter()
        .filter(|name| dns.join(name).exists())
        .collect();
    kinds.push(kind("dns", read_all(&dns, &names)?, open_dns, scratch)?);
    Ok(kinds)
}

fn kind(
    name: &'static str,
    files: BTreeMap<String, Vec<u8>>,
    open: fn(&Path) -> Result<Found>,
    scratch: &Path,
) -> Result<Kind> {
    let dir = scratch.join("whole");
    write_all(&dir, &files)?;
    let found = open(&dir)?;
    fs::remove_dir_all(&dir)?;
    ensure!(found.said.is_none(), "{name}: damage in intact files: {:?}", found.said);
    Ok(Kind { name, files, content: found.content, open })
}

const CONFIG: &str = "[[route]]\nreceiver = \"local\"\ngroup_by = [\"host\"]\ngroup_wait = \"0s\"\n";

fn start() -> Timestamp {
    Timestamp::constant(1_790_000_000, 0)
}

fn core(dir: &Path, loaded: Loaded) -> Result<Core> {
    let path = dir.join("alertd.toml");
    fs::write(&path, CONFIG)?;
    let config = Config::read(&path).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    fs::remove_file(&path)?;
    let hash_key = RandomState::new();
    Ok(Core::new(config.rules, "life".into(), hash_key, loaded, start()))
}

fn report(host: usize, service: &str, seq: u64) -> Batch {
    let now = ServiceState {
        service: service.into(),
        state: State::Critical,
        since: start(),
        flapping: false,
        summary: format!("{service} of host {host} has failed"),
        detail: "x".repeat(300),
        perfdata: String::new(),
        labels: [("check".to_owned(), service.to_owned())].into(),
        annotations: [].into(),
    };
    let kind = EventKind::Transition(Transition { from: State::Ok, now });
    Batch {
        protocol: PROTOCOL,
        agent: format!("id-{host}"),
        host: format!("web{host}"),
        epoch: "e1".into(),
        run: String::new(),
        boot: String::new(),
        sent_at: start(),
        states_part: None,
        events: vec![Event { seq, at: start(), kind }],
        heartbeat: Some(Heartbeat {
            digest: String::new(),
            next_within_s: 60,
            version: "1".into(),
            services: 1,
            changes: Vec::new(),
        }),
        states: None,
    }
}

fn fill_alertd(dir: &Path) -> Result<Sqlite> {
    let mut store = Sqlite::open(dir, "drill")?;
    let mut core = core(dir, store.load(start())?)?;
    for number in 0..80 {
        if number == 40 {
            // A clean stop writes everything into the database.
            drop(store);
            store = Sqlite::open(dir, "drill")?;
        }
        let batch = report(number % 30, if number < 30 { "disk" } else { "load" }, 1 + number as u64);
        core.on_batch(&batch, &Sender::default(), start())?;
        if number % 10 == 0 {
            let silence = ctl::NewSilence {
                matchers: vec![format!("host=web{number}")],
                duration_s: 86_400,
                ..ctl::NewSilence::default()
            };
            core.on_silence(&silence, "drill", start()).map_err(|refused| anyhow::anyhow!("{refused}"))?;
            let token = ctl::NewToken {
                name: format!("t{number}"),
                scopes: vec!["ingest".into()],
                ..ctl::NewToken::default()
            };
            let hash = Hash::new([u8::try_from(number)?; 32]);
            debug_assert!(!text_of(&[0; 32]).is_empty());
            core.on_token(&token, hash, "drill", start()).map_err(|refused| anyhow::anyhow!("{refused}"))?;
        }
        core.settle(start());
        store.commit(&core.take_changes())?;
    }
    Ok(store)
}

fn open_alertd(dir: &Path) -> Result<Found> {
    let mut store = Sqlite::open(dir, "another")?;
    let loaded = store.load(start())?;
    let mut content: Vec<String> = Vec::new();
    content.extend(loaded.agents.iter().map(|it| format!("{it:?}")));
    content.extend(loaded.alerts.iter().map(|it| format!("{it:?}")));
    content.extend(loaded.incidents.iter().map(|it| format!("{it:?}")));
    content.extend(loaded.told.iter().map(|it| format!("{it:?}")));
    content.extend(loaded.silences.iter().map(|it| format!("{it:?}")));
    content.extend(loaded.tokens.iter().map(|it| format!("{it:?}")));
    content.extend(loaded.outbox.iter().map(|it| format!("{it:?}")));
    content.push(format!("{} {:?} {}", loaded.instance, loaded.counters, loaded.failed));
    content.sort();
    let mut core = core(dir, loaded)?;
    core.settle(start());
    let changes = core.take_changes();
    store.commit(&changes)?;
    let archive = store.archive();
    match archive.history(None, 10_000) {
        Ok(history) => content.extend(history.iter().rev().take(160).map(|entry| format!("{entry:?}"))),
        Err(error) => content.push(format!("no history: {error}")),
    }
    let rest = archive.check_rest();
    let said: Vec<_> = store.notice.take().into_iter().chain(rest).collect();
    Ok(Found { content: content.join("\n"), said: (!said.is_empty()).then(|| said.join("; ")) })
}

fn events() -> Vec<Event> {
    (1..=40).flat_map(|seq| report(1, "disk", seq).events).collect()
}

fn fill_agent(dir: &Path) -> Result<()> {
    let (mut spool, _) = Spool::open(dir, 7)?;
    let events = events();
    for event in &events {
        spool.append(std::slice::from_ref(event), 0)?;
    }
    let services = (0..30).map(|number| (format!("service {number}"), SavedService::default())).collect();
    let saved = Saved { epoch: 7, through: 40, services, ..Saved::default() };
    saved.store(dir)?;
    Ok(())
}

fn open_agent(dir: &Path) -> Result<Found> {
    let (done_to, _done) = tokio::sync::mpsc::channel(1);
    let (_store, found) = dogwatch::store::open(dir, 9, done_to)?;
    let services: Vec<_> = found.state.services.keys().filter(|name| name.starts_with("service")).collect();
    let events: Vec<_> = found.spool.events.iter().map(|event| format!("{event:?}")).collect();
    let content = format!("{services:?}\n{}", events.join("\n"));
    let said = found.state_damaged || found.spool.damage.bytes > 0 || found.events_lost > 0;
    let said = said || found.spool.damage.corrupt || found.problem.is_some();
    Ok(Found { content, said: said.then(|| "the agent's log".into()) })
}

/// Seconds since 1970, at a full hour.
const EPOCH_S: i64 = 1_790_000_000 - 1_790_000_000 % 3_600;
const HISTORY_S: i64 = 6 * 3_600;

fn series(number: i64) -> Key {
    Key { service: format!("disk /{number}"), label: "used".into() }
}

fn fill_history(dir: &Path) -> Result<()> {
    let mut history = History::open(dir, EPOCH_S)?;
    for minute in 0..HISTORY_S / 60 {
        for number in 0..5 {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let value = (minute * 5 + number) as f64;
            let at = Timestamp::from_second(EPOCH_S + minute * 60)?;
            history.record(&Sample { key: series(number), unit: "B".into(), value, max: None, at })?;
        }
    }
    history.finish()?;
    Ok(())
}

fn open_history(dir: &Path) -> Result<Found> {
    let history = History::open(dir, EPOCH_S + HISTORY_S)?;
    let damage = history.damage();
    drop(history);
    let reader = Reader::open(dir)?;
    let mut content = String::new();
    for number in 0..5 {
        for days in [1, 10, 300] {
            let now = EPOCH_S + HISTORY_S;
            let _ = writeln!(content, "{:?}", reader.points(&series(number), now - days * 86_400, now));
        }
    }
    Ok(Found { content, said: (!damage.is_none()).then(|| format!("{damage:?}")) })
}

fn dns_message(number: u16) -> Vec<u8> {
    let label = format!("n{number}");
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    message.push(u8::try_from(label.len()).unwrap_or_default());
    message.extend(label.as_bytes());
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn fill_dns(dir: &Path) -> Result<()> {
    for part in 0..2_u16 {
        let anchor = Anchor::now();
        let loaded = snapshot::load(dir, &anchor, &mut |_: &Remembered<'_>| {});
        let writer = snapshot::Writer::start(dir, &loaded, Limits { bytes_max: 32 << 20 }, None);
        for number in part * 200..part * 200 + 200 {
            let message = dns_message(number);
            writer.remember(&Learned {
                at: dogwatch_dns::clock::since_boot(),
                dnssec_ok: false,
                checking_disabled: false,
                uses: 1,
                good_for: Duration::from_hours(1),
                message: &message,
            });
        }
        writer.finish();
        if part == 0 {
            // A merge makes the snapshot, and both files have the same format.
            fs::rename(dir.join("cache.log"), dir.join("cache.snapshot"))?;
            fs::remove_file(dir.join("cache.length"))?;
        }
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn open_dns(dir: &Path) -> Result<Found> {
    let mut answers = Vec::new();
    let loaded = snapshot::load(dir, &Anchor::now(), &mut |answer: &Remembered<'_>| {
        answers.push(answer.message.to_vec());
    });
    answers.sort();
    let said: Vec<_> = loaded.reports.iter().map(ToString::to_string).collect();
    Ok(Found { content: format!("{answers:?}"), said: (!said.is_empty()).then(|| said.join("; ")) })
}
