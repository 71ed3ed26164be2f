//! The packages that dpkg-query prints and the package lists of apt: stanzas of `Name: value`
//! lines (deb-control(5)), read as a stream. And the order of versions (deb-version(7)).

use std::{
    cmp::Ordering,
    collections::HashMap,
    io::{self, BufRead},
};

/// The fields of one package that matter here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) version: String,
    /// `install ok installed`; empty in a package list.
    pub(crate) status: String,
}

/// Calls `each` for every stanza with a name and a version.
pub(crate) fn stanzas(mut from: impl BufRead, mut each: impl FnMut(&Package)) -> io::Result<()> {
    let mut package = Package::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = read_line(&mut from, &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            if !package.name.is_empty() && !package.version.is_empty() {
                each(&package);
            }
            if length == 0 {
                return Ok(());
            }
            for field in
                [&mut package.name, &mut package.architecture, &mut package.version, &mut package.status]
            {
                field.clear();
            }
            continue;
        }
        let Some((name, value)) = text.split_once(':') else { continue };
        let field = match name {
            "Package" => &mut package.name,
            "Architecture" => &mut package.architecture,
            "Version" => &mut package.version,
            "Status" => &mut package.status,
            _ => continue,
        };
        field.clear();
        field.push_str(value.trim());
    }
}

/// Appends the start of the next line and skips the rest of it. Returns its length.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let available = from.fill_buf()?;
        let end = available.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(available.len());
        let room = LINE_MAX.saturating_sub(line.len()).min(taken);
        line.extend_from_slice(&available[..room]);
        from.consume(taken);
        length += taken;
        if end.is_some() || taken == 0 {
            return Ok(length);
        }
    }
}

/// Longer than the fields that matter.
const LINE_MAX: usize = 1_024;

/// An installed package: its version, and whether it is on hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Installed {
    pub(crate) version: String,
    pub(crate) held: bool,
}

/// Makes dpkg-query(1) print stanzas.
pub(crate) const FORMAT: &str = "Package: ${Package}\\nStatus: ${Status}\\n\
    Architecture: ${Architecture}\\nVersion: ${Version}\\n\\n";

/// The installed packages by `name:architecture`.
pub(crate) fn installed(status: impl BufRead) -> io::Result<HashMap<String, Installed>> {
    let mut installed = HashMap::new();
    stanzas(status, |package| {
        if package.status.ends_with(" installed") {
            let held = package.status.starts_with("hold");
            installed.insert(key(package), Installed { version: package.version.clone(), held });
        }
    })?;
    Ok(installed)
}

pub(crate) fn key(package: &Package) -> String {
    format!("{}:{}", package.name, package.architecture)
}

/// The order of two versions, `[epoch:]upstream[-revision]`.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let split = |version: &str| {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse::<u64>().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let ((epoch, upstream, revision), other) = (split(one), split(other));
    epoch
        .cmp(&other.0)
        .then_with(|| compare_part(&upstream, &other.1))
        .then_with(|| compare_part(&revision, &other.2))
}

fn compare_part(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        while a.first().is_some_and(|c| !c.is_ascii_digit()) || b.first().is_some_and(|c| !c.is_ascii_digit())
        {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let (x, y) = (digits(&mut a), digits(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// `~` sorts before the end, letters before all other characters.
fn weight(c: Option<&u8>) -> i32 {
    match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => (*c).into(),
        Some(c) => i32::from(*c) + 256,
    }
}

/// Splits the digits off, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|&&c| c == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_have_the_order_of_dpkg() {
        for (less, greater) in [
            ("1.0", "1.1"),
            ("1.9", "1.10"),
            ("1.0~rc1", "1.0"),
            ("1.0~~", "1.0~"),
            ("1.0", "1.0+deb12u1"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("1.0-1", "1.0-1.1"),
            ("2.0", "1:1.0"),
            ("1.0a", "1.0+"),
            ("1.0", "1.0a"),
            ("3.0.17-1~deb12u1", "3.0.17-1~deb12u2"),
            ("1-2-3", "1-10-1"),
        ] {
            assert_eq!(compare(less, greater), Ordering::Less, "{less} {greater}");
            assert_eq!(compare(greater, less), Ordering::Greater, "{greater} {less}");
        }
        for (one, other) in [("1.0", "0:1.0"), ("1.01", "1.1"), ("1.0-", "1.0"), ("1.0-0", "1.0")] {
            assert_eq!(compare(one, other), Ordering::Equal, "{one} {other}");
        }
    }

    #[test]
    fn only_installed_packages_count() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\
            Description: text\n Version: 9\n\n\
            Package: b\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
            Package: c\nStatus: hold ok installed\nArchitecture: all\nVersion: 2";
        let installed = installed(status.as_bytes()).unwrap();
        assert_eq!(installed.len(), 2);
        assert_eq!(installed["a:amd64"], Installed { version: "1".into(), held: false });
        assert!(installed["c:all"].held);
    }

    proptest! {
        #[test]
        fn any_two_versions_have_an_order(one in "[0-9a-z.+~:-]{0,12}|\\PC{0,8}", other in "[0-9a-z.+~:-]{0,12}|\\PC{0,8}") {
            prop_assert_eq!(compare(&one, &other), compare(&other, &one).reverse());
            prop_assert_eq!(compare(&one, &one), Ordering::Equal);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>) {
            installed(&*bytes).unwrap();
        }
    }
}
