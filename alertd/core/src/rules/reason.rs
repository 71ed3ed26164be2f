//! The reasons for decisions. Logs, metrics, the history, `alertctl why` and tests use the same
//! names.

use serde::{Deserialize, Serialize};

/// Why a receiver was notified, or was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The first notification of an incident.
    FirstNotification,
    /// A later step of the escalation policy, because nobody acknowledged.
    EscalationStep,
    /// The policy repeats, because nobody acknowledged.
    EscalationRepeat,
    /// A step runs early, because a receiver of an earlier step could not be reached.
    DeliveryFailed,
    /// Sent to the fallback of a receiver that could not be reached.
    Fallback,
    NewAlerts,
    Worsened,
    Eased,
    SomeResolved,
    RepeatInterval,
    AllResolved,
    /// The service is no longer monitored, so nobody can say that it is OK.
    Removed,
    /// A silence ends soon and a problem that it suppresses still exists.
    SilenceEnding,
    SilenceEnded,
    /// A downtime starts to cover a problem that people already know.
    DowntimeStarted,
    DowntimeEnded,
    /// The agent is back and a problem still exists.
    HostBack,
    /// The dependency is resolved and the problem still exists.
    DependencyBack,
    InhibitionEnded,
    /// The route is no longer muted and the problem still exists.
    MuteEnded,
    Acked,
    /// A person removed the ack.
    Unacked,
    AckExpired,
    /// An ack ends soon; its author may want to renew it.
    AckEnding,
    /// A normal ack ended because a state changed.
    AckOutdated,
    /// Above the rate limit, so it is sent in a digest.
    RateLimited,
    Test,
    /// Not sent, because a newer notification replaced it.
    Replaced,
    /// Not sent, because the incident was resolved before anybody was notified.
    NeverTold,
    Silenced,
    Downtime,
    /// The agent of its host is silent; one notification covers all its services.
    HostDown,
    /// An alert that it depends on fires.
    DependencyDown,
    /// Another alert inhibits it.
    Inhibited,
    /// The route is muted at this time.
    Muted,
    /// alertd has just started, and a host that could report the cause has not reported yet.
    Settling,
    /// The receiver accepted it.
    Accepted,
    Retrying,
    /// The receiver will never accept it.
    Rejected,
    /// Retried until it was too old to be useful.
    TooOld,
    /// The receiver's template could not be rendered; the built-in text was sent.
    TemplateFailed,
    /// All remaining receivers are failing.
    NoOtherReceiver,
    /// An agent's heartbeat is overdue.
    AgentSilent,
    AgentBack,
    /// Several hosts have one agent id.
    IdShared,
    /// Only one host has the agent id now.
    IdUnshared,
    /// A later rule of a user, because nobody has acknowledged.
    PersonalRule,
    /// Nobody is on call in the schedule, so the catch-all is notified.
    NoOneOnCall,
    /// Somebody is on call again in a schedule that had nobody.
    OnCallAgain,
    /// A step names a target that a reload removed, so the catch-all is notified.
    UnknownTarget,
    /// An agent or another sender reported it.
    Reported,
    /// The sender stopped repeating it.
    Unreported,
    /// A person did it.
    ByHand,
    /// The request was not allowed or not valid.
    Refused,
    /// The auditor found an impossible state.
    AuditFound,
    AuditClean,
    /// Senders are over their quota.
    QuotaExceeded,
    QuotaFree,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstNotification => "first_notification",
            Self::EscalationStep => "escalation_step",
            Self::EscalationRepeat => "escalation_repeat",
            Self::DeliveryFailed => "delivery_failed",
            Self::Fallback => "fallback",
            Self::NewAlerts => "new_alerts",
            Self::Worsened => "worsened",
            Self::Eased => "eased",
            Self::SomeResolved => "some_resolved",
            Self::RepeatInterval => "repeat_interval",
            Self::AllResolved => "all_resolved",
            Self::Removed => "removed",
            Self::SilenceEnding => "silence_ending",
            Self::SilenceEnded => "silence_ended",
            Self::DowntimeStarted => "downtime_started",
            Self::DowntimeEnded => "downtime_ended",
            Self::HostBack => "host_back",
            Self::DependencyBack => "dependency_back",
            Self::InhibitionEnded => "inhibition_ended",
            Self::MuteEnded => "mute_ended",
            Self::Acked => "acked",
            Self::Unacked => "unacked",
            Self::AckExpired => "ack_expired",
            Self::AckEnding => "ack_ending",
            Self::AckOutdated => "ack_outdated",
            Self::RateLimited => "rate_limited",
            Self::Test => "test",
            Self::Replaced => "replaced",
            Self::NeverTold => "never_told",
            Self::Silenced => "silenced",
            Self::Downtime => "downtime",
            Self::HostDown => "host_down",
            Self::DependencyDown => "dependency_down",
            Self::Inhibited => "inhibited",
            Self::Muted => "muted",
            Self::Settling => "settling",
            Self::Accepted => "accepted",
            Self::Retrying => "retrying",
            Self::Rejected => "rejected",
            Self::TooOld => "too_old",
            Self::TemplateFailed => "template_failed",
            Self::NoOtherReceiver => "no_other_receiver",
            Self::AgentSilent => "agent_silent",
            Self::AgentBack => "agent_back",
            Self::IdShared => "id_shared",
            Self::IdUnshared => "id_unshared",
            Self::PersonalRule => "personal_rule",
            Self::NoOneOnCall => "no_one_on_call",
            Self::OnCallAgain => "on_call_again",
            Self::UnknownTarget => "unknown_target",
            Self::Reported => "reported",
            Self::Unreported => "unreported",
            Self::ByHand => "by_hand",
            Self::Refused => "refused",
            Self::AuditFound => "audit_found",
            Self::AuditClean => "audit_clean",
            Self::QuotaExceeded => "quota_exceeded",
            Self::QuotaFree => "quota_free",
        }
    }
}

/// Why the policy started at its first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Opened,
    SilenceEnded,
    DowntimeEnded,
    HostBack,
    DependencyBack,
    InhibitionEnded,
    MuteEnded,
    Unacked,
    AckExpired,
    AckOutdated,
}

impl Cause {
    pub fn reason(self) -> Reason {
        match self {
            Self::Opened => Reason::FirstNotification,
            Self::SilenceEnded => Reason::SilenceEnded,
            Self::DowntimeEnded => Reason::DowntimeEnded,
            Self::HostBack => Reason::HostBack,
            Self::DependencyBack => Reason::DependencyBack,
            Self::InhibitionEnded => Reason::InhibitionEnded,
            Self::MuteEnded => Reason::MuteEnded,
            Self::Unacked => Reason::Unacked,
            Self::AckExpired => Reason::AckExpired,
            Self::AckOutdated => Reason::AckOutdated,
        }
    }
}
