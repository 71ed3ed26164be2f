//! Creation, revocation and use of tokens. `token.rs` decides what a token allows, and
//! `api/access.rs` enforces it.

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::ctl;
use jiff::Timestamp;

use super::{Core, Refused};
use crate::rules::{
    moment::later,
    reason::Reason,
    token::{Hash, Scope, Token, check_name},
};

/// Enough for one token per host of a large fleet.
const TOKENS_MAX: usize = 50_000;

impl Core {
    /// Stores the hash of a new token.
    pub fn on_token(
        &mut self,
        ask: &ctl::NewToken,
        hash: Hash,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Token, Refused> {
        let token = read(ask, hash, author, now).map_err(Refused::BadToken)?;
        if self.tokens.contains_key(&token.name) {
            let words =
                format!("token {:?} already exists; revoke it first, or choose another name", token.name);
            return Err(Refused::BadToken(words));
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refused::BadToken(format!(
                "there are already {TOKENS_MAX} tokens; revoke some first"
            )));
        }
        let view = view(&token, now);
        self.note_by(now, None, "token_created", Reason::ByHand, Some(author), &in_words(&view));
        self.dirty.tokens.insert(token.name.clone());
        self.tokens.insert(token.name.clone(), token);
        Ok(view)
    }

    pub fn on_token_revoke(
        &mut self,
        name: &str,
        author: &str,
        now: Timestamp,
    ) -> Result<ctl::Token, Refused> {
        let token = self.tokens.remove(name).ok_or_else(|| Refused::NoToken(name.into()))?;
        self.dirty.tokens.insert(token.name.clone());
        let view = view(&token, now);
        self.note_by(now, None, "token_revoked", Reason::ByHand, Some(author), &in_words(&view));
        Ok(view)
    }

    /// Records the use in the token itself, without a history entry.
    pub fn on_token_used(&mut self, name: &str, now: Timestamp) {
        let Some(token) = self.tokens.get_mut(name).filter(|token| token.use_is_news(now)) else { return };
        token.last_used_at = Some(now);
        self.dirty.tokens.insert(token.name.clone());
    }

    pub fn tokens(&self, now: Timestamp) -> Vec<ctl::Token> {
        self.tokens.values().map(|token| view(token, now)).collect()
    }
}

fn read(ask: &ctl::NewToken, hash: Hash, author: &str, now: Timestamp) -> Result<Token, String> {
    check_name(&ask.name)?;
    let scopes: BTreeSet<Scope> = ask.scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>()?;
    if scopes.is_empty() {
        return Err("a token needs at least one scope, for example ingest".into());
    }
    if let Some(host) = &ask.host {
        if scopes.iter().any(|scope| *scope != Scope::Ingest) {
            return Err("a token with a host can only have the scope ingest".into());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return Err(format!("{host:?} is not a host name"));
        }
    }
    if ask.expires_s == Some(0) {
        return Err("the token would expire immediately; use for example --expires 90d".into());
    }
    Ok(Token {
        name: ask.name.clone(),
        hash,
        scopes,
        host: ask.host.clone(),
        created_at: now,
        created_by: author.into(),
        expires_at: ask.expires_s.map(|seconds| later(now, Duration::from_secs(seconds))),
        last_used_at: None,
    })
}

fn view(token: &Token, now: Timestamp) -> ctl::Token {
    ctl::Token {
        name: token.name.clone(),
        scopes: token.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        host: token.host.clone(),
        created_at: token.created_at,
        created_by: token.created_by.clone(),
        expires_at: token.expires_at,
        last_used_at: token.last_used_at,
        expired: token.is_expired(now),
    }
}

fn in_words(token: &ctl::Token) -> String {
    let host = token.host.as_ref().map(|host| format!(" for {host}")).unwrap_or_default();
    format!("token {}: {}{host}", token.name, token.scopes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, testing::World};

    fn ask(name: &str, scopes: &[&str]) -> ctl::NewToken {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        ctl::NewToken { name: name.into(), scopes, ..ctl::NewToken::default() }
    }

    #[test]
    fn a_token_is_made_once_used_once_a_day_and_gone_when_it_is_revoked() {
        let mut world = World::new("", 1);
        let now = world.now;
        let made = world.core.on_token(&ask("prom", &["ingest"]), Hash::new([1; 32]), "eva", now).unwrap();
        assert_eq!((made.created_by.as_str(), made.expired, made.last_used_at), ("eva", false, None));
        let again = world.core.on_token(&ask("prom", &["read"]), Hash::new([2; 32]), "eva", now).unwrap_err();
        assert!(again.to_string().contains("already"), "{again}");
        let rows = |core: &mut Core| {
            let changes = core.take_changes();
            changes.iter().filter(|change| matches!(change, Change::Token(..))).count()
        };
        assert_eq!(rows(&mut world.core), 1);
        let used: Vec<_> = (0..3)
            .map(|day| {
                for second in [0, 60, 3_600] {
                    let at = later(now, Duration::from_secs(86_400 * day + second));
                    world.core.on_token_used("prom", at);
                }
                rows(&mut world.core)
            })
            .collect();
        assert_eq!(used, [1, 1, 1]);
        world.core.on_token_revoke("prom", "ben", now).unwrap();
        assert_eq!(world.core.on_token_revoke("prom", "ben", now), Err(Refused::NoToken("prom".into())));
        world.core.on_token_used("prom", now);
        let changes = world.core.take_changes();
        let gone = |change: &Change| matches!(change, Change::Token(name, None) if name == "prom");
        assert_eq!(changes.iter().filter(|change| gone(change)).count(), 1);
    }

    #[test]
    fn invalid_requests_are_refused_with_a_reason() {
        let mut world = World::new("", 1);
        let host =
            |scopes: &[&str], host: &str| ctl::NewToken { host: Some(host.into()), ..ask("a", scopes) };
        for (ask, words) in [
            (ask("a b", &["read"]), "not a valid token name"),
            (ask("a", &[]), "at least one scope"),
            (ask("a", &["reed"]), "no scope \"reed\""),
            (host(&["ingest", "read"], "web1"), "only have the scope ingest"),
            (host(&["ingest"], "web1#x"), "is not a host name"),
            (ctl::NewToken { expires_s: Some(0), ..ask("a", &["read"]) }, "expire immediately"),
        ] {
            let refused =
                world.core.on_token(&ask, Hash::new([1; 32]), "eva", world.now).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert!(world.core.tokens(world.now).is_empty());
    }
}
