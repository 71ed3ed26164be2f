//! API tokens and what they allow. Pure; random bytes and `now` are arguments.
//!
//! ```text
//! dogwatch_ 64 hex digits        256 random bits, shown once; alertd stores only the SHA-256
//! ```
//!
//! A plain hash is enough: 256 random bits cannot be guessed, so a slow hash would only slow down
//! every request. A leaked database contains no usable token.
//!
//! | scope | allows |
//! | --- | --- |
//! | `ingest` | sending agents' batches and alerts; cannot read anything |
//! | `read` | reading everything except tokens and the audit log |
//! | `ack` | `read`; acknowledging, removing acks, on-call overrides |
//! | `silence` | `read`; silences, downtimes |
//! | `admin` | everything, including test notifications, tokens, the audit log and backups |
//!
//! A token with a `host` can only report for that host.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::moment::between;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Ingest,
    Read,
    Ack,
    Silence,
    Admin,
}

impl Scope {
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Read, Self::Ack, Self::Silence, Self::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Ack => "ack",
            Self::Silence => "silence",
            Self::Admin => "admin",
        }
    }

    /// Whether one of `scopes` allows this.
    pub fn is_allowed_by(self, scopes: &BTreeSet<Self>) -> bool {
        scopes.iter().any(|scope| scope.includes(self))
    }

    /// Scopes that allow changes include reading. `ingest` does not, because these tokens are on
    /// every host.
    fn includes(self, other: Self) -> bool {
        self == other
            || self == Self::Admin
            || (other == Self::Read && matches!(self, Self::Ack | Self::Silence))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.into_iter().map(Self::name);
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            let all: Vec<_> = names().collect();
            format!("there is no scope {text:?}; scopes: {}", all.join(", "))
        })
    }
}

/// One stored token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Unique; shown in the history as `token:NAME`.
    pub name: String,
    pub hash: Hash,
    pub scopes: BTreeSet<Scope>,
    /// The only host that it may report for.
    #[serde(default)]
    pub host: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// With a resolution of [`USED_STEP`], to avoid a write for every request.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
}

/// The resolution of the time of the last use.
pub const USED_STEP: Duration = Duration::from_hours(24);
const PREFIX: &str = "dogwatch_";
const NAME_CHARS_MAX: usize = 64;

impl Token {
    pub fn may(&self, wanted: Scope) -> bool {
        wanted.is_allowed_by(&self.scopes)
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether a use now needs a write.
    pub fn use_is_news(&self, now: Timestamp) -> bool {
        self.last_used_at.is_none_or(|last| between(last, now) >= USED_STEP)
    }
}

/// The SHA-256 of a token, computed by the shell. Comparison takes constant time.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// A part of the hash for lookups. The time of a lookup may reveal this part, which reveals
    /// nothing about the token.
    pub fn slot(&self) -> u64 {
        self.0.first_chunk().map_or(0, |part| u64::from_be_bytes(*part))
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        let differing =
            self.0.iter().zip(&other.0).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        differing == 0
    }
}

impl Eq for Hash {}

/// Keeps even the hash out of logs.
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        HEXLOWER.encode(&hash.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or("not a SHA-256 in hex")
    }
}

/// Returns the text of a token with these bits.
pub fn text_of(random: &[u8; 32]) -> String {
    format!("{PREFIX}{}", HEXLOWER.encode(random))
}

/// Whether the text has the form of a token. Other text does not need to be hashed.
pub fn looks_like_one(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX);
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Checks that a name is safe in logs and tables.
pub fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fine) {
        return Err(format!(
            "{name:?} is not a valid token name; use up to {NAME_CHARS_MAX} letters, digits, \".\", \"_\" and \"-\""
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(scopes: &[Scope]) -> Token {
        Token {
            name: "t".into(),
            hash: Hash::new([1; 32]),
            scopes: scopes.iter().copied().collect(),
            host: None,
            created_at: at(0),
            created_by: "eva".into(),
            expires_at: Some(at(100)),
            last_used_at: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_scope_allows_its_own_actions_and_only_admin_allows_all() {
        let may = |scope: Scope| {
            let may = Scope::ALL.into_iter().filter(|wanted| token(&[scope]).may(*wanted));
            may.map(Scope::name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(may(Scope::Ingest), "ingest");
        assert_eq!(may(Scope::Read), "read");
        assert_eq!(may(Scope::Ack), "read ack");
        assert_eq!(may(Scope::Silence), "read silence");
        assert_eq!(may(Scope::Admin), "ingest read ack silence admin");
        assert!(!token(&[]).may(Scope::Read));
        let error = "aks".parse::<Scope>().unwrap_err();
        assert_eq!(error, "there is no scope \"aks\"; scopes: ingest, read, ack, silence, admin");
    }

    #[test]
    fn it_expires_and_its_use_is_written_once_a_day() {
        let mut token = token(&[Scope::Read]);
        assert!(!token.is_expired(at(99)) && token.is_expired(at(100)));
        assert!(token.use_is_news(at(5)));
        token.last_used_at = Some(at(5));
        assert!(!token.use_is_news(at(5 + 86_399)) && token.use_is_news(at(5 + 86_400)));
    }

    #[test]
    fn a_text_is_recognised_and_a_hash_is_kept_as_hex_and_never_shown() {
        let text = text_of(&[7; 32]);
        assert!(looks_like_one(&text) && !looks_like_one(&text[1..]) && !looks_like_one(&format!("{text}0")));
        let hash = Hash::new([0xec; 32]);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"{}\"", "ec".repeat(32)));
        let read: Hash = serde_json::from_str(&json).unwrap();
        assert!(read == hash && read != Hash::new([0xed; 32]));
        assert!(!format!("{read:?}").contains("ecec"));
        for wrong in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            assert!(Hash::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_has_only_plain_characters() {
        assert_eq!(check_name("prometheus-eu.1_a"), Ok(()));
        for wrong in ["", "a b", "token:x", "ä", &"x".repeat(65), "a\u{1b}"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
