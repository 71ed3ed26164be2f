//! Writes snapshots of N names the way the daemon does, loads them again, and prints the CPU time
//! for loading and the memory per name: the growth of the process, and what the cache counts
//! against its cap.
//!
//! `cargo run --release -p dogwatch-dns --example snapshot-load -- 100000 1000000`

use std::{env, error::Error, fs, hash::RandomState, path::Path, thread, time::Duration};

use dogwatch_dns::{
    clock,
    snapshot::{self, Anchor, Learned, Limits, Restoring, Writer},
};
use dogwatch_dns_core::{
    cache::Bounds,
    moment::Moment,
    resolver::{Remembered, Resolver, Seeds},
    settings::Settings,
};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    let counts: Vec<u32> = env::args().skip(1).map(|count| count.parse()).collect::<Result<_, _>>()?;
    let counts = if counts.is_empty() { vec![100_000, 1_000_000] } else { counts };
    for names in counts {
        let dir = tempfile::tempdir()?;
        write(dir.path(), names);
        let bytes: u64 = ["cache.snapshot", "cache.log"]
            .iter()
            .filter_map(|file| fs::metadata(dir.path().join(file)).ok())
            .map(|file| file.len())
            .sum();
        let mut loads: Vec<Load> = (0..5).map(|_| Load::of(dir.path(), names)).collect::<Result<_, _>>()?;
        // Later loads reuse memory freed by the first.
        let Load { grown, counted, .. } = loads[0];
        loads.sort_by(|one, other| one.cpu_ms.total_cmp(&other.cpu_ms));
        println!(
            "{names} names, {} bytes each on disk: loaded in {:.1} ms of CPU (best {:.1}, worst {:.1} of 5); {:.1} bytes each in memory, {:.1} of them counted",
            bytes / u64::from(names),
            loads[2].cpu_ms,
            loads[0].cpu_ms,
            loads[4].cpu_ms,
            grown / f64::from(names),
            counted / f64::from(names),
        );
    }
    Ok(())
}

fn write(dir: &Path, names: u32) {
    let nothing = snapshot::load(dir, &Anchor::now(), &mut |_: &Remembered<'_>| {});
    let writer = Writer::start(dir, &nothing, Limits { bytes_max: 1 << 30 }, None);
    for number in 0..names {
        let message = message(number);
        writer.remember(&Learned {
            at: clock::since_boot(),
            dnssec_ok: false,
            checking_disabled: false,
            uses: 3,
            good_for: Duration::ZERO,
            message: &message,
        });
        // The writer keeps up with any upstream, but not with a loop that invents names: it
        // collects for 250 ms, at most 8 MiB.
        if number.is_multiple_of(10_000) {
            thread::sleep(Duration::from_millis(100));
        }
    }
    writer.finish();
}

#[derive(Clone, Copy)]
struct Load {
    cpu_ms: f64,
    /// Bytes, as `counted`.
    grown: f64,
    counted: f64,
}

impl Load {
    #[expect(clippy::cast_precision_loss, reason = "figures for people need no 53rd bit")]
    fn of(dir: &Path, names: u32) -> Result<Self, Box<dyn Error>> {
        let bounds = Bounds { bytes_max: 1 << 30, ..Bounds::default() };
        let seeds = Seeds::repeatable(1, RandomState::new());
        let mut resolver = Resolver::new(Settings { bounds, ..Settings::default() }, seeds, Moment::START);
        let before = resident_bytes()?;
        let began = cpu_time();
        snapshot::load(dir, &Anchor::now(), &mut Restoring::new(&mut resolver, Moment::START));
        let took = cpu_time().saturating_sub(began);
        let grown = resident_bytes()?.saturating_sub(before);
        assert_eq!(resolver.cache().len(), usize::try_from(names)?, "all are loaded");
        let counted = resolver.cache().bytes() as f64;
        Ok(Self { cpu_ms: took.as_secs_f64() * 1_000.0, grown: grown as f64, counted })
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    Ok(resident.ok_or("no VmRSS in /proc/self/status")?.trim().parse::<usize>()? << 10)
}

/// `host-<number>.service.example.com` A.
fn message(number: u32) -> Vec<u8> {
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    for label in [format!("host-{number}").as_str(), "service", "example", "com"] {
        message.extend(u8::try_from(label.len()));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    message.extend(number.to_be_bytes());
    message
}
