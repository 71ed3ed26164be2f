//! Letter case (0x20): forged answers, and upstreams that do not keep case.

use super::*;
use crate::message::wire::letters;

impl World {
    /// Asks for one new name per second while the only upstream is in these moods. Returns the
    /// outcomes as in [`World::timeline`].
    fn new_names(&mut self, moods: &str) -> String {
        let start = self.answers.len();
        for mood in moods.chars() {
            self.moods[0] = mood;
            self.ask(&format!("name{}.example", self.answers.len()));
            self.run(Duration::from_secs(1));
        }
        self.answers[start..].iter().map(Heard::sign).collect()
    }

    fn letter_case(&mut self) -> String {
        let upstream = &self.resolver.status(self.now, jiff::Timestamp::UNIX_EPOCH).upstreams[0];
        format!("{}, {}", upstream.letter_case.as_deref().unwrap_or("-"), upstream.state)
    }
}

const LEARNED: &str = "..........";

/// The query the resolver sends for a new question of client 1, with the client's packet.
fn asked(world: &mut World, name: &str) -> Send {
    let packet = query(name, 1, true);
    let mut out = Vec::new();
    let outcome = world.resolver.on_query(&packet, Client::Stream(1), Transport::Udp, world.now, &mut out);
    assert_eq!(outcome, Outcome::Wait);
    world.resolver.poll_send().unwrap()
}

fn name_in(message: &[u8]) -> String {
    name::to_text(wire::read_question(message).unwrap().0.name)
}

#[test]
fn a_forged_answer_in_the_wrong_case_is_rejected_and_the_right_one_is_accepted() {
    let mut world = World::new(1);
    world.new_names(LEARNED);
    assert_eq!(world.letter_case(), "kept, healthy");
    let send = asked(&mut world, "www.ACCOUNTS.bank.example");
    assert!(send.letters_matter);
    assert_ne!(name_in(&send.message), "www.accounts.bank.example", "at this seed");
    let right = world.reply(&send.message, '.');
    let forged = {
        let mut forged = world.reply(&send.message, 'c');
        letters::mix(&mut forged[12..18], 0);
        forged[13..16].make_ascii_lowercase();
        forged[17..25].make_ascii_lowercase();
        forged
    };
    assert_ne!(name_in(&forged), name_in(&right));
    for _ in 0..2 {
        world.resolver.on_reply(send.try_id, &forged, world.now);
        assert!(world.resolver.poll_reply().is_none());
        world.resolver.audit(world.now).unwrap();
    }
    let over_tcp = world.resolver.poll_send().unwrap();
    assert_eq!(
        (over_tcp.transport, &*name_in(&over_tcp.message)),
        (Transport::Tcp, "www.accounts.bank.example")
    );
    assert!(world.resolver.poll_send().is_none(), "retried once, not once per forgery");
    world.resolver.on_reply(send.try_id, &right, world.now);
    let (_, answer) = world.resolver.poll_reply().unwrap();
    assert_eq!(name_in(&answer), "www.ACCOUNTS.bank.example", "in the client's case");
    let addresses =
        |message: &[u8]| wire::answers(message).map(|(_, data)| data.to_vec()).collect::<Vec<_>>();
    assert_eq!(addresses(&answer), addresses(&right));
    assert_eq!(world.letter_case(), "kept, healthy");
    let status = world.resolver.status(world.now, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(status.upstreams[0].other_case, 1);
}

#[test]
fn the_answer_over_tcp_is_used_if_the_right_one_over_udp_never_comes() {
    let mut world = World::new(1);
    world.new_names(LEARNED);
    let send = asked(&mut world, "www.bank.example");
    world.resolver.on_error(send.try_id, TryError::OtherCase, world.now);
    let over_tcp = world.resolver.poll_send().unwrap();
    let right = world.reply(&over_tcp.message, '.');
    world.resolver.on_reply(over_tcp.try_id, &right, world.now);
    assert!(world.resolver.poll_reply().is_some());
    world.resolver.on_reply(send.try_id, &world.reply(&send.message, 'c'), world.now);
    world.resolver.audit(world.now).unwrap();
}

#[test]
fn an_upstream_that_changes_case_is_not_considered_broken() {
    let mut world = World::new(1);
    assert_eq!(world.new_names("LLLLLLLLLLLL"), "ffffffffffff");
    assert_eq!((world.letter_case(), world.sent), ("not_kept, healthy".into(), 12));
    let send = asked(&mut world, "www.example");
    assert_eq!((&*name_in(&send.message), send.letters_matter), ("www.example", false));
}

#[test]
fn an_upstream_that_stops_keeping_case_costs_three_queries_and_no_client_an_answer() {
    let mut world = World::new(1);
    let heard = world.new_names(&(LEARNED.to_owned() + "LLLLLLLLLL"));
    assert_eq!(heard, "f".repeat(20));
    assert_eq!((world.letter_case(), world.sent), ("not_kept, healthy".into(), 20 + 3));
}

#[test]
fn an_upstream_that_stops_keeping_case_and_has_no_tcp_costs_no_client_an_answer() {
    let mut world = World::new(1);
    // The first client waits for five round trips: TCP, and three answers in another case.
    let heard = world.new_names(&(LEARNED.to_owned() + "BBBBBBBBBB"));
    assert_eq!(heard, "f".repeat(10) + "wfffffffff");
    assert_eq!((world.letter_case(), world.sent), ("not_kept, healthy".into(), 20 + 4));
    // If TCP is silent, the first client waits until that is known.
    let mut world = World::new(1);
    let heard = world.new_names(&(LEARNED.to_owned() + "bbbbbbbbbb"));
    assert_eq!(heard, "f".repeat(10) + "wfffffffff");
    assert_eq!(world.letter_case(), "not_kept, healthy");
}

#[test]
fn an_upstream_that_ignores_mixed_case_is_asked_in_lower_case() {
    // An upstream that starts to ignore mixed case is down for a moment, and then learned again.
    for (moods, waits) in [("dddddddddd", 3), ("..........dddddddddd", 4)] {
        let mut world = World::new(1);
        let heard = world.new_names(moods);
        assert!(heard.matches('w').count() <= waits && !heard.contains('!'), "{heard}");
        assert!(heard.ends_with("ffff"), "{heard}");
        world.run(Duration::from_secs(3));
        let case = world.letter_case();
        assert!(["not_kept, healthy", "learning, healthy"].contains(&&*case), "{case}");
        assert_eq!(world.new_names("ddd").matches('!').count(), 0);
    }
}

#[test]
fn cached_answers_have_none_of_our_letter_case() {
    let mut world = World::new(1);
    let send = asked(&mut world, "www.bank.example");
    let mixed = wire::read_question(&send.message).unwrap().0.name.to_vec();
    assert_ne!(mixed, name::from_text("www.bank.example").unwrap(), "at this seed");
    // The owner in full, where others use a pointer to the question.
    let mut reply = world.reply(&send.message, '.');
    let owner = 12 + mixed.len() + 4;
    assert_eq!(reply[owner..owner + 2], [0xc0, 12]);
    reply.splice(owner..owner + 2, mixed);
    world.resolver.on_reply(send.try_id, &reply, world.now);
    let (_, answer) = world.resolver.poll_reply().unwrap();
    assert!(!answer[12..].iter().any(u8::is_ascii_uppercase), "{:?}", String::from_utf8_lossy(&answer));
}

/// S12, where the upstream has no TCP: one forged reply must not switch letter case off.
#[test]
fn s12_one_forged_reply_does_not_switch_letter_case_off_where_there_is_no_tcp() {
    for silent in [false, true] {
        let mut world = World::new(1);
        world.new_names(LEARNED);
        let send = asked(&mut world, "www.bank.example");
        world.resolver.on_error(send.try_id, TryError::OtherCase, world.now);
        let over_tcp = world.resolver.poll_send().unwrap();
        assert_eq!(over_tcp.transport, Transport::Tcp);
        if silent {
            world.run(Duration::from_millis(900));
        } else {
            world.resolver.on_error(over_tcp.try_id, TryError::Network, world.now);
            let again = world.resolver.poll_send().unwrap();
            assert_eq!((again.transport, again.letters_matter), (Transport::Udp, true));
            assert_ne!(name_in(&again.message), "www.bank.example");
        }
        assert_eq!(world.letter_case(), "kept, healthy", "TCP silent: {silent}");
        world.resolver.on_reply(send.try_id, &world.reply(&send.message, '.'), world.now);
        assert!(world.resolver.poll_reply().is_some());
        world.run(Duration::from_secs(8));
        assert_eq!(world.letter_case(), "kept, healthy", "TCP silent: {silent}");
        world.resolver.audit(world.now).unwrap();
    }
}

/// S12: the right answer after one in another case proves that one forged.
#[test]
fn s12_a_wave_of_forged_replies_is_a_warning_and_ends() {
    let mut world = World::new(1);
    world.new_names(LEARNED);
    for number in 0..12 {
        let send = asked(&mut world, &format!("name{number}.bank.example"));
        world.resolver.on_error(send.try_id, TryError::OtherCase, world.now);
        let _over_tcp = world.resolver.poll_send().unwrap();
        world.resolver.on_reply(send.try_id, &world.reply(&send.message, '.'), world.now);
        // As many answers in our case as an attacker must let pass.
        world.new_names("........");
        world.resolver.on_forged(&send.upstream, 1, world.now);
    }
    assert_eq!(world.letter_case(), "kept, healthy");
    let sensor = |world: &mut World| {
        let sensors = world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH);
        (sensors[0].state, sensors[0].text.clone())
    };
    let (state, text) = sensor(&mut world);
    assert_eq!(state, 1, "{text}");
    assert!(text.starts_with("someone is forging answers of 192.0.2.0:53 since "), "{text}");
    assert!(text.contains("all rejected") && text.contains("\"tcp://192.0.2.0\""), "{text}");
    assert_eq!(world.resolver.status(world.now, jiff::Timestamp::UNIX_EPOCH).upstreams[0].forged, 24);
    world.run(Duration::from_mins(5));
    assert_eq!(sensor(&mut world), (0, "1 of 1 upstreams up".into()));
}
