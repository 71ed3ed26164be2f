//! What systemd and a daemon say to each other (sd_notify(3), sd_listen_fds(3)). Without systemd all of it does nothing.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

use sd_notify::NotifyState;

/// The daemon serves; `status` is one line for `systemctl status`.
pub fn ready(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(status)]);
}

pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the daemon's own loop turns. Call it from that loop, never from a timer task of its own.
pub fn alive() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// How often to call [`alive`]: half of what systemd allows; `None` if it does not ask.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Sockets that systemd holds for us, with their names from the `.socket` unit. Empty without socket activation.
///
/// Call once, before any thread or file is made.
#[expect(unsafe_code, reason = "an inherited descriptor is only a number until someone owns it")]
pub fn inherited_sockets() -> io::Result<Vec<(String, OwnedFd)>> {
    let fds = sd_notify::listen_fds_with_names()?;
    // SAFETY: systemd passed these descriptors to this process for its own use; `listen_fds_with_names` checks
    // LISTEN_PID and clears the environment, so nobody else takes them a second time.
    Ok(fds.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}
