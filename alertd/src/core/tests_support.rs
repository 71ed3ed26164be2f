//! Values that the tests of the cores share.

use jiff::Timestamp;

use crate::notify::{Kind, Notification};

pub(crate) fn notification(created_at: Timestamp) -> Notification {
    Notification {
        id: String::new(),
        incident: 1,
        dedup_key: String::new(),
        receiver: "mail".into(),
        kind: Kind::Problem,
        reason: String::new(),
        created_at,
        group: [].into(),
        firing: Vec::new(),
        resolved: Vec::new(),
        digest: Vec::new(),
        ack: None,
    }
}
