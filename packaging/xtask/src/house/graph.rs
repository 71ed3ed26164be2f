//! Which file imports which: modules resolved to files, circles found.
//!
//! | counts as an import | does not |
//! | --- | --- |
//! | a `use` of something that another file declares, followed through re-exports | `mod name;` |
//! | a path of two parts or more: `crate::a::b`, `super::b`, `other_crate::b`, `imported_module::b` | naming a module in `use` |
//! | `use module::*` | a re-export of a child's item that the parent itself does not use |
//!
//! Code for tests only (`#[cfg(test)]`, and the files it declares) is left out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{
    reader::{self, Use},
    sources::Sources,
};

/// One crate of the workspace.
pub(super) struct Package {
    pub(super) name: String,
    /// From the top of the repository: `alertd/core`.
    pub(super) folder: String,
    /// Files of its programs and library, those for tests only left out, from `src/`.
    pub(super) files: BTreeSet<String>,
    /// Files in `src/` that only tests have.
    pub(super) test_files: BTreeSet<String>,
}

/// An import of one file by another. Both are paths from the top of the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) line: usize,
    /// As written.
    pub(super) path: String,
}

/// A path into something that is no part of the workspace.
pub(super) struct Outside {
    pub(super) from: String,
    pub(super) line: usize,
    pub(super) path: Vec<String>,
}

pub(super) struct Graph {
    pub(super) packages: Vec<Package>,
    /// One for each pair of files: the first in the file.
    pub(super) imports: Vec<Import>,
    pub(super) outside: Vec<Outside>,
}

struct Module {
    file: String,
    parent: Option<usize>,
    root: usize,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    uses: Vec<Use>,
    paths: Vec<reader::Named>,
    words: BTreeSet<String>,
}

#[derive(Clone)]
struct Target {
    module: usize,
    item: bool,
}

/// Re-exports of re-exports are followed this far, which also ends a circle of them.
const DEPTH_MAX: u32 = 24;

#[derive(Default)]
struct Loader {
    modules: Vec<Module>,
    /// Roots of libraries, by the name that code uses.
    libraries: BTreeMap<String, usize>,
}

pub(super) fn graph(sources: &Sources) -> Result<Graph> {
    let mut loader = Loader::default();
    let mut packages = Vec::new();
    for (name, folder) in members(sources)? {
        let src = format!("{folder}/src/");
        let mut roots: Vec<_> = ["lib.rs", "main.rs"].iter().map(|file| format!("{src}{file}")).collect();
        let bins = format!("{src}bin/");
        roots.extend(sources.below(&bins, ".rs").map(|(path, _)| path.to_owned()));
        let first = loader.modules.len();
        for root in roots.into_iter().filter(|root| sources.has(root)) {
            let at = loader.load(sources, &root, None)?;
            if root.ends_with("/lib.rs") {
                loader.libraries.insert(name.replace('-', "_"), at);
            }
        }
        // Not those that `#[path]` takes from another crate.
        let files = loader.modules[first..].iter().map(|module| module.file.clone());
        let files: BTreeSet<_> = files.filter(|file| file.starts_with(&src)).collect();
        let all = sources.below(&src, ".rs").map(|(path, _)| path.to_owned());
        let test_files = all.filter(|path| !files.contains(path)).collect();
        packages.push(Package { name, folder, files, test_files });
    }
    let (imports, outside) = loader.imports();
    Ok(Graph { packages, imports, outside })
}

/// Names and folders of the workspace's crates.
fn members(sources: &Sources) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Workspace {
        members: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    #[derive(Deserialize)]
    struct Manifest {
        workspace: Option<Workspace>,
        package: Option<Package>,
    }
    let manifest = |path: &str| -> Result<Manifest> {
        let text = sources.get(path).with_context(|| format!("no {path}"))?;
        toml::from_str(text).with_context(|| path.to_owned())
    };
    let top = manifest("Cargo.toml")?.workspace.context("Cargo.toml has no [workspace]")?;
    let named = top.members.into_iter().map(|folder| {
        let package = manifest(&format!("{folder}/Cargo.toml"))?.package;
        Ok((package.with_context(|| format!("{folder}/Cargo.toml names no package"))?.name, folder))
    });
    named.collect()
}

impl Loader {
    /// Reads the file of a module and of all its children. Returns the module's number.
    fn load(&mut self, sources: &Sources, file: &str, parent: Option<usize>) -> Result<usize> {
        let text = sources.get(file).with_context(|| format!("no file {file}"))?;
        let written = reader::read(text);
        let base = self.modules.len();
        let root = parent.map_or(base, |parent| self.modules[parent].root);
        let mut by_path = BTreeMap::new();
        let mut children = Vec::new();
        for one in written {
            let at = self.modules.len();
            let above = match one.path.split_last() {
                None => parent,
                Some((name, outer)) => {
                    let above = by_path[outer];
                    let outer: &mut Module = &mut self.modules[above];
                    outer.children.insert(name.clone(), at);
                    Some(above)
                }
            };
            children.extend(one.children.into_iter().map(|child| (at, one.path.clone(), child)));
            by_path.insert(one.path, at);
            self.modules.push(Module {
                file: file.to_owned(),
                parent: above,
                root,
                children: BTreeMap::new(),
                items: one.items.into_iter().collect(),
                uses: one.uses,
                paths: one.paths,
                words: one.words.into_iter().collect(),
            });
        }
        for (at, inside, child) in children.into_iter().filter(|(_, _, child)| !child.test_only) {
            let place = file_of(sources, file, &inside, &child)?;
            let loaded = self.load(sources, &place, Some(at))?;
            self.modules[at].children.insert(child.name, loaded);
        }
        Ok(base)
    }

    fn imports(&self) -> (Vec<Import>, Vec<Outside>) {
        let mut first = BTreeMap::new();
        let mut outside = Vec::new();
        for (at, module) in self.modules.iter().enumerate() {
            let mut import = |target: &Target, line: usize, path: &[String]| {
                let to = &self.modules[target.module].file;
                if *to != module.file {
                    let found =
                        first.entry((module.file.clone(), to.clone())).or_insert((usize::MAX, String::new()));
                    if line < found.0 {
                        *found = (line, path.join("::"));
                    }
                }
            };
            for one in &module.uses {
                let Some(target) = self.resolve(at, &one.path, 0) else {
                    let path = one.path.clone();
                    outside.push(Outside { from: module.file.clone(), line: one.line, path });
                    continue;
                };
                let names_module = !target.item && one.name.is_some();
                let is_used = one.name.as_ref().is_some_and(|name| self.is_word_of(&module.file, name));
                let facade = one.public && self.is_below(target.module, at) && !is_used;
                if !names_module && !facade {
                    import(&target, one.line, &one.path);
                }
            }
            for one in &module.paths {
                match self.resolve(at, &one.path, 0) {
                    Some(target) if target.item => import(&target, one.line, &one.path),
                    Some(_) => {}
                    None => outside.push(Outside {
                        from: module.file.clone(),
                        line: one.line,
                        path: one.path.clone(),
                    }),
                }
            }
        }
        let import = |((from, to), (line, path))| Import { from, to, line, path };
        (first.into_iter().map(import).collect(), outside)
    }

    fn is_word_of(&self, file: &str, name: &str) -> bool {
        self.modules.iter().any(|module| module.file == file && module.words.contains(name))
    }

    fn is_below(&self, module: usize, above: usize) -> bool {
        std::iter::successors(self.modules[module].parent, |at| self.modules[*at].parent)
            .any(|parent| parent == above)
    }

    /// Where the item that `path` names in module `at` is declared; `None` outside of the
    /// workspace.
    fn resolve(&self, at: usize, path: &[String], depth: u32) -> Option<Target> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let module = |module| Some(Target { module, item: false });
        let start = match first.as_str() {
            "crate" => module(self.modules[at].root),
            "self" => module(at),
            "super" => module(self.modules[at].parent?),
            name => self
                .lookup(at, name, depth + 1)
                .or_else(|| self.libraries.get(name).and_then(|root| module(*root))),
        }?;
        rest.iter().try_fold(start, |target, segment| {
            if target.item {
                // Something inside of a type.
                return Some(target);
            }
            if segment == "super" {
                return module(self.modules[target.module].parent?);
            }
            let item = Target { module: target.module, item: true };
            Some(self.lookup(target.module, segment, depth + 1).unwrap_or(item))
        })
    }

    /// What `name` means inside a module.
    fn lookup(&self, at: usize, name: &str, depth: u32) -> Option<Target> {
        if depth > DEPTH_MAX {
            return None;
        }
        let module = &self.modules[at];
        if let Some(child) = module.children.get(name) {
            return Some(Target { module: *child, item: false });
        }
        if module.items.contains(name) {
            return Some(Target { module: at, item: true });
        }
        let named = module.uses.iter().filter(|one| one.name.as_deref() == Some(name));
        // `use time::time` does not define the `time` that it starts with.
        let mut found = named
            .filter(|one| one.path.first().is_none_or(|first| first != name))
            .filter_map(|one| self.resolve(at, &one.path, depth + 1));
        if let Some(target) = found.next() {
            return Some(target);
        }
        let globs = module.uses.iter().filter(|one| one.name.is_none());
        globs
            .filter_map(|one| self.resolve(at, &one.path, depth + 1))
            .filter(|target| !target.item && target.module != at)
            .find_map(|target| self.lookup(target.module, name, depth + 1))
    }
}

/// Where `mod child;` of `file` is. `inside`: the modules of the file around it.
fn file_of(sources: &Sources, file: &str, inside: &[String], child: &reader::Child) -> Result<String> {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    if let Some(path) = &child.file {
        return Ok(normal(&format!("{folder}/{path}")));
    }
    let is_root = matches!(name, "lib.rs" | "main.rs" | "mod.rs") || folder.ends_with("/bin");
    let mut place = folder.to_owned();
    if !is_root {
        place = format!("{place}/{}", name.trim_end_matches(".rs"));
    }
    for module in inside {
        place = format!("{place}/{module}");
    }
    let candidates = [format!("{place}/{}.rs", child.name), format!("{place}/{}/mod.rs", child.name)];
    match candidates.into_iter().find(|path| sources.has(path)) {
        Some(path) => Ok(path),
        None => bail!("{file} declares `mod {}`, whose file is missing", child.name),
    }
}

/// `a/b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => parts.truncate(parts.len().saturating_sub(1)),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Sets of files that reach one another: two files or more each, the largest first.
///
/// A module and its own children count as one thing, as in Rust: imports between them, in either
/// direction, make no circle.
pub(super) fn circles<'a>(imports: impl Iterator<Item = &'a Import>) -> Vec<Vec<String>> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for import in imports.filter(|one| !holds(&one.from, &one.to) && !holds(&one.to, &one.from)) {
        next.entry(&import.from).or_default().push(&import.to);
        next.entry(&import.to).or_default();
    }
    let mut search = Search {
        next: &next,
        index: BTreeMap::new(),
        low: BTreeMap::new(),
        stack: Vec::new(),
        found: Vec::new(),
    };
    for file in next.keys() {
        if !search.index.contains_key(file) {
            search.visit(file);
        }
    }
    let mut found: Vec<Vec<String>> = search.found;
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}

/// Whether the module in file `outer` holds the one in `inner`: `a/src/x/mod.rs` and `a/src/x.rs`
/// hold `a/src/x/y.rs`.
fn holds(outer: &str, inner: &str) -> bool {
    let module = outer.trim_end_matches(".rs").trim_end_matches("/mod");
    let module = module.strip_suffix("/lib").or_else(|| module.strip_suffix("/main")).unwrap_or(module);
    inner.strip_prefix(module).is_some_and(|rest| rest.starts_with('/'))
}

/// Tarjan's strongly connected components. The depth is that of the import chain: hundreds at most.
struct Search<'a> {
    next: &'a BTreeMap<&'a str, Vec<&'a str>>,
    index: BTreeMap<&'a str, usize>,
    low: BTreeMap<&'a str, usize>,
    stack: Vec<&'a str>,
    found: Vec<Vec<String>>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, file: &'a str) {
        let own = self.index.len();
        self.index.insert(file, own);
        self.low.insert(file, own);
        self.stack.push(file);
        for other in &self.next[file] {
            let reached = match self.index.get(other) {
                None => {
                    self.visit(other);
                    self.low[other]
                }
                Some(index) if self.stack.contains(other) => *index,
                Some(_) => continue,
            };
            let low = self.low[file].min(reached);
            self.low.insert(file, low);
        }
        if self.low[file] == own {
            let from = self.stack.iter().position(|one| *one == file).unwrap_or(0);
            let mut circle: Vec<_> = self.stack.split_off(from).into_iter().map(str::to_owned).collect();
            circle.sort();
            if circle.len() > 1 {
                self.found.push(circle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Graph {
        let mut all = vec![
            ("Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]"),
            ("a/Cargo.toml", "[package]\nname = \"dog-a\""),
            ("b/Cargo.toml", "[package]\nname = \"dog-b\""),
        ];
        all.extend(files);
        graph(&Sources::of(&all)).unwrap()
    }

    fn arrows(graph: &Graph) -> Vec<String> {
        let short = |path: &str| path.replace("/src/", ":");
        graph.imports.iter().map(|one| format!("{} > {}", short(&one.from), short(&one.to))).collect()
    }

    #[test]
    fn imports_are_followed_through_re_exports_to_the_file_that_declares() {
        let graph = tree(&[
            ("a/src/lib.rs", "pub mod one; mod two; pub use two::Deep;"),
            ("a/src/one.rs", "use crate::Deep; use super::two; fn f() { two::leaf::g(); }"),
            ("a/src/two/mod.rs", "mod leaf; pub use leaf::Deep;"),
            ("a/src/two/leaf.rs", "pub struct Deep; pub fn g() {}"),
            ("b/src/lib.rs", "use dog_a::Deep; use std::fs;"),
        ]);
        assert_eq!(arrows(&graph), ["a:one.rs > a:two/leaf.rs", "b:lib.rs > a:two/leaf.rs"]);
        assert_eq!(graph.outside[0].path, ["std", "fs"]);
    }

    #[test]
    fn a_parent_that_uses_what_it_re_exports_imports_it() {
        let graph = tree(&[
            ("a/src/lib.rs", "mod x; pub use x::X; fn f(_: X) {}"),
            ("a/src/x.rs", "use super::f; pub struct X;"),
            ("b/src/lib.rs", ""),
        ]);
        assert_eq!(arrows(&graph), ["a:lib.rs > a:x.rs", "a:x.rs > a:lib.rs"]);
        assert!(circles(graph.imports.iter()).is_empty(), "a module and its child");
    }

    #[test]
    fn circles_are_files_that_reach_one_another() {
        let graph = tree(&[
            ("a/src/lib.rs", "mod x; mod y; mod z;"),
            ("a/src/x.rs", "use crate::y::Y; pub struct X;"),
            ("a/src/y.rs", "use crate::z::Z; pub struct Y;"),
            ("a/src/z.rs", "use crate::x::X; pub struct Z;"),
            ("b/src/lib.rs", ""),
        ]);
        assert_eq!(circles(graph.imports.iter()), [["a/src/x.rs", "a/src/y.rs", "a/src/z.rs"]]);
    }

    #[test]
    fn modules_for_tests_are_files_apart_that_import_nothing() {
        let graph = tree(&[
            ("a/src/lib.rs", "mod x; #[cfg(test)] mod tests;"),
            ("a/src/x.rs", "pub struct X;"),
            ("a/src/tests.rs", "use crate::x::X;"),
            ("b/src/lib.rs", ""),
        ]);
        assert!(graph.imports.is_empty());
        assert!(graph.packages[0].test_files.contains("a/src/tests.rs"));
    }
}
