//! Writes snapshots of N names as the daemon does, loads them as the daemon does, and prints how long that takes.
//!
//! `cargo run --release -p dogwatch-dns --example snapshot-load -- 100000 1000000`

use std::{env, fs, thread, time::Duration};

use dogwatch_dns::{
    cache::Bounds,
    clock,
    moment::Moment,
    resolver::{Resolver, Settings},
    snapshot::{self, Anchor, Learned, Limits, Writer},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
        let mut took: Vec<f64> = (0..5).map(|_| load(dir.path(), names)).collect();
        took.sort_by(f64::total_cmp);
        println!(
            "{names} names, {} bytes each on disk: loaded in {:.1} ms (best {:.1}, worst {:.1} of 5)",
            bytes / u64::from(names),
            took[2],
            took[0],
            took[4]
        );
    }
    Ok(())
}

fn write(dir: &std::path::Path, names: u32) {
    let nothing = snapshot::load(dir, &Anchor::now(), &mut |_| {});
    let writer = Writer::start(dir, &nothing, Limits { bytes_max: 1 << 30 });
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
        // The writer keeps pace with any upstream, not with a loop that makes names up.
        while number.is_multiple_of(10_000) && writer.counts().records() + 10_000 < u64::from(number) {
            thread::sleep(Duration::from_millis(5));
        }
    }
    writer.finish();
}

fn load(dir: &std::path::Path, names: u32) -> f64 {
    let bounds = Bounds { bytes_max: 1 << 30, ..Bounds::default() };
    let mut resolver = Resolver::new(Settings { bounds, ..Settings::default() }, 1, Moment::START);
    let began = clock::since_boot();
    snapshot::load(dir, &Anchor::now(), &mut |answer| {
        resolver.restore(answer, Moment::START);
    });
    let took = clock::since_boot().saturating_sub(began);
    assert_eq!(resolver.cache().len(), usize::try_from(names).unwrap_or(0), "all are there");
    took.as_secs_f64() * 1_000.0
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
