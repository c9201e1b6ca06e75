//! A checkpoint with a low-rank adapter: made differential first where the adapter was trained over
//! that; then its differences are merged into weights of floats, and stand as two thin matrices
//! beside weights of codes.

use super::{Adapter, AdapterConversion, Change, check_fits};
use crate::check::low_rank_names;
use crate::convert::{ModelConversion, Step, Totals, chosen, copies};
use crate::dtype::Dtype;
use crate::entry::Entry;
use crate::inspect::{Architecture, inspect};
use crate::json::json_object;
use crate::plain::HeadChoice;
use diffattn::Error;

impl ModelConversion {
    /// Plans what a checkpoint of these tensors becomes with an adapter. `config` is the text of
    /// its `config.json`. Sources that [`Adapter::has`] lie in the adapter's file.
    ///
    /// # Errors
    /// As [`ModelConversion::to_differential`] where the adapter names a conversion;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `adapter` over a model that was
    /// converted otherwise; [`ErrorKind::File`](diffattn::ErrorKind::File) naming a tensor of the
    /// adapter that changes no weight, or one of another shape.
    pub fn with_adapter<'e>(
        entries: impl IntoIterator<Item = &'e Entry>,
        config: &str,
        adapter: &Adapter,
        dtype: Option<Dtype>,
    ) -> Result<Self, Error> {
        let entries: Vec<&Entry> = entries.into_iter().collect();
        // (What is there whole, or merged, takes the place of codes.)
        let unpack = |name: &str| match adapter.changes.get(name) {
            None => false,
            Some(Change::Whole(_)) => true,
            Some(Change::LowRank { .. }) => dtype.is_some(),
        };
        let mut plan = match adapter.conversion() {
            None => Self::unchanged(&entries, config, &unpack)?,
            Some(conversion) => Self::converted_for(&entries, config, conversion, &unpack)?,
        };
        let mut added = Vec::new();
        for (name, change) in &adapter.changes {
            let Some(step) = plan.steps.iter_mut().find(|step| step.name == *name) else {
                let expected = format_args!("weights of the model; it has no {name}");
                let place = match change {
                    Change::Whole(entry) | Change::LowRank { a: entry, .. } => &entry.name,
                };
                return Err(Error::file("adapter", expected, place));
            };
            check_fits(name, &step.extents(), change)?;
            match change {
                Change::Whole(entry) => *step = Step::copy(entry).renamed(name.clone(), 1.0),
                Change::LowRank { a, b } if dtype.is_some() || step.written().is_float() => {
                    if let Some(dtype) = dtype {
                        step.cast(dtype);
                    }
                    step.merge(a, b, adapter.scale());
                }
                Change::LowRank { a, b } => {
                    let scales = [(a, 1.0), (b, adapter.scale())];
                    let names = low_rank_names(name).into_iter().flatten();
                    for (name, (entry, scale)) in names.zip(scales) {
                        added.push(Step::copy(entry).renamed(name, scale));
                    }
                }
            }
        }
        plan.steps.extend(added);
        plan.steps.sort_by(|a, b| a.name.cmp(&b.name));
        plan.totals = plan.totals.becoming(plan.steps.iter());
        plan.is_exact = false;
        plan.forget_packing();
        Ok(plan)
    }

    /// The checkpoint as it is.
    fn unchanged(
        entries: &[&Entry],
        config: &str,
        unpack: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let steps = copies(entries, config, unpack)?;
        Ok(Self {
            totals: Totals::new(steps.iter()),
            is_exact: true,
            steps,
            config: json_object("config.json", config)?,
            heads: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The checkpoint as the adapter wants it: converted, now or already.
    fn converted_for(
        entries: &[&Entry],
        config: &str,
        conversion: &AdapterConversion,
        unpack: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let found = inspect(entries.iter().copied(), Some(config))?;
        if found.architecture != Some(Architecture::DiffAttnLlama) {
            let entries = entries.iter().copied();
            let plan = Self::differential(entries, config, &conversion.target, unpack)?;
            return match plan.is_order(conversion.order.as_deref()) {
                true => Ok(plan),
                false => Err(Error::file(
                    "adapter_config.diff_attention.order",
                    "pairs where all heads are differential, else appended",
                    conversion.order.as_deref().unwrap_or("none"),
                )),
            };
        }
        let mut plan = Self::unchanged(entries, config, unpack)?;
        // What the adapter's own conversion would have chosen, of layers with these heads.
        let plain: Vec<_> = found
            .converted_layers
            .iter()
            .filter_map(|layer| layer.plain.heads)
            .collect();
        let wanted = chosen(&conversion.target.heads, None, &plain)?;
        let layers = found.converted_layers.iter().zip(&plain);
        plan.heads = layers
            .map(|(layer, of)| match &layer.differential {
                Some(HeadChoice::Listed(heads)) => heads.clone(),
                _ => (0..of.heads).collect(),
            })
            .collect();
        let of = |key: &str| plan.config.get("diff_attention").and_then(|of| of.get(key));
        let is_same = of("kind").is_some_and(|kind| *kind == "v2")
            && plan.heads == wanted
            && plan.is_order(conversion.order.as_deref());
        match is_same {
            true => Ok(plan),
            false => Err(Error::option(
                "adapter",
                "one that was trained over the model's own conversion",
                "one that was trained over another",
            )),
        }
    }

    /// Whether the configuration has that order of noise heads.
    fn is_order(&self, order: Option<&str>) -> bool {
        let of = |key: &str| self.config.get("diff_attention").and_then(|of| of.get(key));
        order.is_none_or(|order| of("order").is_some_and(|said| *said == order))
    }
}
