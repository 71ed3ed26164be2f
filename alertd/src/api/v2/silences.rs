//! Silences in Alertmanager's API v2, for `amtool silence` and compatible clients.
//!
//! | Alertmanager | alertd |
//! | --- | --- |
//! | `id`, a string | the silence's number |
//! | `createdBy`, chosen by the client | `CALLER (createdBy)`: only the caller is verified |
//! | `status.state` | `active`, `pending` (also outside the hours of its period), `expired` |
//! | a post with an `id` | same matchers: changes the end; others: a new silence replaces the old one |
//! | anything can be silenced | broad silences are refused (400); use `alertctl silence --broad` |

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
};
use dogwatch_alertd_core::rules::matcher::{Labels, Matcher, all_match};
use dogwatch_wire::ctl;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Problem, bad, pairs};
use crate::{
    api::{Api, Body, Caller, Failure, PATIENCE},
    engine::Input,
};

type Reply<T> = Result<Json<T>, Problem>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatcherV2 {
    name: String,
    value: String,
    #[serde(default)]
    is_regex: bool,
    /// Missing before Alertmanager 0.22, which had only equality.
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

impl MatcherV2 {
    fn of(matcher: &Matcher) -> Self {
        let (name, value) = (matcher.name().to_owned(), matcher.value().to_owned());
        Self { name, value, is_regex: matcher.is_regex(), is_equal: matcher.is_equal() }
    }

    fn text(&self) -> Result<String, String> {
        let operator = match (self.is_equal, self.is_regex) {
            (true, false) => "=",
            (false, false) => "!=",
            (true, true) => "=~",
            (false, true) => "!~",
        };
        let text = format!("{}{operator}\"{}\"", self.name, self.value);
        let read: Matcher = text.parse()?;
        // A name that contains an operator would be parsed as something else.
        if Self::of(&read) == *self { Ok(text) } else { Err(format!("{:?} is not a label name", self.name)) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PostableSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Vec<MatcherV2>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    created_by: String,
    comment: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GettableSilence {
    id: String,
    status: SilenceStatus,
    /// The time of the last change is not stored; this is the start.
    updated_at: Timestamp,
    matchers: Vec<MatcherV2>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    created_by: String,
    comment: String,
}

#[derive(Debug, Serialize)]
struct SilenceStatus {
    state: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Made {
    #[serde(rename = "silenceID")]
    id: String,
}

impl GettableSilence {
    fn of(silence: ctl::Silence) -> Self {
        let state = match silence.state.as_str() {
            "over" => "expired",
            "active" => "active",
            _ => "pending",
        };
        let matchers = silence.matchers.iter().filter_map(|text| text.parse().ok());
        Self {
            id: silence.number.to_string(),
            status: SilenceStatus { state },
            updated_at: silence.starts_at,
            matchers: matchers.map(|matcher| MatcherV2::of(&matcher)).collect(),
            starts_at: silence.starts_at,
            ends_at: silence.ends_at,
            created_by: silence.author,
            comment: silence.comment,
        }
    }

    /// Applies a filter to the names and values of the matchers, as if they were labels.
    fn passes(&self, filter: &[Matcher]) -> bool {
        let asked: Labels =
            self.matchers.iter().map(|matcher| (matcher.name.clone(), matcher.value.clone())).collect();
        all_match(filter, &asked)
    }
}

/// Number of expired silences that are shown.
const ENDED_MAX: u32 = 1_000;

/// All silences that have not expired, and the latest that have.
async fn every(api: &Api) -> Result<Vec<GettableSilence>, Failure> {
    let current = api.ask(PATIENCE, Input::Silences).await?;
    let ended = api.look_up(|archive| archive.ended_silences(crate::clock::wall(), ENDED_MAX)).await?;
    let ended = ended.into_iter().filter(|old| current.iter().all(|now| now.number != old.number));
    let ended: Vec<_> = ended.collect();
    Ok(current.into_iter().chain(ended).map(GettableSilence::of).collect())
}

pub(super) async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply<Vec<GettableSilence>> {
    let query = pairs(query.as_deref().unwrap_or_default());
    let filter = query.iter().filter(|(name, _)| name == "filter").map(|(_, value)| value.parse());
    let filter: Vec<Matcher> = filter.collect::<Result<_, _>>().map_err(bad)?;
    let mut silences = every(&api).await?;
    silences.retain(|silence| silence.passes(&filter));
    Ok(Json(silences))
}

pub(super) async fn one(State(api): State<Api>, Path(id): Path<String>) -> Reply<GettableSilence> {
    let found = every(&api).await?.into_iter().find(|silence| silence.id == id);
    found.map(Json).ok_or_else(|| Failure::NotFound(format!("there is no silence {id:?}")).into())
}

pub(super) async fn create(State(api): State<Api>, caller: Caller, body: Body) -> Reply<Made> {
    let asked: PostableSilence = serde_json::from_slice(&body.bytes)
        .map_err(|error| bad(format!("the body is not a silence: {error}")))?;
    let matchers: Vec<_> =
        asked.matchers.iter().map(MatcherV2::text).collect::<Result<_, _>>().map_err(bad)?;
    let id = asked.id.as_deref().filter(|id| !id.is_empty());
    let old = match id {
        None => None,
        Some(id) => {
            let number = id.parse::<u64>().ok();
            let current = api.ask(PATIENCE, Input::Silences).await?;
            let old = current.into_iter().find(|silence| Some(silence.number) == number);
            Some(old.ok_or_else(|| Failure::NotFound(format!("there is no silence {id:?}")))?)
        }
    };
    let author = author(&caller.name(), &asked.created_by);
    if let Some(old) = old.as_ref().filter(|old| old.matchers == matchers) {
        let ask = ctl::ExtendSilence { ends_at: Some(asked.ends_at), ..ctl::ExtendSilence::default() };
        let moved = |answer| Input::ExtendSilence(old.number, ask, author, answer);
        let moved = api.ask_by(&caller, PATIENCE, moved).await?.map_err(Failure::from)?;
        return Ok(Json(Made { id: moved.number.to_string() }));
    }
    let ask = ctl::NewSilence {
        matchers,
        starts_at: Some(asked.starts_at),
        ends_at: Some(asked.ends_at),
        comment: asked.comment,
        ..ctl::NewSilence::default()
    };
    let made = api.ask_by(&caller, PATIENCE, |answer| Input::Silence(ask, author.clone(), answer)).await?;
    let made = made.map_err(Failure::from)?;
    if let Some(old) = old {
        // Fails if it has expired meanwhile.
        let _ = api.ask_by(&caller, PATIENCE, |answer| Input::EndSilence(old.number, author, answer)).await?;
    }
    Ok(Json(Made { id: made.number.to_string() }))
}

/// Answers 200 without a body, as `amtool` expects.
pub(super) async fn end(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let nobodys = || Failure::NotFound(format!("there is no active or pending silence {id:?}"));
    let number = id.parse().ok().filter(|number| i64::try_from(*number).is_ok()).ok_or_else(nobodys)?;
    let ended =
        api.ask_by(&caller, PATIENCE, |answer| Input::EndSilence(number, caller.name(), answer)).await?;
    ended.map(|_| StatusCode::OK).map_err(|refused| Failure::from(refused).into())
}

/// Characters in the name that a client gives itself.
const HEARSAY_CHARS_MAX: usize = 64;

fn author(caller: &str, said: &str) -> String {
    let said = dogwatch_alertd_core::rules::text::line(said, HEARSAY_CHARS_MAX);
    if said.is_empty() || said == caller { caller.to_owned() } else { format!("{caller} ({said})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matcher_survives_the_conversion_to_v2_and_back() {
        for text in
            ["a=\"b\"", "a!=\"\"", "a=~\"x|\\\"y\\\"\"", "a!~\"[0-9]+\"", "a=\"\"quoted\"\"", "a=\" b \""]
        {
            let read: Matcher = text.parse().unwrap();
            let v2 = MatcherV2::of(&read);
            let back: Matcher = v2.text().unwrap().parse().unwrap();
            assert_eq!(back.to_string(), read.to_string(), "{text}");
        }
        let json = r#"{"name": "host", "value": "web1"}"#;
        let old: MatcherV2 = serde_json::from_str(json).unwrap();
        assert_eq!(old.text().unwrap(), "host=\"web1\"");
        for name in ["a=b", "", "a b", "a!"] {
            let odd = MatcherV2 { name: name.into(), ..old.clone() };
            assert!(odd.text().is_err(), "{name}");
        }
        let broken = MatcherV2 { value: "(".into(), is_regex: true, ..old };
        assert!(broken.text().unwrap_err().contains("not a regular expression"));
    }

    #[test]
    fn the_author_is_the_caller_and_then_the_name_it_claims() {
        assert_eq!(author("ada", "ada"), "ada");
        assert_eq!(author("token:ops", "ada"), "token:ops (ada)");
        assert_eq!(author("token:ops", "  "), "token:ops");
    }
}
