//! Readiness, status, watchdog and inherited sockets for systemd (sd_notify(3), sd_listen_fds(3)).
//! Without systemd none of this does anything.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

use sd_notify::NotifyState;

/// The daemon is ready. `status` is one line for `systemctl status`.
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

/// Feeds the watchdog. Call it from the daemon's main loop: in a timer task it would prove nothing.
pub fn alive() {
    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
}

/// How often to call [`alive`]: half of the watchdog's timeout. `None` without a watchdog.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// The sockets that systemd passes, with their names from the `.socket` unit. Empty without socket
/// activation.
///
/// Call once, before any thread is started or any file is opened.
#[expect(unsafe_code, reason = "an inherited descriptor is only a number until someone owns it")]
pub fn inherited_sockets() -> io::Result<Vec<(String, OwnedFd)>> {
    let fds = sd_notify::listen_fds_with_names()?;
    // SAFETY: systemd passed these descriptors to this process alone. `listen_fds_with_names`
    // checks LISTEN_PID and clears the environment, so nothing else can take them.
    Ok(fds.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}
