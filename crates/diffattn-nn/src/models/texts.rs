//! A forward pass over texts: from ids to logits, chunk by chunk through all layers. Texts of
//! several lengths lie packed, one after the other: only attention tells them apart. Knows no
//! family of models.

use super::decoder::Decoder;
use super::ends::{Ends, Stretch};
use super::ids::{Logits, TokenIds};
use super::outputs::{TextOptions, TextOutput, TextOutputs};
use super::pasts::Pasts;
use crate::generate::{ModelCache, chunk_of};
use crate::layers::attention::DiffAttnLayer;
use crate::pass::alone::Maps;
use crate::pass::{After, Block, Keys, Memory, Outputs, Pass, Plan, Settings, Text};
use diffattn::{Error, Pace, Run, Work, check_len, checked_len, format_shape, try_zeroed};
use std::ops::Range;
use std::sync::Arc;

/// A checked forward pass over texts: worked off by what [`TextForward::into_work`] makes of it.
/// Caches, if any, are longer once that is done; work that fails or is dropped before leaves them
/// as they were, or where their window let go of tokens already, at the last stretch that was
/// finished.
#[derive(Debug)]
pub struct TextForward<'a> {
    model: Decoder<'a>,
    /// B and L; L is the longest where they differ.
    shape: [usize; 2],
    options: TextOptions,
    /// All ids that go through the layers: those that are computed again, then the new ones.
    texts: Vec<Vec<u32>>,
    /// How many of each text's are computed again.
    again: Vec<usize>,
    caches: Option<Vec<&'a mut ModelCache>>,
    window: Option<usize>,
    /// Whether the last hidden states are wanted in the place of logits.
    features: bool,
}

impl<'a> TextForward<'a> {
    /// Checks a forward pass of `ids` `[B, L]` and prepares it. With `caches`, one per text,
    /// positions start at their lengths and the ids are added to them, once the job is done. A job
    /// that fails or is dropped before leaves them as they were; one whose window let go of tokens
    /// already, at the last stretch that it finished.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape),
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option), naming the argument.
    pub fn new(
        model: Decoder<'a>,
        ids: &TokenIds<'_>,
        caches: Option<Vec<&'a mut ModelCache>>,
        options: &TextOptions,
    ) -> Result<Self, Error> {
        let (shape, texts) = ids.check(&model)?;
        let [batch, length] = shape;
        if options.logits == Logits::Last && length == 0 && batch > 0 {
            return Err(Error::shape(
                "ids",
                "1 id or more, where the last one's logits are wanted",
                format_shape(&shape),
            ));
        }
        if let Some(caches) = &caches
            && caches.len() != batch
        {
            return Err(Error::shape(
                "caches",
                format_args!("{batch}, one per text"),
                caches.len(),
            ));
        }
        // (Without ids there are no texts to go with the caches.)
        let caches = caches.map(|mut caches| {
            caches.truncate(texts.len());
            caches
        });
        Self::checked(model, texts, shape, caches, options)
    }

    /// Of texts of any lengths, none empty, all ids of the vocabulary, with a cache each: for their
    /// last tokens' logits.
    pub(crate) fn of_texts(
        model: Decoder<'a>,
        texts: Vec<Vec<u32>>,
        caches: Vec<&'a mut ModelCache>,
        run: Run,
    ) -> Result<Self, Error> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [texts.len(), longest];
        let options = TextOptions {
            logits: Logits::Last,
            run,
            ..TextOptions::default()
        };
        Self::checked(model, texts, shape, Some(caches), &options)
    }

    /// Of texts of any lengths, none empty, all ids of the vocabulary: for the last hidden states
    /// in the place of logits, packed, one text's rows after the other's.
    pub(crate) fn features(
        model: Decoder<'a>,
        texts: Vec<Vec<u32>>,
        logits: Logits,
        run: Run,
    ) -> Result<Self, Error> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let shape = [texts.len(), longest];
        let options = TextOptions {
            logits,
            run,
            ..TextOptions::default()
        };
        let mut job = Self::checked(model, texts, shape, None, &options)?;
        job.features = true;
        Ok(job)
    }

    /// Checks what any texts must comply with; L matters only for the shapes of outputs.
    fn checked(
        model: Decoder<'a>,
        mut texts: Vec<Vec<u32>>,
        shape: [usize; 2],
        caches: Option<Vec<&'a mut ModelCache>>,
        options: &TextOptions,
    ) -> Result<Self, Error> {
        let window = check_options(&model, caches.as_deref(), options)?;
        let (mut total, mut again) = (0usize, Vec::with_capacity(texts.len()));
        for (index, ids) in texts.iter_mut().enumerate() {
            let cache = caches.as_ref().map(|caches| &*caches[index]);
            check_length(&model, cache.map_or(0, |cache| cache.len()), ids.len())?;
            let behind = cache.map_or(&[][..], |cache| cache.behind());
            again.push(behind.len());
            ids.splice(0..0, behind.iter().copied());
            total = total.saturating_add(ids.len());
        }
        checked_len("ids", &[total, 8])?;
        let job = Self {
            model,
            shape,
            options: options.clone(),
            texts,
            again,
            caches,
            window,
            features: false,
        };
        checked_len("ids", &job.logits_shape())?;
        checked_len("ids", &job.hidden_states_shape())?;
        for &layer in &job.options.map_layers {
            checked_len("ids", &job.map_shape(layer))?;
        }
        Ok(job)
    }

    /// `[B, L, vocab_size]`, `[B, 1, vocab_size]` for the last tokens', `[B, 0, vocab_size]` for
    /// none.
    #[must_use]
    pub fn logits_shape(&self) -> [usize; 3] {
        let [batch, length] = self.shape;
        let rows = match self.options.logits {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => length,
        };
        [batch, rows, self.width()]
    }

    /// Values of a row of the result.
    fn width(&self) -> usize {
        match self.features {
            true => self.model.hidden_size(),
            false => self.model.vocab_size(),
        }
    }

    /// `[num_hidden_layers + 1, B, L, hidden_size]`, the first axis 0 where they are not wanted.
    #[must_use]
    pub fn hidden_states_shape(&self) -> [usize; 4] {
        let [batch, length] = self.shape;
        let states = if self.options.hidden_states {
            self.model.layers.len() + 1
        } else {
            0
        };
        [states, batch, length, self.model.hidden_size()]
    }

    /// `[B, H, L, T]`, of each map of a layer. T: tokens of the longest text with what its cache
    /// knows; L without caches. Columns of what a window let go of, and past a text's end, are
    /// zeros.
    #[must_use]
    pub fn map_shape(&self, layer: usize) -> [usize; 4] {
        let [batch, length] = self.shape;
        let layer = self.model.layers.get(layer);
        let heads = layer
            .and_then(|layer| layer.mixer.attention())
            .map_or(0, DiffAttnLayer::num_heads);
        [batch, heads, length, self.columns()]
    }

    /// Tokens of the longest text with what its cache knows.
    fn columns(&self) -> usize {
        let caches = self.caches.iter().flatten();
        let longest = caches.map(|cache| cache.len()).max().unwrap_or(0);
        longest + self.shape[1]
    }

    /// Maps of a layer besides the difference. Where heads of one map are beside heads of two,
    /// there are two, the second of the former all zeros.
    #[must_use]
    pub fn terms(&self, layer: usize) -> usize {
        let layer = self.model.layers.get(layer);
        let attention = layer.and_then(|layer| layer.mixer.attention());
        attention.map_or(2, DiffAttnLayer::terms)
    }

    /// Memory for the outputs.
    pub(crate) fn output(&self) -> Result<TextOutput, Error> {
        let (logits_shape, hidden_states_shape) = (self.logits_shape(), self.hidden_states_shape());
        let maps = self.options.map_layers.iter();
        Ok(TextOutput {
            logits: try_zeroed(checked_len("ids", &logits_shape)?)?,
            logits_shape,
            hidden_states: try_zeroed(checked_len("ids", &hidden_states_shape)?)?,
            hidden_states_shape,
            maps: maps
                .map(|&layer| Maps::zeroed("ids", self.map_shape(layer), self.terms(layer)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The work that writes the results into `outputs`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when one does not fit.
    pub fn into_work(self, outputs: TextOutputs<'a>) -> Result<Work<'a>, Error> {
        check_len("logits", &self.logits_shape(), outputs.logits.len())?;
        check_len(
            "hidden_states",
            &self.hidden_states_shape(),
            outputs.hidden_states.len(),
        )?;
        let layers = self.options.map_layers.len();
        if outputs.maps.len() != layers {
            return Err(Error::shape(
                "maps",
                format_args!("those of {layers} layers"),
                outputs.maps.len(),
            ));
        }
        for (maps, &layer) in outputs.maps.iter().zip(&self.options.map_layers) {
            maps.check(self.terms(layer), &self.map_shape(layer))?;
        }
        Ok(Work::new(self.units(), |pace| self.run(outputs, pace)))
    }

    fn plan(&self) -> Plan<'a> {
        let layers = &self.model.layers;
        let goes_on = self.options.logits != Logits::None || self.options.hidden_states;
        let end = if goes_on || self.caches.is_some() {
            layers.len()
        } else {
            let last = self.options.map_layers.iter().max();
            last.map_or(0, |layer| layer + 1)
        };
        let texts = self.texts.iter().enumerate();
        Plan {
            layers: layers[..end].to_vec(),
            texts: texts
                .map(|(index, ids)| Text {
                    length: ids.len(),
                    start: self
                        .caches
                        .as_ref()
                        .map_or(0, |caches| caches[index].ready()),
                    again: self.again[index],
                })
                .collect(),
            chunk: match (&self.caches, self.window.or(self.model.own_window())) {
                (Some(_), Some(window)) => chunk_of(window),
                _ => usize::MAX,
            },
            keys: Keys::Apart,
            after: match self.options.logits {
                _ if self.options.hidden_states => After::All,
                Logits::None => After::None,
                Logits::Last => After::Last,
                Logits::All => After::All,
            },
            map_layers: self.options.map_layers.clone(),
        }
    }

    /// All units: those of the layers, and of what stands around them.
    pub(crate) fn units(&self) -> usize {
        let (plan, ends) = (self.plan(), self.ends());
        let chunks = 0..plan.chunks();
        // (One for what caches take over.)
        let around = chunks.map(|chunk| 1 + ends.units(&plan, &plan.blocks(chunk)));
        around.sum::<usize>() + plan.units()
    }

    fn ends(&self) -> Ends {
        Ends {
            hidden_size: self.model.hidden_size(),
            width: self.width(),
            logits: self.options.logits,
            hidden_states: self.options.hidden_states,
        }
    }

    /// The pass itself, whose logits (or features) alone are wanted.
    pub(crate) async fn run_into(self, logits: &mut [f32], pace: Arc<Pace>) -> Result<(), Error> {
        let outputs = TextOutputs {
            logits,
            ..TextOutputs::default()
        };
        self.run(outputs, pace).await
    }

    /// The pass itself, into outputs that fit.
    async fn run(mut self, outputs: TextOutputs<'_>, pace: Arc<Pace>) -> Result<(), Error> {
        let (plan, ends, columns) = (self.plan(), self.ends(), self.columns());
        let mut pasts = Pasts::new(self.caches.take());
        let TextOutputs {
            logits,
            hidden_states,
            maps,
        } = outputs;
        let mut outs = Outputs {
            states: self.options.hidden_states.then_some(hidden_states),
            maps,
            length: self.shape[1],
            columns,
            ..Outputs::default()
        };
        let settings = Settings {
            run: self.options.run,
            window: self.window,
            argument: "ids",
            mask: None,
        };
        let mut pass = Pass::new(plan, settings, self.model.hidden_size())?;
        for chunk in 0..pass.plan.chunks() {
            let blocks = pass.begin(chunk);
            for Stretch {
                block, rows, unit, ..
            } in ends.embeds(&pass.plan, &blocks)
            {
                let embed = |rows| self.embed(&mut pass, (&blocks[block], &rows), &mut outs);
                pace.rows(rows, unit, embed).await?;
            }
            for layer in 0..pass.plan.layers.len() {
                let memory = Memory::States(pasts.layer(layer, &pass.plan)?);
                pass.layer(layer, memory, &mut outs, &pace).await?;
            }
            for Stretch {
                block, rows, unit, ..
            } in ends.states(&pass.plan, &blocks)
            {
                let norm = |rows| self.last_state(&pass, (&blocks[block], &rows), &mut outs);
                pace.rows(rows, unit, norm).await?;
            }
            for Stretch {
                rows, unit, first, ..
            } in ends.heads(&pass.plan, &blocks)
            {
                let start = rows.start;
                let head = |rows: Range<usize>| {
                    let first = (first + rows.start - start) * self.width();
                    self.head(&pass.x, rows, &mut logits[first..])
                };
                pace.rows(rows, unit, head).await?;
            }
            let commit = |_| {
                pasts.commit(&self.texts, |length| pass.plan.tokens(chunk, length));
                Ok(())
            };
            pace.rows(0..1, 1, commit).await?;
        }
        Ok(())
    }

    fn embed(
        &self,
        pass: &mut Pass<'_>,
        (block, rows): (&Block, &Range<usize>),
        outputs: &mut Outputs<'_>,
    ) -> Result<(), Error> {
        let width = self.model.hidden_size();
        for piece in block.within(rows) {
            let ids = &self.texts[piece.text][piece.tokens.clone()];
            let to = pass.x[piece.row * width..].chunks_exact_mut(width);
            for (&id, to) in ids.iter().zip(to) {
                self.model.embedding.row(&self.model.head, id, to)?;
            }
        }
        pass.keep_state(0, (block, rows), outputs);
        Ok(())
    }

    fn last_state(
        &self,
        pass: &Pass<'_>,
        (block, rows): (&Block, &Range<usize>),
        outputs: &mut Outputs<'_>,
    ) -> Result<(), Error> {
        let (width, [batch, length]) = (self.model.hidden_size(), self.shape);
        let Some(states) = &mut outputs.states else {
            return Ok(());
        };
        let pieces = block.within(rows);
        for piece in pieces.filter_map(|piece| piece.fresh(&pass.plan.texts)) {
            let row = (self.model.layers.len() * batch + piece.text) * length + piece.tokens.start;
            let len = piece.tokens.len() * width;
            self.model.head.norm.rows(
                &pass.x[piece.row * width..][..len],
                &mut states[row * width..][..len],
                self.options.run,
            )?;
        }
        Ok(())
    }

    /// Logits of rows of x, one after the other.
    fn head(&self, x: &[f32], rows: Range<usize>, logits: &mut [f32]) -> Result<(), Error> {
        let (width, run) = (self.model.hidden_size(), self.options.run);
        let logits = &mut logits[..rows.len() * self.width()];
        let x = &x[rows.start * width..rows.end * width];
        if self.features {
            return self.model.head.norm.rows(x, logits, run);
        }
        self.model.head.rows(x, logits, run)
    }
}

/// Checks what is asked of a model, and whether the caches are its own; gives the window.
fn check_options(
    model: &Decoder<'_>,
    caches: Option<&[&mut ModelCache]>,
    options: &TextOptions,
) -> Result<Option<usize>, Error> {
    let layers = model.layers.len();
    if options.window == Some(0) {
        return Err(Error::option("window", "1 token or more", 0));
    }
    if let Some(layer) = options.map_layers.iter().find(|&&layer| layer >= layers) {
        return Err(Error::option(
            "map_layers",
            format_args!("layers from 0 to {}", layers - 1),
            layer,
        ));
    }
    let has_maps = |layer: &&usize| model.layers[**layer].mixer.attention().is_some();
    if let Some(layer) = options.map_layers.iter().find(|layer| !has_maps(layer)) {
        return Err(Error::option(
            "map_layers",
            "layers with attention",
            format_args!("{layer}, which has none"),
        ));
    }
    let Some(caches) = caches else {
        return Ok(options.window);
    };
    if options.window.is_some() {
        let expected = "none with caches, which have their own";
        return Err(Error::option("window", expected, "one"));
    }
    for cache in caches {
        cache.check(model)?;
    }
    let window = caches.first().and_then(|cache| cache.window());
    if caches.iter().any(|cache| cache.window() != window) {
        return Err(Error::option("caches", "caches of one window", "several"));
    }
    Ok(window)
}

/// Whether positions go as far as a text of `start` and `more` tokens.
pub(crate) fn check_length(model: &Decoder<'_>, start: usize, more: usize) -> Result<(), Error> {
    let Some(end) = start
        .checked_add(more)
        .filter(|&end| end <= i32::MAX as usize)
    else {
        let expected = "a text of at most 2³¹ − 1 tokens";
        return Err(Error::shape("ids", expected, more));
    };
    match model.longest {
        Some(longest) if end as f64 > longest => Err(Error::option(
            "ids",
            format_args!(
                "a text of at most {longest} tokens (max_position_embeddings), past which rope_type \"dynamic\" is \
                 not computed; \"yarn\" and \"linear\" are"
            ),
            end,
        )),
        _ => Ok(()),
    }
}
