//! One rule per file: plain values, and functions from what is known and `now` to a decision. The
//! modules of the core combine them; no rule knows the core.
//!
//! | module | rule |
//! | --- | --- |
//! | [`alert`] | which alerts fire; the key and the table of alerts |
//! | [`external`] | what an alert that another tool posts means |
//! | [`agent`] | which events of an agent are new, and when the agent is silent |
//! | [`identity`] | which host a batch comes from, if several share an agent id |
//! | [`matcher`] | label matchers, as in Alertmanager |
//! | [`route`] | the route tree: from labels to group, timing and policy |
//! | [`incident`] | an incident from its first alert to its end |
//! | [`escalation`] | the steps of a policy, one run of it |
//! | [`user`] | a user's personal rules |
//! | [`schedule`] | rotations, overrides, who is on call when |
//! | [`period`] | time periods that repeat |
//! | [`ack`] | acknowledgements: normal, sticky, expiring |
//! | [`silence`], [`downtime`], [`inhibit`] | what suppresses alerts |
//! | [`suppression`] | why an alert is suppressed, and what remains when the reason ends |
//! | [`told`] | what each receiver knows of an incident, and what is news to it |
//! | [`notification`] | one attempt to tell one receiver: its content and its outcome |
//! | [`outbox`] | notifications that are decided and not settled, and their order |
//! | [`ratelimit`], [`budgets`] | how often one receiver, one user, and all together are notified |
//! | [`mass`] | whether hosts are silent one by one or together |
//! | [`storm`] | what many alerts have in common |
//! | [`health`] | whether alertd is well |
//! | [`token`] | API tokens and their scopes |
//! | [`quota`] | how much one sender may make alertd remember |
//! | [`sender`] | who sent an alert or a batch |
//! | [`reason`] | the names of reasons, for log, metric, audit log and tests |
//! | [`lately`] | what changed on a host in the last day |
//! | [`moment`] | sums of times that do not overflow |
//! | [`text`] | text for people, with hostile text made harmless |

pub mod ack;
pub mod agent;
pub mod alert;
pub mod budgets;
pub mod downtime;
pub mod escalation;
pub mod external;
pub mod health;
pub mod identity;
pub mod incident;
pub mod inhibit;
pub mod lately;
pub mod mass;
pub mod matcher;
pub mod moment;
pub mod notification;
pub mod outbox;
pub mod period;
pub mod process;
pub mod quota;
pub mod ratelimit;
pub mod reason;
pub mod route;
pub mod schedule;
pub mod sender;
pub mod silence;
pub mod storm;
pub mod suppression;
pub mod text;
pub mod token;
pub mod told;
pub mod user;
