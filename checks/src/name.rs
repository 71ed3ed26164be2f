//! Names of things, as services have them: printable, in one line, and different if the things are.
//!
//! A byte that is no UTF-8, a control character and a character that reorders text become `\xNN`
//! for each byte, as systemd writes them in names of units: a newline is `\x0a`. A backslash before
//! an `x` becomes `\x5c`, so that a name that looks escaped is not taken for another one. All other
//! characters stay as they are.

use std::{ffi::OsStr, fmt::Write as _, os::unix::ffi::OsStrExt as _};

use crate::output::reorders;

pub(crate) fn escaped(name: impl AsRef<OsStr>) -> String {
    let mut out = String::new();
    let hex = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(out, "\\x{byte:02x}");
        }
    };
    for chunk in name.as_ref().as_bytes().utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            let looks_escaped = c == '\\' && chars.peek() == Some(&'x');
            if looks_escaped || c.is_control() || reorders(c) {
                hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(c);
            }
        }
        hex(&mut out, chunk.invalid());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_printed_is_escaped() {
        for (name, expected) in [
            (&b"/srv/my files"[..], "/srv/my files"),
            (b"/srv/a\nb", "/srv/a\\x0ab"),
            (b"/srv/a\tb", "/srv/a\\x09b"),
            (b"/srv/a b", "/srv/a b"),
            ("/srv/größe".as_bytes(), "/srv/größe"),
            (b"/srv/gr\xf6\xdfe", "/srv/gr\\xf6\\xdfe"),
            (b"/srv/\x1b[31m", "/srv/\\x1b[31m"),
            (b"/srv/a\\b", "/srv/a\\b"),
            (b"/srv/a\\x0ab", "/srv/a\\x5cx0ab"),
            ("/srv/\u{202e}x".as_bytes(), "/srv/\\xe2\\x80\\xaex"),
        ] {
            assert_eq!(escaped(OsStr::from_bytes(name)), expected);
        }
    }

    fn unescaped(text: &str) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), text);
        while let Some(c) = rest.chars().next() {
            let (byte, length) = match rest.strip_prefix("\\x") {
                Some(hex) => (vec![u8::from_str_radix(&hex[..2], 16).unwrap()], 4),
                None => (c.to_string().into_bytes(), c.len_utf8()),
            };
            out.extend(byte);
            rest = &rest[length..];
        }
        out
    }

    proptest! {
        #[test]
        fn two_names_are_never_shown_alike(name in proptest::collection::vec(any::<u8>(), 0..40), mixed in "[\\\\x0a9\n\t ]{0,12}") {
            for name in [&name[..], mixed.as_bytes()] {
                let shown = escaped(OsStr::from_bytes(name));
                prop_assert!(!shown.chars().any(char::is_control));
                prop_assert_eq!(unescaped(&shown), name);
            }
        }
    }
}
