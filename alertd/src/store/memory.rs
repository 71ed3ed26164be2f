//! The in-memory store of the tests as a `Store`, which must pass the same tests as the real one.

use dogwatch_alertd_core::{Change, Loaded, testing::Memory};
use jiff::Timestamp;

use super::{Store, StoreError};

impl Store for Memory {
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError> {
        Ok(Self::load(self, now))
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        Self::commit(self, changes);
        Ok(())
    }

    fn prune(&mut self, _before: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
}
