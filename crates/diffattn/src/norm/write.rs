//! How results are written: from which end, and past the caches where they are larger than those.
//! Knows nothing of what is computed.

use crate::blocks::norm::STREAMED;
use crate::simd::{STREAM_ALIGNMENT, Use, Vector};
use crate::tensor::output::Output;

/// Elements of a cache line.
pub(super) const LINE: usize = 16;

/// Bytes by which addresses differ that a core takes for one, until a store is done.
const ALIAS: usize = 1 << 12;

/// Results that are each made of what lies at its own place. A type, not a closure: of closures the
/// compiler inlines short ones alone into a kernel, and in one that it does not inline every
/// instruction is a call (layer norm took 50 times as long).
pub(super) trait Results {
    /// The vector of results that begins at a place.
    ///
    /// # Safety
    /// So many results there are.
    unsafe fn vector<V: Vector>(&self, at: Place) -> V;

    /// The result at `at`, to the same bits.
    ///
    /// # Safety
    /// There is one.
    unsafe fn one(&self, at: usize) -> f32;
}

/// Results, and what is read after them: its lines are touched while they are written.
pub(super) struct Before<'u, R> {
    /// As many elements as there are results.
    pub(super) next: &'u [f32],
    pub(super) results: R,
}

impl<R: Results> Results for Before<'_, R> {
    #[inline(always)]
    unsafe fn vector<V: Vector>(&self, at: Place) -> V {
        // SAFETY: the caller's promise: there are as many elements.
        unsafe {
            if at.beyond == 0 {
                V::touch(at.of(self.next));
            }
            self.results.vector(at)
        }
    }

    #[inline(always)]
    unsafe fn one(&self, at: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { self.results.one(at) }
    }
}

/// A place in a result, in two parts: so many elements from its beginning, and so many beyond. The
/// second is a constant of a loop's body, and becomes the offset of WebAssembly's loads. (Sums of
/// both took three instructions an access there.)
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    from: usize,
    beyond: usize,
}

impl Place {
    pub(super) fn at(from: usize) -> Self {
        Self { from, beyond: 0 }
    }

    /// The place in `values`.
    ///
    /// # Safety
    /// It lies within them.
    #[inline(always)]
    pub(super) unsafe fn of(self, values: &[f32]) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { values.as_ptr().add(self.from).add(self.beyond) }
    }
}

/// Whether to stream a result in rows of `row`: then a row starts where streaming can.
pub(super) fn is_streamed(output: &Output<'_>, row: usize) -> bool {
    match output {
        Output::F32(to) => {
            let bytes = row.saturating_mul(size_of::<f32>());
            to.len() >= STREAMED
                && to.start().addr().is_multiple_of(STREAM_ALIGNMENT)
                && bytes.is_multiple_of(STREAM_ALIGNMENT)
        }
        Output::F16(_) | Output::Bf16(_) => false,
    }
}

/// Whether loads that run ahead of the stores would meet addresses just stored to, as it seems to
/// the core, and wait. From the end to the beginning they do not: a norm took half the time.
#[inline(always)]
pub(super) fn is_backward(x: &[f32], y: &[f32]) -> bool {
    let ahead = y.as_ptr().addr().wrapping_sub(x.as_ptr().addr()) % ALIAS;
    ahead != 0 && ahead < ALIAS / 2
}

/// Writes all of y. If `STREAM`, y starts where streaming can, and the lines of as many elements
/// from each of `ahead` on are asked for.
///
/// # Safety
/// There are as many results.
#[inline(always)]
pub(super) unsafe fn write<V: Vector, const STREAM: bool, const A: usize>(
    y: &mut [f32],
    is_backward: bool,
    ahead: [*const f32; A],
    results: impl Results,
) {
    let lines = y.len() / LINE;
    for i in 0..lines {
        let line = if is_backward { lines - 1 - i } else { i } * LINE;
        if STREAM {
            for ahead in ahead {
                V::prefetch(ahead.wrapping_add(line), Use::Read);
            }
        }
        for beyond in (0..LINE).step_by(V::LANES) {
            let at = Place { from: line, beyond };
            // SAFETY: a line has whole vectors and lies within y, a multiple of the alignment after
            // its start; results the caller promises.
            unsafe {
                let to = y.as_mut_ptr().add(line).add(beyond);
                let vector = results.vector::<V>(at);
                if STREAM {
                    vector.stream(to);
                } else {
                    vector.store(to);
                }
            }
        }
    }
    let mut at = lines * LINE;
    while at + V::LANES <= y.len() {
        // SAFETY: a whole vector lies within y; results the caller promises.
        unsafe {
            results
                .vector::<V>(Place::at(at))
                .store(y.as_mut_ptr().add(at))
        };
        at += V::LANES;
    }
    for (i, y) in y[at..].iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *y = unsafe { results.one(at + i) };
    }
}
