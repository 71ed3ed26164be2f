//! Man pages and shell completions, generated from the argument parsers of the programs.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::{Shell, generate_to};

use crate::files;

/// The programs' commands and the manual section of each.
fn commands() -> Vec<(Command, &'static str)> {
    vec![
        (dogwatch::cli::command(), "1"),
        (dogwatch_alertd::ctl::command(), "1"),
        (dogwatch_alertd::arguments::command(), "8"),
    ]
}

/// `cargo xtask docs DIR`: man pages and completions, as plain files.
pub(crate) fn write(dir: &Path) -> Result<()> {
    for (name, page) in pages()? {
        files::write(&dir.join("man").join(name), &page, 0o644)?;
    }
    completions(&dir.join("completions"))
}

/// Installs them below `root`, where Debian expects them.
pub(crate) fn install(root: &Path) -> Result<()> {
    for (name, page) in pages()? {
        let section = name.rsplit('.').next().context("a page has a section")?;
        let to = root.join(format!("usr/share/man/man{section}/{name}.gz"));
        files::write(&to, &files::gzip(&page)?, 0o644)?;
    }
    let made = root.join("completions");
    completions(&made)?;
    for (command, _) in commands() {
        let name = command.get_name();
        for (from, to) in [
            (format!("{name}.bash"), format!("usr/share/bash-completion/completions/{name}")),
            (format!("_{name}"), format!("usr/share/zsh/vendor-completions/_{name}")),
            (format!("{name}.fish"), format!("usr/share/fish/vendor_completions.d/{name}.fish")),
        ] {
            files::write(&root.join(to), &fs::read(made.join(from))?, 0o644)?;
        }
    }
    Ok(fs::remove_dir_all(made)?)
}

/// Every page with its file name: `dogwatch.1`, `dogwatch-run.1`, …
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    for (mut command, section) in commands() {
        command.build();
        page(&command, section, &mut pages)?;
    }
    Ok(pages)
}

fn page(command: &Command, section: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = clap_mangen::Man::new(command.clone()).section(section).manual("dogwatch").source("dogwatch");
    let mut bytes = Vec::new();
    man.render(&mut bytes)?;
    pages.push((format!("{name}.{section}"), bytes));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        page(sub, section, pages)?;
    }
    Ok(())
}

fn completions(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (mut command, _) in commands() {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut command, &name, dir)?;
        }
    }
    Ok(())
}
