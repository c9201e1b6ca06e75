//! A layer's weights from one layout to another: head pairing, rope convention, norm weight, names, element type. Rows
//! are moved bit for bit in any element type; only a folded norm weight and another element type round, once each.
//! What has no exact form is refused.

use super::layout::{HeadLayout, turned};
use super::tensor::{FloatTensor, RawTensor, write};
use crate::dtype::Dtype;
use crate::weights::Weights;
use diffattn::{Error, KvRepeat, Pairing, format_shape};
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A layer's weights by the names of [`Weights`], in any element type.
pub type RawWeights<'a> = BTreeMap<String, RawTensor<'a>>;

/// The weights as layers take them, in place where they can be; [`borrow_weights`] makes [`Weights`] of them.
///
/// # Errors
/// As [`RawTensor::floats`], naming the weight.
pub fn float_weights<'w>(
    weights: &'w RawWeights<'_>,
) -> Result<BTreeMap<String, FloatTensor<'w>>, Error> {
    weights
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.floats(&format!("weights.{name}"))?)))
        .collect()
}

/// [`Weights`] of float tensors.
#[must_use]
pub fn borrow_weights<'w>(weights: &'w BTreeMap<String, FloatTensor<'_>>) -> Weights<'w> {
    weights
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.tensor()))
        .collect()
}

/// What becomes of `subln.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormWeight {
    /// It stays as it is, there or not.
    #[default]
    Keep,
    /// It is multiplied into the output projection, which follows the norm: diffllama's norm has no weight.
    Fold,
    /// Ones where there is none: unilm's norm has a weight.
    Provide,
}

/// How a converted layer is to lie.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTarget {
    /// Which heads are partners.
    pub pairing: Pairing,
    /// Only with [`Pairing::Interleaved`].
    pub kv_repeat: Option<KvRepeat>,
    /// Only with [`Pairing::Grouped`] and [`Pairing::Shared`].
    pub ratio: Option<usize>,
    /// Whether rope turns pairs (2i, 2i + 1); `None` keeps what the source has.
    pub rope_interleaved: Option<bool>,
    /// The norm's weight.
    pub norm_weight: NormWeight,
    /// Name of the output projection, `out_proj` or `o_proj`; `None` keeps the source's.
    pub output: Option<&'static str>,
    /// Element type of all weights, F32, F16 or BF16; `None` keeps each one's.
    pub dtype: Option<Dtype>,
}

impl LayerTarget {
    /// Hugging Face's diffllama: halves, half-split rope, no norm weight, `o_proj`.
    #[must_use]
    pub fn diffllama() -> Self {
        Self {
            pairing: Pairing::Halves,
            kv_repeat: None,
            ratio: None,
            rope_interleaved: Some(false),
            norm_weight: NormWeight::Fold,
            output: Some("o_proj"),
            dtype: None,
        }
    }

    /// unilm's `multihead_flashdiff_2.py`: interleaved heads and rope, `subln.weight`, `out_proj`.
    #[must_use]
    pub fn unilm() -> Self {
        Self {
            pairing: Pairing::Interleaved,
            kv_repeat: None,
            ratio: None,
            rope_interleaved: Some(true),
            norm_weight: NormWeight::Provide,
            output: Some("out_proj"),
            dtype: None,
        }
    }

    /// As a layer lies already.
    #[must_use]
    pub fn keep(heads: &HeadLayout) -> Self {
        Self {
            pairing: heads.pairing,
            kv_repeat: heads.kv_repeat,
            ratio: heads.ratio,
            rope_interleaved: None,
            norm_weight: NormWeight::Keep,
            output: None,
            dtype: None,
        }
    }
}

/// How a layer's weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerForm {
    /// The heads.
    pub heads: HeadLayout,
    /// Whether rope turns pairs (2i, 2i + 1); `None` for a layer without rope.
    pub rope_interleaved: Option<bool>,
}

/// A converted layer.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The weights.
    pub weights: RawWeights<'static>,
    /// How they lie.
    pub form: LayerForm,
    /// Sentences on what was not exact or grew: repeated heads, folded weights, values that overflow.
    pub notes: Vec<String>,
}

/// The projections of heads.
const HEADS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// What is moved as it is.
const OTHERS: [&str; 9] = [
    "lambda_q1",
    "lambda_k1",
    "lambda_q2",
    "lambda_k2",
    "lambda_a",
    "lambda_b",
    "lambda_proj.weight",
    "lambda_proj.bias",
    "subln.weight",
];

/// Converts the weights of a layer that lie as `from` says.
///
/// Heads and channels are moved or repeated, never changed: q and k heads change their places, so λ, the norm and the
/// output projection stay. With another rope convention the products q·k add their channels in another order, so
/// results differ in the last bits; with another pairing alone they are the same bits. A folded `subln.weight` rounds
/// each product once.
///
/// # Errors
/// [`ErrorKind::Option`](diffattn::ErrorKind::Option) or [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming the weight or the option: weights that are missing, unknown or do not fit
/// `from`; a target that has no place for the heads; [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype); [`Error::OutOfMemory`].
pub fn convert_layer(
    weights: &RawWeights<'_>,
    from: &LayerForm,
    target: &LayerTarget,
) -> Result<Converted, Error> {
    let output = check_names(weights)?;
    // First, so that no size is believed (and nothing made of it) that is not backed by as many elements.
    check_rows(weights, &from.heads)?;
    let heads = from
        .heads
        .to_pairing(target.pairing, target.kv_repeat, target.ratio)?;
    let rope_interleaved = match (from.rope_interleaved, target.rope_interleaved) {
        (None, _) => None,
        (Some(from), to) => Some(to.unwrap_or(from)),
    };
    let head_dim = heads.head_dim;
    let turn = match rope_interleaved {
        Some(_) if !head_dim.is_multiple_of(2) => {
            return Err(Error::shape(
                "head_dim",
                "an even number, as rope turns channels in pairs",
                head_dim,
            ));
        }
        Some(to) if from.rope_interleaved != Some(to) => turned(head_dim, to),
        _ => Vec::new(),
    };
    let maps = from.heads.row_maps(&heads, &turn)?;
    let mut notes = Vec::new();
    let mut converted = RawWeights::new();
    for (name, rows) in HEADS.into_iter().zip([&maps.q, &maps.k, &maps.v]) {
        for part in ["weight", "bias"] {
            let name = format!("{name}.{part}");
            let Some(tensor) = weights.get(&name) else {
                continue;
            };
            let moved = tensor.gather(&format!("weights.{name}"), rows)?;
            if let (&[before, ..], &[after, ..]) = (tensor.shape(), moved.shape())
                && after > before
            {
                notes.push(format!(
                    "{name} grew from {before} to {after} rows: {} heads share what {} heads have no place to share",
                    from.heads.pairing.name(),
                    heads.pairing.name()
                ));
            }
            converted.insert(name, moved);
        }
    }
    for name in OTHERS {
        if let Some(tensor) = weights.get(name) {
            converted.insert(name.to_owned(), tensor.clone().into_owned()?);
        }
    }
    let to_output = target.output.unwrap_or(output);
    if !["out_proj", "o_proj"].contains(&to_output) {
        return Err(Error::option("output", "out_proj or o_proj", to_output));
    }
    for part in ["weight", "bias"] {
        if let Some(tensor) = weights.get(&format!("{output}.{part}")) {
            converted.insert(format!("{to_output}.{part}"), tensor.clone().into_owned()?);
        }
    }
    apply_norm(
        &mut converted,
        to_output,
        &heads,
        target.norm_weight,
        &mut notes,
    )?;
    if let Some(dtype) = target.dtype {
        cast_all(&mut converted, dtype, &mut notes)?;
    }
    Ok(Converted {
        weights: converted,
        form: LayerForm {
            heads,
            rope_interleaved,
        },
        notes,
    })
}

/// Checks that all names are known and the projections are there; gives the name of the output projection.
fn check_names(weights: &RawWeights<'_>) -> Result<&'static str, Error> {
    let projection = |name: &str| {
        let stem = name
            .strip_suffix(".weight")
            .or_else(|| name.strip_suffix(".bias"));
        stem.is_some_and(|stem| crate::weights::PROJECTIONS.contains(&stem))
    };
    if let Some(name) = weights
        .keys()
        .find(|name| !projection(name) && !OTHERS.contains(&name.as_str()))
    {
        return Err(Error::option(
            "weights",
            "the names of a layer",
            format_args!("{name:?}"),
        ));
    }
    let output =
        match ["out_proj", "o_proj"].map(|name| weights.contains_key(&format!("{name}.weight"))) {
            [true, false] => "out_proj",
            [false, true] => "o_proj",
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
fn check_rows(weights: &RawWeights<'_>, heads: &HeadLayout) -> Result<(), Error> {
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

fn apply_norm(
    weights: &mut RawWeights<'static>,
    output: &str,
    heads: &HeadLayout,
    norm: NormWeight,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    match norm {
        NormWeight::Keep => {}
        NormWeight::Fold => {
            if let Some(weight) = weights.remove("subln.weight") {
                let name = format!("{output}.weight");
                if let Some(projection) = weights.get_mut(&name) {
                    *projection = fold_norm(&format!("weights.{name}"), projection, &weight)?;
                    notes.push(format!("subln.weight is part of {name} now, rounded once"));
                }
            }
        }
        NormWeight::Provide => {
            if !weights.contains_key("subln.weight") {
                let ones = write(&vec![1.0f32; heads.head_width], f32::to_le_bytes)?;
                let ones = RawTensor::new("subln.weight", Dtype::F32, &[heads.head_width], ones)?;
                let dtype = weights
                    .get(&format!("{output}.weight"))
                    .map_or(Dtype::F32, RawTensor::dtype);
                let ones = ones.cast("subln.weight", dtype)?.tensor.into_owned()?;
                weights.insert("subln.weight".to_owned(), ones);
            }
        }
    }
    Ok(())
}

fn cast_all(
    weights: &mut RawWeights<'static>,
    dtype: Dtype,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    for (name, tensor) in weights.iter_mut() {
        let cast = tensor.cast(&format!("weights.{name}"), dtype)?;
        for (count, what) in [
            (cast.overflowed, "too large for it and infinite now"),
            (cast.vanished, "too small for it and 0 now"),
        ] {
            if count > 0 {
                notes.push(format!("{name} as {dtype}: {count} values are {what}"));
            }
        }
        *tensor = cast.tensor.into_owned()?;
    }
    Ok(())
}

/// The output projection `[E, H · width]` with the norm's weight `[width]` multiplied into its columns, in the projection's
/// own element type. The product of two floats of 24 bits or less is exact in float64; it is rounded once, to nearest, ties
/// to even.
///
/// # Errors
/// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` or `subln.weight`; [`Error::OutOfMemory`].
pub fn fold_norm(
    argument: &str,
    projection: &RawTensor<'_>,
    norm: &RawTensor<'_>,
) -> Result<RawTensor<'static>, Error> {
    for (argument, tensor) in [(argument, projection), ("weights.subln.weight", norm)] {
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&tensor.dtype()) {
            return Err(Error::dtype(argument, "F32, F16 or BF16", tensor.dtype()));
        }
    }
    let gain = norm.to_f32("weights.subln.weight")?;
    match (projection.shape(), norm.shape()) {
        (&[_, columns], &[width]) if width > 0 && columns.is_multiple_of(width) => {}
        (shape, norm) => {
            return Err(Error::shape(
                argument,
                format_args!("two axes, the second of them heads of subln.weight {norm:?}"),
                format_shape(shape),
            ));
        }
    }
    let mut values = projection.to_f32(argument)?;
    let scaled = |value: f32, gain: f32| f64::from(value) * f64::from(gain);
    let gains = gain.iter().cycle();
    let bytes = match projection.dtype() {
        Dtype::F32 => {
            for (value, &gain) in values.iter_mut().zip(gains) {
                *value = scaled(*value, gain) as f32;
            }
            write(&values, f32::to_le_bytes)?
        }
        narrow => {
            for (value, &gain) in values.iter_mut().zip(gains) {
                *value = to_odd(scaled(*value, gain));
            }
            match narrow {
                Dtype::F16 => write(&values, |x| f16::from_f32(x).to_le_bytes())?,
                _ => write(&values, |x| bf16::from_f32(x).to_le_bytes())?,
            }
        }
    };
    RawTensor::new(
        argument,
        projection.dtype(),
        projection.shape(),
        Cow::Owned(bytes),
    )
}

/// Rounds to odd: what rounds the result again, to at most 22 bits, gets what it would have got of `x` itself.
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || x.is_nan() {
        return near;
    }
    // One step towards zero where the rounding went away from it; the bits of a float count up with its magnitude.
    let away = f64::from(near).abs() > x.abs();
    f32::from_bits((near.to_bits() - u32::from(away)) | 1)
}
