//! Runs cargo-deny: licences, bans, sources and advisories.
//!
//! cargo-deny clones the advisory database, which needs network access. If there is a snapshot
//! beside the checkout (`../shared/data/advisory-db`), it is used instead, as a git repository
//! under `target/`. Without a snapshot the advisories are skipped, with a message.

use std::{fs, path::Path, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    outcome::{Count, Outcome},
    sh,
};

/// The directory name that cargo-deny derives from the URL of the database.
const DATABASE: &str = "advisory-db-3157b0e258782691";

/// `cargo xtask deny`.
pub(crate) fn run() -> Result<()> {
    match step(true, &mut Count::default())? {
        Outcome::Passed => Ok(()),
        Outcome::Skipped(why) | Outcome::Failed(why) => bail!(why),
    }
}

/// Runs the checks. If cargo-deny is missing and `may_install`, installs it under `target/` first,
/// which takes minutes.
pub(crate) fn step(may_install: bool, count: &mut Count) -> Result<Outcome> {
    let Some(tool) = tool(may_install)? else {
        return Ok(Outcome::Skipped(
            "cargo-deny is missing; `cargo xtask deny` builds it once (3 min)".into(),
        ));
    };
    // cargo-deny reads the crates of every platform; a build fetches only those of this one.
    sh::run(&mut sh::cargo(&["fetch", "--quiet", "--locked"]))?;
    let mut permanent = sh::command(&[&tool]);
    permanent.args(["--offline", "--all-features", "check", "--hide-inclusion-graph"]);
    sh::run(permanent.args(["licenses", "bans", "sources"]))?;
    count.passed += 3;
    let Some(config) = config_with_database()? else {
        // Not a failure even in CI: only the project's own machines have the snapshot.
        println!("SKIPPED advisories: not checked, because ../shared/data/advisory-db does not exist");
        count.skipped += 1;
        return Ok(Outcome::Passed);
    };
    let mut advisories = sh::command(&[&tool]);
    advisories.args(["--offline", "--all-features", "--config"]).arg(config);
    sh::run(advisories.args(["check", "--hide-inclusion-graph", "advisories"]))?;
    count.passed += 1;
    Ok(Outcome::Passed)
}

fn tool(may_install: bool) -> Result<Option<PathBuf>> {
    let own = sh::target().join("tools/bin/cargo-deny");
    if own.is_file() {
        return Ok(Some(own));
    }
    if sh::has("cargo-deny") {
        return Ok(Some("cargo-deny".into()));
    }
    if !may_install {
        return Ok(None);
    }
    println!("building cargo-deny once, 3 minutes …");
    let root = sh::target().join("tools");
    sh::run(sh::cargo(&["install", "--quiet", "--locked", "cargo-deny", "--root"]).arg(&root))?;
    Ok(Some(own))
}

/// deny.toml with the path of our copy of the database; `None` without a snapshot.
fn config_with_database() -> Result<Option<PathBuf>> {
    let snapshot = sh::root().join("../shared/data/advisory-db");
    if !snapshot.is_dir() {
        return Ok(None);
    }
    let home = sh::target().join("advisory-db");
    let database = home.join(DATABASE);
    if !database.join(".git/FETCH_HEAD").is_file() {
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home)?;
        sh::run(sh::command(&["cp", "-r", "--no-preserve=mode"]).arg(&snapshot).arg(&database))?;
        git(&database, &["init", "--quiet"])?;
        git(&database, &["add", "--all", "--force"])?;
        git(
            &database,
            &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "snapshot"],
        )?;
        let head = sh::output(sh::command(&["git", "rev-parse", "HEAD"]).current_dir(&database))?;
        fs::write(database.join(".git/FETCH_HEAD"), head + "\n")?;
    }
    let config = fs::read_to_string(sh::root().join("deny.toml")).context("cannot read deny.toml")?;
    let section = format!(
        "[advisories]\ndb-path = {:?}\nmaximum-db-staleness = \"P400D\"\n",
        home.display().to_string()
    );
    let path = home.join("deny.toml");
    fs::write(&path, config.replacen("[advisories]\n", &section, 1))?;
    Ok(Some(path))
}

fn git(at: &Path, arguments: &[&str]) -> Result<()> {
    sh::output(sh::command(&["git"]).args(arguments).current_dir(at)).map(drop)
}
