//! The scriptable upstream as a process: `fake-upstream 127.0.0.1:5300`, then one mood per line on
//! standard input (`right`, `silent`, `servfail`, `slow 3s`, `loss 50%`: see `Mood`). `queries`
//! prints the number of queries.

use std::io::{self, BufRead};

use anyhow::{Context, Result};
use dogwatch_tests::upstream::{Mood, Upstream};

fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: fake-upstream ADDRESS:PORT")?;
    let upstream = Upstream::start(address.parse().context("not an address and port")?)?;
    println!("listening on {}", upstream.address);
    for line in io::stdin().lock().lines() {
        match line?.trim() {
            "queries" => println!("{}", upstream.queries()),
            word => match word.parse::<Mood>() {
                Ok(mood) => upstream.set(mood),
                Err(why) => eprintln!("{why}"),
            },
        }
    }
    // The end of standard input ends the commands, not the service.
    loop {
        std::thread::park();
    }
}
