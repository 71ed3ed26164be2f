//! The processes of `up`.

/// A process; in the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Upstream,
    Dns,
    Alertd,
    Agent,
}

pub(crate) const PARTS: [Part; 4] = [Part::Upstream, Part::Dns, Part::Alertd, Part::Agent];

impl Part {
    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Dns => "dogwatch dns",
            Self::Alertd => "alertd",
            Self::Agent => "dogwatch run",
        }
    }

    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Dns => "dns",
            Self::Alertd => "alertd",
            Self::Agent => "agent",
        }
    }
}
