//! The layers of each crate, from `packaging/house.toml`, and what breaks them.
//!
//! A file may import from its own layer and from lower ones. Core layers lie below shell layers,
//! and what core files may name of other crates is limited too. A file that no layer lists is a
//! fault, so that a new file gets its place when it is made.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{
    graph::{Graph, Import, Package, circles},
    sources::Sources,
    tidy,
};

/// The file of the table, from the top of the repository.
pub(super) const TABLE: &str = "packaging/house.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// Paths that no core file names: runtimes, sockets, files, threads, clocks.
    not_in_core: Vec<String>,
    /// Exceptions inside of these.
    #[serde(default)]
    yet_in_core: Vec<String>,
    /// Lines of Markdown that are too wide; not more.
    #[serde(default)]
    wide_prose: usize,
    /// Modules that ARCHITECTURE.md lacks, and rows of it that name nothing; not more.
    #[serde(default)]
    unmapped: usize,
    /// Phrases that are ruled out; not more.
    #[serde(default)]
    phrases: usize,
    #[serde(rename = "crate")]
    crates: Vec<Layers>,
}

/// One crate's rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layers {
    name: String,
    /// The crates of this workspace that it may use.
    #[serde(default)]
    uses: Vec<String>,
    /// Paths that no file of it names.
    #[serde(default)]
    never: Vec<String>,
    /// How many circles there are; not more.
    #[serde(default)]
    circles: usize,
    /// Layers of pure files, the lowest first.
    #[serde(default)]
    core: Vec<Vec<String>>,
    /// Layers with sockets, files, clocks and tasks, the lowest first; all above the core.
    #[serde(default)]
    shell: Vec<Vec<String>>,
    /// Comment lines that are too wide; not more.
    #[serde(default)]
    wide_comments: usize,
    /// `name.rs` files beside a folder `name/`; not more.
    #[serde(default)]
    split_modules: usize,
    /// Upward imports that are known.
    #[serde(default)]
    allowed: Vec<Allowed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    from: String,
    /// A file of this crate, or of another one from the top of the repository.
    to: String,
    /// Why; for the reader.
    #[expect(dead_code, reason = "required so that an exception is explained; only people read it")]
    because: String,
}

/// The layer of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rank {
    /// From the lowest.
    layer: usize,
    core: bool,
}

/// What was found about one crate.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) circles: Vec<Vec<String>>,
    pub(super) upward: Vec<Import>,
    pub(super) core_to_shell: Vec<Import>,
    /// What fails, ready to print: `file:line: text`.
    pub(super) faults: Vec<String>,
    /// Numbers in the table that could be lower.
    pub(super) hints: Vec<String>,
}

impl Table {
    pub(super) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).with_context(|| TABLE.to_owned())
    }

    pub(super) fn of(sources: &Sources) -> Result<Self> {
        Self::parse(sources.get(TABLE).with_context(|| format!("no {TABLE}"))?)
    }

    /// Holds the graph against the table: findings by crate, in the order of the workspace.
    pub(super) fn judge(&self, graph: &Graph) -> Vec<Findings> {
        let mut ranks = BTreeMap::new();
        let mut findings = Vec::new();
        for package in &graph.packages {
            let mut own = Findings::default();
            match self.crates.iter().find(|layers| layers.name == package.name) {
                Some(layers) => ranks.extend(layers.ranks(package, &mut own.faults)),
                None => own.faults.push(format!("{TABLE}: no [[crate]] for {}", package.name)),
            }
            let inside = graph.imports.iter().filter(|one| package.files.contains(&one.from));
            own.circles = circles(inside.filter(|one| package.files.contains(&one.to)));
            findings.push(own);
        }
        for (package, own) in graph.packages.iter().zip(&mut findings) {
            if let Some(layers) = self.crates.iter().find(|layers| layers.name == package.name) {
                layers.judge(package, graph, &ranks, own);
                self.keep_outside_out(&layers.never, package, graph, &ranks, own);
            }
        }
        findings
    }

    /// The rules about text, for the crates and for the repository as a whole.
    pub(super) fn tidy(&self, sources: &Sources, graph: &Graph) -> Findings {
        let mut all = Findings::default();
        for package in &graph.packages {
            let Some(layers) = self.crates.iter().find(|layers| layers.name == package.name) else {
                continue;
            };
            let name = &package.name;
            let wide = tidy::wide_comments(sources, package);
            all.ratchet(&format!("{name}: wide_comments"), layers.wide_comments, wide);
            let split = tidy::split_modules(sources, package);
            all.ratchet(&format!("{name}: split_modules"), layers.split_modules, split);
        }
        all.ratchet("wide_prose", self.wide_prose, tidy::wide_prose(sources));
        all.ratchet("phrases", self.phrases, tidy::phrases(sources));
        all.ratchet("unmapped", self.unmapped, tidy::map(sources, &graph.packages));
        all
    }

    fn keep_outside_out(
        &self,
        never: &[String],
        package: &Package,
        graph: &Graph,
        ranks: &BTreeMap<String, Rank>,
        own: &mut Findings,
    ) {
        let is_core = |file: &str| ranks.get(file).is_some_and(|rank| rank.core);
        for outside in graph.outside.iter().filter(|one| package.files.contains(&one.from)) {
            let path = outside.path.join("::");
            if let Some(start) = never.iter().find(|start| starts_with(&path, start)) {
                own.faults.push(format!(
                    "{}:{}: names {path}; {} may not use {start}",
                    outside.from, outside.line, package.name
                ));
            }
            let forbidden = self.not_in_core.iter().find(|start| starts_with(&path, start));
            let excepted = self.yet_in_core.iter().any(|start| starts_with(&path, start));
            if let Some(start) = forbidden.filter(|_| is_core(&outside.from) && !excepted) {
                own.faults.push(format!(
                    "{}:{}: a core file names {path}; no core file may use {start}",
                    outside.from, outside.line
                ));
            }
        }
    }
}

/// So many lines of one kind are printed.
const LISTED_MAX: usize = 40;

impl Findings {
    /// Holds what was found against the number that the table permits.
    fn ratchet(&mut self, name: &str, permitted: usize, found: Vec<String>) {
        if found.len() > permitted {
            self.faults.push(format!("{TABLE}: {name} permits {permitted}, but there are {}:", found.len()));
            let more = found.len().saturating_sub(LISTED_MAX);
            self.faults.extend(found.into_iter().take(LISTED_MAX));
            self.faults.extend((more > 0).then(|| format!("… and {more} more")));
        } else if found.len() < permitted {
            self.hints.push(format!("{TABLE}: {name} = {permitted} can be lowered to {}", found.len()));
        }
    }
}

impl Layers {
    /// The rank of every file of the crate. Files without one and entries without a file are
    /// faults.
    fn ranks(&self, package: &Package, faults: &mut Vec<String>) -> BTreeMap<String, Rank> {
        let layers =
            self.core.iter().map(|layer| (layer, true)).chain(self.shell.iter().map(|layer| (layer, false)));
        let entries: Vec<(&str, Rank)> = layers
            .enumerate()
            .flat_map(|(layer, (entries, core))| {
                entries.iter().map(move |entry| (entry.as_str(), Rank { layer, core }))
            })
            .collect();
        let mut ranks = BTreeMap::new();
        let mut matched = BTreeSet::new();
        for file in &package.files {
            let own = file.strip_prefix(&package.folder).and_then(|rest| rest.strip_prefix("/src/"));
            let own = own.unwrap_or(file);
            let fits = |entry: &str| entry == own || (entry.ends_with('/') && own.starts_with(entry));
            let best = entries.iter().filter(|(entry, _)| fits(entry)).max_by_key(|(entry, _)| entry.len());
            match best {
                Some((entry, rank)) => {
                    matched.insert(*entry);
                    ranks.insert(file.clone(), *rank);
                }
                None => faults.push(format!("{file}: no layer lists it; put it into {TABLE}")),
            }
        }
        for (entry, _) in entries.iter().filter(|(entry, _)| !matched.contains(entry)) {
            faults.push(format!("{TABLE}: {}: {entry} matches no file", self.name));
        }
        ranks
    }

    fn judge(&self, package: &Package, graph: &Graph, ranks: &BTreeMap<String, Rank>, own: &mut Findings) {
        let mut used = vec![false; self.allowed.len()];
        for import in graph.imports.iter().filter(|import| package.files.contains(&import.from)) {
            let at = format!("{}:{}", import.from, import.line);
            let target = graph.packages.iter().find(|other| other.files.contains(&import.to));
            let same = target.is_some_and(|target| target.name == package.name);
            if let Some(target) = target.filter(|_| !same)
                && !self.uses.contains(&target.name)
            {
                own.faults.push(format!("{at}: {} may not use {}", self.name, target.name));
            }
            let (Some(from), Some(to)) = (ranks.get(&import.from), ranks.get(&import.to)) else { continue };
            let to_shell = from.core && !to.core;
            let upward = same && from.layer < to.layer;
            if to_shell {
                own.core_to_shell.push(import.clone());
            }
            if upward {
                own.upward.push(import.clone());
            }
            let prefix = format!("{}/src/", package.folder);
            let allowed = self.allowed.iter().position(|one| {
                import.from.strip_prefix(&prefix) == Some(&one.from)
                    && import.to.strip_prefix(&prefix).unwrap_or(&import.to) == one.to
            });
            if let Some(which) = allowed.filter(|_| upward || to_shell) {
                used[which] = true;
            } else if to_shell {
                own.faults.push(format!("{at}: core imports shell: {} is in {}", import.path, import.to));
            } else if upward {
                own.faults
                    .push(format!("{at}: imports from a higher layer: {} is in {}", import.path, import.to));
            }
        }
        for (one, _) in self.allowed.iter().zip(used).filter(|(_, used)| !used) {
            own.faults.push(format!(
                "{TABLE}: {}: {} no longer imports {}; delete the exception",
                self.name, one.from, one.to
            ));
        }
        if own.circles.len() != self.circles {
            own.faults.push(format!(
                "{TABLE}: {} has {} circles, and the table says {}: break the new one, or lower the number",
                self.name,
                own.circles.len(),
                self.circles
            ));
        }
    }
}

/// Whether `path` is `start` or something in it.
fn starts_with(path: &str, start: &str) -> bool {
    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::{super::graph::graph, *};

    const RULES: &str = r#"
        not_in_core = ["std::fs", "tokio"]
        [[crate]]
        name = "dog"
        core = [["rule.rs"], ["core/"]]
        shell = [["disk.rs"], ["lib.rs"]]
    "#;

    /// The faults of a small crate with `files` beside what it needs.
    fn faults(rules: &str, files: &[(&str, &str)]) -> Vec<String> {
        let mut all = vec![
            ("Cargo.toml", "[workspace]\nmembers = [\"a\"]"),
            ("a/Cargo.toml", "[package]\nname = \"dog\""),
            ("a/src/lib.rs", "mod rule; mod core; mod disk;"),
            ("a/src/rule.rs", "pub struct Rule;"),
            ("a/src/core/mod.rs", "use crate::rule::Rule; pub struct Core(Rule);"),
            ("a/src/disk.rs", "use crate::core::Core; pub fn write(_: Core) {}"),
        ];
        all.retain(|(path, _)| files.iter().all(|(other, _)| other != path));
        all.extend(files);
        let graph = graph(&Sources::of(&all)).unwrap();
        Table::parse(rules).unwrap().judge(&graph).remove(0).faults
    }

    #[test]
    fn a_tree_that_keeps_its_layers_has_no_faults() {
        assert_eq!(faults(RULES, &[]), Vec::<String>::new());
    }

    #[test]
    fn an_import_from_core_to_shell_is_a_fault_with_its_line() {
        let text = "use crate::rule::Rule;\nuse crate::disk;\npub struct Core(Rule);\nfn f() { disk::write(todo!()) }";
        assert_eq!(
            faults(RULES, &[("a/src/core/mod.rs", text)]).first().unwrap(),
            "a/src/core/mod.rs:4: core imports shell: disk::write is in a/src/disk.rs"
        );
    }

    #[test]
    fn an_import_from_a_higher_layer_is_a_fault_unless_it_is_listed_with_its_reason() {
        let upward = [
            ("a/src/rule.rs", "use crate::core::LIMIT; pub struct Rule;"),
            ("a/src/core/mod.rs", "pub const LIMIT: u8 = 1; pub struct Core;"),
        ];
        assert_eq!(
            faults(RULES, &upward),
            ["a/src/rule.rs:1: imports from a higher layer: crate::core::LIMIT is in a/src/core/mod.rs"]
        );
        let listed = format!(
            "{RULES}\n[[crate.allowed]]\nfrom = \"rule.rs\"\nto = \"core/mod.rs\"\nbecause = \"it moves next\""
        );
        assert_eq!(faults(&listed, &upward), Vec::<String>::new());
        assert_eq!(
            faults(&listed, &[]),
            ["packaging/house.toml: dog: rule.rs no longer imports core/mod.rs; delete the exception"]
        );
    }

    #[test]
    fn a_core_file_that_opens_files_is_a_fault() {
        assert_eq!(
            faults(RULES, &[("a/src/rule.rs", "pub struct Rule;\nfn f() { std::fs::read(\"x\"); }")]),
            ["a/src/rule.rs:2: a core file names std::fs::read; no core file may use std::fs"]
        );
    }

    #[test]
    fn a_path_that_a_crate_never_names_is_a_fault_in_any_file_but_not_in_tests() {
        let rules = RULES.replace("name = \"dog\"", "name = \"dog\"\nnever = [\"fastrand\"]");
        let text = "use crate::core::Core;\npub fn write(_: Core) { fastrand::u16(..); }";
        assert_eq!(
            faults(&rules, &[("a/src/disk.rs", text)]),
            ["a/src/disk.rs:2: names fastrand::u16; dog may not use fastrand"]
        );
        let text = "use crate::core::Core;\npub fn write(_: Core) {}\n#[cfg(test)]\nmod tests { fn f() { fastrand::u16(..); } }";
        assert_eq!(faults(&rules, &[("a/src/disk.rs", text)]), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_a_layer_and_a_layer_without_a_file_are_faults() {
        let files = [("a/src/lib.rs", "mod rule; mod core; mod disk; mod new;"), ("a/src/new.rs", "")];
        assert_eq!(
            faults(RULES, &files),
            ["a/src/new.rs: no layer lists it; put it into packaging/house.toml"]
        );
        let rules = RULES.replace("\"core/\"", "\"core/\", \"old.rs\"");
        assert_eq!(faults(&rules, &[]), ["packaging/house.toml: dog: old.rs matches no file"]);
    }

    #[test]
    fn a_new_circle_is_a_fault() {
        let files = [
            ("a/src/rule.rs", "pub mod one; pub mod two; pub struct Rule;"),
            ("a/src/rule/one.rs", "use super::two::Two; pub struct One;"),
            ("a/src/rule/two.rs", "use super::one::One; pub struct Two;"),
        ];
        let rules = RULES.replace("\"rule.rs\"", "\"rule.rs\", \"rule/\"");
        let found = faults(&rules, &files);
        assert!(found[0].contains("dog has 1 circles, and the table says 0"), "{found:?}");
    }
}
