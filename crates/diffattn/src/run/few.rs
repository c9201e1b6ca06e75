//! Lists of what a small call has few of.

/// A list, whose first `N` entries lie in place: a small call gets no memory for them, which took a
/// tenth of its time. (In WebAssembly an ordinary one: there code is fetched, and memory is soon
/// had. 4 KB of 175, gzipped.)
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Few<T, const N: usize> = smallvec::SmallVec<[T; N]>;
#[cfg(target_arch = "wasm32")]
pub(crate) type Few<T, const N: usize> = Vec<T>;
