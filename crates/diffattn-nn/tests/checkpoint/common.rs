//! What the tests of converted layers share.

use diffattn::Error;
use diffattn_reference::testing;
use std::path::{Path, PathBuf};

pub(crate) use diffattn_reference::testing::{ok, values};

/// The code and sentence of what must fail.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    testing::refusal(result, |error| (error.code(), error.to_string()))
}

/// Small models as their sources write them.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models")
}

/// The reference cases.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures")
}
