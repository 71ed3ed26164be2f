//! Entries made ready where the cache is not: in a thread beside its writer's, who then only has to find them a place.

use std::sync::Arc;

use super::{Bounds, Facts, Table};
use crate::{
    moment::Moment,
    wire::{Answer, Verdict},
};

/// Makes entries as the cache that it comes from would.
pub(crate) struct Drafter {
    pub(super) table: Arc<Table>,
    pub(super) bounds: Bounds,
}

/// Entries that have no place yet.
#[derive(Default)]
pub(crate) struct Drafts {
    all: Vec<(u64, Facts)>,
    /// Their blocks, one after the other.
    blocks: Vec<u8>,
}

impl Drafter {
    /// Adds an answer; what is known of it may still be changed. `None` if it may not be kept.
    pub(crate) fn draft<'a>(
        &self,
        drafts: &'a mut Drafts,
        key: &[u8],
        message: &[u8],
        answer: &Answer,
        learned: Moment,
    ) -> Option<&'a mut Facts> {
        let ttl_s = self.bounds.lifetime_s(answer.verdict, answer.ttl_s?);
        let start = drafts.blocks.len();
        let Some(facts) = Facts::new(&mut drafts.blocks, key, message, answer, ttl_s, learned) else {
            drafts.blocks.truncate(start);
            return None;
        };
        drafts.all.push((self.table.hash_key(key), facts));
        drafts.all.last_mut().map(|(_, facts)| facts)
    }
}

impl Drafts {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Hash, what is known, and bytes of each.
    pub(crate) fn into_each(self, mut take: impl FnMut(u64, Facts, &[u8])) {
        let mut rest = &*self.blocks;
        for (hash, facts) in self.all {
            let (block, after) = rest.split_at_checked(facts.block_len()).unwrap_or_default();
            rest = after;
            take(hash, facts, block);
        }
    }
}

impl Bounds {
    pub(super) fn lifetime_s(&self, verdict: Verdict, ttl_s: u32) -> u32 {
        let most = match verdict {
            Verdict::Positive => self.ttl_max,
            Verdict::NoData | Verdict::NxDomain => self.negative_ttl_max,
        };
        u32::try_from(most.as_secs()).unwrap_or(u32::MAX).min(ttl_s)
    }
}
