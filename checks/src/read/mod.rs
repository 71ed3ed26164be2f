//! Readers of the kernel's files: one for each source, with a pure parser that turns its text into
//! a typed reading.
//!
//! Checks that judge the same source share a reading: [`Readings`] keeps it for [`KEPT`].

pub(crate) mod arcstats;
pub(crate) mod block;
pub(crate) mod bond;
pub(crate) mod btrfs;
pub(crate) mod diskstats;
pub(crate) mod dpkg;
pub(crate) mod fstab;
pub(crate) mod hwmon;
pub(crate) mod kmsg;
pub(crate) mod limits;
pub(crate) mod maps;
pub(crate) mod md;
pub(crate) mod meminfo;
pub(crate) mod mountinfo;
pub(crate) mod net;
pub(crate) mod portable;
pub(crate) mod pressure;
pub(crate) mod processes;
pub(crate) mod sockets;
pub(crate) mod stat;
pub(crate) mod systemctl;
pub(crate) mod thermal;
pub(crate) mod vmstat;
pub(crate) mod wtmp;

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock,
    root::{ReadError, Root},
};

/// A file of the kernel that is read as a whole.
pub(crate) trait Source: Sized + Send + Sync + 'static {
    /// `/proc/stat`.
    const PATH: &'static str;

    /// The reading in a text, or why there is none.
    fn parse(text: &str) -> Result<Self, &'static str>;
}

type AnyReading = Arc<dyn Any + Send + Sync>;

/// The latest readings of a host.
pub(crate) struct Readings {
    root: Root,
    kept: Mutex<BTreeMap<TypeId, (Instant, AnyReading)>>,
}

impl Readings {
    pub(crate) fn new(root: Root) -> Self {
        Self { root, kept: Mutex::default() }
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// A reading that is at most [`KEPT`] old.
    pub(crate) fn get<T: Source>(&self) -> Result<Arc<T>, ReadError> {
        self.share(read_source)
    }

    /// The same as [`Self::get`] for what is not in one file. `read` says how to read it.
    pub(crate) fn share<T: Send + Sync + 'static>(
        &self,
        read: impl FnOnce(&Root) -> Result<T, ReadError>,
    ) -> Result<Arc<T>, ReadError> {
        let now = clock::now();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&TypeId::of::<T>()).cloned();
        if let Some((at, reading)) = kept
            && self.root.is_live()
            && now.saturating_duration_since(at) < KEPT
            && let Ok(reading) = reading.downcast()
        {
            return Ok(reading);
        }
        self.renew(read)
    }

    /// The same, but not older than this call.
    pub(crate) fn renew<T: Send + Sync + 'static>(
        &self,
        read: impl FnOnce(&Root) -> Result<T, ReadError>,
    ) -> Result<Arc<T>, ReadError> {
        let now = clock::now();
        // Not under the lock: a file may hang.
        let reading = Arc::new(read(&self.root)?);
        let any: AnyReading = reading.clone();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(TypeId::of::<T>(), (now, any));
        Ok(reading)
    }
}

fn read_source<T: Source>(root: &Root) -> Result<T, ReadError> {
    let text = root.read(T::PATH)?;
    T::parse(&text).map_err(|why| ReadError::Format { path: root.path(T::PATH), why })
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Long enough for checks that run together. Shorter than the second between the two readings of
/// `dogwatch check`, which would else see the same counters twice and report rates of 0.
pub(crate) const KEPT: Duration = Duration::from_millis(500);
