//! The layers of a Llama that was converted to differential attention: what their differential
//! heads are, and which. Compares nothing but that.

use super::config::Config;
use super::named::Named;
use crate::attention::{LAMBDA, LambdaForm, Q, SCALARS, VECTORS};
use crate::decoder::{AttentionOf, ConversionKind, DEX};
use crate::plain::{ConvertedLayer, HeadChoice, PlainLayer};
use serde_json::Value;

/// The entry of a configuration that says how a Llama was converted.
const KEY: &str = "diff_attention";

/// A tensor of a layer's attention, by the name that models have for it.
fn name(index: usize, tensor: &str) -> String {
    format!("model.{}{tensor}", AttentionOf(index))
}

/// What the differential heads of a layer are; none where it has none.
pub(super) fn kind(index: usize, entries: &Named<'_>) -> Option<ConversionKind> {
    let weight = |map: &str| format!("{map}.weight");
    let marks = [
        (weight(LAMBDA), ConversionKind::V2),
        (
            VECTORS[0].to_owned(),
            ConversionKind::V1(LambdaForm::Vectors),
        ),
        (
            SCALARS[0].to_owned(),
            ConversionKind::V1(LambdaForm::Scalars),
        ),
        (format!("{DEX}weight"), ConversionKind::Dex),
    ];
    let mut marks = marks.into_iter();
    let found = marks.find(|(mark, _)| entries.has(&name(index, mark)));
    found.map(|(_, kind)| kind)
}

/// A layer with differential heads; with a sentence where its tensors have other heads than the
/// configuration says.
pub(super) fn layer(
    (index, kind): (usize, ConversionKind),
    plain: PlainLayer,
    (entries, config): (&Named<'_>, &Config),
) -> (ConvertedLayer, Option<String>) {
    let rows = |map: &str| entries.rows(&name(index, &format!("{map}.weight")));
    let said = plain.heads.and_then(|of| said(index, of.heads, config));
    let wrong = plain.heads.zip(said.as_ref()).and_then(|(of, said)| {
        let count = match said {
            HeadChoice::All => of.heads,
            HeadChoice::Listed(heads) => heads.len(),
        };
        let more = match kind {
            ConversionKind::V2 | ConversionKind::V1(_) => count,
            ConversionKind::Dex => 0,
        };
        let q = of.heads.saturating_add(more).saturating_mul(of.head_dim);
        let other = |(map, wanted): (&'static str, usize)| {
            let has = rows(map).filter(|&has| has != wanted)?;
            Some(format!(
                "config.json says {count} differential heads in layer {index}, with which {}{map} \
                 would have {wanted} rows, but it has {has}",
                plain.prefix
            ))
        };
        [(Q, q), (LAMBDA, count)].into_iter().find_map(other)
    });
    let layer = ConvertedLayer {
        plain,
        kind,
        differential: said.filter(|_| wrong.is_none()),
    };
    (layer, wrong)
}

/// Which of a layer's heads the configuration says are differential; where it lists none, all are.
fn said(index: usize, heads: usize, config: &Config) -> Option<HeadChoice> {
    let list = match config.value(KEY)?.get("heads") {
        Some(Value::Array(layers)) => layers.get(index)?.as_array()?,
        _ => return Some(HeadChoice::All),
    };
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let numbers = list.iter().map(number).collect::<Option<Vec<_>>>()?;
    match numbers.len() == heads {
        _ if numbers.iter().any(|&head| head >= heads) => None,
        true => Some(HeadChoice::All),
        false => Some(HeadChoice::Listed(numbers)),
    }
}
