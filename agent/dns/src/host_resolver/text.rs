//! The text of resolver files: reads the servers in a resolv.conf(5), adds our lines and removes
//! them.
//!
//! Works on bytes and leaves every other line unchanged, whatever it contains.

use std::net::IpAddr;

/// Starts the comment above every line that we add to a file that is not ours.
const MARK: &str = "# dogwatch dns enable: ";
const END: &str = "# dogwatch dns enable: end";
const RESOLV_CONF_SAYS: &str =
    "the cache comes first, the old servers are the fallback; to undo, run `dogwatch dns disable`";
/// A server that hangs costs one second instead of five. An existing `options timeout` comes later
/// in the file and wins.
const OPTIONS: &str = "options timeout:1";

/// The name servers in a resolv.conf(5), in order, without duplicates and without `ours`.
pub fn servers(text: &[u8], ours: IpAddr) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for server in values(text, "nameserver").filter_map(|value| value.parse().ok()) {
        if server != ours && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// All name servers in order. glibc uses the first three.
pub fn all_servers(text: &[u8]) -> Vec<IpAddr> {
    values(text, "nameserver").filter_map(|value| value.parse().ok()).collect()
}

/// The search list. If there are several lines, the last one counts (resolv.conf(5)).
pub fn search(text: &[u8]) -> Vec<String> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let last = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then(|| words.map(str::to_owned).collect())
    });
    last.fold(Vec::new(), |_, last| last)
}

/// Whether an `options` line sets `option`, such as `rotate`.
pub fn has_option(text: &[u8], option: &str) -> bool {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(str::split_whitespace).any(|mut words| {
        words.next() == Some("options") && words.any(|word| word.split(':').next() == Some(option))
    })
}

fn values<'a>(text: &'a [u8], keyword: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(keyword)).then(|| words.next()).flatten()
    })
}

/// The file with `ours` added before its first server.
pub fn with_cache(text: &[u8], ours: IpAddr) -> Vec<u8> {
    let rest = without_cache(text, ours);
    let lines: Vec<_> = rest.split_inclusive(|&byte| byte == b'\n').collect();
    let first = lines.iter().position(|line| keyword(line) == b"nameserver").unwrap_or(lines.len());
    let mut out = lines[..first].concat();
    end_line(&mut out);
    out.extend_from_slice(resolv_conf_block(ours).as_bytes());
    out.extend(lines[first..].concat());
    out
}

/// The lines that put `ours` first, for a file that is placed before all others.
pub fn resolv_conf_block(ours: IpAddr) -> String {
    format!("{MARK}{RESOLV_CONF_SAYS}\nnameserver {ours}\n{OPTIONS}\n")
}

/// The file without our lines, wherever a DHCP client or a person has moved them.
pub fn without_cache(text: &[u8], ours: IpAddr) -> Vec<u8> {
    let server = format!("nameserver {ours}");
    let mut out = Vec::with_capacity(text.len());
    let (mut in_block, mut own_options) = (false, false);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let bare = line.trim_ascii();
        let is_server = bare == server.as_bytes();
        let is_options = bare == OPTIONS.as_bytes();
        if bare.starts_with(MARK.as_bytes()) {
            in_block = true;
        } else if is_server || (is_options && (in_block || own_options)) {
            own_options = is_server;
            in_block &= is_server;
        } else {
            (in_block, own_options) = (false, false);
            out.extend_from_slice(line);
        }
    }
    out
}

/// `text` with `block` at its end, between our marker comments.
pub fn with_block(text: &[u8], says: &str, block: &str) -> Vec<u8> {
    let mut out = without_block(text);
    end_line(&mut out);
    out.extend_from_slice(format!("{MARK}{says}\n{block}{END}\n").as_bytes());
    out
}

/// `text` without our block.
pub fn without_block(text: &[u8]) -> Vec<u8> {
    if !has_block(text) {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let bare = line.trim_ascii();
        if bare == END.as_bytes() {
            inside = false;
        } else if bare.starts_with(MARK.as_bytes()) {
            inside = true;
        } else if !inside {
            out.extend_from_slice(line);
        }
    }
    out
}

/// Whether it contains a complete block of ours.
pub fn has_block(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line.trim_ascii() == END.as_bytes())
}

/// Whether it contains any line of ours.
pub fn is_marked(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line.trim_ascii().starts_with(MARK.trim_end().as_bytes()))
}

/// The first line of a file that belongs to us entirely.
pub fn own_file(says: &str) -> String {
    format!("{MARK}{says}\n")
}

fn keyword(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    &line[..end]
}

fn end_line(text: &mut Vec<u8>) {
    if text.last().is_some_and(|&last| last != b'\n') {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "127.0.0.153";

    fn ours() -> IpAddr {
        OURS.parse().unwrap()
    }

    #[test]
    fn adding_and_removing_our_lines_restores_the_file_byte_for_byte() {
        for text in [
            "nameserver 192.0.2.1\n",
            "# by hand\n\n search example.org\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:3 rotate\n",
            "; old style\nnameserver\t192.0.2.1 # office\ndomain x",
            "options timeout:1\nnameserver 192.0.2.1\noptions timeout:1\n",
            "nameserver 192.0.2.1\r\nnameserver fe80::1%eth0\r\n",
        ] {
            let with = with_cache(text.as_bytes(), ours());
            assert_eq!(all_servers(&with)[0], ours(), "{text:?}");
            assert_eq!(with_cache(&with, ours()), with, "adding twice changes nothing");
            let back = without_cache(&with, ours());
            assert_eq!(String::from_utf8(back).unwrap(), text);
        }
    }

    #[test]
    fn a_file_without_servers_gets_the_cache_on_its_own_line() {
        let with = with_cache(b"search example.org", ours());
        assert_eq!(all_servers(&with), [ours()]);
        assert_eq!(search(&with), ["example.org"]);
    }

    #[test]
    fn our_server_is_removed_even_without_its_comment() {
        let text = format!("domain x\nnameserver {OURS}\nnameserver 192.0.2.1\n");
        assert_eq!(without_cache(text.as_bytes(), ours()), b"domain x\nnameserver 192.0.2.1\n");
        let text = format!("nameserver {OURS}\noptions timeout:1\nnameserver 192.0.2.1\noptions timeout:1\n");
        assert_eq!(
            without_cache(text.as_bytes(), ours()),
            b"nameserver 192.0.2.1\noptions timeout:1\n",
            "only the options beside our server are ours"
        );
    }

    #[test]
    fn lines_added_by_others_stay() {
        let with = with_cache(b"nameserver 192.0.2.1\n", ours());
        let edited = [with.as_slice(), b"nameserver 192.0.2.9\n"].concat();
        assert_eq!(without_cache(&edited, ours()), b"nameserver 192.0.2.1\nnameserver 192.0.2.9\n");
    }

    #[test]
    fn removing_a_block_from_a_shell_file_restores_it_byte_for_byte() {
        let with = with_block(b"resolv_conf=/etc/resolv.conf\n", "why", "a=1\nb=2\n");
        assert!(is_marked(&with));
        assert_eq!(with_block(&with, "why", "a=1\nb=2\n"), with);
        assert_eq!(without_block(&with), b"resolv_conf=/etc/resolv.conf\n");
    }

    #[test]
    fn a_resolv_conf_is_read_as_glibc_reads_it() {
        let text = b"#nameserver 1.1.1.1\nnameserver 192.0.2.1\n  nameserver 2001:db8::1\nnameserver 192.0.2.1\nsearch a b\ndomain c\noptions ndots:2 rotate\n";
        assert_eq!(
            servers(text, ours()),
            ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(search(text), ["c"]);
        assert!(has_option(text, "rotate") && has_option(text, "ndots") && !has_option(text, "timeout"));
    }
}
