//! The objects that requests name by id: caches, layers, models. Each lies behind a read-write lock
//! in order of arrival: a [`Turn`] is a call's place in that order, a [`Slot`] the object with its
//! lock, a [`Lender`] hands out what a job borrows and keeps the guards. What is computed with an
//! object is not decided here.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use diffattn::Error;

use crate::recent::Recent;

/// The objects of one JavaScript environment, and the way in for its requests (see [`Door::call`]
/// and [`Door::query`]).
#[derive(Debug, Default)]
pub struct Door {
    table: Mutex<Table>,
    recent: Mutex<Recent>,
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

/// What an id can stand for.
pub(crate) trait Held: Send + Sync + 'static {
    /// What errors call its kind, with an article.
    const NAME: &'static str;
    /// What errors call one that is in use.
    const ARGUMENT: &'static str;
}

/// What an id stands for.
#[derive(Debug, Clone)]
struct Object {
    name: &'static str,
    /// A [`Slot`].
    slot: Arc<dyn Any + Send + Sync>,
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

    /// The requests that came last.
    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an object; its id.
    pub(crate) fn insert<T: Held>(&self, content: T) -> Result<u32, Error> {
        let object = Object {
            name: T::NAME,
            slot: Arc::new(Slot::new(content)),
        };
        let mut table = self.table();
        table.last_id = table
            .last_id
            .checked_add(1)
            .ok_or_else(|| Error::internal("no ids are left"))?;
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
            .ok_or_else(|| Error::disposed(argument))
    }

    /// The object of that id, which must be a `T`.
    pub(crate) fn get<T: Held>(
        &self,
        argument: &'static str,
        id: u32,
    ) -> Result<Arc<Slot<T>>, Error> {
        let Object { name, slot } = self.object(argument, id)?;
        slot.downcast()
            .map_err(|_| Error::dtype(argument, T::NAME, name))
    }
}

/// The open calls that use an object. Calls run in the order in which they were made; whoever
/// changes the object outside of that order waits for those that are open, so each call sees it as
/// it was when the call was made.
#[derive(Debug, Default)]
struct Turns {
    open: Mutex<Open>,
    over: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Open {
    /// Calls that read the object.
    readers: usize,
    /// Calls that will change it.
    writers: usize,
}

impl Open {
    /// Whether one that changes the object, or only reads it, finds it as the calls before leave
    /// it.
    fn lets(self, changes: bool) -> bool {
        self.writers == 0 && !(changes && self.readers > 0)
    }

    fn of(&mut self, changes: bool) -> &mut usize {
        if changes {
            &mut self.writers
        } else {
            &mut self.readers
        }
    }
}

impl Turns {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, changes: bool) -> MutexGuard<'_, Open> {
        let mut open = self.open();
        while !open.lets(changes) {
            open = self.over.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        open
    }
}

/// What a call does with an object, whichever that is.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    turns: Arc<Turns>,
    changes: bool,
}

impl Use {
    /// Whether the object is already as this use will find it.
    pub(crate) fn is_due(&self) -> bool {
        self.turns.open().lets(self.changes)
    }

    /// Waits until it is due.
    pub(crate) fn wait(&self) {
        drop(self.turns.wait(self.changes));
    }
}

/// The place of an open call in the order of those that use its objects. Dropped after the call's
/// job.
#[derive(Debug)]
pub struct Turn(Vec<Use>);

impl Turn {
    pub(crate) fn take(uses: &[Use]) -> Self {
        for Use { turns, changes } in uses {
            *turns.open().of(*changes) += 1;
        }
        Self(uses.to_vec())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        for Use { turns, changes } in &self.0 {
            *turns.open().of(*changes) -= 1;
            turns.over.notify_all();
        }
    }
}

/// An object that calls may change, with the calls that use it.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    turns: Arc<Turns>,
    /// `None` while a job that changes it, or whoever it was lent to, has it.
    content: Mutex<Option<Arc<T>>>,
}

impl<T: Held> Slot<T> {
    fn new(content: T) -> Self {
        Self {
            turns: Arc::default(),
            content: Mutex::new(Some(Arc::new(content))),
        }
    }

    /// What stands in for an object that is not there.
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self {
            turns: Arc::default(),
            content: Mutex::new(None),
        })
    }

    /// What a call that reads or changes the object takes its turn by.
    pub(crate) fn to_use(&self, changes: bool) -> Use {
        Use {
            turns: self.turns.clone(),
            changes,
        }
    }

    fn content(&self) -> MutexGuard<'_, Option<Arc<T>>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where no call takes a turn (a door that runs one thing at a time), a job may still hold the
    /// object.
    fn in_use(&self) -> Error {
        let name = T::ARGUMENT;
        Error::option(
            name,
            format_args!("a {name} that no open call uses"),
            "one in use",
        )
    }

    /// The object as it is now.
    pub(crate) fn now(&self) -> Result<Arc<T>, Error> {
        self.content().clone().ok_or_else(|| self.in_use())
    }

    /// Looks at the object, once no open call will change it.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Result<R, Error> {
        let _turn = self.turns.wait(false);
        Ok(look(self.now()?.as_ref()))
    }

    /// Changes the object, once no open call uses it.
    pub(crate) fn change<R>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let _turn = self.turns.wait(true);
        change(
            self.content()
                .as_mut()
                .and_then(Arc::get_mut)
                .ok_or_else(|| self.in_use())?,
        )
    }

    /// A slot that holds the object as it is now, whatever takes its place in this one.
    pub(crate) fn fixed(&self) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            turns: Arc::default(),
            content: Mutex::new(Some(self.now()?)),
        }))
    }

    /// Changes the object for calls to come; whoever has it as it was keeps that.
    pub(crate) fn renew(
        &self,
        change: impl FnOnce(&mut T) -> Result<(), Error>,
    ) -> Result<(), Error>
    where
        T: Clone,
    {
        let mut content = self.content();
        let held = content.as_mut().ok_or_else(|| self.in_use())?;
        // (Where one thing is done at a time and nothing is kept no one else has it, and a module
        // need not know how it is copied: 0.9 KB less, gzipped.)
        #[cfg(feature = "training")]
        let mine = Some(Arc::make_mut(held));
        #[cfg(not(feature = "training"))]
        let mine = Arc::get_mut(held);
        change(mine.ok_or_else(|| self.in_use())?)
    }

    /// Takes the object out, once no open call uses it, until [`Slot::give_back`].
    #[cfg(feature = "models")]
    pub(crate) fn lend(&self) -> Result<T, Error> {
        let _turn = self.turns.wait(true);
        let mut content = self.content();
        match content.take().map(Arc::try_unwrap) {
            Some(Ok(lent)) => Ok(lent),
            Some(Err(held)) => {
                *content = Some(held);
                Err(self.in_use())
            }
            None => Err(self.in_use()),
        }
    }

    #[cfg(feature = "models")]
    pub(crate) fn give_back(&self, lent: T) {
        *self.content() = Some(Arc::new(lent));
    }
}

/// An object taken out of its slot by the job that changes it. Dropping puts it back: after the
/// job, which leaves it as it was unless it finished.
#[derive(Debug)]
struct Loan<T: Held> {
    slot: Arc<Slot<T>>,
    content: Option<Arc<T>>,
}

impl<T: Held> Drop for Loan<T> {
    fn drop(&mut self) {
        *self.slot.content() = self.content.take();
    }
}

/// What a job keeps alive, in the order in which it goes, while its work borrows from it.
pub(crate) type Kept = Vec<Box<dyn Any>>;

/// Hands objects to the work of a job that keeps them.
pub(crate) struct Lender<'m> {
    kept: Kept,
    _work: PhantomData<&'m mut ()>,
}

impl<'m> Lender<'m> {
    /// # Safety
    /// Whatever borrows from what is lent is dropped before the lender, or what
    /// [`Lender::into_kept`] makes of it.
    pub(crate) unsafe fn new() -> Self {
        Self {
            kept: Vec::new(),
            _work: PhantomData,
        }
    }

    pub(crate) fn keep<T: ?Sized + 'static>(&mut self, object: Arc<T>) -> &'m T {
        let content = Arc::as_ptr(&object);
        self.kept.push(Box::new(object));
        // SAFETY: an Arc's content never moves, no one changes it while others have it, and it is
        // kept as long as `new` asks.
        unsafe { &*content }
    }

    /// The object as it is now.
    pub(crate) fn look<T: Held>(&mut self, slot: &Slot<T>) -> Result<&'m T, Error> {
        Ok(self.keep(slot.now()?))
    }

    /// The object itself, which no one else has until the job is dropped.
    pub(crate) fn take<T: Held>(&mut self, slot: &Arc<Slot<T>>) -> Result<&'m mut T, Error> {
        let mut place = slot.content();
        let content = place
            .as_mut()
            .and_then(Arc::get_mut)
            .ok_or_else(|| slot.in_use())?;
        let content = std::ptr::from_mut(content);
        self.kept.push(Box::new(Loan {
            slot: slot.clone(),
            content: place.take(),
        }));
        // SAFETY: as above; the loan has the only Arc of it, and touches it only when it is
        // dropped.
        Ok(unsafe { &mut *content })
    }

    pub(crate) fn into_kept(self) -> Kept {
        self.kept
    }
}
