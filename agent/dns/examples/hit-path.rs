//! Measures the CPU time of a cached answer from query bytes to answer bytes, without the kernel:
//! the mean of millions, in nanoseconds, with names in an order typical of hosts (no name twice in
//! a row). A tool for tuning; the benchmark that counts is `cargo xtask bench dns`.
//!
//! `cargo run --release -p dogwatch-dns --example hit-path -- 10000`
//!
//! A second argument sets the number of answers per repetition instead of four million. For the
//! instructions per answer, take the difference of two runs under `valgrind --tool=callgrind`.

use std::{env, fs, hash::RandomState, time::Duration};

use dogwatch_dns_core::{
    message::{
        name::from_text,
        reply::Transport,
        wire::{Question, write_query},
    },
    moment::Moment,
    resolver::{Client, Outcome, Remembered, Resolver, Seeds},
    settings::Settings,
};

const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const ANSWERS: &str = "4000000";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let names: u32 = env::args().nth(1).unwrap_or_else(|| "10000".into()).parse()?;
    let answers: u32 = env::args().nth(2).unwrap_or_else(|| ANSWERS.into()).parse()?;
    let seeds = Seeds::repeatable(1, RandomState::new());
    let mut resolver = Resolver::new(Settings::default(), seeds, Moment::START);
    let queries: Vec<Vec<u8>> = (0..names).map(query).collect();
    for query in &queries {
        let mut message = query.clone();
        message[2] |= 0x80;
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 1]);
        assert!(resolver.restore(&Remembered::new(&message), Moment::START), "a good answer is cached");
    }
    let now = Moment::START + Duration::from_secs(1);
    let mut random = fastrand::Rng::with_seed(1);
    let order: Vec<usize> = (0..1 << 16).map(|_| random.usize(..queries.len())).collect();
    let mut out = Vec::with_capacity(512);
    for _ in 0..5 {
        let began = cpu_time()?;
        for &place in order.iter().cycle().take(answers as usize) {
            let outcome =
                resolver.on_query(&queries[place], Client::Stream(0), Transport::Udp, now, &mut out);
            assert_eq!(outcome, Outcome::Reply, "all are hits");
        }
        let took = cpu_time()?.saturating_sub(began);
        println!("{names} names: {:.0} ns per answer", took.as_secs_f64() * 1e9 / f64::from(answers));
    }
    Ok(())
}

/// Of this process, which has one thread. Not clock_gettime(2): rustix looks for it in the vDSO,
/// which valgrind hides.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}

/// `n<number>.t3600.bench.zz` A.
fn query(number: u32) -> Vec<u8> {
    let name = from_text(&format!("n{number}.t3600.bench.zz")).unwrap_or_default();
    let mut packet = Vec::new();
    write_query(&mut packet, 7, &Question { name: &name, kind: TYPE_A, class: CLASS_IN }, false, false);
    // Without EDNS, like glibc's queries.
    packet.truncate(packet.len() - 11);
    packet[11] = 0;
    packet
}
