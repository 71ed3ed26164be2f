//! The alert router.

pub mod ctl;
pub mod notify;
