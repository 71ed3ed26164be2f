//! Jobs whose reports were refused because there are already as many as there can be. Without this
//! only the caller would know, and cron's mail is often read by nobody. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::moment::Moment;

/// The refused jobs, and when each was refused last.
#[derive(Debug, Default)]
pub struct RefusedJobs {
    last: BTreeMap<String, Moment>,
    /// Names that were not kept because there were too many.
    more: bool,
}

impl RefusedJobs {
    /// Returns whether this job is new here, so worth a line in the log.
    pub fn on_refused(&mut self, service: &str, now: Moment) -> bool {
        if let Some(last) = self.last.get_mut(service) {
            *last = now;
            return false;
        }
        if self.last.len() >= NAMES_MAX {
            return !std::mem::replace(&mut self.more, true);
        }
        self.last.insert(service.to_owned(), now);
        true
    }

    pub fn knows(&self, service: &str) -> bool {
        self.last.contains_key(service)
    }

    /// The job has a service now, or is to be forgotten. Returns whether it was here.
    pub fn remove(&mut self, service: &str) -> bool {
        self.last.remove(service).is_some()
    }

    /// Forgets jobs that no longer try.
    pub fn expire(&mut self, now: Moment) {
        self.last.retain(|_, last| now.since(*last) < KEPT);
        self.more &= !self.last.is_empty();
    }

    /// What to say about them; `None` if there are none.
    pub fn said(&self, jobs_max: usize) -> Option<String> {
        let names: Vec<_> = self.last.keys().take(NAMED_MAX).map(String::as_str).collect();
        let (count, plus) = (self.last.len(), if self.more { "+" } else { "" });
        let more = match count - names.len() {
            0 => String::new(),
            more => format!(" and {more}{plus} more"),
        };
        let are = if count == 1 { "job is" } else { "jobs are" };
        let names = names.join(", ");
        (count > 0).then(|| {
            format!(
                "{count}{plus} {are} not watched, because there are already {jobs_max}: {names}{more}; end old ones \
                 with `dogwatch job --forget NAME`"
            )
        })
    }
}

/// A weekly job that is refused stays until its next run.
const KEPT: Duration = Duration::from_hours(8 * 24);
const NAMES_MAX: usize = 1_000;
const NAMED_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Moment {
        Moment(Duration::from_hours(hours))
    }

    #[test]
    fn a_refused_job_is_named_until_it_has_a_service_or_gives_up() {
        let mut refused = RefusedJobs::default();
        assert_eq!(refused.said(200), None);
        assert!(refused.on_refused("job a", at(0)));
        assert!(!refused.on_refused("job a", at(24)));
        assert!(refused.on_refused("job b", at(24)));
        let said = refused.said(200).unwrap();
        assert!(
            said.starts_with("2 jobs are not watched, because there are already 200: job a, job b; end "),
            "{said}"
        );
        assert!(refused.remove("job b") && !refused.remove("job b"));
        assert!(
            refused
                .said(200)
                .unwrap()
                .starts_with("1 job is not watched, because there are already 200: job a;")
        );
        refused.expire(at(24 + 7 * 24));
        assert!(refused.said(200).is_some());
        refused.expire(at(24 + 8 * 24));
        assert_eq!(refused.said(200), None);
    }

    #[test]
    fn the_names_are_bounded() {
        let mut refused = RefusedJobs::default();
        let news = (0..5_000).filter(|n| refused.on_refused(&format!("job {n:04}"), at(0))).count();
        assert_eq!(news, NAMES_MAX + 1);
        let said = refused.said(200).unwrap();
        assert!(said.contains("job 0000, job 0001, job 0002, job 0003, job 0004 and 995+ more;"), "{said}");
    }
}
