//! Whole-system proof: real processes and real peers on loopback, and drills in virtual time.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`process`] | starts the workspace's binaries and Debian's, awaits conditions, ends what it started |
//! | [`dns_message`] | the few bytes of DNS that a client and a fake upstream need, written apart from the code under test |
//! | [`dns_client`] | asks a DNS server over UDP or TCP |
//! | [`upstream`] | a scriptable upstream: right answers, silence, SERVFAIL and other ways to be ill |

pub mod dns_client;
pub mod dns_message;
pub mod process;
pub mod upstream;
