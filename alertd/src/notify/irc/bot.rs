//! The bot's side of the conversation as a pure value: lines go in, lines and events come out, and
//! `now` is an argument.
//!
//! ```text
//!  on_connected ─▶ CAP, PASS, NICK, USER ─▶ (SASL PLAIN) ─▶ 001 ─▶ JOIN ─▶ ready
//!                   433: another nick         904: Lost               471…: Lost
//!  ready ─▶ on_notification: PRIVMSG…, PING ─PONG─▶ Taken
//!   KICK: JOIN again         404…: Refused
//! ```
//!
//! A notification is *taken* when the server answers the PING that follows its last line. Servers
//! work in order, so by then the lines were forwarded and any error was reported. Lines are paced,
//! so that servers do not treat the bot as a flooder: [`BURST`] at once, then one per [`PACE`].
//! Input from the server is untrusted: it cannot make the bot panic, send arbitrary lines, or use
//! unlimited memory.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use dogwatch_alertd_core::rules::text;

use super::line::{Message, line, pieces, same_name};

/// How to register with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub nick: String,
    pub channel: String,
    pub channel_key: Option<String>,
    /// `PASS`, sent before NICK and USER.
    pub server_password: Option<String>,
    /// Account and password for SASL PLAIN.
    pub login: Option<(String, String)>,
}

/// What the bot reports to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// In the channel; ready for notifications.
    Ready,
    /// The server accepted all lines of this notification.
    Taken(u64),
    /// The server did not accept all lines of this notification.
    Refused(u64, String),
    /// Somebody in the channel wrote `!…`. The account comes from the services, if the server
    /// reports it.
    Command { nick: String, account: Option<String>, text: String },
    /// This connection cannot be used any more.
    Lost(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Registering,
    Joining,
    Ready,
    Over,
}

pub struct Bot {
    identity: Identity,
    nick: String,
    stage: Stage,
    /// When this stage must have ended.
    deadline: Option<Instant>,
    /// Capabilities offered by the server that we use.
    offered: BTreeSet<String>,
    accounts: bool,
    /// Answers to the server, not paced.
    urgent: VecDeque<Vec<u8>>,
    queue: VecDeque<Outgoing>,
    /// Notifications that wait for their PONG: id, and the first error since they were sent.
    waiting: VecDeque<(u64, Option<String>)>,
    events: VecDeque<Event>,
    /// When the next line would be due if all lines were sent at [`PACE`].
    paced_until: Option<Instant>,
    heard_at: Instant,
    asked_at: Option<Instant>,
    join_at: Option<Instant>,
    pings: u64,
}

enum Outgoing {
    Line(Vec<u8>),
    /// The end of a notification.
    Mark(u64),
}

/// Lines that may be sent at once (most servers allow about ten, and joining uses some).
pub const BURST: u32 = 5;
/// After that, one line per this time (RFC 1459 §8.10: two seconds per message).
pub const PACE: Duration = Duration::from_secs(2);
/// Lines in one notification or answer; the rest are counted.
pub const LINES_MAX: usize = 5;
/// Lines that may wait; commands beyond that are not answered.
const QUEUE_MAX: usize = 60;
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(30);
/// After this time without data the bot sends a PING; after twice this time the connection is lost.
const QUIET: Duration = Duration::from_mins(1);
const REJOIN_PAUSE: Duration = Duration::from_secs(10);
const NICKS_MAX: usize = 8;

impl Bot {
    /// Starts a conversation on a new connection.
    pub fn on_connected(identity: Identity, now: Instant) -> Self {
        let mut bot = Self {
            nick: identity.nick.clone(),
            stage: Stage::Registering,
            deadline: Some(now + REGISTRATION_PATIENCE),
            offered: BTreeSet::new(),
            accounts: false,
            urgent: VecDeque::new(),
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            events: VecDeque::new(),
            paced_until: None,
            heard_at: now,
            asked_at: None,
            join_at: None,
            pings: 0,
            identity,
        };
        bot.answer(&["CAP", "LS", "302"], None);
        if let Some(password) = bot.identity.server_password.clone() {
            bot.answer(&["PASS"], Some(&password));
        }
        bot.send_nick();
        bot.answer(&["USER", "dogwatch", "0", "*"], Some("dogwatch alerts"));
        bot
    }

    fn send_nick(&mut self) {
        let nick = self.nick.clone();
        self.answer(&["NICK", &nick], None);
    }

    /// Does the server report accounts?
    pub fn knows_accounts(&self) -> bool {
        self.accounts
    }

    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Is there room for another notification?
    pub fn has_room(&self) -> bool {
        self.is_ready() && self.queue.len() < QUEUE_MAX / 2
    }

    /// Queues a notification; [`Event::Taken`] or [`Event::Refused`] reports its outcome by `id`.
    pub fn on_notification(&mut self, id: u64, texts: &[String]) {
        self.enqueue(texts);
        self.queue.push_back(Outgoing::Mark(id));
    }

    /// Queues the answer to a command.
    pub fn on_answer(&mut self, texts: &[String]) {
        if self.queue.len() + LINES_MAX <= QUEUE_MAX {
            self.enqueue(texts);
        }
    }

    fn enqueue(&mut self, texts: &[String]) {
        let channel = self.identity.channel.clone();
        let mut all: Vec<String> = texts.iter().flat_map(|text| pieces(text, &channel)).collect();
        if all.len() > LINES_MAX {
            let more = all.len() + 1 - LINES_MAX;
            all.truncate(LINES_MAX - 1);
            all.push(format!("… and {more} more lines"));
        }
        self.queue.extend(all.iter().map(|text| Outgoing::Line(line(&["PRIVMSG", &channel], Some(text)))));
    }

    fn answer(&mut self, words: &[&str], text: Option<&str>) {
        // Limits what a server that sends endless requests can queue.
        if self.urgent.len() < QUEUE_MAX {
            self.urgent.push_back(line(words, text));
        }
    }

    fn lose(&mut self, reason: impl Into<String>) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            let reason = reason.into();
            for (id, _) in std::mem::take(&mut self.waiting) {
                self.events.push_back(Event::Refused(id, reason.clone()));
            }
            for outgoing in std::mem::take(&mut self.queue) {
                if let Outgoing::Mark(id) = outgoing {
                    self.events.push_back(Event::Refused(id, reason.clone()));
                }
            }
            self.events.push_back(Event::Lost(reason));
        }
    }

    /// The connection broke.
    pub fn on_lost(&mut self, reason: impl Into<String>) {
        self.lose(reason);
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next line to send now.
    pub fn poll_line(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.on_time(now);
        if let Some(line) = self.urgent.pop_front() {
            return Some(line);
        }
        if self.stage != Stage::Ready {
            return None;
        }
        if let Some(Outgoing::Mark(id)) = self.queue.front() {
            let id = *id;
            self.queue.pop_front();
            self.waiting.push_back((id, None));
            return Some(line(&["PING"], Some(&format!("dw-{id}"))));
        }
        if self.pause(now) > Duration::ZERO {
            return None;
        }
        let Some(Outgoing::Line(line)) = self.queue.pop_front() else { return None };
        self.paced_until = Some(self.paced_until.map_or(now, |until| until.max(now)) + PACE);
        Some(line)
    }

    /// How long the next line has to wait.
    fn pause(&self, now: Instant) -> Duration {
        let allowed = now + PACE * (BURST - 1);
        self.paced_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(allowed))
    }

    fn on_time(&mut self, now: Instant) {
        if self.stage == Stage::Over {
            return;
        }
        if self.deadline.is_some_and(|at| at <= now) {
            let what = if self.stage == Stage::Registering { "accept the login" } else { "let the bot join" };
            return self
                .lose(format!("the server did not {what} within {}s", REGISTRATION_PATIENCE.as_secs()));
        }
        let quiet = now.saturating_duration_since(self.heard_at);
        if quiet >= QUIET * 2 {
            return self.lose(format!("no data from the server for {}s", quiet.as_secs()));
        }
        if quiet >= QUIET && self.asked_at.is_none_or(|at| at <= self.heard_at) {
            self.asked_at = Some(now);
            self.pings += 1;
            let token = format!("alive-{}", self.pings);
            self.answer(&["PING"], Some(&token));
            // The wanted nick may be free again.
            if self.is_ready() && !same_name(&self.nick, &self.identity.nick) {
                let wanted = self.identity.nick.clone();
                self.answer(&["NICK", &wanted], None);
            }
        }
        if self.join_at.is_some_and(|at| at <= now) {
            self.join_at = None;
            self.deadline = Some(now + REGISTRATION_PATIENCE);
            self.join();
        }
    }

    /// How long until [`Bot::poll_line`] may return another line.
    pub fn next_wakeup(&self, now: Instant) -> Duration {
        let until = |at: Instant| at.saturating_duration_since(now);
        let alive = self.asked_at.filter(|at| *at > self.heard_at).map_or(QUIET, |_| QUIET * 2);
        let mut wait = until(self.heard_at + alive);
        for at in [self.deadline, self.join_at].into_iter().flatten() {
            wait = wait.min(until(at));
        }
        if self.is_ready() && !self.queue.is_empty() {
            wait = wait.min(self.pause(now));
        }
        wait
    }

    fn join(&mut self) {
        let (channel, key) = (self.identity.channel.clone(), self.identity.channel_key.clone());
        match key {
            Some(key) => self.answer(&["JOIN", &channel, &key], None),
            None => self.answer(&["JOIN", &channel], None),
        }
    }

    /// Handles one line from the server.
    pub fn on_line(&mut self, bytes: &[u8], now: Instant) {
        self.heard_at = now;
        let Some(message) = Message::parse(bytes) else { return };
        if self.stage == Stage::Over {
            return;
        }
        let said = || {
            let text = message.parameters.last().map_or("", String::as_str);
            text::line(text, 200)
        };
        match message.command.as_str() {
            "PING" => self.answer(&["PONG"], Some(message.parameter(0))),
            "PONG" => self.on_pong(message.parameters.last().map_or("", String::as_str)),
            "ERROR" => self.lose(format!("the server closed the connection: {}", said())),
            "CAP" => self.on_capabilities(&message),
            "AUTHENTICATE" if message.parameter(0) == "+" => self.authenticate(),
            "903" => self.answer(&["CAP", "END"], None),
            "902" | "904" | "905" | "906" | "908" => self.lose(format!("the login failed: {}", said())),
            "001" if self.stage == Stage::Registering => {
                message.parameter(0).clone_into(&mut self.nick);
                self.stage = Stage::Joining;
                self.deadline = Some(now + REGISTRATION_PATIENCE);
                self.join();
            }
            "433" | "436" | "437" if self.stage == Stage::Registering => self.try_another_nick(),
            "432" if self.stage == Stage::Registering => {
                self.lose(format!("the server rejected the nick: {}", said()));
            }
            "464" | "465" | "463" => self.lose(format!("the server refused the connection: {}", said())),
            "403" | "405" | "471" | "473" | "474" | "475" | "476" | "477" | "489"
                if self.stage == Stage::Joining =>
            {
                self.lose(format!("cannot join the channel: {}", said()));
            }
            // Errors about a message to the channel that was not forwarded.
            "401" | "403" | "404" | "411" | "412" | "442" => self.on_refused(&said()),
            "NICK" if same_name(&message.nick, &self.nick) => {
                message.parameter(0).clone_into(&mut self.nick);
            }
            "JOIN" if same_name(&message.nick, &self.nick) && self.is_ours(message.parameter(0)) => {
                self.deadline = None;
                if self.stage == Stage::Joining {
                    self.stage = Stage::Ready;
                    self.events.push_back(Event::Ready);
                }
            }
            "KICK" if self.is_ours(message.parameter(0)) && same_name(message.parameter(1), &self.nick) => {
                self.stage = Stage::Joining;
                self.join_at = Some(now + REJOIN_PAUSE);
                self.on_refused(&format!("kicked from the channel by {}", message.nick));
            }
            "PRIVMSG" if self.is_ours(message.parameter(0)) => self.on_said(message),
            _ => {}
        }
    }

    fn is_ours(&self, channel: &str) -> bool {
        same_name(channel, &self.identity.channel)
    }

    fn on_said(&mut self, message: Message) {
        let text = message.parameter(1).trim();
        // Nobody types this many lines at once.
        if text.starts_with('!') && self.events.len() < QUEUE_MAX && !same_name(&message.nick, &self.nick) {
            let text = text.to_owned();
            let account = message.tags.get("account").filter(|account| !account.is_empty()).cloned();
            self.events.push_back(Event::Command { nick: message.nick, account, text });
        }
    }

    fn on_pong(&mut self, token: &str) {
        let Some(id) = token.strip_prefix("dw-").and_then(|id| id.parse::<u64>().ok()) else { return };
        if self.waiting.front().is_some_and(|(first, _)| *first == id)
            && let Some((_, refused)) = self.waiting.pop_front()
        {
            self.events.push_back(match refused {
                None => Event::Taken(id),
                Some(reason) => Event::Refused(id, reason),
            });
        }
    }

    /// An error is about the oldest notification that waits for its PONG, or else the one being
    /// sent.
    fn on_refused(&mut self, reason: &str) {
        match self.waiting.front_mut() {
            Some((_, refused)) => {
                refused.get_or_insert_with(|| reason.to_owned());
            }
            None => {
                if let Some(at) = self.queue.iter().position(|next| matches!(next, Outgoing::Mark(_))) {
                    // Its remaining lines would be refused as well.
                    let rest = self.queue.split_off(at + 1);
                    if let Some(Outgoing::Mark(id)) = std::mem::replace(&mut self.queue, rest).pop_back() {
                        self.events.push_back(Event::Refused(id, reason.to_owned()));
                    }
                }
            }
        }
    }

    fn try_another_nick(&mut self) {
        let tried = self.nick.len().saturating_sub(self.identity.nick.len());
        if tried >= NICKS_MAX {
            return self
                .lose(format!("the nick {} and {NICKS_MAX} variants of it are taken", self.identity.nick));
        }
        self.nick.push('_');
        self.send_nick();
    }

    fn on_capabilities(&mut self, message: &Message) {
        let (verb, last) = (message.parameter(1), message.parameters.last().map_or("", String::as_str));
        let wanted = |name: &&str| *name == "sasl" || *name == "account-tag";
        let names = last.split(' ').map(|name| name.split('=').next().unwrap_or_default()).filter(wanted);
        match verb {
            "LS" if self.stage == Stage::Registering => {
                self.offered.extend(names.map(str::to_owned));
                if message.parameter(2) != "*" {
                    self.request_capabilities();
                }
            }
            "ACK" => {
                let granted: BTreeSet<_> = names.map(str::to_owned).collect();
                self.accounts |= granted.contains("account-tag");
                if granted.contains("sasl") {
                    self.answer(&["AUTHENTICATE", "PLAIN"], None);
                } else {
                    self.answer(&["CAP", "END"], None);
                }
            }
            "NAK" if self.identity.login.is_some() => self.lose("the server refused SASL"),
            "NAK" => self.answer(&["CAP", "END"], None),
            _ => {}
        }
    }

    fn request_capabilities(&mut self) {
        let mut wanted = Vec::new();
        if self.identity.login.is_some() {
            if !self.offered.contains("sasl") {
                return self.lose(
                    "the server does not offer SASL login; remove account and password_file from the config",
                );
            }
            wanted.push("sasl");
        }
        if self.offered.contains("account-tag") {
            wanted.push("account-tag");
        }
        if wanted.is_empty() {
            self.answer(&["CAP", "END"], None);
        } else {
            self.answer(&["CAP", "REQ"], Some(&wanted.join(" ")));
        }
    }

    /// SASL PLAIN (RFC 4616), in pieces of 400 bytes (IRCv3 sasl-3.1).
    fn authenticate(&mut self) {
        let Some((account, password)) = self.identity.login.clone() else { return };
        let text = BASE64.encode(format!("\0{account}\0{password}").as_bytes());
        let chunks: Vec<&str> =
            (0..text.len()).step_by(400).map(|at| &text[at..text.len().min(at + 400)]).collect();
        for chunk in &chunks {
            self.answer(&["AUTHENTICATE", chunk], None);
        }
        if text.len().is_multiple_of(400) {
            self.answer(&["AUTHENTICATE", "+"], None);
        }
    }
}
