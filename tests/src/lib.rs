//! Tests of the whole system: real processes on loopback, and drills in virtual time.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`process`] | starts the workspace's binaries and Debian's, awaits conditions, ends what it started |
//! | [`host`] | alertd, agent and cache of one host, their configs, `alertctl` |
//! | [`http`] | a GET |
//! | [`http_server`] | a stand-in for HTTP receivers, with the rules of Slack and ntfy, and TLS |
//! | [`irc_server`] | ngIRCd, plain and with TLS; a person in its channel |
//! | [`mail_server`] | OpenSMTPD, plain and with STARTTLS and login |
//! | [`pagerduty`] | a stand-in that checks the rules of the Events API v2 |
//! | [`certificates`] | a private authority and a certificate for loopback |
//! | [`dns_message`] | the few bytes of DNS that a client and a fake upstream need, written apart from the code under test |
//! | [`dns_client`] | asks a DNS server over UDP or TCP |
//! | [`authority`] | what is true of a name, and how a failing upstream answers |
//! | [`upstream`] | such an upstream behind real sockets |
//! | [`scenario`] | outages as files: events and expected results; runs them with real processes |
//! | [`dns_world`] | runs them in virtual time: a host, its cache and its upstreams |
//! | [`forwarder`] | the interface of a cache in that world |
//! | [`plain_cache`] | what most hosts have, for comparison |
//! | [`drill`] | the outage drills and their scores |
//! | [`bench`] | benchmarks beside other servers |
//! | [`crash`] | kills alertd while alerts flow, and counts what arrived |
//! | [`herd`] | many hosts that come back to one weak upstream, in virtual time |
//! | [`hostile`] | a leaked token and local users attack alertd while others report |
//! | [`neighbours`] | another user and another address attack all listeners while others ask and report |
//! | [`storm`] | ten thousand hosts fail at once: what one person on call gets, in virtual time |

pub mod authority;
pub mod bench;
pub mod certificates;
pub mod crash;
pub mod dns_client;
pub mod dns_message;
pub mod dns_world;
pub mod drill;
pub mod forwarder;
pub mod herd;
pub mod host;
pub mod hostile;
pub mod http;
pub mod http_server;
pub mod irc_server;
pub mod mail_server;
pub mod neighbours;
pub mod pagerduty;
pub mod plain_cache;
pub mod plot;
pub mod policy_model;
pub mod process;
pub mod scenario;
pub mod storm;
pub mod upstream;
