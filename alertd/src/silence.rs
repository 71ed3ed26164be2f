//! Silences: while one is active the alerts that it matches are told to nobody.
//!
//! A silence suppresses words, not memory: what happened meanwhile is compared with what was last told when it ends
//! (`core/review.rs`). A recovery is never silenced, for those who were told of the problem would wait for ever.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::matcher::{Labels, Matcher, all_match};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Silence {
    pub number: u64,
    pub matchers: Vec<Matcher>,
    pub author: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

impl Silence {
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.starts_at <= now && now < self.ends_at
    }

    /// What it matches, as people write it.
    pub fn text(&self) -> String {
        let matchers: Vec<_> = self.matchers.iter().map(ToString::to_string).collect();
        format!("silence {}: {}", self.number, matchers.join(" "))
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        all_match(&self.matchers, labels)
    }
}

/// Reads matchers, or says what is wrong with them. A silence that would match an alert without any labels matches
/// everything; nobody means that.
pub fn parse_matchers(texts: &[String]) -> Result<Vec<Matcher>, String> {
    let matchers: Vec<Matcher> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    if matchers.iter().all(Matcher::matches_missing) {
        return Err("this would silence everything; at least one matcher must not match the empty string, \
                    like host=web1"
            .into());
    }
    Ok(matchers)
}

/// All silences that have not ended.
#[derive(Debug, Default)]
pub struct Silences {
    current: Vec<Silence>,
}

impl Silences {
    pub fn add(&mut self, silence: Silence) {
        self.current.push(silence);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.current.iter()
    }

    /// Numbers of those that mute an alert with these labels now.
    pub fn muting(&self, labels: &Labels, now: Timestamp) -> Vec<u64> {
        self.current
            .iter()
            .filter(|silence| silence.is_active(now) && silence.matches(labels))
            .map(|silence| silence.number)
            .collect()
    }

    /// Of those that mute an alert with these labels now, the one that does so longest.
    pub fn muting_last(&self, labels: &Labels, now: Timestamp) -> Option<&Silence> {
        let muting = self.current.iter().filter(|silence| silence.is_active(now) && silence.matches(labels));
        muting.max_by_key(|silence| (silence.ends_at, silence.number))
    }

    /// Ends one now; `None` if there is no such silence.
    pub fn end(&mut self, number: u64, now: Timestamp) -> Option<Silence> {
        let at = self.current.iter().position(|silence| silence.number == number)?;
        let mut ended = self.current.remove(at);
        ended.ends_at = now.min(ended.ends_at);
        Some(ended)
    }

    /// Takes out those whose time is over.
    pub fn take_ended(&mut self, now: Timestamp) -> Vec<Silence> {
        self.current.extract_if(.., |silence| silence.ends_at <= now).collect()
    }

    /// When the next one ends. (They all start when they are made.)
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.current.iter().map(|silence| silence.ends_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_of_everything_is_refused() {
        let parse =
            |texts: &[&str]| parse_matchers(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(parse(&[]).is_err());
        assert!(parse(&["host=~.*"]).is_err());
        assert!(parse(&["host!=web1", "team="]).is_err());
        assert!(parse(&["host=~.*", "service=disk"]).is_ok());
    }

    #[test]
    fn it_mutes_from_its_start_until_just_before_its_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut silences = Silences::default();
        silences.add(Silence {
            number: 1,
            matchers: vec!["host=web1".parse().unwrap()],
            author: "eva".into(),
            comment: String::new(),
            starts_at: at(2),
            ends_at: at(5),
        });
        let web1 = [("host".to_owned(), "web1".to_owned())].into();
        let muted =
            (0..7).map(|second| if silences.muting(&web1, at(second)).is_empty() { '.' } else { 'm' });
        assert_eq!(muted.collect::<String>(), "..mmm..");
        assert_eq!(silences.next_wakeup(), Some(at(5)));
        assert_eq!(silences.take_ended(at(5)).len(), 1);
        assert_eq!(silences.next_wakeup(), None);
    }
}
