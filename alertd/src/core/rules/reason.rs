//! Why something was decided. One name for the log, the metric, the audit trail, `alertctl why` and the tests.

use serde::{Deserialize, Serialize};

/// Reasons to tell a receiver, and reasons not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The first word of an incident.
    FirstNotification,
    /// A later step of the escalation policy: nobody acked.
    EscalationStep,
    /// The whole policy again: nobody acked.
    EscalationRepeat,
    /// A step before its time, because a receiver before it could not be reached.
    DeliveryFailed,
    /// In the place of a receiver that could not be reached.
    Fallback,
    NewAlerts,
    Worsened,
    Eased,
    SomeResolved,
    RepeatInterval,
    AllResolved,
    /// The service is no longer watched; nobody claims that it is well.
    Removed,
    /// A silence ends soon and what it holds back is still so.
    SilenceEnding,
    SilenceEnded,
    /// To those who know of a problem that it covers from now on.
    DowntimeStarted,
    DowntimeEnded,
    /// The host is heard again and what it reports is still so.
    HostBack,
    /// What it depends on is well again and it is still so.
    DependencyBack,
    InhibitionEnded,
    /// The route may speak again and it is still so.
    MuteEnded,
    Acked,
    /// A person took the ack back.
    Unacked,
    AckExpired,
    /// An ack ends soon: whoever holds it may want to hold it longer.
    AckEnding,
    /// A normal ack ended because a state changed.
    AckOutdated,
    /// Over the receiver's rate: sent in a digest.
    RateLimited,
    Test,
    /// Not sent, for a newer word replaced it.
    Replaced,
    /// Not sent, for the incident was over before anyone was told.
    NeverTold,
    Silenced,
    Downtime,
    /// Its host's agent is silent: one page says so for all its services.
    HostDown,
    /// What it depends on fires.
    DependencyDown,
    /// Another alert makes it worthless.
    Inhibited,
    /// The route says nothing at this time.
    Muted,
    /// Right after the start: the host that could report its cause has not spoken yet.
    Settling,
    /// The receiver took it.
    Accepted,
    Retrying,
    /// The receiver will never take it.
    Rejected,
    /// Tried for as long as it was of use.
    TooOld,
    /// The receiver's template could not be rendered; built-in words went out.
    TemplateFailed,
    /// The only receivers left are the ones that fail.
    NoOtherReceiver,
    /// An agent's heartbeat is overdue.
    AgentSilent,
    AgentBack,
    /// A later rule of a user who is being paged: still nobody has acked.
    PersonalRule,
    /// A schedule has nobody: the catch-all hears it.
    NoOneOnCall,
    /// Somebody is on call again where nobody was.
    OnCallAgain,
    /// A step names what a reload took away: the catch-all hears it.
    UnknownTarget,
    /// An agent or another sender said so.
    Reported,
    /// Its sender has not repeated it in time.
    Unreported,
    /// A person did it.
    ByHand,
    /// A person may not, or asked for what makes no sense.
    Refused,
    /// The auditor found what should not be.
    AuditFound,
    AuditClean,
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
        }
    }
}

/// What made the policy begin at its first step.
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
