//! alertd is killed again and again while alerts flow. Was a notification lost, or repeated under
//! another id?
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`heard`] | the receivers' servers: HTTP, and a real mail server's maildir; each notification counted by its id |
//! | [`victim`] | alertd with its files, and agents as far as alertd can see |
//! | [`campaign`] | both together, with a rate and a number of kills |

pub mod campaign;
pub mod heard;
pub mod victim;
