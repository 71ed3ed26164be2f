//! The alert router.

pub mod notify;
