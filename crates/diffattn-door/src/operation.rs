//! What the door asks of every request. Knows none of them.

use diffattn::{Error, Run};

use crate::job::Prepared;
use crate::objects::{Door, Lender, Use};
use crate::reader::Named;

/// What a request finds when it is prepared.
pub(crate) struct Inputs<'a, 'm> {
    /// The elements of the tensors that it names.
    pub(crate) operands: &'a [&'m [u8]],
    /// The objects that it names.
    pub(crate) objects: &'a mut Lender<'m>,
    /// What calls ran on when this one was made.
    pub(crate) run: Run,
}

/// A request for a job that was read. (Nothing prints one, so that no module carries how.)
pub(crate) trait Operation: Send + Sync {
    /// What can be refused before there are operands, and no single field shows.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The objects that it uses.
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }

    /// Whether preparing it is work of its own (reading a file's header, converting a layer), so
    /// that a thread that should not wait leaves it to the one that does the work.
    fn prepares_at_length(&self) -> bool {
        false
    }

    /// All checks, no work: what is prepared twice is as it was prepared once.
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error>;
}

/// What a query finds when it is answered.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) door: &'a Door,
    /// The elements of the tensors that it names.
    pub(crate) operands: &'a [&'a [u8]],
    /// What calls run on now.
    #[cfg(feature = "models")]
    pub(crate) run: Run,
}

impl Asked<'_> {
    /// Whether the request was `read` as far as it goes, and its operands came with it.
    pub(crate) fn check(&self, read: Result<Named, Error>) -> Result<(), Error> {
        check_operands(self.operands.len(), read?.operands)
    }
}

/// Whether as many operands `came` as the request `names`.
pub(crate) fn check_operands(came: usize, names: usize) -> Result<(), Error> {
    if came == names {
        return Ok(());
    }
    Err(Error::internal(format!(
        "{came} operands came with a request that names {names}"
    )))
}

/// A request that is answered at once with a number.
pub(crate) trait Query {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error>;
}
