//! The loads. Each runs in the calling thread and checks every answer.
//!
//! | load | asks | to measure |
//! | --- | --- | --- |
//! | [`walk`] | each name once, again what is not answered | warming, misses, a million names |
//! | [`flood`] | as much as is answered, a window of questions under way | CPU per answer at saturation, most q/s |
//! | [`paced`] | so many questions a second, one by one | latency at a modest rate |
//! | [`watch`] | 5 questions each 10 ms over minutes | what clients see in an outage |

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use super::{
    batch::{Batch, Kind, stamp_arrivals},
    names::{Verdict, judge, number_and_ttl, question},
    now, since_epoch,
    sockets::connected,
    upstream::Upstream,
};
use crate::dns_message::be16;

/// Asks name 0 until the answer is right, for at most `patience`; for an echo any answer is.
pub fn is_ready(server: SocketAddr, checked: bool, patience: Duration) -> io::Result<bool> {
    let socket = connected(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut buffer = [0; 512];
    let start = now();
    while start.elapsed() < patience {
        if let Ok(length) = socket.send(&question(1, 0, 1)).and_then(|_| socket.recv(&mut buffer))
            && (!checked || judge(&buffer[..length], 0) == Verdict::Right)
        {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// What [`walk`] saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Walk {
    pub right: u32,
    pub wrong: u32,
    pub unanswered: u32,
    pub wall: Duration,
}

/// Asks each of the names `numbers`, [`WALK_WINDOW`] under way; what is not answered within a
/// second is asked again, thrice. Ends after `limit` wherever it is; the names not come to count
/// nowhere.
pub fn walk(server: SocketAddr, numbers: Range<u32>, ttl_s: u32, limit: Duration) -> io::Result<Walk> {
    let socket = connected(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut batch = Batch::new(WALK_WINDOW, Kind::Connected);
    let mut under_way: Vec<Option<(u32, u8)>> = vec![None; 1 << 16];
    let mut sent: VecDeque<(Instant, u16)> = VecDeque::new();
    let mut again: Vec<(u32, u8)> = Vec::new();
    let (mut next, mut next_id, mut count) = (numbers.start, 0_u16, 0_usize);
    let mut seen = Walk::default();
    let start = now();
    while start.elapsed() < limit {
        // In bursts of a quarter window, as answers come in bursts: fewer sleeps on both sides.
        let mut filled = 0;
        if count <= WALK_WINDOW * 3 / 4 {
            while count + filled < WALK_WINDOW {
                let Some((number, tries)) = again.pop().or_else(|| {
                    let number = (next < numbers.end).then_some(next)?;
                    next += 1;
                    Some((number, 0))
                }) else {
                    break;
                };
                while under_way[usize::from(next_id)].is_some() {
                    next_id = next_id.wrapping_add(1);
                }
                batch.put(filled, &question(next_id, number, ttl_s));
                under_way[usize::from(next_id)] = Some((number, tries + 1));
                sent.push_back((now(), next_id));
                next_id = next_id.wrapping_add(1);
                filled += 1;
            }
            send_all(&mut batch, &socket, filled);
            count += filled;
        }
        if count == 0 {
            break;
        }
        for index in 0..batch.receive(&socket, true).unwrap_or(0) {
            let message = batch.datagram(index);
            let slot = be16(message, 0).map(usize::from).unwrap_or_default();
            let asked = under_way[slot];
            // The answer to a question that was given up may come under an id that is in use again.
            let Some((number, _)) =
                asked.filter(|(number, _)| number_and_ttl(message).is_none_or(|(said, _)| said == *number))
            else {
                continue;
            };
            under_way[slot] = None;
            count -= 1;
            if judge(message, number) == Verdict::Right { seen.right += 1 } else { seen.wrong += 1 }
        }
        while let Some((at, id)) = sent.front().copied() {
            let open = under_way[usize::from(id)];
            if open.is_some() && at.elapsed() < Duration::from_secs(1) {
                break;
            }
            sent.pop_front();
            if let Some((number, tries)) = open {
                under_way[usize::from(id)] = None;
                count -= 1;
                if tries < 3 { again.push((number, tries)) } else { seen.unanswered += 1 }
            }
        }
    }
    Ok(Walk { wall: start.elapsed(), ..seen })
}

const WALK_WINDOW: usize = 64;

fn send_all(batch: &mut Batch, socket: &UdpSocket, count: usize) {
    let mut done = 0;
    while done < count {
        // An error is of an earlier datagram (port unreachable); the same place is tried again
        // once, then left out.
        done += batch.send(socket, done..count).or_else(|_| batch.send(socket, done..count)).unwrap_or(1);
    }
}

/// What [`flood`] saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Flood {
    pub answers: u64,
    pub wrong: u64,
    pub lost: u64,
    pub wall: Duration,
}

/// Keeps [`FLOOD_WINDOW`] questions under way on each of [`FLOOD_SOCKETS`] sockets until `length`
/// is over. Unless `checked` (an echo), any answer counts.
pub fn flood(
    server: SocketAddr,
    names: u32,
    ttl_s: u32,
    length: Duration,
    checked: bool,
) -> io::Result<Flood> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut questions: Vec<_> = (0..names).map(|number| question(0, number, ttl_s)).collect();
    random.shuffle(&mut questions);
    let mut sockets = Vec::new();
    for _ in 0..FLOOD_SOCKETS {
        sockets.push((connected(server)?, 0, now()));
    }
    let mut batch = Batch::new(FLOOD_WINDOW, Kind::Connected);
    let mut next = 0;
    let mut seen = Flood::default();
    let start = now();
    while start.elapsed() < length {
        let mut moved = false;
        for (socket, under_way, last) in &mut sockets {
            // A quarter of a window at least: fewer system calls, and the server sees batches.
            let free = FLOOD_WINDOW - *under_way;
            if free >= FLOOD_WINDOW / 4 {
                for index in 0..free {
                    let question = &mut questions[next % names as usize];
                    #[expect(clippy::cast_possible_truncation, reason = "any id does")]
                    question[..2].copy_from_slice(&(next as u16).to_be_bytes());
                    batch.put(index, question);
                    next += 1;
                }
                *under_way += batch.send(socket, 0..free).unwrap_or(0);
            }
            let count = batch.receive(socket, false).unwrap_or(0);
            for index in 0..count {
                let good = match batch.datagram(index) {
                    [_, _, flags, more, _, _, count @ ..] => {
                        flags & 0x80 != 0
                            && (!checked || more.trailing_zeros() >= 4 && count.starts_with(&[0, 1]))
                    }
                    _ => false,
                };
                if good { seen.answers += 1 } else { seen.wrong += 1 }
            }
            if count > 0 {
                (*under_way, *last, moved) = (under_way.saturating_sub(count), now(), true);
            } else if last.elapsed() > Duration::from_millis(100) {
                // Lost in a full socket buffer: a new window.
                seen.lost += *under_way as u64;
                (*under_way, *last) = (0, now());
            }
        }
        if !moved {
            thread::sleep(Duration::from_micros(20));
        }
    }
    Ok(Flood { wall: start.elapsed(), ..seen })
}

const FLOOD_SOCKETS: usize = 8;
/// Small enough that all questions under way fit into a server's default receive buffer (212,992
/// bytes, some 270 datagrams).
const FLOOD_WINDOW: usize = 28;

/// What [`paced`] saw.
#[derive(Debug, Default, Clone)]
pub struct Paced {
    pub sent: u32,
    pub wrong: u32,
    pub unanswered: u32,
    /// µs from sending to the kernel's receive time, sorted.
    pub latency_us: Vec<f64>,
}

/// Sends `rate` questions a second at even distances, spinning, for `length`.
pub fn paced(
    server: SocketAddr,
    names: u32,
    ttl_s: u32,
    rate: u32,
    length: Duration,
    checked: bool,
) -> io::Result<Paced> {
    let socket = connected(server)?;
    stamp_arrivals(&socket)?;
    let mut batch = Batch::new(64, Kind::Stamped);
    let mut random = fastrand::Rng::with_seed(2);
    let mut under_way: Vec<Option<(u32, Duration)>> = vec![None; 1 << 16];
    let mut seen = Paced::default();
    let start = now();
    let mut open = 0_u32;
    loop {
        let elapsed = start.elapsed();
        if elapsed > length && (open == 0 || elapsed > length + Duration::from_millis(500)) {
            break;
        }
        if elapsed <= length && elapsed >= Duration::from_secs(1) / rate * seen.sent {
            let number = random.u32(0..names);
            #[expect(clippy::cast_possible_truncation, reason = "an id wraps; so many are not under way")]
            let id = seen.sent as u16;
            let message = question(id, number, ttl_s);
            if under_way[usize::from(id)].replace((number, since_epoch())).is_none() {
                open += 1;
            }
            let _ = socket.send(&message);
            seen.sent += 1;
        }
        for index in 0..batch.receive(&socket, false).unwrap_or(0) {
            let message = batch.datagram(index);
            let Some((number, sent)) = be16(message, 0).and_then(|id| under_way[usize::from(id)].take())
            else {
                continue;
            };
            open -= 1;
            if checked && judge(message, number) != Verdict::Right {
                seen.wrong += 1;
                continue;
            }
            let arrived = batch.received_at(index).unwrap_or_else(since_epoch);
            seen.latency_us.push(arrived.saturating_sub(sent).as_secs_f64() * 1e6);
        }
    }
    seen.unanswered = open;
    seen.latency_us.sort_by(f64::total_cmp);
    Ok(seen)
}

/// One question of [`watch`] and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Since the watch began.
    pub at: Duration,
    /// `None`: no answer within [`TIMEOUT`].
    pub latency: Option<Duration>,
    pub verdict: Option<Verdict>,
    /// The upstream gave this answer less than its TTL (and a second) ago.
    pub fresh: bool,
    /// This client had an answer to the same question whose TTL had not yet passed: a cache answers
    /// it from memory.
    pub repeated: bool,
    /// This client has had a right answer to the same question: a cache that has room may have it
    /// too.
    pub known: bool,
}

/// What and how [`watch`] asks.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    pub names: u32,
    pub ttl_s: u32,
    pub rate: u32,
    /// When the first question goes.
    pub start: Instant,
    pub length: Duration,
}

/// What a client waits for an answer.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Questions go in bursts: a timer for each would cost more than the servers do.
const TICK: Duration = Duration::from_millis(10);

/// Asks the names in order once, then at random, for `watch.length`; then waits for what is under
/// way.
pub fn watch(server: SocketAddr, upstream: &Upstream, watch: Watch) -> io::Result<Vec<Asked>> {
    let socket = connected(server)?;
    stamp_arrivals(&socket)?;
    let mut batch = Batch::new(64, Kind::Stamped);
    let mut random = fastrand::Rng::with_seed(u64::from(server.port()));
    let ttl = Duration::from_secs(watch.ttl_s.into());
    // By id: the question under way, its name, and when it went by the kernel's clock.
    let mut under_way: Vec<Option<(usize, u32, Duration)>> = vec![None; 1 << 16];
    let mut known_until = vec![None; watch.names as usize];
    let mut asked: Vec<Asked> = Vec::new();
    let mut tick = watch.start;
    loop {
        thread::sleep(tick.saturating_duration_since(now()));
        tick += TICK;
        // Answers first. An error is "port unreachable", for as long as a killed server is away.
        loop {
            let count = batch.receive(&socket, false).unwrap_or(0);
            if count == 0 {
                break;
            }
            for index in 0..count {
                let message = batch.datagram(index);
                let Some((place, number, sent)) =
                    be16(message, 0).and_then(|id| under_way[usize::from(id)].take())
                else {
                    continue;
                };
                let arrived = batch.received_at(index).unwrap_or_else(since_epoch);
                let latency = arrived.saturating_sub(sent);
                if latency > TIMEOUT {
                    continue;
                }
                let verdict = judge(message, number);
                if verdict == Verdict::Right {
                    let source = upstream.answered_before(number, arrived);
                    asked[place].fresh =
                        source.is_some_and(|source| arrived <= source + ttl + Duration::from_secs(1));
                    // As the upstream meant it, not as a stale answer's TTL says.
                    known_until[number as usize] = Some(source.map_or(Duration::ZERO, |source| source + ttl));
                }
                asked[place].latency = Some(latency);
                asked[place].verdict = Some(verdict);
            }
        }
        let elapsed = watch.start.elapsed();
        if elapsed > watch.length + TIMEOUT {
            return Ok(asked);
        }
        let due = elapsed.min(watch.length).as_millis() * u128::from(watch.rate) / 1_000;
        while (asked.len() as u128) < due {
            let place = asked.len();
            let in_order = u32::try_from(place).ok().filter(|number| *number < watch.names);
            let number = in_order.unwrap_or_else(|| random.u32(0..watch.names));
            #[expect(clippy::cast_possible_truncation, reason = "an id wraps; so many are not under way")]
            let id = place as u16;
            let sent = since_epoch();
            let _ = socket.send(&question(id, number, watch.ttl_s));
            under_way[usize::from(id)] = Some((place, number, sent));
            let until = known_until[number as usize];
            let repeated = until.is_some_and(|until| sent + Duration::from_millis(500) < until);
            let (at, known) = (watch.start.elapsed(), until.is_some());
            asked.push(Asked { at, latency: None, verdict: None, fresh: false, repeated, known });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::upstream::Mode, process::free_port};

    #[test]
    fn every_load_tells_right_from_wrong_and_lost() {
        let upstream = Upstream::start(free_port(), 100).unwrap();
        let to = upstream.address;
        let brief = Duration::from_millis(200);
        assert!(is_ready(to, true, Duration::from_secs(10)).unwrap());
        let seen = walk(to, 0..1_000, 60, Duration::from_secs(30)).unwrap();
        assert_eq!((seen.right, seen.wrong, seen.unanswered), (1_000, 0, 0));
        let seen = flood(to, 100, 60, brief, true).unwrap();
        assert!(seen.answers > 0 && seen.wrong == 0, "{seen:?}");
        let seen = paced(to, 100, 60, 1_000, brief, true).unwrap();
        assert_eq!((seen.wrong, seen.latency_us.len()), (0, (seen.sent - seen.unanswered) as usize));

        upstream.set(Mode::Empty);
        assert_eq!(walk(to, 0..10, 60, Duration::from_secs(30)).unwrap().wrong, 10);
        let seen = flood(to, 100, 60, brief, true).unwrap();
        assert!(seen.wrong > 0 && seen.answers == 0, "{seen:?}");

        upstream.set(Mode::Blackhole);
        assert!(!is_ready(to, true, Duration::from_millis(1)).unwrap());
        let plan = Watch { names: 10, ttl_s: 5, rate: 100, start: now(), length: brief };
        let asked = watch(to, &upstream, plan).unwrap();
        assert_eq!(asked.len(), 20);
        assert!(asked.iter().all(|asked| asked.verdict.is_none() && !asked.fresh));
    }
}
