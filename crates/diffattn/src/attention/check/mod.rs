//! The checks of a call, one file per group of arguments. Each gives what the call keeps of its
//! arguments; none allocates anything of the size of the work.

mod elements;
mod lambda;
mod norm;
mod operands;
mod scores;
mod sequences;

pub(super) use elements::{blocks, elements};
pub(super) use lambda::{Coefficients, LambdaAt, lambda};
pub(super) use norm::{Norm, norm};
pub(super) use operands::{Operands, operands, out_axis};
pub(super) use scores::{Sinks, scale, sinks, softcap};
pub(super) use sequences::sequences;
