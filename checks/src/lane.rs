//! What checks wait for.

/// What a check waits for. Checks of one lane never wait for those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The kernel of this host, or a program of it.
    Local,
    /// Another host.
    Network,
    /// A plugin, of which nobody knows what it does.
    Plugin,
}
