//! Every commented example in the shipped config files is valid when it is pasted: one at a time
//! and all together.
//!
//! An example is a paragraph of comment lines with at least one TOML table in it; lines of prose
//! beside it stay comments. A part of an example that is set off by an empty comment line belongs
//! to the paragraph's first table and is tried alone too. An example may use what another one
//! defines if its prose says so: `needs [receiver.ops]`. Files below `/etc/dogwatch` that an
//! example names exist here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use dogwatch_tests::process::binary;

#[test]
fn examples_in_agent_toml_are_valid_and_keep_the_built_in_checks() {
    let shipped = Shipped::new("agent.toml");
    let built_in = shipped.checks_of(&shipped.text);
    assert!(built_in.len() >= 3, "{built_in:?}");
    let is_off = |example: &&Example| example.toml.contains("auto_checks = false");
    assert_eq!(shipped.examples.iter().filter(is_off).count(), 1, "one example switches them off");
    for (title, text) in shipped.variants(|example| !is_off(&example)) {
        shipped.accepts(&title, &text, &["dogwatch", "config", "check"]);
        let checks = shipped.checks_of(&text);
        let missing: Vec<_> = built_in.iter().filter(|name| !checks.contains(name)).collect();
        assert!(missing.is_empty(), "{title} switches off {missing:?}");
    }
    for (title, text) in shipped.variants(|_| true) {
        shipped.accepts(&title, &text, &["dogwatch", "config", "check"]);
    }
}

#[test]
fn examples_in_alertd_toml_are_valid_and_keep_the_built_in_receiver() {
    let shipped = Shipped::new("alertd.toml");
    for (title, text) in shipped.variants(|_| true) {
        let said = shipped.accepts(&title, &text, &["alertctl", "config", "check"]);
        assert!(said.contains("local"), "{title}: {said}");
    }
}

#[test]
fn examples_in_dns_toml_are_valid() {
    let shipped = Shipped::new("dns.toml");
    for (title, text) in shipped.variants(|_| true) {
        shipped.accepts(&title, &text, &["dogwatch", "dns", "--check"]);
    }
}

#[test]
fn examples_are_found_whatever_is_around_them() {
    let text = "# Prose.\n# [dns] has settings = more prose.\n\n# To do it:\n# [a]\n# x = 1  # why\n#   More prose.\n#\n\
                # It needs [b.c] and [d].\n# y = 2\n\n#[[b.c]]\n#z = [1]\n#[d]\n";
    let examples = examples(text);
    let found: Vec<_> = examples.iter().map(|example| (example.toml.as_str(), example.line)).collect();
    assert_eq!(
        found,
        [
            ("[a]\nx = 1  # why\n", 4),
            ("[a]\ny = 2\n", 4),
            ("[a]\nx = 1  # why\ny = 2\n", 4),
            ("[[b.c]]\nz = [1]\n[d]\n", 12)
        ]
    );
    assert_eq!(examples[1].needs, ["[b.c]", "[d]"]);
    assert_eq!(examples[2].needs, ["[b.c]", "[d]"]);
}

/// A shipped file and a directory for what its examples name.
struct Shipped {
    name: &'static str,
    text: String,
    examples: Vec<Example>,
    dir: tempfile::TempDir,
}

/// What one would uncomment together.
#[derive(Debug)]
struct Example {
    /// Of its paragraph, from 1.
    line: usize,
    toml: String,
    /// Tables of other examples that must be uncommented too.
    needs: Vec<String>,
    /// The paragraph, not only a part of it.
    whole: bool,
}

impl Shipped {
    fn new(name: &'static str) -> Self {
        let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/etc");
        let text = fs::read_to_string(etc.join(name)).unwrap();
        let examples = examples(&text);
        assert!(!examples.is_empty(), "{name} has no example");
        let shipped = Self { name, text, examples, dir: tempfile::tempdir().unwrap() };
        shipped.make_named_files();
        shipped
    }

    /// Makes each `"/etc/dogwatch/NAME"` of the examples in the test's directory: `*.pem` with a
    /// certificate and its key, the others with one line.
    fn make_named_files(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        for example in &self.examples {
            for rest in example.toml.split("\"/etc/dogwatch/").skip(1) {
                let name = rest.split('"').next().unwrap();
                let is = |extension| Path::new(name).extension().is_some_and(|its| its == extension);
                let is_pem = is("pem") || is("key") && example.toml.contains(".pem");
                fs::write(self.dir.path().join(name), if is_pem { &pem } else { "# line\n" }).unwrap();
            }
        }
    }

    /// The file with each of these examples uncommented, one at a time and all together.
    fn variants(&self, wanted: impl Fn(&Example) -> bool) -> Vec<(String, String)> {
        let mut variants = Vec::new();
        for example in self.examples.iter().filter(|example| wanted(example)) {
            let mut pasted = vec![example];
            for table in &example.needs {
                let needed = self.examples.iter().find(|other| other.whole && other.defines(table));
                pasted.push(needed.unwrap_or_else(|| panic!("no example in {} has {table}", self.name)));
            }
            variants.push((format!("{}:{}", self.name, example.line), self.pasted(&pasted)));
        }
        let all: Vec<_> = self.examples.iter().filter(|example| example.whole && wanted(example)).collect();
        variants.push((format!("{}: all examples", self.name), self.pasted(&all)));
        variants
    }

    fn pasted(&self, examples: &[&Example]) -> String {
        let examples: String = examples.iter().map(|example| example.toml.as_str()).collect();
        let text = format!("{}\n{examples}", self.text);
        text.replace("\"/etc/dogwatch/", &format!("\"{}/", self.dir.path().display()))
    }

    fn run(&self, text: &str, words: &[&str]) -> Output {
        let file = self.dir.path().join(self.name);
        fs::write(&file, text).unwrap();
        let (program, words) = words.split_first().unwrap();
        Command::new(binary(program)).args(words).arg("--config").arg(file).output().unwrap()
    }

    fn accepts(&self, title: &str, text: &str, words: &[&str]) -> String {
        let output = self.run(text, words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{title}:\n{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn checks_of(&self, text: &str) -> Vec<String> {
        let output = self.run(text, &["dogwatch", "list", "--json"]);
        let list: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        list.iter().map(|check| check["service"].as_str().unwrap().to_owned()).collect()
    }
}

impl Example {
    fn defines(&self, table: &str) -> bool {
        let inner = table.trim_matches(['[', ']']);
        let header = |line: &str| line.trim_start_matches('[').starts_with(inner);
        self.toml.lines().any(|line| line.starts_with('[') && header(line))
    }
}

fn examples(text: &str) -> Vec<Example> {
    let lines: Vec<_> = text.lines().zip(1..).collect();
    let paragraphs = lines.split(|(line, _)| line.trim().is_empty());
    let mut all = Vec::new();
    for paragraph in paragraphs.filter(|paragraph| !paragraph.is_empty()) {
        let mut parts: Vec<_> = paragraph
            .split(|(line, _)| *line == "#")
            .map(|part| example(part.iter().map(|(line, _)| *line), paragraph[0].1, false))
            .filter(|example| !example.toml.is_empty())
            .collect();
        let mut whole = example(paragraph.iter().map(|(line, _)| *line), paragraph[0].1, true);
        let Some(table) = whole.toml.lines().next().map(str::to_owned) else { continue };
        assert!(table.starts_with('['), "line {}: the example has no table: {table}", whole.line);
        whole.needs.retain(|needed| !whole.toml.lines().any(|line| line.starts_with(needed.as_str())));
        if parts.len() > 1 {
            for part in parts.iter_mut().filter(|part| !part.toml.starts_with('[')) {
                part.toml.insert_str(0, &format!("{table}\n"));
            }
            all.append(&mut parts);
        }
        all.push(whole);
    }
    all
}

fn example<'a>(lines: impl Iterator<Item = &'a str>, line: usize, whole: bool) -> Example {
    let comments = lines.filter_map(|line| line.strip_prefix('#')).map(str::trim);
    let (toml, prose): (Vec<_>, Vec<_>) = comments.partition(|comment| is_toml(comment));
    let toml = toml.iter().flat_map(|line| [line, "\n"]).collect();
    Example { line, toml, needs: needs(&prose.join(" ")), whole }
}

/// `needs [a], [b.c] and [d]` in prose.
fn needs(prose: &str) -> Vec<String> {
    let mut tables = Vec::new();
    for sentence in prose.split("eeds [").skip(1) {
        let mut rest = sentence;
        while let Some((table, after)) = rest.split_once(']') {
            tables.push(format!("[{table}]"));
            let next = [", [", " and ["].into_iter().find_map(|and| after.strip_prefix(and));
            let Some(next) = next else { break };
            rest = next;
        }
    }
    tables
}

/// A table's header or a key with its value; not prose, however much like one it looks.
fn is_toml(comment: &str) -> bool {
    let code = comment.split(" #").next().unwrap_or_default().trim_end();
    let is_key =
        |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.\"".contains(c));
    (code.starts_with('[') && code.ends_with(']') && !code.contains(' '))
        || code.split_once(" = ").is_some_and(|(key, _)| is_key(key))
        || code.split_once('=').is_some_and(|(key, value)| is_key(key) && !value.starts_with(' '))
}
