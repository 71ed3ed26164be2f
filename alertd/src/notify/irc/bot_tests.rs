//! Tests of the bot as conversations with a server.

use std::time::{Duration, Instant};

use super::bot::{BURST, Bot, Event, Identity, LINES_MAX, PACE};

struct Talk {
    bot: Bot,
    now: Instant,
}

fn identity() -> Identity {
    Identity {
        nick: "dog".into(),
        channel: "#ops".into(),
        channel_key: None,
        server_password: None,
        login: None,
    }
}

impl Talk {
    #[expect(clippy::disallowed_methods, reason = "an `Instant` can only be read from the clock")]
    fn begin(identity: Identity) -> Self {
        let now = Instant::now();
        Self { bot: Bot::on_connected(identity, now), now }
    }

    /// In the channel, with nothing left to send.
    fn joined() -> Self {
        let mut talk = Self::begin(identity());
        talk.said();
        for line in [":srv 001 dog :Welcome", ":dog!dogwatch@host JOIN :#ops"] {
            talk.hear(line);
        }
        talk.said();
        assert_eq!(talk.bot.poll_event(), Some(Event::Ready));
        talk
    }

    fn hear(&mut self, line: &str) {
        self.bot.on_line(format!("{line}\r\n").as_bytes(), self.now);
    }

    /// The lines that it sends now.
    fn said(&mut self) -> Vec<String> {
        let text = |line: Vec<u8>| String::from_utf8(line).unwrap().trim_end().to_owned();
        std::iter::from_fn(|| self.bot.poll_line(self.now)).map(text).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.bot.poll_event()).collect()
    }
}

fn lines(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("line {n}")).collect()
}

#[test]
fn it_registers_logs_in_and_joins() {
    let login = Some(("dogwatch".into(), "s3cret".into()));
    let channel_key = Some("k3y".into());
    let mut talk =
        Talk::begin(Identity { login, channel_key, server_password: Some("door".into()), ..identity() });
    let hello = ["CAP LS 302", "PASS :door", "NICK dog", "USER dogwatch 0 * :dogwatch alerts"];
    assert_eq!(talk.said(), hello);
    talk.hear(":srv CAP * LS * :multi-prefix account-tag");
    assert_eq!(talk.said(), Vec::<String>::new(), "there is more to come");
    talk.hear(":srv CAP * LS :sasl=PLAIN,EXTERNAL");
    assert_eq!(talk.said(), ["CAP REQ :sasl account-tag"]);
    talk.hear(":srv CAP dog ACK :sasl account-tag");
    assert_eq!(talk.said(), ["AUTHENTICATE PLAIN"]);
    talk.hear("AUTHENTICATE +");
    assert_eq!(talk.said(), ["AUTHENTICATE AGRvZ3dhdGNoAHMzY3JldA=="]);
    talk.hear(":srv 903 dog :SASL authentication successful");
    assert_eq!(talk.said(), ["CAP END"]);
    talk.hear(":srv 001 dog :Welcome");
    assert_eq!(talk.said(), ["JOIN #ops k3y"]);
    assert!(!talk.bot.is_ready());
    talk.hear(":dog!dogwatch@host JOIN #OPS");
    assert!(talk.bot.is_ready() && talk.bot.knows_accounts());
}

#[test]
fn a_permanent_error_ends_the_connection_with_the_servers_text() {
    for (line, part) in [
        (":srv CAP * LS :multi-prefix", "does not offer SASL"),
        (":srv 904 dog :SASL authentication failed", "SASL authentication failed"),
        (":srv 465 dog :You are banned", "banned"),
        ("ERROR :Closing Link", "Closing Link"),
    ] {
        let login = Some(("dogwatch".into(), "s3cret".into()));
        let mut talk = Talk::begin(Identity { login, ..identity() });
        talk.hear(line);
        let events = talk.events();
        assert!(matches!(&events[..], [Event::Lost(reason)] if reason.contains(part)), "{line}: {events:?}");
    }
    let mut talk = Talk::begin(identity());
    talk.hear(":srv 001 dog :Welcome");
    talk.hear(":srv 474 dog #ops :Cannot join channel (+b)");
    assert!(matches!(&talk.events()[..], [Event::Lost(reason)] if reason.contains("+b")));
}

#[test]
fn if_the_nick_is_taken_it_uses_a_variant_until_the_nick_is_free() {
    let mut talk = Talk::begin(identity());
    talk.said();
    talk.hear(":srv 433 * dog :Nickname is already in use");
    assert_eq!(talk.said(), ["NICK dog_"]);
    talk.hear(":srv 001 dog_ :Welcome");
    talk.hear(":dog_!d@h JOIN #ops");
    talk.said();
    assert!(talk.bot.is_ready());
    talk.now += Duration::from_secs(61);
    assert_eq!(talk.said(), ["PING :alive-1", "NICK dog"]);
    talk.hear(":dog_!d@h NICK :dog");
    talk.hear(":srv KICK #ops dog :out");
    assert!(!talk.bot.is_ready(), "it knows its new name");
    let mut talk = Talk::begin(identity());
    for _ in 0..20 {
        talk.hear(":srv 433 * dog :Nickname is already in use");
    }
    assert!(matches!(&talk.events()[..], [Event::Lost(reason)] if reason.contains("are taken")));
}

#[test]
fn a_notification_is_taken_when_the_ping_after_it_is_answered() {
    let mut talk = Talk::joined();
    talk.bot.on_notification(7, &["[#1] CRITICAL".into(), "more".into()]);
    assert_eq!(talk.said(), ["PRIVMSG #ops :[#1] CRITICAL", "PRIVMSG #ops :more", "PING :dw-7"]);
    talk.hear(":srv PONG srv :dw-8");
    assert_eq!(talk.events(), []);
    talk.hear(":srv PONG srv :dw-7");
    assert_eq!(talk.events(), [Event::Taken(7)]);
    talk.hear(":srv PONG srv :dw-7");
    assert_eq!(talk.events(), []);
}

#[test]
fn a_notification_is_refused_on_an_error_or_a_lost_connection() {
    let mut talk = Talk::joined();
    talk.bot.on_notification(1, &lines(1));
    talk.said();
    talk.hear(":srv 404 dog #ops :Cannot send to channel");
    talk.hear(":srv PONG srv :dw-1");
    assert!(matches!(&talk.events()[..], [Event::Refused(1, reason)] if reason.contains("Cannot send")));

    talk.bot.on_notification(2, &lines(1));
    talk.said();
    talk.bot.on_notification(3, &lines(1));
    talk.bot.on_lost("cable");
    let events = talk.events();
    assert!(
        matches!(&events[..], [Event::Refused(2, _), Event::Refused(3, _), Event::Lost(_)]),
        "{events:?}"
    );
}

#[test]
fn lines_are_sent_in_a_burst_and_then_every_two_seconds() {
    let mut talk = Talk::joined();
    talk.bot.on_notification(1, &lines(LINES_MAX));
    talk.bot.on_notification(2, &lines(2));
    let said = talk.said();
    assert_eq!(said.len(), BURST as usize + 1, "{said:?}");
    assert_eq!(talk.bot.next_wakeup(talk.now), PACE);
    talk.now += PACE / 2;
    assert_eq!(talk.said(), Vec::<String>::new());
    talk.now += PACE / 2;
    assert_eq!(talk.said(), ["PRIVMSG #ops :line 0"]);
    talk.now += PACE;
    assert_eq!(talk.said(), ["PRIVMSG #ops :line 1", "PING :dw-2"]);
    // Answers to the server are not paced.
    talk.hear("PING :x");
    assert_eq!(talk.said(), ["PONG :x"]);
}

#[test]
fn many_lines_are_truncated_and_counted() {
    let mut talk = Talk::joined();
    talk.bot.on_notification(1, &lines(40));
    let said = talk.said();
    assert_eq!(said[LINES_MAX - 1], "PRIVMSG #ops :… and 36 more lines");
    for _ in 0..100 {
        talk.bot.on_answer(&lines(3));
    }
    assert!(!talk.bot.has_room());
    talk.now += Duration::from_hours(1);
    let mut all = 0;
    while !talk.said().is_empty() {
        all += 1;
        talk.now += PACE;
        talk.hear(":srv NOTICE dog :still here");
    }
    assert!(all < 70, "{all} rounds");
}

#[test]
fn commands_are_only_taken_from_other_people_in_the_channel() {
    let mut talk = Talk::joined();
    talk.hear("@account=ann :ann_!a@h PRIVMSG #Ops :!ack 1 on it");
    let ann =
        Event::Command { nick: "ann_".into(), account: Some("ann".into()), text: "!ack 1 on it".into() };
    assert_eq!(talk.events(), [ann]);
    for line in [
        ":ann!a@h PRIVMSG #other :!ack 1",
        ":ann!a@h PRIVMSG dog :!ack 1",
        ":ann!a@h NOTICE #ops :!ack 1",
        ":dog!a@h PRIVMSG #ops :!ack 1",
        ":ann!a@h PRIVMSG #ops :hello",
        ":ann!a@h PRIVMSG #ops",
    ] {
        talk.hear(line);
        assert_eq!(talk.events(), [], "{line}");
    }
}

#[test]
fn without_data_it_sends_a_ping_and_then_gives_up() {
    let mut talk = Talk::joined();
    talk.now += Duration::from_mins(1);
    assert_eq!(talk.bot.next_wakeup(talk.now), Duration::ZERO);
    assert_eq!(talk.said(), ["PING :alive-1"]);
    assert_eq!(talk.bot.next_wakeup(talk.now), Duration::from_mins(1));
    talk.hear(":srv PONG srv :alive-1");
    talk.now += Duration::from_mins(1);
    talk.said();
    talk.now += Duration::from_mins(1);
    talk.said();
    assert!(
        matches!(&talk.events()[..], [Event::Lost(reason)] if reason.contains("no data from the server for 120s"))
    );
}

#[test]
fn after_a_kick_it_joins_again() {
    let mut talk = Talk::joined();
    talk.bot.on_notification(5, &lines(1));
    talk.said();
    talk.hear(":op!o@h KICK #ops dog :quiet");
    assert!(!talk.bot.is_ready() && talk.said().is_empty());
    talk.now += Duration::from_secs(10);
    assert_eq!(talk.said(), ["JOIN #ops"]);
    talk.hear(":dog!d@h JOIN #ops");
    talk.hear(":srv PONG srv :dw-5");
    let events = talk.events();
    assert!(
        matches!(&events[..], [Event::Ready, Event::Refused(5, reason)] if reason.contains("kicked")),
        "{events:?}"
    );
}
