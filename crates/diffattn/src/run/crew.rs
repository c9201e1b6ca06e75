//! Threads that share sections of work, and stay awake between two of them: what a model computes
//! for a token is hundreds of sections of some 10 µs, and waking a thread takes longer than one.
//! Makes no thread, and knows nothing of what the work is.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::yield_now;

/// How often a helper looks for the next section before it leaves.
const LOOKS: u32 = if cfg!(target_arch = "wasm32") {
    1 << 17
} else {
    1 << 13
};
/// After how many looks others get the core, where there are more threads than cores.
const LOOKS_AT_ONCE: u32 = 64;

/// Fields of `Crew::state`: the section's number, how many have joined it, how many still may.
const ROOM: u64 = 0xffff;
const JOINED_SHIFT: u32 = 16;
const NUMBER_SHIFT: u32 = 32;

const fn room(state: u64) -> u64 {
    state & ROOM
}

const fn joined(state: u64) -> usize {
    (state >> JOINED_SHIFT & ROOM) as usize
}

const fn number(state: u64) -> u64 {
    state >> NUMBER_SHIFT
}

/// A value in cache lines of its own.
#[repr(align(128))]
struct Alone<T>(T);

/// Work of a section: is given its slot.
type Work<'w> = &'w (dyn Fn(usize) + Sync);

/// The section that is open, and those who help with it.
pub(super) struct Crew {
    /// Held by the one who leads.
    lead: Mutex<()>,
    state: Alone<AtomicU64>,
    /// Written while nobody can join, read by those who have joined.
    work: UnsafeCell<Option<Work<'static>>>,
    /// How many of those who joined have left the section.
    left: Alone<AtomicUsize>,
    /// Helpers who are awake, or were called.
    called: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written by the one who holds `lead`, while no section is open and all who
// joined have left; helpers read it between joining an open section and leaving it.
unsafe impl Sync for Crew {}

/// The right to open a section.
pub(super) struct Lead<'c> {
    crew: &'c Crew,
    _alone: MutexGuard<'c, ()>,
}

impl Crew {
    pub(super) const fn new() -> Self {
        Self {
            lead: Mutex::new(()),
            state: Alone(AtomicU64::new(0)),
            work: UnsafeCell::new(None),
            left: Alone(AtomicUsize::new(0)),
            called: AtomicUsize::new(0),
            panic: Mutex::new(None),
        }
    }

    /// Leads, unless someone else does; so does a section's own work that wants to share.
    pub(super) fn try_lead(&self) -> Option<Lead<'_>> {
        let alone = match self.lead.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Lead {
            crew: self,
            _alone: alone,
        })
    }

    /// Helps with sections, one after the other, until none has come for a while. One more call of
    /// it is counted as under way already.
    pub(super) fn help(&self) {
        let mut last = 0;
        let mut looks = 0;
        while looks < LOOKS {
            let state = self.state.0.load(Ordering::Relaxed);
            if room(state) > 0 && number(state) != last {
                let next = state + (1 << JOINED_SHIFT) - 1;
                let joins =
                    self.state
                        .0
                        .compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed);
                if joins.is_ok() {
                    self.work(joined(next));
                    last = number(state);
                    looks = 0;
                }
                continue;
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_AT_ONCE) {
                yield_now();
            } else {
                spin_loop();
            }
        }
        self.called.fetch_sub(1, Ordering::Relaxed);
    }

    /// Does a helper's part of the section that it has joined.
    fn work(&self, slot: usize) {
        // SAFETY: who has joined may read, see `Sync`.
        let work = unsafe { *self.work.get() };
        if let Some(work) = work
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(slot)))
        {
            let mut panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            panic.get_or_insert(payload);
        }
        self.left.0.fetch_add(1, Ordering::Release);
    }
}

impl Lead<'_> {
    /// Runs `work(slot)` here, with slot 0, and on up to `helpers` other threads, each with a slot
    /// of its own up to `helpers`; returns when all have ended. `call` is asked for more threads
    /// that [help](Crew::help), and says how many will come: nothing waits for them.
    pub(super) fn share(self, helpers: usize, work: Work<'_>, call: impl FnOnce(usize) -> usize) {
        let crew = self.crew;
        let helpers = helpers.min(ROOM as usize);
        // SAFETY: no helper reads it any longer than `Section` below lasts, which ends before the
        // borrow does; and nobody reads it now.
        unsafe {
            *crew.work.get() = Some(std::mem::transmute::<Work<'_>, Work<'static>>(work));
        }
        let next = number(crew.state.0.load(Ordering::Relaxed)).wrapping_add(1);
        let state = next << NUMBER_SHIFT | helpers as u64;
        crew.state.0.store(state, Ordering::Release);
        let section = Section(crew);
        let missing = helpers.saturating_sub(crew.called.load(Ordering::Relaxed));
        if missing > 0 {
            // (Counted before they come, as they count themselves out.)
            crew.called.fetch_add(missing, Ordering::Relaxed);
            let refused = missing - call(missing).min(missing);
            crew.called.fetch_sub(refused, Ordering::Relaxed);
        }
        work(0);
        drop(section);
        let mut panic = crew.panic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(payload) = panic.take() {
            drop(panic);
            resume_unwind(payload);
        }
    }
}

/// A section that is open. Its end, be it a panic's, waits for those who joined.
struct Section<'c>(&'c Crew);

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let crew = self.0;
        let state = crew.state.0.fetch_and(!ROOM, Ordering::AcqRel);
        let mut looks = 0_u32;
        while crew.left.0.load(Ordering::Acquire) < joined(state) {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_AT_ONCE) {
                yield_now();
            } else {
                spin_loop();
            }
        }
        crew.left.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
