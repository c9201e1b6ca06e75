//! The objects that requests name by id: caches and layers. Knows when a cache may be changed; what is computed
//! with one is not decided here.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use diffattn::{Error, KvCache};
use diffattn_nn::DiffAttnLayer;

/// The objects of one JavaScript environment, and the way in for its requests (see [`Door::call`] and [`Door::query`]).
#[derive(Debug, Default)]
pub struct Door {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Ids are never used twice: 2³² objects are more than a process makes.
    last_id: u32,
    /// In the order of their ids.
    objects: Vec<(u32, Object)>,
}

impl Table {
    fn place(&self, id: u32) -> Option<usize> {
        self.objects
            .binary_search_by_key(&id, |object| object.0)
            .ok()
    }
}

/// What an id stands for.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Cache(Arc<CacheSlot>),
    Layer(Arc<DiffAttnLayer>),
}

impl Door {
    /// Without objects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets every object; open jobs keep theirs alive.
    pub fn clear(&self) {
        self.table().objects.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, object: Object) -> Result<u32, Error> {
        let mut table = self.table();
        table.last_id = table
            .last_id
            .checked_add(1)
            .ok_or_else(|| Error::Internal("no ids are left".into()))?;
        let id = table.last_id;
        table.objects.push((id, object));
        Ok(id)
    }

    pub(crate) fn remove(&self, id: u32) {
        // What the object owns is freed after the lock is gone.
        let mut table = self.table();
        let found = table.place(id).map(|place| table.objects.remove(place));
        drop(table);
        drop(found);
    }

    fn object(&self, argument: &'static str, id: u32) -> Result<Object, Error> {
        let table = self.table();
        table
            .place(id)
            .map(|place| table.objects[place].1.clone())
            .ok_or_else(|| Error::Disposed {
                argument: argument.into(),
            })
    }

    pub(crate) fn cache(&self, argument: &'static str, id: u32) -> Result<Arc<CacheSlot>, Error> {
        match self.object(argument, id)? {
            Object::Cache(slot) => Ok(slot),
            Object::Layer(_) => Err(Error::dtype(argument, "a KvCache", "a layer")),
        }
    }

    pub(crate) fn layer(
        &self,
        argument: &'static str,
        id: u32,
    ) -> Result<Arc<DiffAttnLayer>, Error> {
        match self.object(argument, id)? {
            Object::Layer(layer) => Ok(layer),
            Object::Cache(_) => Err(Error::dtype(argument, "a layer", "a KvCache")),
        }
    }
}

/// A cache with the calls that use it. Calls run in the order in which they were made; whoever changes the cache outside
/// of that order waits for those that are open, so each call sees the cache as it was when it was made.
#[derive(Debug)]
pub(crate) struct CacheSlot {
    state: Mutex<CacheState>,
    turn_over: Condvar,
}

#[derive(Debug)]
struct CacheState {
    /// `None` while a job that changes it has it.
    cache: Option<Arc<KvCache>>,
    /// Open calls that read it.
    readers: usize,
    /// Open calls that will change it.
    writers: usize,
}

/// What a call does with a cache.
#[derive(Debug, Clone)]
pub(crate) struct CacheUse {
    pub(crate) slot: Arc<CacheSlot>,
    pub(crate) changes: bool,
}

impl CacheSlot {
    pub(crate) fn new(cache: KvCache) -> Self {
        let state = CacheState {
            cache: Some(Arc::new(cache)),
            readers: 0,
            writers: 0,
        };
        Self {
            state: Mutex::new(state),
            turn_over: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, busy: impl Fn(&CacheState) -> bool) -> MutexGuard<'_, CacheState> {
        let mut state = self.state();
        while busy(&state) {
            state = self
                .turn_over
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// The cache as it is now.
    pub(crate) fn now(&self) -> Result<Arc<KvCache>, Error> {
        self.state().cache.clone().ok_or_else(in_use)
    }

    /// Looks at the cache, once no open call will change it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&KvCache) -> T) -> Result<T, Error> {
        let state = self.wait_while(|state| state.writers > 0);
        Ok(look(state.cache.as_ref().ok_or_else(in_use)?))
    }

    /// Changes the cache, once no open call uses it.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut KvCache) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = self.wait_while(|state| state.readers + state.writers > 0);
        change(
            state
                .cache
                .as_mut()
                .and_then(Arc::get_mut)
                .ok_or_else(in_use)?,
        )
    }
}

/// Where no call takes a turn (a door that runs one thing at a time), a job may still hold the cache.
fn in_use() -> Error {
    Error::option("cache", "a cache that no open call uses", "one in use")
}

impl CacheUse {
    /// Whether the cache is already as this use will find it.
    pub(crate) fn is_due(&self) -> bool {
        let state = self.slot.state();
        state.writers == 0 && !(self.changes && state.readers > 0)
    }

    /// Waits until it is due.
    pub(crate) fn wait(&self) {
        drop(
            self.slot
                .wait_while(|state| state.writers > 0 || (self.changes && state.readers > 0)),
        );
    }
}

/// The place of an open call in the order of those that use a cache. Dropped after the call's job.
#[derive(Debug)]
pub struct Turn(Option<CacheUse>);

impl Turn {
    pub(crate) fn take(cache: Option<&CacheUse>) -> Self {
        if let Some(CacheUse { slot, changes }) = cache {
            let mut state = slot.state();
            if *changes {
                state.writers += 1;
            } else {
                state.readers += 1;
            }
        }
        Self(cache.cloned())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(CacheUse { slot, changes }) = &self.0 {
            let mut state = slot.state();
            if *changes {
                state.writers -= 1;
            } else {
                state.readers -= 1;
            }
            slot.turn_over.notify_all();
        }
    }
}

/// A cache taken out of its slot by the job that changes it. Dropping puts it back: after the job, which leaves it as it
/// was unless it finished.
#[derive(Debug)]
pub(crate) struct Loan {
    slot: Arc<CacheSlot>,
    cache: Option<Arc<KvCache>>,
}

impl Loan {
    pub(crate) fn take(slot: &Arc<CacheSlot>) -> Result<Self, Error> {
        let mut state = slot.state();
        state
            .cache
            .as_mut()
            .and_then(Arc::get_mut)
            .ok_or_else(in_use)?;
        Ok(Self {
            slot: slot.clone(),
            cache: state.cache.take(),
        })
    }

    /// The cache, which no one else has.
    pub(crate) fn cache(&mut self) -> Result<&mut KvCache, Error> {
        self.cache
            .as_mut()
            .and_then(Arc::get_mut)
            .ok_or_else(in_use)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.slot.state().cache = self.cache.take();
    }
}
