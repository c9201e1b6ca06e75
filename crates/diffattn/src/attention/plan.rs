//! A call's plan: which q, k and v heads make each output head. Made in `pairing/`; knows no head
//! layouts.

use crate::error::Error;

/// Terms of a head at most.
const MAX_TERMS: usize = 8;

/// One output head: `Σ_t coefficients[t] · softmax(q[t] k[t]ᵀ)` times v heads side by side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    /// (q head, k head) of each term.
    pub(super) terms: Vec<(usize, usize)>,
    pub(super) v: Vec<usize>,
    pub(super) coefficients: Vec<f32>,
}

impl Head {
    /// A head with the coefficients that all heads have.
    pub(super) fn new(terms: Vec<(usize, usize)>, v: Vec<usize>, coefficients: &[f32]) -> Self {
        Self {
            terms,
            v,
            coefficients: coefficients.to_vec(),
        }
    }
}

/// Every output head of a call.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) heads: Vec<Head>,
    /// T: the largest number of terms of any head.
    pub(super) terms: usize,
    /// v heads that each output head concatenates.
    pub(super) values: usize,
}

/// Head counts of q, k and v; no v when only maps are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadCounts {
    pub(super) q: usize,
    pub(super) k: usize,
    pub(super) v: Option<usize>,
}

/// Checks that `argument` has not too many terms, and not none.
pub(super) fn check_terms(argument: &str, terms: usize) -> Result<(), Error> {
    if (1..=MAX_TERMS).contains(&terms) {
        Ok(())
    } else {
        Err(Error::option(
            argument,
            format_args!("1 to {MAX_TERMS} terms"),
            terms,
        ))
    }
}
