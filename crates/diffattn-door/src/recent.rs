//! The requests that were read last, for those that come again. None that names an object is kept:
//! it would outlive its id. Knows no request.

use diffattn::Run;

use crate::call::Call;

/// How many are kept: the operators of a layer, called one after the other.
const KEPT: usize = 8;

/// Numbers of the longest that is kept: half a kilobyte. (Lists of positions have no end.)
const LONGEST: usize = 64;

#[derive(Debug)]
struct Read {
    op: u32,
    params: Vec<f64>,
    call: Call,
}

/// The last requests.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    read: Vec<Read>,
    /// Whose place the next one takes, once there are so many.
    oldest: usize,
}

impl Recent {
    /// The call of a request that came before in the same words, and runs on the same.
    pub(crate) fn find(&self, op: u32, params: &[f64], run: Run) -> Option<Call> {
        let is_it =
            |read: &&Read| read.op == op && same(&read.params, params) && read.call.run() == run;
        self.read.iter().find(is_it).map(|read| read.call.clone())
    }

    /// Keeps a request; the oldest goes where there are too many.
    pub(crate) fn keep(&mut self, op: u32, params: &[f64], call: &Call) {
        if params.len() > LONGEST {
            return;
        }
        let read = Read {
            op,
            params: params.to_vec(),
            call: call.clone(),
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
