//! Reads one Rust file: its modules, what it declares, and every path it names.
//!
//! It reads tokens, not syntax, so paths inside macros count like any other. Code under
//! `#[cfg(test)]` is left out. Not seen: names that a macro makes up, and method calls, which name
//! no path.

use super::tokens::{Token, tokens};

/// A module that is written in this file: the file's own, or one inside it.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Below the file's own module; empty for that one.
    pub(super) path: Vec<String>,
    /// `mod name;`
    pub(super) children: Vec<Child>,
    /// Names of types, functions, constants and macros.
    pub(super) items: Vec<String>,
    pub(super) uses: Vec<Use>,
    pub(super) paths: Vec<Named>,
    /// Every identifier outside of `use`.
    pub(super) words: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    /// From `#[path = "…"]`.
    pub(super) file: Option<String>,
    pub(super) test_only: bool,
}

/// One leaf of a `use` tree.
#[derive(Debug, Clone)]
pub(super) struct Use {
    pub(super) path: Vec<String>,
    /// The name it has here; `None` for `*`.
    pub(super) name: Option<String>,
    pub(super) public: bool,
    pub(super) line: usize,
}

/// A path of two parts or more, outside of `use`.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// Reads the text of a file. The first module returned is the file's own.
pub(super) fn read(text: &str) -> Vec<Written> {
    let mut reader = Reader { modules: vec![Written::default()] };
    reader.block(&tokens(text), 0, true);
    reader.modules
}

/// What starts an item, so that a comma does not end it.
const ITEMS: &[&str] = &[
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "union",
    "unsafe",
    "use",
];

struct Reader {
    modules: Vec<Written>,
}

impl Reader {
    /// Reads the tokens of a block that belongs to module `at`. `outer`: items here can be named
    /// from elsewhere.
    fn block(&mut self, tokens: &[Token], at: usize, outer: bool) {
        let mut next = 0;
        let mut attributes = Attributes::default();
        while next < tokens.len() {
            if tokens[next].is('#') {
                let inner = usize::from(tokens.get(next + 1).is_some_and(|token| token.is('!')));
                if let Some(attribute) = tokens.get(next + 1 + inner).and_then(|token| token.group('[')) {
                    if inner == 0 {
                        attributes.read(attribute);
                    }
                    next += 2 + inner;
                    continue;
                }
            }
            if attributes.test_only {
                next = self.skip(tokens, next, at);
                attributes = Attributes::default();
                continue;
            }
            next = self.one(tokens, next, at, outer, &mut attributes);
        }
    }

    /// Steps over an item that only tests have, but notes the file it declares.
    fn skip(&mut self, tokens: &[Token], from: usize, at: usize) -> usize {
        let is_item = tokens[from].word().is_some_and(|word| ITEMS.contains(&word));
        // Behind `pub` or `pub(crate)`.
        let keyword =
            |wanted: &str| (from..tokens.len().min(from + 3)).find(|at| tokens[*at].word() == Some(wanted));
        if let Some(mod_at) = keyword("mod")
            && let (Some(name), Some(end)) =
                (tokens.get(mod_at + 1).and_then(Token::word), tokens.get(mod_at + 2))
            && end.is(';')
        {
            let child = Child { name: name.to_owned(), file: None, test_only: true };
            self.modules[at].children.push(child);
        }
        let is_use = keyword("use").is_some();
        let ends = |token: &Token| {
            token.is(';') || (token.is(',') && !is_item) || (token.group('{').is_some() && !is_use)
        };
        (from..tokens.len()).find(|index| ends(&tokens[*index])).map_or(tokens.len(), |index| index + 1)
    }

    /// Reads what starts at `from`. Returns where to go on.
    fn one(
        &mut self,
        tokens: &[Token],
        from: usize,
        at: usize,
        outer: bool,
        attributes: &mut Attributes,
    ) -> usize {
        match &tokens[from] {
            Token::Group { open, inside } => {
                self.block(inside, at, false);
                if *open == '{' {
                    *attributes = Attributes::default();
                }
                from + 1
            }
            Token::Word { text, line } => {
                let after = tokens.get(from + 1).and_then(Token::word);
                match (text.as_str(), after) {
                    ("use", _) => self.use_item(tokens, from, at, *line),
                    ("mod", Some(name)) => self.module(tokens, from, at, name, std::mem::take(attributes)),
                    (
                        "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static",
                        Some(name),
                    ) if outer => {
                        // `const fn name`, `static mut NAME`: the name comes one word later.
                        if !matches!(name, "fn" | "unsafe" | "async" | "extern" | "mut") {
                            self.modules[at].items.push(name.to_owned());
                        }
                        from + 1
                    }
                    ("macro_rules", _) => {
                        let name = tokens.get(from + 2).and_then(Token::word);
                        self.modules[at].items.extend(name.map(str::to_owned));
                        from + 3
                    }
                    _ => self.path(tokens, from, at, *line),
                }
            }
            token => {
                if token.is(';') {
                    *attributes = Attributes::default();
                }
                from + 1
            }
        }
    }

    fn module(
        &mut self,
        tokens: &[Token],
        from: usize,
        at: usize,
        name: &str,
        attributes: Attributes,
    ) -> usize {
        if let Some(inside) = tokens.get(from + 2).and_then(|token| token.group('{')) {
            let mut path = self.modules[at].path.clone();
            path.push(name.to_owned());
            self.modules.push(Written { path, ..Written::default() });
            self.block(inside, self.modules.len() - 1, true);
        } else {
            let child = Child { name: name.to_owned(), file: attributes.file, test_only: false };
            self.modules[at].children.push(child);
        }
        from + 3
    }

    fn use_item(&mut self, tokens: &[Token], from: usize, at: usize, line: usize) -> usize {
        let end = (from..tokens.len()).find(|index| tokens[*index].is(';')).unwrap_or(tokens.len());
        let is_pub = |back: usize| from.checked_sub(back).is_some_and(|at| tokens[at].word() == Some("pub"));
        let in_brackets = from.checked_sub(1).is_some_and(|at| tokens[at].group('(').is_some());
        let public = is_pub(1) || (in_brackets && is_pub(2));
        let mut leaves = Vec::new();
        tree(&tokens[from + 1..end], &[], &mut leaves);
        let uses = leaves.into_iter().map(|(path, name)| Use { path, name, public, line });
        self.modules[at].uses.extend(uses);
        end + 1
    }

    fn path(&mut self, tokens: &[Token], from: usize, at: usize, line: usize) -> usize {
        let mut path = Vec::new();
        let mut next = from;
        while let Some(segment) = tokens.get(next).and_then(Token::word) {
            path.push(segment.to_owned());
            if !is_separator(tokens, next + 1) {
                next += 1;
                break;
            }
            next += 3;
        }
        let module = &mut self.modules[at];
        module.words.extend(path.first().cloned());
        if path.len() > 1 {
            module.paths.push(Named { path, line });
        }
        next
    }
}

#[derive(Default)]
struct Attributes {
    test_only: bool,
    file: Option<String>,
}

impl Attributes {
    fn read(&mut self, attribute: &[Token]) {
        match attribute {
            [name, arguments] if name.word() == Some("cfg") => {
                let words = arguments.group('(').map(words).unwrap_or_default();
                let has = |wanted: &str| words.iter().any(|word| word == wanted);
                self.test_only |= has("test") && !has("not") && !has("any");
            }
            [name, _, Token::Literal(value)] if name.word() == Some("path") => {
                self.file = Some(value.trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
}

fn words(tokens: &[Token]) -> Vec<String> {
    tokens.iter().fold(Vec::new(), |mut all, token| {
        match token {
            Token::Word { text, .. } => all.push(text.clone()),
            Token::Group { inside, .. } => all.extend(words(inside)),
            _ => {}
        }
        all
    })
}

/// The leaves of `a::{b, c as d, e::*}`, each with the name it gets.
fn tree(tokens: &[Token], before: &[String], leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    for part in tokens.split(|token| token.is(',')) {
        let mut path = before.to_vec();
        let mut name = None;
        let mut open = true;
        for (at, token) in part.iter().enumerate() {
            match token {
                Token::Word { text, .. } if text == "as" => {
                    name = part.get(at + 1).and_then(Token::word).map(str::to_owned);
                    break;
                }
                Token::Word { text, .. } => path.push(text.clone()),
                Token::Group { inside, .. } => {
                    tree(inside, &path, leaves);
                    open = false;
                }
                token if token.is('*') => {
                    leaves.push((path.clone(), None));
                    open = false;
                }
                _ => {}
            }
        }
        if !open || path.len() == before.len() {
            continue;
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.or_else(|| path.last().cloned());
        leaves.push((path, name));
    }
}

/// Whether `::` and a word follow.
fn is_separator(tokens: &[Token], at: usize) -> bool {
    let colon = |index: usize| tokens.get(index).is_some_and(|token| token.is(':'));
    colon(at) && colon(at + 1) && tokens.get(at + 2).and_then(Token::word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(text: &str) -> Vec<String> {
        let written = read(text);
        let show =
            |leaf: &Use| format!("{} as {}", leaf.path.join("::"), leaf.name.as_deref().unwrap_or("*"));
        written[0].uses.iter().map(show).collect()
    }

    #[test]
    fn every_leaf_of_a_use_tree_is_read() {
        let text = "use crate::{a::{self, b as c}, d::*, e};\npub(crate) use super::f;";
        assert_eq!(
            leaves(text),
            ["crate::a as a", "crate::a::b as c", "crate::d as *", "crate::e as e", "super::f as f"]
        );
    }

    #[test]
    fn paths_count_inside_macros_and_not_in_comments_strings_or_tests() {
        let text = r#"
            /// crate::doc::no
            fn f() { println!("crate::text::no {}", crate::x::y()); z::w::<u8>(); }
            #[cfg(test)]
            mod tests { use crate::t::no; }
            #[cfg(test)]
            use crate::t::{no, never};
            struct S { #[cfg(test)] a: crate::t::No, b: crate::t::Yes }
        "#;
        let written = read(text);
        let paths: Vec<_> = written[0].paths.iter().map(|named| named.path.join("::")).collect();
        assert_eq!(paths, ["crate::x::y", "z::w", "crate::t::Yes"]);
        assert!(written[0].uses.is_empty());
    }

    #[test]
    fn modules_and_items_are_read() {
        let text = "mod a; #[cfg(test)] mod b; #[path = \"x.rs\"] mod c; mod d { pub(super) const fn e() {} }
                    pub struct F; const G: u8 = 1; macro_rules! h { () => {} } fn i() { const J: u8 = 1; }";
        let written = read(text);
        let children: Vec<_> =
            written[0].children.iter().map(|child| (child.name.as_str(), child.test_only)).collect();
        assert_eq!(children, [("a", false), ("b", true), ("c", false)]);
        assert_eq!(written[0].children[2].file.as_deref(), Some("x.rs"));
        assert_eq!(written[0].items, ["F", "G", "h", "i"]);
        assert_eq!(
            (written[1].path.as_slice(), written[1].items.as_slice()),
            (&["d".into()][..], &["e".into()][..])
        );
    }
}
