//! Checks a layer's weights before they are converted. Moves none.

use crate::attention::{self, K, O, OUT, Q, V};
use crate::layout::HeadLayout;
use crate::raw_weights::RawWeights;
use diffattn::{Error, Pairing, format_shape};

/// The projections of heads.
pub(super) const HEADS: [&str; 3] = [Q, K, V];

/// Checks that all names are known and the projections are there; gives the name of the output projection.
pub(super) fn check_names(weights: &RawWeights<'_>) -> Result<&'static str, Error> {
    let list = attention::any_version();
    let is_known = |name: &str| list.weights().iter().any(|weight| weight.is_named(name));
    if let Some(name) = weights.keys().find(|name| !is_known(name)) {
        return Err(Error::option(
            "weights",
            "the names of a layer",
            format_args!("{name:?}"),
        ));
    }
    let output = match [OUT, O].map(|name| weights.contains_key(&format!("{name}.weight"))) {
        [true, false] => OUT,
        [false, true] => O,
        [both, _] => {
            let got = if both { "both" } else { "neither" };
            return Err(Error::option(
                "weights",
                "one of out_proj.weight and o_proj.weight",
                got,
            ));
        }
    };
    for name in HEADS {
        if !weights.contains_key(&format!("{name}.weight")) {
            return Err(Error::option(
                format_args!("weights.{name}.weight"),
                "a tensor",
                "none",
            ));
        }
    }
    Ok(output)
}

/// Checks that the projections have the rows that the layout asks for.
pub(super) fn check_rows(weights: &RawWeights<'_>, heads: &HeadLayout) -> Result<(), Error> {
    let [q, k, v] = heads.head_counts()?;
    for (name, size) in [
        ("head_dim", heads.head_dim),
        ("head_width", heads.head_width),
    ] {
        if size == 0 {
            return Err(Error::shape(name, "1 or more", size));
        }
    }
    let values = if heads.pairing == Pairing::Halves {
        2
    } else {
        1
    };
    let widths = [heads.head_dim, heads.head_dim, heads.head_width / values];
    for ((name, count), width) in HEADS.into_iter().zip([q, k, v]).zip(widths) {
        let wanted = count.checked_mul(width);
        for part in ["weight", "bias"] {
            let name = format!("{name}.{part}");
            let Some(tensor) = weights.get(&name) else {
                continue;
            };
            let fits = match (part, tensor.shape()) {
                ("weight", &[rows, columns]) => Some(rows) == wanted && columns > 0,
                ("bias", &[rows]) => Some(rows) == wanted,
                _ => false,
            };
            if !fits {
                return Err(Error::shape(
                    format_args!("weights.{name}"),
                    format_args!("{count} heads of {width} rows"),
                    format_args!("shape {}", format_shape(tensor.shape())),
                ));
            }
        }
    }
    Ok(())
}
