//! Serial or rayon: the only file that names rayon. Knows nothing of what the work is.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work(slot, item)` for every item below `items`, on `threads` threads at most. A slot below
/// `threads` is held by one item at a time, so it may index scratch. Items start in order.
pub(crate) fn for_each(threads: usize, items: usize, work: impl Fn(usize, usize) + Sync) {
    let threads = threads.clamp(1, items.max(1));
    if threads == 1 || !HAS_POOL {
        (0..items).for_each(|item| work(0, item));
        return;
    }
    let next = AtomicUsize::new(0);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&item| item < items);
    loop {
        // Another call may have the helpers: they are asked for again before every item.
        if pool::share(threads, &|slot| {
            while let Some(item) = take() {
                work(slot, item);
            }
        }) {
            return;
        }
        let Some(item) = take() else {
            return;
        };
        work(0, item);
    }
}

/// A slice whose disjoint parts threads write at the same time.
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow of values that may move between threads; the contract
// of `part` keeps the parts that threads hold apart.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<T> std::fmt::Debug for Disjoint<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disjoint({})", self.len)
    }
}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the slice begins: for its alignment, and for hints.
    pub(crate) fn start(&self) -> *mut T {
        self.start
    }

    /// The part `range`; panics where the slice ends before it.
    ///
    /// # Safety
    /// No other part that is held at the same time overlaps it.
    #[expect(
        clippy::mut_from_ref,
        reason = "parts are disjoint, as the contract says"
    )]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice, which is borrowed exclusively for `'a`; that nothing else holds
        // this part, the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Runs `work(slot, index, chunk)` for every chunk of `chunk` values of `data`, the last may be
/// shorter, as [`for_each`] does.
pub(crate) fn for_each_chunk<T: Send>(
    threads: usize,
    data: &mut [T],
    chunk: usize,
    work: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let chunk = chunk.max(1);
    let parts = Disjoint::new(data);
    for_each(threads, parts.len().div_ceil(chunk), |slot, index| {
        let first = index * chunk;
        // SAFETY: an index is worked on once, and chunks of two indices do not overlap.
        let part = unsafe { parts.part(first..(first + chunk).min(parts.len())) };
        work(slot, index, part);
    });
}

/// Whether there are threads at all: modules without them carry nothing that shares work out.
const HAS_POOL: bool = cfg!(feature = "rayon");

/// Multiply-adds that make a further thread worth waking: about 20 µs of one core, twice what a
/// wake-up takes. (A quarter of it where threads are awake: 1.0 to 1.15 of a token's time, as parts
/// of so few channels are read in runs that are too short.)
const THREAD_WORK: usize = 1 << 20;

/// How many of `threads` are worth waking for `work` multiply-adds.
#[inline]
pub(crate) fn thread_count(threads: usize, work: usize) -> usize {
    if HAS_POOL {
        threads.min(work / THREAD_WORK).max(1)
    } else {
        1
    }
}

/// How many threads the machine (its cgroup too) allows: the default of every call. Asked once: the
/// system reads files to answer, which took half of a small call (27 of 57 µs on Zen 1).
#[must_use]
pub fn available_threads() -> usize {
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    *AVAILABLE.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(feature = "rayon")]
mod pool {
    use super::super::crew::Crew;

    static CREW: Crew = Crew::new();

    /// Runs `work(slot)` on up to `threads` threads; false when another call has them.
    pub(super) fn share(threads: usize, work: &(dyn Fn(usize) + Sync)) -> bool {
        let Some(lead) = CREW.try_lead() else {
            return false;
        };
        lead.share(threads - 1, work, |missing| {
            threads::spawn(threads - 1, missing, || CREW.help())
        });
        true
    }

    pub(super) use threads::release;

    #[cfg(not(target_arch = "wasm32"))]
    mod threads {
        use std::sync::{Arc, Mutex, PoisonError};

        /// The pool of the last thread count asked for: counts rarely change, and idle pools cost
        /// memory.
        static POOL: Mutex<Option<Arc<rayon::ThreadPool>>> = Mutex::new(None);

        fn of(threads: usize) -> Option<Arc<rayon::ThreadPool>> {
            let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pool) = pool
                .as_ref()
                .filter(|pool| pool.current_num_threads() >= threads)
            {
                return Some(pool.clone());
            }
            let made = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("diffattn-{index}"))
                .build()
                .ok()?;
            *pool = Some(Arc::new(made));
            pool.clone()
        }

        /// Has `count` of `threads` run `work`; how many will: none where the system refuses
        /// threads, which is slower, not wrong.
        pub(in super::super) fn spawn(
            threads: usize,
            count: usize,
            work: impl Fn() + Copy + Send + 'static,
        ) -> usize {
            let Some(pool) = of(threads) else {
                return 0;
            };
            for _ in 0..count {
                pool.spawn(work);
            }
            count
        }

        pub(in super::super) fn release() {
            *POOL.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    #[cfg(target_arch = "wasm32")]
    mod threads {
        /// Has `count` threads run `work`: those of the global pool, which the page started
        /// (wasm-bindgen-rayon).
        pub(in super::super) fn spawn(
            threads: usize,
            count: usize,
            work: impl Fn() + Copy + Send + 'static,
        ) -> usize {
            let count = count.min(rayon::current_num_threads()).min(threads);
            for _ in 0..count {
                rayon::spawn(work);
            }
            count
        }

        pub(in super::super) fn release() {}
    }
}

#[cfg(not(feature = "rayon"))]
mod pool {
    pub(super) fn share(_threads: usize, work: &(dyn Fn(usize) + Sync)) -> bool {
        work(0);
        true
    }

    pub(super) fn release() {}
}

/// Gives idle pool threads back to the system; the next call starts them anew.
pub fn release_threads() {
    pool::release();
}
