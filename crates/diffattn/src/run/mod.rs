//! How a call runs: instruction set, threads, fused or not. One value that cannot be wrong, beside
//! the options of every operator, layer and model. Knows nothing of what is computed.

pub(crate) mod buffer;
pub(crate) mod carve;
#[cfg(feature = "rayon")]
mod crew;
pub(crate) mod few;
pub(crate) mod threads;
pub(crate) mod units;
pub(crate) mod work;

use std::num::NonZeroUsize;

use crate::error::Error;
use crate::simd::{Isa, Kernel};
use threads::available_threads;

/// What a call runs on. No result depends on `threads`; which do on the instruction set and on
/// `deterministic`, the section "Numbers" of ARCHITECTURE.md says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    isa: Isa,
    threads: NonZeroUsize,
    deterministic: bool,
}

impl Default for Run {
    /// The fastest instruction set, as many threads as the machine allows, fused where that is
    /// faster.
    fn default() -> Self {
        Self {
            isa: Isa::detect(),
            threads: NonZeroUsize::new(available_threads()).unwrap_or(NonZeroUsize::MIN),
            deterministic: false,
        }
    }
}

impl Run {
    /// `None` is the default: the fastest instruction set, as many threads as the machine allows.
    /// `deterministic` forbids fused multiply-adds, so every instruction set gives the same bits.
    ///
    /// # Errors
    /// [`Kind::Option`](crate::ErrorKind::Option) naming `threads` for less than one.
    pub fn new(
        isa: Option<Isa>,
        threads: Option<usize>,
        deterministic: bool,
    ) -> Result<Self, Error> {
        let run = Self::default().with_deterministic(deterministic);
        let run = isa.map_or(run, |isa| run.with_isa(isa));
        threads.map_or(Ok(run), |threads| run.with_threads(threads))
    }

    /// This run on another instruction set.
    #[must_use]
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// This run on `threads` threads at most.
    ///
    /// # Errors
    /// [`Kind::Option`](crate::ErrorKind::Option) naming `threads` for less than one.
    pub fn with_threads(self, threads: usize) -> Result<Self, Error> {
        let threads = NonZeroUsize::new(threads)
            .ok_or_else(|| Error::option("threads", "1 or more", threads))?;
        Ok(Self { threads, ..self })
    }

    /// This run with or without fused multiply-adds.
    #[must_use]
    pub fn with_deterministic(self, deterministic: bool) -> Self {
        Self {
            deterministic,
            ..self
        }
    }

    /// The instruction set.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// How many threads may work at most, one or more.
    #[must_use]
    pub fn threads(self) -> usize {
        self.threads.get()
    }

    /// Whether multiply-adds are not fused, so that every instruction set gives the same bits.
    #[must_use]
    pub fn is_deterministic(self) -> bool {
        self.deterministic
    }

    /// Runs `kernel` as the call runs.
    #[inline]
    pub(crate) fn kernel<K: Kernel>(self, kernel: K) -> K::Output {
        self.isa.run(self.deterministic, kernel)
    }

    /// Runs `kernel` without fused multiply-adds, whatever was asked: what gives the same bits
    /// everywhere is compiled once per instruction set (with the choice left open the modules of
    /// WebAssembly were 20 KB larger).
    #[inline]
    pub(crate) fn unfused_kernel<K: Kernel>(self, kernel: K) -> K::Output {
        self.isa.run(true, kernel)
    }
}
