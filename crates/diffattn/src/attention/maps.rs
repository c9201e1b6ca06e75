//! The maps of a call instead of its result: to look at, for a range of its queries.

use super::call::Call;
use super::inputs::KeysOnly;
use super::options::{AttentionOptions, MapOutputs};
use super::outputs::{MapsOut, Outputs};
use super::waves::Planned;
use crate::error::Error;
use crate::run::work::Work;
use crate::tensor::Tensor;
use crate::tensor::shape::{check_len, format_shape};

/// The maps of a call, term by term, for a range of query rows: a checked call, as
/// [`DiffAttention`](crate::DiffAttention).
#[derive(Debug)]
pub struct DiffAttentionMaps<'a> {
    planned: Planned<'a>,
    rows: [usize; 2],
}

impl<'a> DiffAttentionMaps<'a> {
    /// Checks everything. `num_kv_heads`, where given, must be the number of v heads that the
    /// pairing implies; without it the number follows from k. `rows` is the half-open range of
    /// queries; all by default. `options.norm` and `options.return_lse` have no meaning here and
    /// are refused.
    ///
    /// # Errors
    /// As [`DiffAttention::new`](crate::DiffAttention::new).
    pub fn new(
        q: Tensor<'a>,
        k: KeysOnly<'a>,
        options: &AttentionOptions<'a>,
        num_kv_heads: Option<usize>,
        rows: Option<[usize; 2]>,
    ) -> Result<Self, Error> {
        if options.norm.is_some() {
            return Err(Error::option("norm", "none for maps", "one"));
        }
        if options.return_lse {
            return Err(Error::option("return_lse", "none for maps", "one"));
        }
        let call = Call::new(&q, k.into(), options)?;
        if let Some(given) = num_kv_heads {
            let groups = call.value_heads();
            if given != groups {
                return Err(Error::shape(
                    "num_kv_heads",
                    format_args!("{groups}, as the pairing and k imply"),
                    given,
                ));
            }
        }
        let queries = call.axis.length;
        let rows = rows.unwrap_or([0, queries]);
        if rows[0] > rows[1] || rows[1] > queries {
            return Err(Error::shape(
                "rows",
                format_args!("[first, end) within 0 to {queries}"),
                format_shape(&rows),
            ));
        }
        Ok(Self {
            planned: Planned::new(call, rows, false),
            rows,
        })
    }

    /// T, the largest number of terms of any head.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.planned.call.plan.terms
    }

    /// `[B, H, rows, Lk]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        let [batch, heads, ..] = self.planned.call.lse_shape();
        let rows = self.rows[1] - self.rows[0];
        [batch, heads, rows, self.planned.call.keys]
    }

    /// The work of the call into its outputs, each of [`DiffAttentionMaps::map_shape`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) when one does not fit or overflows.
    pub fn into_work<'o>(self, outputs: MapOutputs<'o>) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        outputs.check(self.terms(), &self.map_shape())?;
        let maps = MapsOut::new(outputs, self.rows);
        Ok(self.planned.into_work(Outputs::Maps(maps)))
    }
}

impl MapOutputs<'_> {
    /// Checks that there is a map per term, and that each and the difference are of `shape`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `maps` or `diff` when one does not fit
    /// or overflows.
    pub fn check(&self, terms: usize, shape: &[usize; 4]) -> Result<(), Error> {
        if self.terms.len() != terms {
            return Err(Error::shape(
                "maps",
                format_args!("{terms} maps"),
                self.terms.len(),
            ));
        }
        for map in &self.terms {
            check_len("maps", shape, map.len())?;
        }
        check_len("diff", shape, self.diff.len())?;
        Ok(())
    }
}
