//! One rule a file, pure: the core composes them.

pub mod ack;
pub mod agent;
pub mod alert;
pub mod budgets;
pub mod downtime;
pub mod escalation;
pub mod external;
pub mod health;
pub mod incident;
pub mod inhibit;
pub mod lately;
pub mod matcher;
pub mod moment;
pub mod outbox;
pub mod period;
pub mod ratelimit;
pub mod reason;
pub mod route;
pub mod schedule;
pub mod silence;
pub mod storm;
pub mod token;
pub mod told;
pub mod user;
pub mod withheld;
