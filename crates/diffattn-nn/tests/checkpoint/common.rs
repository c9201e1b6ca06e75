//! What the tests of converted layers share.

use diffattn::Error;
use std::path::{Path, PathBuf};

/// Unwraps with the error's own sentence.
pub(crate) fn ok<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The code and sentence of what must fail.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => (error.code(), error.to_string()),
    }
}

/// Pseudo-random values in [−scale, scale].
pub(crate) fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        scale * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    };
    std::iter::repeat_with(next).skip(4).take(len).collect()
}

/// Small models as their sources write them.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models")
}

/// The reference cases.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures")
}
