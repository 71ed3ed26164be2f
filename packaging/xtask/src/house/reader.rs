//! Reads one Rust file: its modules, what it declares, and every path it names.
//!
//! It reads tokens, not syntax, so paths inside macros count like any other. Code under
//! `#[cfg(test)]` is left out. Not seen: names that a macro makes up, and method calls, which name
//! no path.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

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
pub(super) fn read(text: &str) -> Result<Vec<Written>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
    let mut reader = Reader { modules: vec![Written::default()] };
    reader.block(tokens, 0, true);
    Ok(reader.modules)
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
    fn block(&mut self, tokens: TokenStream, at: usize, outer: bool) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut next = 0;
        let mut attributes = Attributes::default();
        while next < tokens.len() {
            if is_punct(&tokens[next], '#') {
                let inner = usize::from(tokens.get(next + 1).is_some_and(|token| is_punct(token, '!')));
                if let Some(TokenTree::Group(group)) = tokens.get(next + 1 + inner) {
                    if inner == 0 {
                        attributes.read(&group.stream());
                    }
                    next += 2 + inner;
                    continue;
                }
            }
            if attributes.test_only {
                next = self.skip(&tokens, next, at);
                attributes = Attributes::default();
                continue;
            }
            next = self.one(&tokens, next, at, outer, &mut attributes);
        }
    }

    /// Steps over an item that only tests have, but notes the file it declares.
    fn skip(&mut self, tokens: &[TokenTree], from: usize, at: usize) -> usize {
        let is_item = word(&tokens[from]).is_some_and(|word| ITEMS.contains(&word.as_str()));
        // Behind `pub` or `pub(crate)`.
        let keyword = |wanted: &str| {
            (from..tokens.len().min(from + 3))
                .find(|at| word(&tokens[*at]).is_some_and(|word| word == wanted))
        };
        if let Some(mod_at) = keyword("mod")
            && let (Some(name), Some(end)) = (tokens.get(mod_at + 1).and_then(word), tokens.get(mod_at + 2))
            && is_punct(end, ';')
        {
            self.modules[at].children.push(Child { name, file: None, test_only: true });
        }
        let is_use = keyword("use").is_some();
        for (index, token) in tokens.iter().enumerate().skip(from) {
            let ends = match token {
                TokenTree::Punct(punct) => punct.as_char() == ';' || (punct.as_char() == ',' && !is_item),
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
                _ => false,
            };
            if ends {
                return index + 1;
            }
        }
        tokens.len()
    }

    /// Reads what starts at `from`. Returns where to go on.
    fn one(
        &mut self,
        tokens: &[TokenTree],
        from: usize,
        at: usize,
        outer: bool,
        attributes: &mut Attributes,
    ) -> usize {
        match &tokens[from] {
            TokenTree::Group(group) => {
                self.block(group.stream(), at, false);
                if group.delimiter() == Delimiter::Brace {
                    *attributes = Attributes::default();
                }
                from + 1
            }
            TokenTree::Ident(ident) => {
                let ident = plain(&ident.to_string());
                let after = tokens.get(from + 1).and_then(word);
                match (ident.as_str(), after) {
                    ("use", _) => self.use_item(tokens, from, at),
                    ("mod", Some(name)) => self.module(tokens, from, at, name, std::mem::take(attributes)),
                    (
                        "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static",
                        Some(name),
                    ) if outer => {
                        // `const fn name`, `static mut NAME`: the name comes one word later.
                        if !matches!(name.as_str(), "fn" | "unsafe" | "async" | "extern" | "mut") {
                            self.modules[at].items.push(name);
                        }
                        from + 1
                    }
                    ("macro_rules", _) => {
                        if let Some(name) = tokens.get(from + 2).and_then(word) {
                            self.modules[at].items.push(name);
                        }
                        from + 3
                    }
                    _ => self.path(tokens, from, at),
                }
            }
            TokenTree::Punct(punct) => {
                if punct.as_char() == ';' {
                    *attributes = Attributes::default();
                }
                from + 1
            }
            TokenTree::Literal(_) => from + 1,
        }
    }

    fn module(
        &mut self,
        tokens: &[TokenTree],
        from: usize,
        at: usize,
        name: String,
        attributes: Attributes,
    ) -> usize {
        match tokens.get(from + 2) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let mut path = self.modules[at].path.clone();
                path.push(name);
                self.modules.push(Written { path, ..Written::default() });
                let inside = self.modules.len() - 1;
                self.block(group.stream(), inside, true);
            }
            _ => {
                let child = Child { name, file: attributes.file, test_only: false };
                self.modules[at].children.push(child);
            }
        }
        from + 3
    }

    fn use_item(&mut self, tokens: &[TokenTree], from: usize, at: usize) -> usize {
        let end = (from..tokens.len()).find(|index| is_punct(&tokens[*index], ';')).unwrap_or(tokens.len());
        let public = match from.checked_sub(1).map(|before| &tokens[before]) {
            Some(TokenTree::Ident(ident)) => ident == "pub",
            Some(TokenTree::Group(group)) => {
                group.delimiter() == Delimiter::Parenthesis
                    && from >= 2
                    && word(&tokens[from - 2]).is_some_and(|word| word == "pub")
            }
            _ => false,
        };
        let mut leaves = Vec::new();
        tree(&tokens[from + 1..end], &[], &mut leaves);
        let line = tokens[from].span().start().line;
        let uses = leaves.into_iter().map(|(path, name)| Use { path, name, public, line });
        self.modules[at].uses.extend(uses);
        end + 1
    }

    fn path(&mut self, tokens: &[TokenTree], from: usize, at: usize) -> usize {
        let mut path = Vec::new();
        let mut next = from;
        while let Some(segment) = tokens.get(next).and_then(word) {
            path.push(segment);
            if !is_separator(tokens, next + 1) {
                next += 1;
                break;
            }
            next += 3;
        }
        let module = &mut self.modules[at];
        module.words.extend(path.first().cloned());
        if path.len() > 1 {
            module.paths.push(Named { path, line: tokens[from].span().start().line });
        }
        next.max(from + 1)
    }
}

#[derive(Default)]
struct Attributes {
    test_only: bool,
    file: Option<String>,
}

impl Attributes {
    fn read(&mut self, attribute: &TokenStream) {
        let tokens: Vec<_> = attribute.clone().into_iter().collect();
        match tokens.as_slice() {
            [TokenTree::Ident(name), TokenTree::Group(group)] if name == "cfg" => {
                let words: Vec<_> = words(group.stream());
                let has = |wanted: &str| words.iter().any(|word| word == wanted);
                self.test_only |= has("test") && !has("not") && !has("any");
            }
            [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Literal(value)] if name == "path" => {
                self.file = Some(value.to_string().trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
}

fn words(tokens: TokenStream) -> Vec<String> {
    tokens.into_iter().fold(Vec::new(), |mut all, token| {
        match token {
            TokenTree::Ident(ident) => all.push(ident.to_string()),
            TokenTree::Group(group) => all.extend(words(group.stream())),
            _ => {}
        }
        all
    })
}

/// The leaves of `a::{b, c as d, e::*}`, each with the name it gets.
fn tree(tokens: &[TokenTree], before: &[String], leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    for part in tokens.split(|token| is_punct(token, ',')) {
        let mut path = before.to_vec();
        let mut next = 0;
        let mut name = None;
        let mut open = true;
        while let Some(token) = part.get(next) {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    name = part.get(next + 1).and_then(word);
                    break;
                }
                TokenTree::Ident(ident) => path.push(plain(&ident.to_string())),
                TokenTree::Group(group) => {
                    let inside: Vec<_> = group.stream().into_iter().collect();
                    tree(&inside, &path, leaves);
                    open = false;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    leaves.push((path.clone(), None));
                    open = false;
                }
                _ => {}
            }
            next += 1;
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

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Whether `::` and a word follow.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |index: usize| tokens.get(index).is_some_and(|token| is_punct(token, ':'));
    colon(at) && colon(at + 1) && tokens.get(at + 2).and_then(word).is_some()
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(plain(&ident.to_string())),
        _ => None,
    }
}

fn plain(ident: &str) -> String {
    ident.trim_start_matches("r#").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(text: &str) -> Vec<String> {
        let written = read(text).unwrap();
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
        let written = read(text).unwrap();
        let paths: Vec<_> = written[0].paths.iter().map(|named| named.path.join("::")).collect();
        assert_eq!(paths, ["crate::x::y", "z::w", "crate::t::Yes"]);
        assert!(written[0].uses.is_empty());
    }

    #[test]
    fn modules_and_items_are_read() {
        let text = "mod a; #[cfg(test)] mod b; #[path = \"x.rs\"] mod c; mod d { pub(super) const fn e() {} }
                    pub struct F; const G: u8 = 1; macro_rules! h { () => {} } fn i() { const J: u8 = 1; }";
        let written = read(text).unwrap();
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
