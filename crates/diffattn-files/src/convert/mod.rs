//! A layer's weights from one layout to another: head pairing, rope convention, norm weight, names,
//! element type. Rows are moved bit for bit in any element type; only a folded norm weight and
//! another element type round, once each. What has no exact form is refused. And whole
//! Llamas whose heads are made differential (`llama.rs`), or plain again (`fold.rs`).

mod check;
mod codes;
mod copies;
mod described;
mod fold;
mod heads;
mod llama;
mod model;
mod norm;
mod packed;
mod random;
mod rounded;
mod start;
mod step;
mod target;

pub(crate) use copies::copies;
pub use heads::TargetHeads;
pub(crate) use heads::chosen;
pub use model::ModelConversion;
pub(crate) use model::Totals;
pub use norm::fold_norm;
pub use start::{ConversionForm, ConversionStart, ConversionTarget};
pub(crate) use step::Step;
pub use target::{Converted, LayerForm, LayerTarget, NormWeight};

use crate::attention::{O, OUT};
use crate::dtype::Dtype;
use crate::layout::{HeadLayout, RowMaps, turned};
use crate::raw_weights::RawWeights;
use check::{HEADS, check_names, check_rows};
use diffattn::Error;
use norm::apply_norm;

/// Converts the weights of a layer that lie as `from` says.
///
/// Heads and channels are moved or repeated, never changed: q and k heads change their places, so
/// λ, the norm and the output projection stay. With another rope convention the products q·k add
/// their channels in another order, so results differ in the last bits; with another pairing alone
/// they are the same bits. A folded `subln.weight` rounds each product once.
///
/// # Errors
/// [`ErrorKind::Option`](diffattn::ErrorKind::Option) or
/// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming the weight or the option: weights that
/// are missing, unknown or do not fit `from`; a target that has no place for the heads;
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype); [`Error::out_of_memory`].
pub fn convert_layer(
    weights: &RawWeights<'_>,
    from: &LayerForm,
    target: &LayerTarget,
) -> Result<Converted, Error> {
    let output = check_names(weights)?;
    // First, so that no size is believed (and nothing made of it) that is not backed by as many
    // elements.
    check_rows(weights, &from.heads)?;
    let heads = from
        .heads
        .to_pairing(target.pairing, target.kv_repeat, target.ratio)?;
    let rope_interleaved = match (from.rope_interleaved, target.rope_interleaved) {
        (None, _) => None,
        (Some(from), to) => Some(to.unwrap_or(from)),
    };
    let turn = turn(heads.head_dim, from.rope_interleaved, rope_interleaved)?;
    let maps = from.heads.row_maps(&heads, &turn)?;
    let mut notes = Vec::new();
    let mut converted = move_heads(weights, &maps, [&from.heads, &heads], &mut notes)?;
    let to_output = target.output.unwrap_or(output);
    if ![OUT, O].contains(&to_output) {
        return Err(Error::option("output", "out_proj or o_proj", to_output));
    }
    for (name, tensor) in weights {
        // (Heads were moved already.)
        if HEADS.iter().any(|head| name.starts_with(head)) {
            continue;
        }
        let name = match name.strip_prefix(output) {
            Some(part) => format!("{to_output}{part}"),
            None => name.clone(),
        };
        converted.insert(name, tensor.clone().into_owned()?);
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

/// The channel of a q or k head at each place; empty where none moves.
fn turn(head_dim: usize, from: Option<bool>, to: Option<bool>) -> Result<Vec<usize>, Error> {
    match to {
        Some(_) if !head_dim.is_multiple_of(2) => Err(Error::shape(
            "head_dim",
            "an even number, as rope turns channels in pairs",
            head_dim,
        )),
        Some(to) if from != Some(to) => Ok(turned(head_dim, to)),
        _ => Ok(Vec::new()),
    }
}

/// The projections of heads with their rows where they are to lie; notes which of them grew.
fn move_heads(
    weights: &RawWeights<'_>,
    maps: &RowMaps,
    [from, to]: [&HeadLayout; 2],
    notes: &mut Vec<String>,
) -> Result<RawWeights<'static>, Error> {
    let mut moved = RawWeights::new();
    for (name, rows) in HEADS.into_iter().zip([&maps.q, &maps.k, &maps.v]) {
        for part in ["weight", "bias"] {
            let name = format!("{name}.{part}");
            let Some(tensor) = weights.get(&name) else {
                continue;
            };
            let rows = tensor.gather(&format!("weights.{name}"), rows)?;
            if let (&[before, ..], &[after, ..]) = (tensor.shape(), rows.shape())
                && after > before
            {
                notes.push(format!(
                    "{name} grew from {before} to {after} rows: {} heads share what {} heads have no place to share",
                    from.pairing.name(),
                    to.pairing.name()
                ));
            }
            moved.insert(name, rows);
        }
    }
    Ok(moved)
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
