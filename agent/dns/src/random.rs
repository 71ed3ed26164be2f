//! Random bytes from the kernel (getrandom(2)). Nothing in this crate may use a generator that an
//! attacker could predict; `packaging/house.toml` keeps fastrand out.

use std::io;

use crate::clock;

/// A key that nobody can guess. It fails only where the system call is missing or forbidden.
pub(crate) fn key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(key)
}

/// A number that differs from others: a label, a salt, an id on the loopback interface. Where the
/// kernel gives none, the time since boot serves.
pub(crate) fn number() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(clock::since_boot().subsec_nanos()))
}

/// The lower half of one.
pub(crate) fn number_u32() -> u32 {
    let [a, b, c, d, ..] = number().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
