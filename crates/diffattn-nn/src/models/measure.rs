//! What models are compared by, and heads chosen: logits of two models beside each other, and how
//! spread what heads attend to is. Runs no model.

use diffattn::{Data, Error, Tensor, check_len, format_shape};

/// How far the logits of two models are from each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitsDistance {
    /// The largest difference; NaN where one of the logits is.
    pub difference: f64,
    /// The largest logit of the first model, without its sign.
    pub largest: f64,
    /// Of how many rows the highest logit is that of the same id.
    pub same: usize,
    /// How many rows there are.
    pub rows: usize,
}

/// The elements of a float32 tensor of two axes or more, as many as its shape says.
fn elements<'a>(argument: &str, tensor: &Tensor<'a>, axes: usize) -> Result<&'a [f32], Error> {
    let Data::F32(data) = tensor.data else {
        return Err(Error::dtype(
            argument,
            "float32",
            tensor.data.dtype().name(),
        ));
    };
    if tensor.shape.len() < axes {
        let expected = format_args!("{axes} axes or more");
        return Err(Error::shape(
            argument,
            expected,
            format_shape(&tensor.shape),
        ));
    }
    check_len(argument, &tensor.shape, data.len())?;
    Ok(data)
}

/// Compares the logits of two models for the same tokens, `[..., vocabulary]`.
///
/// # Errors
/// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `b` where it is not shaped as `a` is;
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) for what is not float32.
pub fn compare_logits(a: &Tensor<'_>, b: &Tensor<'_>) -> Result<LogitsDistance, Error> {
    let (first, second) = (elements("a", a, 1)?, elements("b", b, 1)?);
    if a.shape != b.shape {
        let got = format_shape(&b.shape);
        return Err(Error::shape("b", format_shape(&a.shape), got));
    }
    let mut distance = LogitsDistance {
        difference: 0.0,
        largest: 0.0,
        same: 0,
        rows: 0,
    };
    // (A maximum would pass over NaN.)
    let larger = |most: f64, x: f64| if x > most || x.is_nan() { x } else { most };
    for (&x, &y) in first.iter().zip(second) {
        let (x, y) = (f64::from(x), f64::from(y));
        if !distance.difference.is_nan() {
            distance.difference = larger(distance.difference, (x - y).abs());
        }
        distance.largest = distance.largest.max(x.abs());
    }
    let width = a.shape.last().copied().unwrap_or(0).max(1);
    for (x, y) in first.chunks_exact(width).zip(second.chunks_exact(width)) {
        distance.rows += 1;
        distance.same += usize::from(highest(x) == highest(y));
    }
    Ok(distance)
}

/// The index of the highest value, of equal ones the first.
fn highest(row: &[f32]) -> usize {
    let ahead = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (0..row.len()).fold(0, ahead)
}

/// The entropy of the rows of each head's map, in nats, added up over batch and rows: of `map`
/// `[B, H, Lq, Lk]`, H numbers. A row that attends to n keys alike has ln n.
///
/// # Errors
/// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `map` for other axes;
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) for what is not float32.
pub fn map_entropy(map: &Tensor<'_>) -> Result<Vec<f64>, Error> {
    let data = elements("map", map, 4)?;
    let &[_, heads, rows, keys] = map.shape.as_slice() else {
        let got = format_shape(&map.shape);
        return Err(Error::shape("map", "4 axes, [B, H, Lq, Lk]", got));
    };
    let mut sums = diffattn::try_zeroed(heads)?;
    // (A map of no elements would be walked head by head, of which there could be any number.)
    let size = rows.saturating_mul(keys).max(1);
    for (index, map) in data.chunks_exact(size).enumerate() {
        let entropy = map.iter().filter(|&&p| p > 0.0).map(|&p| {
            let p = f64::from(p);
            -p * libm::log(p)
        });
        sums[index % heads] += entropy.sum::<f64>();
    }
    Ok(sums)
}
