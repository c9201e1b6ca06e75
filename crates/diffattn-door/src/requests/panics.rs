//! Requests that panic, for tests that no panic passes a door.

use diffattn::{DType, Error, Work};

use crate::encoding::request;
use crate::job::Prepared;
use crate::operation::{Asked, Inputs, Operation, Query};

request! {
    /// Panics while it is prepared.
    240 panicEarly PanicEarly {}
}

request! {
    /// Panics in its first step.
    241 panicInStep PanicInStep {}
}

request! {
    /// Panics when it is asked.
    242 panicInQuery PanicInQuery {}
}

impl Operation for PanicEarly {
    fn prepare<'m>(&'m self, _inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        panic!("a panic in the preparation of a job, for tests")
    }
}

impl Operation for PanicInStep {
    fn prepare<'m>(&'m self, _inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        Prepared::of_one(DType::F32, &[1], |_out| {
            Ok(Work::new(1, |_pace| async {
                panic!("a panic in the step of a job, for tests")
            }))
        })
    }
}

impl Query for PanicInQuery {
    fn answer(self, _asked: Asked<'_>) -> Result<f64, Error> {
        panic!("a panic in a query, for tests")
    }
}
