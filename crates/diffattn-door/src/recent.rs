//! The requests that were read last, for those that come again. None that names an object belongs
//! here: it would outlive its id. Knows no request, nor what one is read as.

use std::any::Any;
use std::sync::Arc;

use diffattn::Run;

/// How many are kept: the operators of a layer, called one after the other.
const KEPT: usize = 8;

/// Numbers of the longest that is kept: half a kilobyte. (Lists of positions have no end.)
const LONGEST: usize = 64;

#[derive(Debug)]
struct Read {
    op: u32,
    params: Vec<f64>,
    run: Run,
    request: Arc<dyn Any + Send + Sync>,
}

/// The last requests.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    read: Vec<Read>,
    /// Whose place the next one takes, once there are so many.
    oldest: usize,
}

impl Recent {
    /// What a request was read as that came before in the same words, and runs on the same.
    pub(crate) fn find<T: Send + Sync + 'static>(
        &self,
        op: u32,
        params: &[f64],
        run: Run,
    ) -> Option<Arc<T>> {
        let is_it = |read: &&Read| read.op == op && same(&read.params, params) && read.run == run;
        let read = self.read.iter().find(is_it)?;
        read.request.clone().downcast().ok()
    }

    /// Keeps what a request was read as; the oldest goes where there are too many.
    pub(crate) fn keep(
        &mut self,
        op: u32,
        params: &[f64],
        run: Run,
        request: Arc<dyn Any + Send + Sync>,
    ) {
        if params.len() > LONGEST {
            return;
        }
        let read = Read {
            op,
            params: params.to_vec(),
            run,
            request,
        };
        if self.read.len() < KEPT {
            self.read.push(read);
        } else {
            self.read[self.oldest] = read;
            self.oldest = (self.oldest + 1) % KEPT;
        }
    }
}

/// Whether numbers are the same, bit by bit: a NaN is itself, and 0 is not −0.
fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests;
