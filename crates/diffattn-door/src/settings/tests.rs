//! What may be configured.

use diffattn::available_threads;

use super::*;

#[test]
fn what_is_not_to_be_had_is_refused() {
    assert_eq!(
        configure(Some("mmx"), None).map_err(|error| error.code()),
        Err("UNAVAILABLE")
    );
    for threads in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        assert_eq!(
            configure(None, Some(threads)).map_err(|error| error.code()),
            Err("OPTION"),
            "{threads}"
        );
    }
    assert_eq!(isa(), Isa::detect());
    assert_eq!(threads(), available_threads());
}
