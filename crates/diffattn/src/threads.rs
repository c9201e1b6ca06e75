//! Serial or rayon: the only file that names rayon. Knows nothing of what the work is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `work(slot, item)` for every item below `items`, on `threads` threads at most. A slot below
/// `threads` is held by one item at a time, so it may index scratch. Items start in order.
pub(crate) fn for_each(threads: usize, items: usize, work: impl Fn(usize, usize) + Sync) {
    let threads = threads.clamp(1, items.max(1));
    if threads == 1 {
        (0..items).for_each(|item| work(0, item));
        return;
    }
    let next = AtomicUsize::new(0);
    pool::broadcast(threads, &|slot| {
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                break;
            }
            work(slot, item);
        }
    });
}

/// Multiply-adds that make a further thread worth waking: about 20 µs of one core, twice what a wake-up takes.
const THREAD_WORK: usize = 1 << 20;

/// How many of `threads` are worth waking for `work` multiply-adds.
pub(crate) fn thread_count(threads: usize, work: usize) -> usize {
    threads.min(work / THREAD_WORK).max(1)
}

/// How many threads the machine (its cgroup too) allows: the default of every call. Asked once: the system reads files
/// to answer, which took half of a small call (27 of 57 µs on Zen 1).
#[must_use]
pub fn available_threads() -> usize {
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    *AVAILABLE.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(all(feature = "rayon", not(target_arch = "wasm32")))]
mod pool {
    use std::sync::{Arc, Mutex, PoisonError};

    /// The pool of the last thread count asked for: counts rarely change, and idle pools cost memory.
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

    pub(super) fn broadcast(threads: usize, work: &(dyn Fn(usize) + Sync)) {
        match of(threads) {
            Some(pool) => {
                pool.broadcast(|context| {
                    if context.index() < threads {
                        work(context.index());
                    }
                });
            }
            // The system refused threads: slower, not wrong.
            None => work(0),
        }
    }

    pub(super) fn release() {
        *POOL.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(all(feature = "rayon", target_arch = "wasm32"))]
mod pool {
    // The page started the global pool (wasm-bindgen-rayon); it has a fixed size.
    pub(super) fn broadcast(threads: usize, work: &(dyn Fn(usize) + Sync)) {
        rayon::broadcast(|context| {
            if context.index() < threads {
                work(context.index());
            }
        });
    }

    pub(super) fn release() {}
}

#[cfg(not(feature = "rayon"))]
mod pool {
    pub(super) fn broadcast(_threads: usize, work: &(dyn Fn(usize) + Sync)) {
        work(0);
    }

    pub(super) fn release() {}
}

/// Gives idle pool threads back to the system; the next call starts them anew.
pub fn release_threads() {
    pool::release();
}
