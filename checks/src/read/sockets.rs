//! TCP's counters (`/proc/net/netstat`) and what sockets use (`/proc/net/sockstat`).

use super::Source;

/// Connections that a listening socket did not take, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Netstat {
    /// The program did not accept fast enough.
    pub(crate) listen_overflows: u64,
    /// For any reason; includes the overflows.
    pub(crate) listen_drops: u64,
}

impl Source for Netstat {
    const PATH: &'static str = "/proc/net/netstat";

    /// Pairs of lines: names, then values. Newer kernels have more names.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return Err("expected two lines for TcpExt");
        };
        let fields: Vec<_> = names.split_whitespace().zip(values.split_whitespace()).collect();
        let field = |wanted: &str| {
            let (_, value) = fields.iter().find(|(name, _)| *name == wanted)?;
            value.parse().ok()
        };
        match (field("ListenOverflows"), field("ListenDrops")) {
            (Some(listen_overflows), Some(listen_drops)) => Ok(Self { listen_overflows, listen_drops }),
            _ => Err("expected ListenOverflows and ListenDrops"),
        }
    }
}

/// Sockets in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sockstat {
    pub(crate) in_use: u64,
    /// Closed by the program, but not yet by the other side.
    pub(crate) orphans: u64,
    pub(crate) time_wait: u64,
    /// Pages of buffers.
    pub(crate) pages: u64,
}

impl Source for Sockstat {
    const PATH: &'static str = "/proc/net/sockstat";

    fn parse(text: &str) -> Result<Self, &'static str> {
        let line =
            text.lines().find_map(|line| line.strip_prefix("TCP:")).ok_or("expected a line for TCP")?;
        let fields: Vec<_> = line.split_whitespace().collect();
        let field = |wanted: &str| {
            let at = fields.iter().position(|name| *name == wanted)?;
            fields.get(at + 1)?.parse().ok()
        };
        match (field("inuse"), field("orphan"), field("tw"), field("mem")) {
            (Some(in_use), Some(orphans), Some(time_wait), Some(pages)) => {
                Ok(Self { in_use, orphans, time_wait, pages })
            }
            _ => Err("expected inuse, orphan, tw and mem for TCP"),
        }
    }
}

/// The sizes at which TCP starts to save memory, and at which it refuses more, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpMem {
    pub(crate) pressure: u64,
    pub(crate) high: u64,
}

impl Source for TcpMem {
    const PATH: &'static str = "/proc/sys/net/ipv4/tcp_mem";

    fn parse(text: &str) -> Result<Self, &'static str> {
        let numbers: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
        match numbers[..] {
            [_, pressure, high] => Ok(Self { pressure, high }),
            _ => Err("expected three numbers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let text =
            "TcpExt: SyncookiesSent ListenDrops New ListenOverflows\nTcpExt: 1 2 3 4\nIpExt: A\nIpExt: 5\n";
        assert_eq!(Netstat::parse(text), Ok(Netstat { listen_overflows: 4, listen_drops: 2 }));
        assert!(Netstat::parse("TcpExt: ListenDrops ListenOverflows\nTcpExt: 1\n").is_err());
        let text = "sockets: used 26\nTCP: inuse 1 orphan 2 tw 44 alloc 3 mem 232\nUDP: inuse 0 mem 87\n";
        assert_eq!(Sockstat::parse(text), Ok(Sockstat { in_use: 1, orphans: 2, time_wait: 44, pages: 232 }));
        assert_eq!(
            TcpMem::parse("287898\t383866\t575796\n"),
            Ok(TcpMem { pressure: 383_866, high: 575_796 })
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(?s).*", line in "[a-zA-Z0-9 ]*") {
            for text in [text, format!("TcpExt:{line}\nTcpExt:{line}\nTCP:{line}\n")] {
                let _ = (Netstat::parse(&text), Sockstat::parse(&text), TcpMem::parse(&text));
            }
        }
    }
}
