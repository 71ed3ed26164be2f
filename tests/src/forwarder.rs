//! The interface of a cache in the virtual world: ours, or the plain one.

use std::time::Duration;

use dogwatch_dns_core::{
    moment::Moment,
    resolver::{Accepting, SensorResult, TcpCheck, TryError},
    zones::origin::Origin,
};
use jiff::Timestamp;

/// A message to an upstream.
pub struct Sent {
    pub try_id: u64,
    /// Its place in the scenario.
    pub upstream: usize,
    pub over_tcp: bool,
    pub message: Vec<u8>,
    pub timeout: Duration,
}

/// An answer as stored on disk: key, message, and when it was received.
pub type Remembered = (Vec<u8>, Vec<u8>, Moment);

/// The interface of a cache under test.
pub trait Forwarder {
    /// Returns whether the answer is in `out`. If not, it comes later or never.
    fn on_query(&mut self, packet: &[u8], client: u64, now: Moment, out: &mut Vec<u8>) -> bool;
    fn on_reply(&mut self, try_id: u64, message: &[u8], now: Moment);
    fn on_error(&mut self, try_id: u64, error: TryError, now: Moment);
    fn on_wakeup(&mut self, now: Moment);
    fn next_wakeup(&self) -> Option<Moment>;
    fn poll_send(&mut self) -> Option<Sent>;
    fn poll_reply(&mut self) -> Option<(u64, Vec<u8>)>;
    fn poll_learned(&mut self) -> Option<Remembered>;
    /// Which upstreams gave the stored answers, if the cache records it.
    fn origin(&self) -> Option<Origin>;
    fn use_upstreams(&mut self, used: &[usize], now: Moment);
    /// Addresses to test with a connection before they are used.
    fn poll_check(&mut self) -> Option<TcpCheck> {
        None
    }
    fn on_checked(&mut self, _: &TcpCheck, _: Accepting, _: Moment) {}
    /// The check results and the runway.
    fn look(&mut self, now: Moment, wall: Timestamp) -> (Vec<SensorResult>, Duration);
    /// Changes whenever the check results may have changed.
    fn health(&self) -> u8;
    fn bytes(&self) -> u64;
}
