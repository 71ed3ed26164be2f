//! Reads scenario files. Errors name the line: a misread file would pass for the wrong reason.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    AnswerWant, Clients, Counted, Event, Generated, NameRef, Scenario, Share, StateWant, TimeMap, Want, What,
};
use crate::authority::{Fact, Mood, span};

type Parsed<T> = Result<T, String>;

pub(super) fn scenario(file: &str, text: &str) -> Parsed<Scenario> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let title = lines.by_ref().map(|(_, line)| line).find(|line| !line.starts_with('#')).unwrap_or_default();
    let mut scenario = Scenario {
        file: file.into(),
        title: title.into(),
        upstreams: 1,
        used: vec![0],
        generated: Generated::default(),
        named: Vec::new(),
        clients: Clients::default(),
        sweep: false,
        max_stale: None,
        cache_bytes: None,
        pinned: Vec::new(),
        seeds: 5,
        end: Duration::ZERO,
        outage: (Duration::ZERO, Duration::ZERO),
        real: None,
        pending: None,
        events: Vec::new(),
        wants: Vec::new(),
    };
    for (number, line) in lines {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            statement(&mut scenario, number, line)
                .map_err(|why| format!("{file}:{number}: {why}: {line}"))?;
        }
    }
    // Stable: what happens at one time happens in the order of the file.
    scenario.events.sort_by_key(|(at, _)| *at);
    let last = scenario.wants.iter().map(|want| want.until).chain(scenario.events.iter().map(|(at, _)| *at));
    let last = last.max().unwrap_or_default();
    if scenario.end < last {
        return Err(format!("{file}: ends at {:?}, before its last line at {last:?}", scenario.end));
    }
    Ok(scenario)
}

fn statement(scenario: &mut Scenario, number: usize, line: &str) -> Parsed<()> {
    if let Some(timed) = line.strip_prefix("virtual ") {
        let wants = scenario.wants.len();
        statement(scenario, number, timed)?;
        return match &mut scenario.wants[wants..] {
            [want] => {
                want.virtual_only = true;
                Ok(())
            }
            _ => Err("only what is wanted can be left out of the real run".into()),
        };
    }
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return header(scenario, word, rest);
    }
    if let Some((from, until)) = word.split_once("..") {
        let what = window(rest)?;
        let (from, until) = (span(from)?, span(until)?);
        if from >= until {
            return Err("the span is empty".into());
        }
        scenario.wants.push(Want { line: number, text: line.into(), from, until, virtual_only: false, what });
        return Ok(());
    }
    let at = span(word)?;
    let mut want = |what| {
        let text = line.into();
        scenario.wants.push(Want { line: number, text, from: at, until: at, virtual_only: false, what });
    };
    let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let event = match verb {
        "alert" => {
            want(alert(rest)?);
            return Ok(());
        }
        "ask" => {
            let (asked, wants) = rest.split_once(':').ok_or("after the name comes a colon")?;
            want(What::Answer(answer_wants(wants)?));
            Event::Ask { line: number, name: name_ref(asked.trim()) }
        }
        "upstream" => {
            let (which, mood) = rest.split_once(' ').ok_or("no mood")?;
            let (mood, of) = match mood.split_once(" of ") {
                None => (mood, None),
                Some((mood, of)) => (mood, Some(name_ref(of.trim()))),
            };
            Event::Mood {
                upstreams: upstreams(which, scenario.upstreams)?,
                of,
                mood: mood.trim().parse::<Mood>()?,
            }
        }
        "truth" => {
            let (name, fact) = rest.split_once(' ').ok_or("nothing is said of it")?;
            let name = name_ref(name);
            let ttl_s = match scenario.named.iter().find(|(known, _)| name == NameRef::Text(known.clone())) {
                Some((_, Fact::Addresses { ttl_s, .. } | Fact::Alias { ttl_s, .. })) => *ttl_s,
                _ => scenario.generated.ttl_s.0,
            };
            Event::Truth { name, fact: fact_of(fact, ttl_s)? }
        }
        "closed" => Event::Closed(rest.parse::<Ipv4Addr>().map_err(|error| error.to_string())?.octets()),
        "clients" => Event::Clients(rate(rest)?),
        "flood" => Event::Flood(rate(rest)?),
        "noise" => Event::Noise(rate(rest)?),
        "use" => Event::Use(upstreams(rest, scenario.upstreams)?),
        "sleep" => Event::Sleep(span(rest)?),
        "wall" => {
            let (sign, by) = rest.split_at_checked(1).ok_or("by how much?")?;
            Event::Wall { back: sign == "-", by: span(by)? }
        }
        "crash" => Event::Restart { down: span(rest)?, orderly: false, stolen: false },
        "stop" => Event::Restart { down: span(rest)?, orderly: true, stolen: false },
        "steal" => Event::Restart { down: span(rest)?, orderly: false, stolen: true },
        _ => return Err(format!("no such verb: {verb:?}")),
    };
    scenario.events.push((at, event));
    Ok(())
}

fn header(scenario: &mut Scenario, word: &str, rest: &str) -> Parsed<()> {
    match word {
        "upstreams" => {
            let (count, used) = rest.split_once(", used ").unwrap_or((rest, "*"));
            scenario.upstreams = number(count)?;
            scenario.used = upstreams(used, scenario.upstreams)?;
        }
        "names" => {
            let (count, ttl) = rest.split_once(" ttl ").ok_or("no ttl")?;
            let (low, high) = ttl.split_once("..").unwrap_or((ttl, ttl));
            scenario.generated = Generated { count: number(count)?, ttl_s: (number(low)?, number(high)?) };
        }
        "name" => {
            let (name, fact) = rest.split_once(" ttl ").ok_or("no ttl")?;
            let (ttl_s, fact) = fact.split_once(' ').ok_or("nothing is said of it")?;
            scenario.named.push((dotted(name), fact_of(fact, number(ttl_s)?)?));
        }
        "clients" => {
            let mut words = rest.split_whitespace();
            scenario.clients.per_second = rate(words.next().unwrap_or_default())?;
            match (words.next(), words.next(), words.next()) {
                (None, ..) => {}
                (Some("zipf"), None, _) => scenario.clients.zipf = true,
                (Some("favour"), Some(name), Some(share)) => {
                    let place = scenario.named.iter().position(|(known, _)| *known == dotted(name));
                    scenario.clients.zipf = true;
                    scenario.clients.favourite =
                        Some((place.ok_or("no such name")?, percent(share)? / 100.0));
                }
                _ => return Err("clients ask evenly, by zipf, or favour NAME SHARE".into()),
            }
        }
        "sweep" => scenario.sweep = true,
        "max_stale" => scenario.max_stale = Some(span(rest)?),
        "cache" => scenario.cache_bytes = Some(usize::try_from(bytes(rest)?).map_err(|e| e.to_string())?),
        "pin" => scenario.pinned = rest.split_whitespace().map(pinned).collect::<Parsed<_>>()?,
        "seeds" => scenario.seeds = number(rest)?,
        "end" => scenario.end = span(rest)?,
        "outage" => {
            let (from, until) = rest.split_once("..").ok_or("from..until")?;
            scenario.outage = (span(from)?, span(until)?);
        }
        "pending" => scenario.pending = Some(rest.into()),
        "real" => {
            let mut points = Vec::new();
            for point in rest.split_whitespace() {
                let (at, real) = point.split_once('=').ok_or("points are TIME=TIME")?;
                points.push((span(at)?, span(real)?));
            }
            if !points.is_sorted() || !points.iter().map(|(_, real)| real).is_sorted() {
                return Err("times go backwards".into());
            }
            scenario.real = Some(TimeMap(points));
        }
        _ => return Err(format!("no such word: {word:?}")),
    }
    Ok(())
}

fn window(text: &str) -> Parsed<What> {
    let (word, rest) = text.split_once(' ').ok_or("nothing is wanted")?;
    let share = |of| Ok(What::Share { of, percent: percent(rest)? });
    let count = |of| Ok(What::Count { of, most: number(rest)? });
    match word {
        "right" => share(Share::Right),
        "usable" => share(Share::Usable),
        "fresh" => share(Share::Fresh),
        "wrong" => count(Counted::Wrong),
        "failed" => count(Counted::Failed),
        "waited" => count(Counted::Waited),
        "wait" => Ok(What::Wait(span(rest)?)),
        "memory" => Ok(What::Memory(bytes(rest)?)),
        "upstream" => match rest.strip_suffix(" a query") {
            Some(each) => Ok(What::UpstreamPerQuery(number(each)?)),
            None => Ok(What::Upstream(number(rest)?)),
        },
        "changes" => {
            let (sensor, most) = rest.split_once(' ').ok_or("of which sensor, how many?")?;
            Ok(What::Changes { sensor: sensor.into(), most: number(most)? })
        }
        "sent" => {
            let (upstream, share) = rest.split_once(' ').ok_or("to which upstream, how many?")?;
            Ok(What::Sent { upstream: number::<usize>(upstream)? - 1, percent: percent(share)? })
        }
        _ => Err(format!("nothing can be wanted of {word:?}")),
    }
}

fn alert(text: &str) -> Parsed<What> {
    let words: Vec<_> = text.split_whitespace().collect();
    let &[sensor, state, "within", within] = words.as_slice() else {
        return Err("alert SENSOR STATE within TIME".into());
    };
    let state = match state {
        "ok" => StateWant::Exactly(0),
        "warning" => StateWant::Exactly(1),
        "critical" => StateWant::Exactly(2),
        "ill" => StateWant::Ill,
        _ => return Err(format!("no such state: {state:?}")),
    };
    Ok(What::Alert { sensor: sensor.into(), state, within: span(within)? })
}

fn answer_wants(text: &str) -> Parsed<Vec<AnswerWant>> {
    let mut words = text.split_whitespace();
    let mut wants = Vec::new();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} of what?"));
        wants.push(match word {
            "right" => AnswerWant::Right,
            "old" => AnswerWant::Old,
            "wrong" => AnswerWant::Wrong,
            "nxdomain" => AnswerWant::Nxdomain,
            "failure" => AnswerWant::Failure,
            "fresh" => AnswerWant::Fresh,
            "stale" => AnswerWant::Stale,
            "ede" => AnswerWant::Ede(number(value()?)?),
            "within" => AnswerWant::Within(span(value()?)?),
            "ttl" => AnswerWant::TtlAtMost(number(value()?)?),
            "addresses" => AnswerWant::Addresses(number(value()?)?),
            _ => return Err(format!("an answer is never {word:?}")),
        });
    }
    if wants.is_empty() { Err("nothing is wanted".into()) } else { Ok(wants) }
}

fn upstreams(text: &str, count: usize) -> Parsed<Vec<usize>> {
    if text == "*" {
        return Ok((0..count).collect());
    }
    let place = |word| match number::<usize>(word)? {
        place if (1..=count).contains(&place) => Ok(place - 1),
        place => Err(format!("there is no upstream {place}")),
    };
    text.split(',').map(place).collect()
}

fn fact_of(text: &str, ttl_s: u32) -> Parsed<Fact> {
    if text == "gone" {
        return Ok(Fact::Gone);
    }
    if let Some(target) = text.strip_prefix("-> ") {
        return Ok(Fact::Alias { ttl_s, target: dotted(target) });
    }
    let address = |word: &str| word.parse::<Ipv4Addr>().map(|ip| ip.octets());
    let addresses = text.split_whitespace().map(address).collect::<Result<_, _>>();
    Ok(Fact::Addresses { ttl_s, addresses: addresses.map_err(|_| format!("not addresses: {text:?}"))? })
}

/// `n7` is a generated name, all else is written out.
fn name_ref(text: &str) -> NameRef {
    match text.strip_prefix('n').and_then(|rest| rest.parse().ok()) {
        Some(number) => NameRef::Generated(number),
        None => NameRef::Text(dotted(text)),
    }
}

fn dotted(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// `db.test` or `db.test:5432`.
fn pinned(text: &str) -> Parsed<(String, Option<u16>)> {
    match text.split_once(':') {
        None => Ok((dotted(text), None)),
        Some((name, port)) => Ok((dotted(name), Some(number(port)?))),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn rate(text: &str) -> Parsed<f64> {
    number(text.strip_suffix("/s").ok_or("a rate is written 30/s")?)
}

fn percent(text: &str) -> Parsed<f64> {
    number(text.strip_suffix('%').ok_or("a share is written 100%")?)
}

fn bytes(text: &str) -> Parsed<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        _ => return Err(format!("{text:?} is not a size like 2MiB")),
    };
    Ok(number::<u64>(digits)? << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_said_with_its_line() {
        let said = |line: &str| {
            let text = format!("title\nnames 3 ttl 5\nname db.test ttl 5 192.0.2.1\n{line}\nend 1m\n");
            scenario("file", &text).err().unwrap_or_else(|| panic!("{line}: passes"))
        };
        for line in [
            "20s upstream 2 silent",
            "20s upstream 1 sulking",
            "20s ask db.test right",
            "20s ask db.test: rihgt",
            "20s..10s right 100%",
            "20s..30s right 100",
            "20s alert dns-upstream critical",
            "20s explode",
            "virtual 20s upstream 1 silent",
            "colour blue",
        ] {
            assert!(said(line).starts_with("file:4: "), "{line}: {}", said(line));
        }
        assert!(said("2m upstream 1 silent").contains("before its last line"));
    }

    #[test]
    fn real_times_are_in_proportion_between_the_points() {
        let parsed = scenario("file", "title\nend 200s\nreal 20s=5s 120s=10s\n").unwrap();
        let map = parsed.real.unwrap();
        let mapped = [0, 10, 20, 70, 120, 130].map(|s| map.map(Duration::from_secs(s)).as_millis());
        assert_eq!(mapped, [0, 2_500, 5_000, 7_500, 10_000, 20_000]);
    }
}
