//! Signs and verifies the tokens in the links of emails: to acknowledge an incident, or to list
//! open incidents. Pure.
//!
//! ```text
//! URL/ack/INCIDENT.EXPIRY.NONCE.WHO.MAC
//!     MAC = HMAC-SHA256(key, "dogwatch-ack-1" LF INCIDENT LF EXPIRY LF NONCE LF WHO)
//! URL/open/RECEIVER.EXPIRY.WHO.MAC
//!     MAC = HMAC-SHA256(key, "dogwatch-open-1" LF RECEIVER LF EXPIRY LF WHO)
//! INCIDENT and EXPIRY are decimal numbers, the rest is in hex.
//! ```
//!
//! EXPIRY is in seconds since 1970. NONCE is derived from the notification's id and WHO with the
//! key, so an email that is sent again contains the same link, and the link of each email works
//! once. The incident remembers used nonces. If there are several keys, the first signs and all are
//! accepted, so that keys can be changed.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use ring::hmac;

/// The contents of a link to acknowledge an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub incident: u64,
    pub expires_at: Timestamp,
    pub nonce: String,
    /// The email address that the link was sent to.
    pub who: String,
}

/// The contents of a link to the list of open incidents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLink {
    pub receiver: String,
    pub expires_at: Timestamp,
    /// The email address that the link was sent to.
    pub who: String,
}

/// Why a link is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLink {
    /// Truncated, changed, or signed with an unknown key.
    Forged,
    Expired,
}

/// Bytes in a token; an email address has at most 254 (RFC 5321 §4.5.3.1.3).
const TOKEN_BYTES_MAX: usize = 700;
/// Bytes in a nonce.
const NONCE_BYTES: usize = 8;

/// Makes the token to acknowledge an incident, for one email.
pub fn sign(key: &str, incident: u64, expires_at: Timestamp, notification: &str, who: &str) -> String {
    let nonce = tag(key, &format!("dogwatch-nonce-1\n{notification}\n{who}"));
    let link = Link {
        incident,
        expires_at,
        nonce: HEXLOWER.encode(&nonce.as_ref()[..NONCE_BYTES]),
        who: who.to_owned(),
    };
    let mac = tag(key, &link.signed_text());
    format!(
        "{incident}.{}.{}.{}.{}",
        expires_at.as_second(),
        link.nonce,
        HEXLOWER.encode(who.as_bytes()),
        HEXLOWER.encode(mac.as_ref())
    )
}

/// Makes the token for the list, for the email of a digest.
pub fn sign_open(key: &str, receiver: &str, expires_at: Timestamp, who: &str) -> String {
    let link = OpenLink { receiver: receiver.to_owned(), expires_at, who: who.to_owned() };
    let mac = tag(key, &link.signed_text());
    format!(
        "{}.{}.{}.{}",
        HEXLOWER.encode(receiver.as_bytes()),
        expires_at.as_second(),
        HEXLOWER.encode(who.as_bytes()),
        HEXLOWER.encode(mac.as_ref())
    )
}

/// Verifies and reads a token to acknowledge.
pub fn verify(keys: &[String], token: &str, now: Timestamp) -> Result<Link, BadLink> {
    let (link, mac) = parse(token).ok_or(BadLink::Forged)?;
    check(keys, &link.signed_text(), &mac, link.expires_at, now)?;
    Ok(link)
}

/// Verifies and reads a token for the list.
pub fn verify_open(keys: &[String], token: &str, now: Timestamp) -> Result<OpenLink, BadLink> {
    let (link, mac) = parse_open(token).ok_or(BadLink::Forged)?;
    check(keys, &link.signed_text(), &mac, link.expires_at, now)?;
    Ok(link)
}

fn check(
    keys: &[String],
    text: &str,
    mac: &[u8],
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), BadLink> {
    let ours = keys.iter().any(|key| {
        // Compares in constant time.
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes(), mac).is_ok()
    });
    match (ours, expires_at > now) {
        (false, _) => Err(BadLink::Forged),
        (true, false) => Err(BadLink::Expired),
        (true, true) => Ok(()),
    }
}

impl Link {
    fn signed_text(&self) -> String {
        let Self { incident, expires_at, nonce, who } = self;
        format!(
            "dogwatch-ack-1\n{incident}\n{}\n{nonce}\n{}",
            expires_at.as_second(),
            HEXLOWER.encode(who.as_bytes())
        )
    }
}

fn parse(token: &str) -> Option<(Link, Vec<u8>)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [incident, expiry, nonce, who, mac] = parts[..] else { return None };
    let expires_at = Timestamp::from_second(expiry.parse().ok()?).ok()?;
    let who = String::from_utf8(unhex(who)?).ok()?;
    let nonce = HEXLOWER.encode(&unhex(nonce)?);
    Some((Link { incident: incident.parse().ok()?, expires_at, nonce, who }, unhex(mac)?))
}

impl OpenLink {
    fn signed_text(&self) -> String {
        let Self { receiver, expires_at, who } = self;
        let (receiver, who) = (HEXLOWER.encode(receiver.as_bytes()), HEXLOWER.encode(who.as_bytes()));
        format!("dogwatch-open-1\n{receiver}\n{}\n{who}", expires_at.as_second())
    }
}

fn parse_open(token: &str) -> Option<(OpenLink, Vec<u8>)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [receiver, expiry, who, mac] = parts[..] else { return None };
    let text = |hex| String::from_utf8(unhex(hex)?).ok();
    let expires_at = Timestamp::from_second(expiry.parse().ok()?).ok()?;
    Some((OpenLink { receiver: text(receiver)?, expires_at, who: text(who)? }, unhex(mac)?))
}

fn tag(key: &str, text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes())
}

/// Digits in either case.
fn unhex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_691_360;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn a_link_is_valid_until_it_expires_with_any_known_key() {
        let token = sign("new", 4711, at(NOW + 60), "n-1", "ada@example.org");
        for known in [&["new"][..], &["newer", "new"]] {
            let link = verify(&keys(known), &token, at(NOW)).unwrap();
            assert_eq!((link.incident, link.who.as_str()), (4711, "ada@example.org"));
        }
        assert_eq!(verify(&keys(&["new"]), &token, at(NOW + 60)), Err(BadLink::Expired));
        assert_eq!(verify(&keys(&["other"]), &token, at(NOW)), Err(BadLink::Forged));
        assert_eq!(verify(&[], &token, at(NOW)), Err(BadLink::Forged));
    }

    #[test]
    fn a_link_to_the_list_is_verified_and_is_not_a_link_to_acknowledge() {
        let token = sign_open("k", "ops.a", at(NOW + 60), "ada@example.org");
        let known = keys(&["new", "k"]);
        let link = verify_open(&known, &token, at(NOW)).unwrap();
        assert_eq!((link.receiver.as_str(), link.who.as_str()), ("ops.a", "ada@example.org"));
        assert_eq!(verify_open(&known, &token, at(NOW + 60)), Err(BadLink::Expired));
        assert_eq!(verify_open(&keys(&["other"]), &token, at(NOW)), Err(BadLink::Forged));
        for at_byte in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at_byte] = if bytes[at_byte] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verify_open(&known, &changed, at(NOW)).is_err(), "{changed}");
        }
        assert_eq!(verify(&known, &token, at(NOW)), Err(BadLink::Forged));
        let other = sign("k", 1, at(NOW + 60), "n-1", "ada@example.org");
        assert_eq!(verify_open(&known, &other, at(NOW)), Err(BadLink::Forged));
    }

    #[test]
    fn a_repeated_email_has_the_same_link_and_other_emails_have_others() {
        let link = |id, who| sign("k", 1, at(NOW), id, who);
        assert_eq!(link("n-1", "ada@x"), link("n-1", "ada@x"));
        let nonce = |token: String| token.split('.').nth(2).unwrap().to_owned();
        assert_ne!(nonce(link("n-1", "ada@x")), nonce(link("n-2", "ada@x")));
        assert_ne!(nonce(link("n-1", "ada@x")), nonce(link("n-1", "bob@x")));
    }

    #[test]
    fn a_token_with_any_changed_byte_is_rejected() {
        let token = sign("k", 4711, at(NOW + 60), "n-1", "ada@example.org");
        let known = keys(&["k"]);
        for at_byte in 0..token.len() {
            for change in [b'0', b'1', b'a', b'.', b'Z', b' '] {
                let mut bytes = token.clone().into_bytes();
                if bytes[at_byte] == change {
                    continue;
                }
                bytes[at_byte] = change;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verify(&known, &changed, at(NOW)).is_err(), "{changed}");
            }
            assert!(verify(&known, &token[..at_byte], at(NOW)).is_err());
        }
        for odd in [
            "",
            "....",
            "1.2.3.4",
            "99999999999999999999.1.00.00.00",
            "1.-99999999999999.00.00.00",
            "ü.1.0.0.0",
        ] {
            assert_eq!(verify(&known, odd, at(NOW)), Err(BadLink::Forged), "{odd:?}");
        }
    }
}
