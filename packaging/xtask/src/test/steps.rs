//! The steps of `cargo xtask test`: each runs, is timed and ends in one row of the closing table.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    outcome::{Count, Outcome},
    sh,
};

#[derive(Serialize, Deserialize)]
struct Step {
    name: String,
    took: Duration,
    outcome: Outcome,
    count: Count,
    /// Ran beside the others.
    #[serde(default)]
    aside: bool,
}

pub(super) struct Steps {
    done: Vec<Step>,
    strict: bool,
}

impl Steps {
    pub(super) fn new(strict: bool) -> Self {
        Self { done: Vec::new(), strict }
    }

    /// Runs a cargo command as a step. Returns whether it passed.
    pub(super) fn cargo(&mut self, name: &str, arguments: &[&str]) -> bool {
        self.run(name, |_| sh::run(&mut sh::cargo(arguments)).map(|()| Outcome::Passed))
    }

    /// Runs a step. Returns whether it passed.
    pub(super) fn run(&mut self, name: &str, step: impl FnOnce(&mut Count) -> Result<Outcome>) -> bool {
        println!("\n=== {name}");
        let (from, mut count) = (clock::now(), Count::default());
        let mut outcome = step(&mut count).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let (true, Outcome::Skipped(why)) = (self.strict, &outcome) {
            outcome = Outcome::Failed(format!("skipped, which --strict forbids: {why}"));
        }
        if count == Count::default() {
            match outcome {
                Outcome::Passed => count.passed = 1,
                Outcome::Skipped(_) => count.skipped = 1,
                Outcome::Failed(_) => count.failed = 1,
            }
        }
        match &outcome {
            Outcome::Passed => {}
            Outcome::Skipped(why) => println!("SKIPPED {name}: {why}"),
            Outcome::Failed(why) => println!("FAILED {name}: {why}"),
        }
        let passed = matches!(outcome, Outcome::Passed);
        let took = clock::now().duration_since(from);
        self.done.push(Step { name: name.to_owned(), took, outcome, count, aside: false });
        passed
    }

    /// Writes the rows for [`Self::take`] of another process.
    pub(super) fn save(&self, to: &Path) -> Result<()> {
        fs::write(to, serde_json::to_vec(&self.done)?)
            .with_context(|| format!("cannot write {}", to.display()))
    }

    /// Takes over the rows of steps that another process ran meanwhile.
    pub(super) fn take(&mut self, from: &Path) -> Result<()> {
        let steps: Vec<Step> = serde_json::from_slice(&fs::read(from)?)?;
        self.done.extend(steps.into_iter().map(|step| Step { aside: true, ..step }));
        Ok(())
    }

    /// Prints the table and the closing line. An error if a step failed.
    pub(super) fn finish(self, from: Instant) -> Result<()> {
        let all = clock::now().duration_since(from);
        println!("\n=== summary, {}", clock::took(from));
        let mut total = Count::default();
        let mut failed = Vec::new();
        let mut any_aside = false;
        for step in &self.done {
            let (mark, why) = match &step.outcome {
                Outcome::Passed => ("ok", ""),
                Outcome::Skipped(why) => ("SKIPPED", why.as_str()),
                Outcome::Failed(why) => ("FAILED", why.as_str()),
            };
            let Count { passed, failed: bad, skipped } = step.count;
            let share = 100.0 * step.took.as_secs_f64() / all.as_secs_f64().max(0.001);
            let aside = if step.aside { "*" } else { " " };
            any_aside |= step.aside;
            println!(
                "{:<10} {mark:<8} {:>7.1} s {share:>5.1} %{aside}  {passed} passed, {bad} failed, {skipped} skipped",
                step.name,
                step.took.as_secs_f64()
            );
            if !why.is_empty() {
                println!("           {}", why.lines().next().unwrap_or_default());
            }
            if mark == "FAILED" {
                failed.push(step.name.as_str());
            }
            total.passed += passed;
            total.failed += bad;
            total.skipped += skipped;
        }
        if any_aside {
            println!("(* ran beside the steps above it)");
        }
        if !failed.is_empty() && total.failed == 0 {
            total.failed = 1;
        }
        println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}
