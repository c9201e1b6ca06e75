//! What models are compared by, and heads chosen, in float64: the entropy of maps, and how far the
//! logits of two models are apart.

use crate::Tensor;

/// Of a map `[B, H, Lq, Lk]` the entropy of each head's rows in nats, added up over batch and rows.
pub fn map_entropy(map: &Tensor<f64>) -> Vec<f64> {
    let &[batch, heads, rows, keys] = map.shape.as_slice() else {
        panic!("a map of shape {:?}", map.shape)
    };
    let mut sums = vec![0.0; heads];
    for b in 0..batch {
        for (h, sum) in sums.iter_mut().enumerate() {
            for i in 0..rows {
                let row = &map.data[((b * heads + h) * rows + i) * keys..][..keys];
                for &p in row {
                    // (The limit at 0 is 0.)
                    *sum -= if p > 0.0 { p * p.ln() } else { 0.0 };
                }
            }
        }
    }
    sums
}

/// How far logits `b` are from `a`, both `[..., vocabulary]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitsDistance {
    /// The largest difference; NaN where there is one.
    pub difference: f64,
    /// The largest magnitude in `a`.
    pub largest: f64,
    /// Rows whose highest logit, the first of equals, is that of the same id.
    pub same: usize,
    /// All rows.
    pub rows: usize,
}

/// Compares logits.
pub fn compare_logits(a: &Tensor<f64>, b: &Tensor<f64>) -> LogitsDistance {
    assert_eq!(a.shape, b.shape);
    let differences = || a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs());
    let difference = match differences().any(f64::is_nan) {
        true => f64::NAN,
        false => differences().fold(0.0, f64::max),
    };
    let width = a.shape.last().copied().unwrap_or(1);
    let rows: usize = match width {
        0 => 0,
        width => a.data.len() / width,
    };
    let highest = |row: &[f64]| {
        let mut best = 0;
        for (id, logit) in row.iter().enumerate() {
            if *logit > row[best] {
                best = id;
            }
        }
        best
    };
    let is_same = |row: &usize| {
        let range = row * width..(row + 1) * width;
        highest(&a.data[range.clone()]) == highest(&b.data[range])
    };
    LogitsDistance {
        difference,
        largest: a.data.iter().fold(0.0, |most, x| most.max(x.abs())),
        same: (0..rows).filter(is_same).count(),
        rows,
    }
}
