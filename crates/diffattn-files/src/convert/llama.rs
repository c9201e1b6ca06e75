//! A plain Llama whose heads are made differential: which tensors there are then, and what each is
//! made of.

use super::copies::copies;
use super::heads::chosen;
use super::model::{ModelConversion, Totals};
use super::packed::{self, Packed};
use super::random::Noise;
use super::rounded::is_power;
use super::start::{ConversionForm, ConversionStart, ConversionTarget, Start, VECTORS_DEVIATION};
use super::step::{Make, Step, places};
use crate::attention::{K, LAMBDA, LambdaForm, O, Q, SCALARS, V, VECTORS};
use crate::decoder::DEX;
use crate::dtype::Dtype;
use crate::entry::Entry;
use crate::inspect::{Architecture, inspect};
use crate::json::json_object;
use crate::plain::{PlainHeads, PlainLayer};
use diffattn::Error;
use std::collections::BTreeMap;

/// A layer, and the heads that it has.
type LayerOf<'l> = (&'l PlainLayer, &'l PlainHeads);

type Steps = BTreeMap<String, Step>;

impl ModelConversion {
    /// Plans the conversion of a plain Llama of these tensors. `config` is the text of its
    /// `config.json`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming `source` when it is no plain Llama or
    /// not all of one; [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the part of the
    /// target that does not fit it.
    pub fn to_differential<'e>(
        entries: impl IntoIterator<Item = &'e Entry>,
        config: &str,
        target: &ConversionTarget,
    ) -> Result<Self, Error> {
        let is_float = target.dtype.is_some();
        Self::differential(entries, config, target, &|_| is_float)
    }

    /// A plan that makes Llamas differential, with floats of the packed weights that `unpack`
    /// names.
    pub(crate) fn differential<'e>(
        entries: impl IntoIterator<Item = &'e Entry>,
        text: &str,
        target: &ConversionTarget,
        unpack: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let entries: BTreeMap<&str, &Entry> = entries
            .into_iter()
            .map(|entry| (entry.name.as_str(), entry))
            .collect();
        let layers = layers(&entries, text)?;
        let config = json_object("config.json", text)?;
        if let Some(said) = config.get("num_hidden_layers")
            && said.as_u64() != Some(layers.len() as u64)
        {
            let expected = format_args!("{} layers, as the tensors have", layers.len());
            return Err(Error::file("config.num_hidden_layers", expected, said));
        }
        let of: Vec<PlainHeads> = layers.iter().map(|(_, heads)| *heads).collect();
        let heads = chosen(&target.heads, target.layers.as_deref(), &of)?;
        let start = Start::new(target, &heads, &of)?;
        if start.form == ConversionForm::DiffLlama
            && config.get("mlp_bias").is_some_and(|bias| bias == true)
        {
            let expected = "a Llama without biases in its MLP, with \"diffllama\"";
            return Err(Error::file("config.mlp_bias", expected, true));
        }
        let entries: Vec<&Entry> = entries.into_values().collect();
        let copies = copies(&entries, text, unpack)?;
        let totals = Totals::new(copies.iter());
        let named = copies.into_iter().map(|step| (step.name.clone(), step));
        let mut steps: Steps = named.collect();
        let mut rest = 1.0;
        for ((layer, of), differential) in layers.iter().zip(&heads) {
            if !differential.is_empty() {
                let one = Changes {
                    start: &start,
                    target: target.dtype,
                    layer: (layer, of),
                    differential,
                };
                rest = one.of_layer(&mut steps, rest)?;
            }
        }
        let is_cast = target.dtype.is_some_and(|to| {
            let casts = steps.values_mut().map(|step| step.cast(to));
            casts.fold(false, |before, rounds| before | rounds)
        });
        let config = match of.first() {
            Some(of) => start.config(config, &heads, of),
            None => config,
        };
        let notes = notes(&start, rest, target.dtype.filter(|_| is_cast));
        let mut conversion = Self {
            totals: totals.becoming(steps.values()),
            is_exact: !is_cast && is_power(rest) && start.form != ConversionForm::DiffLlama,
            steps: steps.into_values().collect(),
            config,
            heads,
            notes,
        };
        if let Some(dtype) = target.dtype {
            conversion.name_dtype(dtype);
        }
        conversion.forget_packing();
        Ok(conversion)
    }
}

/// What is to be known of a conversion.
fn notes(start: &Start, rest: f64, cast: Option<Dtype>) -> Vec<String> {
    let mut notes = Vec::new();
    if start.form == ConversionForm::DiffLlama {
        notes.push(
            "diffllama has a norm, which gives what every head makes the same length: the model \
             computes something else than the Llama until it is trained"
                .to_owned(),
        );
    }
    if !is_power(rest) {
        notes.push(format!(
            "o_proj was divided by 1 − λ = {rest} and rounded once; nothing is rounded where that \
             is a power of two, as with λ 0.5"
        ));
    }
    if start.start == ConversionStart::Mix {
        notes.push(
            "λ is multiplied with mix (diff_attention.mix in config.json), which is 0: nothing is \
             subtracted, and nothing of it learns, until training raises it"
                .to_owned(),
        );
    }
    if start.form == ConversionForm::Dex {
        notes.push(
            "the matrix and λ of DEX are zeros, at which their gradients are zeros, too: training \
             anneals λ over its first steps"
                .to_owned(),
        );
    }
    if let Some(dtype) = cast {
        notes.push(format!("weights were rounded to {dtype}"));
    }
    notes
}

/// The layers of a plain Llama, all of which there is.
fn layers(
    entries: &BTreeMap<&str, &Entry>,
    config: &str,
) -> Result<Vec<(PlainLayer, PlainHeads)>, Error> {
    let found = inspect(entries.values().copied(), Some(config))?;
    let expected = "a plain Llama (model_type \"llama\")";
    let wrong = |got: String| Error::file("source", expected, got);
    match found.architecture {
        Some(Architecture::Llama) => {}
        Some(other) => return Err(wrong(format!("{other}"))),
        None => return Err(wrong("a model that is not known".to_owned())),
    }
    if let Some(missing) = found.missing.first() {
        return Err(wrong(format!("one without {missing}")));
    }
    let layers = found.plain_layers.into_iter();
    let layers = layers.map(|layer| match layer.heads {
        // (Rows of nothing could be any number.)
        Some(heads) if layer.embed_dim > 0 => Ok((layer, heads)),
        _ => {
            let got = format!(
                "one of which config.json does not say the heads of {}",
                layer.prefix
            );
            Err(wrong(got))
        }
    });
    layers.collect()
}

/// What becomes of one layer.
#[derive(Clone, Copy)]
struct Changes<'l> {
    start: &'l Start,
    /// The element type that all is written in.
    target: Option<Dtype>,
    layer: LayerOf<'l>,
    differential: &'l [usize],
}

impl Changes<'_> {
    /// Changes what is made of a layer's tensors, and adds those that are new; what is left of its
    /// attention, or `rest`, whichever is no power of two.
    fn of_layer(&self, steps: &mut Steps, rest: f64) -> Result<f64, Error> {
        let (layer, of) = self.layer;
        let q = steps.get(&self.name(Q, "weight"));
        // (What is new stands beside codes as floats.)
        let dtype = q.map(Step::written).filter(|dtype| dtype.is_float());
        let dtype = dtype.unwrap_or(Dtype::F32);
        let left = self.start.rest(self.target.unwrap_or(dtype));
        self.heads_of_q_and_k(steps)?;
        let shape = [layer.embed_dim, of.heads.saturating_mul(of.head_dim)];
        let (heads, width) = (self.differential.to_vec(), of.head_dim);
        let change = match self.start.form {
            ConversionForm::DiffLlama => {
                let pairs = (0..of.groups).chain(0..of.groups);
                self.heads_of(V, pairs.collect(), 0, steps)?;
                let heads = heads.iter().flat_map(|&head| [head, head]).collect();
                Some(Make::Columns {
                    heads,
                    width,
                    by: 2.0,
                })
            }
            _ if left != 1.0 => Some(Make::Divide {
                heads,
                width,
                by: left,
            }),
            _ => None,
        };
        if let Some(change) = change {
            self.change_output(steps, shape, change)?;
        }
        for (name, shape, make) in self.new_tensors(dtype) {
            let name = format!("{}{name}", layer.prefix);
            steps.insert(name.clone(), Step::new(name, dtype, shape, make));
        }
        Ok(if is_power(left) { rest } else { left })
    }

    /// Changes the output projection, a matrix of that shape.
    fn change_output(
        &self,
        steps: &mut Steps,
        shape: [usize; 2],
        change: Make,
    ) -> Result<(), Error> {
        let name = self.name(O, "weight");
        let Some(step) = steps.get_mut(&name) else {
            return Ok(());
        };
        let Some(Packed::Codes { inputs, group_size }) = step.packed else {
            return step.change(shape, change);
        };
        step.check(shape)?;
        let argument = format!("weights.{name}");
        let Make::Divide { heads, width, by } = change else {
            let expected = "floats, of which heads are doubled";
            return Err(Error::dtype(argument, expected, "MLX's codes"));
        };
        // (Codes stay: their values grow with scales and biases.)
        let columns = places(&heads, width);
        let heads = packed::groups(&argument, columns, (inputs, group_size), by)?;
        for part in ["scales", "biases"] {
            if let Some(step) = steps.get_mut(&self.name(O, part)) {
                let shape = [shape[0], inputs / group_size.max(1)];
                let (heads, width) = (heads.clone(), 1);
                step.change(shape, Make::Divide { heads, width, by })?;
            }
        }
        Ok(())
    }

    /// A tensor of the layer.
    fn name(&self, map: &str, part: &str) -> String {
        format!("{}{map}.{part}", self.layer.0.prefix)
    }

    /// Gives a projection other heads, those behind its own of noise.
    fn heads_of(
        &self,
        map: &str,
        heads: Vec<usize>,
        new: usize,
        steps: &mut Steps,
    ) -> Result<(), Error> {
        let (layer, of) = self.layer;
        // (Of packed codes, scales and biases have as many rows.)
        for part in ["weight", "bias", "scales", "biases"] {
            if let Some(step) = steps.get_mut(&self.name(map, part)) {
                let deviation = match part {
                    "weight" => 1.0 / libm::sqrt(layer.embed_dim as f64),
                    _ => 0.0,
                };
                let noise = self.noise(deviation);
                step.take_heads(heads.clone(), of.head_dim, (new, noise))?;
            }
        }
        Ok(())
    }

    fn noise(&self, deviation: f64) -> Noise {
        Noise {
            seed: self.start.seed,
            deviation,
        }
    }

    /// Gives q its second heads, and k where it has any.
    fn heads_of_q_and_k(&self, steps: &mut Steps) -> Result<(), Error> {
        let of = self.layer.1;
        let is_noise = self.start.start == ConversionStart::Mix;
        // The heads, those at `at` with second ones: copies, or noise behind all that there are.
        let second = |count: usize, at: &[usize]| -> (Vec<usize>, usize) {
            let of_head = |(index, &head): (usize, &usize)| match is_noise {
                true => count + index,
                false => head,
            };
            let seconds = at.iter().enumerate().map(of_head);
            let heads = match self.start.is_paired {
                true => (0..count).zip(seconds).flat_map(|(a, b)| [a, b]).collect(),
                false => (0..count).chain(seconds).collect(),
            };
            (heads, if is_noise { at.len() } else { 0 })
        };
        let groups: Vec<usize> = (0..of.groups).collect();
        match self.start.form {
            ConversionForm::Dex => Ok(()),
            ConversionForm::V2 => {
                let (heads, new) = second(of.heads, self.differential);
                self.heads_of(Q, heads, new, steps)
            }
            ConversionForm::V1(_) => {
                let (heads, new) = second(of.heads, self.differential);
                self.heads_of(Q, heads, new, steps)?;
                let (heads, new) = second(of.groups, &groups);
                self.heads_of(K, heads, new, steps)
            }
            // (First heads, then second ones.)
            ConversionForm::DiffLlama => {
                let heads = (0..of.heads).chain(0..of.heads);
                self.heads_of(Q, heads.collect(), 0, steps)?;
                let groups = groups.iter().chain(&groups).copied();
                self.heads_of(K, groups.collect(), 0, steps)
            }
        }
    }

    /// What is new in the layer, beside a q projection of that element type.
    fn new_tensors(&self, dtype: Dtype) -> Vec<(String, Vec<usize>, Make)> {
        let (layer, of) = self.layer;
        let width = of.head_dim;
        let zeros = Make::Fill(0.0);
        // Those of q are noise, those of k zeros: λ is λ_init then, and yet has a gradient.
        let vectors = |is_zero: bool| {
            let noise = Make::Noise(self.noise(VECTORS_DEVIATION));
            let vectors = VECTORS.into_iter().map(move |name| {
                let make = match is_zero && name.contains("_k") {
                    true => Make::Fill(0.0),
                    false => noise.clone(),
                };
                (name.to_owned(), vec![width], make)
            });
            vectors.collect()
        };
        match self.start.form {
            ConversionForm::V2 => {
                let count = self.differential.len();
                let shape = vec![count, layer.embed_dim];
                let mut new = vec![(format!("{LAMBDA}.weight"), shape, zeros)];
                let bias = self.start.bias(self.target.unwrap_or(dtype));
                if bias != 0.0 {
                    let fill = Make::Fill(f64::from(bias));
                    new.push((format!("{LAMBDA}.bias"), vec![count], fill));
                }
                new
            }
            ConversionForm::V1(LambdaForm::Vectors) => vectors(true),
            ConversionForm::V1(LambdaForm::Scalars) => {
                let scalars = SCALARS.map(|name| (name.to_owned(), Vec::new(), zeros.clone()));
                scalars.to_vec()
            }
            ConversionForm::Dex => vec![
                (format!("{DEX}weight"), vec![width, width], zeros.clone()),
                (format!("{DEX}lambda_learn"), Vec::new(), zeros),
            ],
            ConversionForm::DiffLlama => vectors(false),
        }
    }
}
