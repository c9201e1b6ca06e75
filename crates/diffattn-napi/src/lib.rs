//! The addon for Node. Knows the package's version; operators follow.

use napi_derive::napi;

/// The version of the package.
#[napi]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
