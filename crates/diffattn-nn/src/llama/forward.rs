//! A forward pass of a model as a job. Plans the work (`plan.rs`), then does it piece by piece over buffers of its own; every
//! piece is one call of the kernels. Texts of several lengths lie packed, one after the other: only attention tells them apart.

use super::cache::{ModelCache, chunk_of};
use super::config::HiddenAct;
use super::plan::{Block, Part, Piece, Plan, Task, Wanted};
use super::{DecoderLayer, DiffLlama};
use crate::layer::LambdaSource;
use crate::maps::Maps;
use diffattn::{
    AttentionOptions, DataMut, DiffAttention, DiffAttentionMaps, Error, KeysOnly, KeysValues,
    KvCache, Lambda, Layout, Linear, MapOutputs, NormOptions, RmsNorm, RmsNormOptions, Rope,
    RopeOptions, RopeTable, Slices, Tensor, check_len, checked_len, format_shape, gelu, gelu_tanh,
    sigmoid, try_zeroed,
};
use std::ops::Range;

/// Token ids of a batch of texts of one length, `[B, L]`.
#[derive(Debug, Clone)]
pub struct TokenIds<'a> {
    data: IdData<'a>,
    shape: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum IdData<'a> {
    U32(&'a [u32]),
    I32(&'a [i32]),
}

impl<'a> TokenIds<'a> {
    /// Ids of shape `[B, L]`.
    #[must_use]
    pub fn u32(data: &'a [u32], shape: &[usize]) -> Self {
        Self {
            data: IdData::U32(data),
            shape: shape.to_vec(),
        }
    }

    /// Ids of shape `[B, L]`; negative ones are an error of the call.
    #[must_use]
    pub fn i32(data: &'a [i32], shape: &[usize]) -> Self {
        Self {
            data: IdData::I32(data),
            shape: shape.to_vec(),
        }
    }

    /// Checks them for a model; gives the texts.
    fn check(&self, model: &DiffLlama) -> Result<([usize; 2], Vec<Vec<u32>>), Error> {
        let &[batch, length] = self.shape.as_slice() else {
            return Err(Error::shape(
                "ids",
                "2 axes, [B, L]",
                format_shape(&self.shape),
            ));
        };
        let len = match self.data {
            IdData::U32(data) => data.len(),
            IdData::I32(data) => data.len(),
        };
        check_len("ids", &self.shape, len)?;
        // (Of texts without ids, there could be any number.)
        if length == 0 {
            return Ok(([batch, 0], Vec::new()));
        }
        let mut ids = try_zeroed::<u32>(len)?;
        match self.data {
            IdData::U32(data) => {
                model.check_ids("ids", data.iter().map(|&id| i64::from(id)))?;
                ids.copy_from_slice(data);
            }
            IdData::I32(data) => {
                model.check_ids("ids", data.iter().map(|&id| i64::from(id)))?;
                for (to, &id) in ids.iter_mut().zip(data) {
                    *to = id.unsigned_abs();
                }
            }
        }
        Ok((
            [batch, length],
            ids.chunks_exact(length).map(<[u32]>::to_vec).collect(),
        ))
    }
}

/// Of which tokens a forward pass gives logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logits {
    /// Of none.
    None,
    /// Of each text's last: `[B, 1, vocab_size]`. The others' are not computed.
    Last,
    /// Of all: `[B, L, vocab_size]`.
    #[default]
    All,
}

/// What a forward pass of a [`DiffLlama`] gives, and how it is run.
#[derive(Debug, Clone, Default)]
pub struct DiffLlamaOptions {
    /// Of which tokens there are logits.
    pub logits: Logits,
    /// Whether to give the hidden states, `[num_hidden_layers + 1, B, L, hidden_size]`: the embeddings, then what each layer
    /// gives, the last one's after the final norm (as Hugging Face has them). False by default.
    pub hidden_states: bool,
    /// The layers whose attention maps are wanted, in this order; not with caches. None by default.
    pub map_layers: Vec<usize>,
    /// Tokens that each token sees, itself included; all by default. Not with caches, which have their own.
    pub window: Option<usize>,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: diffattn::Run,
}

/// The result of [`DiffLlama::forward`], float32. What was not asked for is empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DiffLlamaOutput {
    /// Of [`DiffLlamaOutput::logits_shape`].
    pub logits: Vec<f32>,
    /// `[B, L, vocab_size]` or `[B, 1, vocab_size]`.
    pub logits_shape: [usize; 3],
    /// Of [`DiffLlamaOutput::hidden_states_shape`].
    pub hidden_states: Vec<f32>,
    /// `[num_hidden_layers + 1, B, L, hidden_size]`.
    pub hidden_states_shape: [usize; 4],
    /// Of each layer that was asked for.
    pub maps: Vec<Maps>,
}

impl DiffLlamaOutput {
    /// Where a job writes.
    pub(super) fn as_outputs(&mut self) -> DiffLlamaOutputs<'_> {
        DiffLlamaOutputs {
            logits: &mut self.logits,
            hidden_states: &mut self.hidden_states,
            maps: self
                .maps
                .iter_mut()
                .map(|maps| MapOutputs {
                    terms: maps.terms.iter_mut().map(Vec::as_mut_slice).collect(),
                    diff: &mut maps.diff,
                })
                .collect(),
        }
    }
}

/// Where the results of a [`DiffLlamaForward`] go. What was not asked for is empty.
#[derive(Debug, Default)]
pub struct DiffLlamaOutputs<'a> {
    /// Of [`DiffLlamaForward::logits_shape`].
    pub logits: &'a mut [f32],
    /// Of [`DiffLlamaForward::hidden_states_shape`].
    pub hidden_states: &'a mut [f32],
    /// Of each layer that was asked for: two terms and the difference, each of [`DiffLlamaForward::map_shape`].
    pub maps: Vec<MapOutputs<'a>>,
}

/// How the kernels are called.
#[derive(Debug, Clone, Copy)]
struct Run {
    run: diffattn::Run,
    window: Option<usize>,
    eps: f32,
}

impl Run {
    fn linear(&self, linear: &Linear, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
        linear.forward(x, y, self.run)
    }

    fn norm(&self, weight: &[f32], x: &[f32], y: &mut [f32]) -> Result<(), Error> {
        let options = RmsNormOptions {
            eps: self.eps,
            weight: Some(weight),
            scale: 1.0,
            run: self.run,
        };
        let width = weight.len();
        let call = RmsNorm::new(Tensor::f32(x, &[x.len() / width, width]), &options)?;
        call.finish_into(DataMut::F32(y))
    }

    /// What attention and maps share: `place` is where the first query lies among the keys held.
    fn attention<'o>(
        &self,
        layer: &'o DecoderLayer,
        place: usize,
    ) -> Result<AttentionOptions<'o>, Error> {
        let dimensions = &layer.attention.heads.dimensions;
        let LambdaSource::Value(lambda) = layer.attention.lambda else {
            return Err(Error::Internal(
                "a layer of a model without its λ".to_owned(),
            ));
        };
        Ok(AttentionOptions {
            lambda: Some(Lambda::Value(lambda)),
            pairing: dimensions.pairing,
            layout: Layout::Bshd,
            is_causal: true,
            window: self.window.map(|window| [Some(window - 1), None]),
            query_offset: Some(vec![place as i64]),
            run: self.run,
            ..AttentionOptions::default()
        })
    }
}

/// One text of a forward pass.
#[derive(Debug)]
struct Segment {
    ids: Vec<u32>,
    /// Position of the first.
    start: usize,
}

/// Keys and values of the texts.
#[derive(Debug)]
enum Pasts<'a> {
    /// One per text, used for one layer after the other.
    Own(Vec<KvCache>),
    Given(Vec<&'a mut ModelCache>),
}

/// Buffers, of rows of the chunk (x) or of the block.
#[derive(Debug, Default)]
struct Buffers {
    x: Vec<f32>,
    /// Of `hidden_size` channels: normalised x, or what is to be added to x.
    row: Vec<f32>,
    /// q or k, not yet turned.
    still: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// σ of the gate, where it is multiplied with that.
    sigmoid: Vec<f32>,
    /// The rotary tables of each piece of each block of the chunk.
    tables: Vec<Vec<RopeTable>>,
}

/// A checked forward pass of a model: made by [`DiffLlama::forward_job`], given its outputs by [`DiffLlamaForward::bind`],
/// worked off by [`Slices::step`].
pub struct DiffLlamaForward<'a> {
    model: &'a DiffLlama,
    run: Run,
    /// B and L; L is the longest where they differ.
    shape: [usize; 2],
    wanted: Wanted,
    map_layers: Vec<usize>,
    segments: Vec<Segment>,
    pasts: Pasts<'a>,
    plan: Plan,
    /// The task at work, and its next row.
    task: usize,
    next: usize,
    done: usize,
    buffers: Option<Buffers>,
    outputs: Option<DiffLlamaOutputs<'a>>,
    is_failed: bool,
}

impl std::fmt::Debug for DiffLlamaForward<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffLlamaForward")
            .field("run", &self.run)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl Drop for DiffLlamaForward<'_> {
    /// Caches keep what was committed.
    fn drop(&mut self) {
        if let Pasts::Given(caches) = &mut self.pasts {
            for cache in caches {
                cache.roll_back();
            }
        }
    }
}

impl<'a> DiffLlamaForward<'a> {
    pub(super) fn new(
        model: &'a DiffLlama,
        ids: TokenIds<'_>,
        caches: Option<Vec<&'a mut ModelCache>>,
        options: &DiffLlamaOptions,
    ) -> Result<Self, Error> {
        let (shape, texts) = ids.check(model)?;
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
        Self::of_texts(model, texts, shape, caches, options)
    }

    /// Of texts of any lengths, none empty, with a cache each; B is their number and L matters only for the shapes of
    /// outputs.
    pub(super) fn of_texts(
        model: &'a DiffLlama,
        texts: Vec<Vec<u32>>,
        shape: [usize; 2],
        caches: Option<Vec<&'a mut ModelCache>>,
        options: &DiffLlamaOptions,
    ) -> Result<Self, Error> {
        let config = &model.config;
        if options.window == Some(0) {
            return Err(Error::option("window", "1 token or more", 0));
        }
        if let Some(layer) = options
            .map_layers
            .iter()
            .find(|&&layer| layer >= config.num_hidden_layers)
        {
            return Err(Error::option(
                "map_layers",
                format_args!("layers from 0 to {}", config.num_hidden_layers - 1),
                layer,
            ));
        }
        let mut window = options.window;
        if let Some(caches) = &caches {
            if !options.map_layers.is_empty() {
                return Err(Error::option("map_layers", "none with caches", "some"));
            }
            if window.is_some() {
                return Err(Error::option(
                    "window",
                    "none with caches, which have their own",
                    "one",
                ));
            }
            for cache in caches {
                cache.check(model)?;
            }
            window = caches.first().and_then(|cache| cache.window());
            if caches.iter().any(|cache| cache.window() != window) {
                return Err(Error::option("caches", "caches of one window", "several"));
            }
        }
        let wanted = Wanted {
            logits: options.logits,
            hidden_states: options.hidden_states,
            caches: caches.is_some(),
        };
        let mut segments = Vec::with_capacity(texts.len());
        for (index, ids) in texts.into_iter().enumerate() {
            let start = match &caches {
                Some(caches) => caches[index].len(),
                None => 0,
            };
            if start
                .checked_add(ids.len())
                .is_none_or(|end| end > i32::MAX as usize)
            {
                return Err(Error::shape(
                    "ids",
                    "a text of at most 2³¹ − 1 tokens",
                    ids.len(),
                ));
            }
            if let Some(longest) = config.rope.longest()
                && (start + ids.len()) as f64 > longest
            {
                return Err(Error::option(
                    "ids",
                    format_args!(
                        "a text of at most {longest} tokens (max_position_embeddings), past which rope_type \"dynamic\" is not \
                         computed; \"yarn\" and \"linear\" are"
                    ),
                    start + ids.len(),
                ));
            }
            segments.push(Segment { ids, start });
        }
        let chunk = match (&caches, window) {
            (Some(_), Some(window)) => chunk_of(window),
            _ => usize::MAX,
        };
        let lengths: Vec<usize> = segments.iter().map(|segment| segment.ids.len()).collect();
        let starts: Vec<usize> = segments.iter().map(|segment| segment.start).collect();
        let plan = Plan::new(model, &lengths, &starts, chunk, wanted, &options.map_layers)?;
        let job = Self {
            model,
            run: Run {
                run: options.run,
                window,
                eps: config.rms_norm_eps as f32,
            },
            shape,
            wanted,
            map_layers: options.map_layers.clone(),
            segments,
            pasts: caches.map_or_else(|| Pasts::Own(Vec::new()), Pasts::Given),
            plan,
            task: 0,
            next: 0,
            done: 0,
            buffers: None,
            outputs: None,
            is_failed: false,
        };
        checked_len("ids", &job.logits_shape())?;
        checked_len("ids", &job.hidden_states_shape())?;
        if !job.map_layers.is_empty() {
            checked_len("ids", &job.map_shape())?;
        }
        Ok(job)
    }

    /// `[B, L, vocab_size]`, `[B, 1, vocab_size]` for the last tokens', `[B, 0, vocab_size]` for none.
    #[must_use]
    pub fn logits_shape(&self) -> [usize; 3] {
        let [batch, length] = self.shape;
        let rows = match self.wanted.logits {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => length,
        };
        [batch, rows, self.model.config.vocab_size]
    }

    /// `[num_hidden_layers + 1, B, L, hidden_size]`, the first axis 0 where they are not wanted.
    #[must_use]
    pub fn hidden_states_shape(&self) -> [usize; 4] {
        let [batch, length] = self.shape;
        let states = if self.wanted.hidden_states {
            self.model.config.num_hidden_layers + 1
        } else {
            0
        };
        [states, batch, length, self.model.config.hidden_size]
    }

    /// `[B, H, L, L]`, of each map.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        let [batch, length] = self.shape;
        [batch, self.model.config.num_heads(), length, length]
    }

    /// Memory for the outputs.
    pub(super) fn output(&self) -> Result<DiffLlamaOutput, Error> {
        let (logits_shape, hidden_states_shape) = (self.logits_shape(), self.hidden_states_shape());
        let mut output = DiffLlamaOutput {
            logits: try_zeroed(checked_len("ids", &logits_shape)?)?,
            logits_shape,
            hidden_states: try_zeroed(checked_len("ids", &hidden_states_shape)?)?,
            hidden_states_shape,
            maps: Vec::new(),
        };
        for _ in &self.map_layers {
            let shape = self.map_shape();
            let len = checked_len("ids", &shape)?;
            output.maps.push(Maps {
                shape,
                terms: vec![try_zeroed(len)?, try_zeroed(len)?],
                diff: try_zeroed(len)?,
            });
        }
        Ok(output)
    }

    /// Gives the outputs.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when one does not fit.
    pub fn bind(&mut self, outputs: DiffLlamaOutputs<'a>) -> Result<(), Error> {
        check_len("logits", &self.logits_shape(), outputs.logits.len())?;
        check_len(
            "hidden_states",
            &self.hidden_states_shape(),
            outputs.hidden_states.len(),
        )?;
        if outputs.maps.len() != self.map_layers.len() {
            return Err(Error::shape(
                "maps",
                format_args!("those of {} layers", self.map_layers.len()),
                outputs.maps.len(),
            ));
        }
        for maps in &outputs.maps {
            maps.check(2, &self.map_shape())?;
        }
        self.outputs = Some(outputs);
        Ok(())
    }

    /// Memory for the work.
    fn start(&self) -> Result<Buffers, Error> {
        let config = &self.model.config;
        let (rows, block) = (self.plan.chunk_rows(), self.plan.block_rows());
        let wide = config.num_attention_heads * config.head_dim;
        let narrow = config.num_key_value_heads * config.head_dim;
        let zeroed = |rows: usize, width: usize| -> Result<Vec<f32>, Error> {
            try_zeroed(checked_len("ids", &[rows, width])?)
        };
        Ok(Buffers {
            x: zeroed(rows, config.hidden_size)?,
            row: zeroed(block, config.hidden_size)?,
            still: zeroed(block, wide)?,
            q: zeroed(block, wide)?,
            k: zeroed(block, narrow)?,
            v: zeroed(block, narrow)?,
            attended: zeroed(block, wide)?,
            gate: zeroed(block, config.intermediate_size)?,
            up: zeroed(block, config.intermediate_size)?,
            sigmoid: match config.hidden_act {
                HiddenAct::Silu => zeroed(block, config.intermediate_size)?,
                HiddenAct::Gelu | HiddenAct::GeluTanh => Vec::new(),
            },
            tables: Vec::new(),
        })
    }

    /// Works on `count` units of the task at most; returns how many.
    fn advance(&mut self, count: usize) -> Result<usize, Error> {
        let mut buffers = match self.buffers.take() {
            Some(buffers) => buffers,
            None => self.start()?,
        };
        let task = self.plan.tasks[self.task].clone();
        let rows = self.next
            ..self
                .next
                .saturating_add(count.saturating_mul(task.unit))
                .min(task.rows.end);
        self.work(&task, rows.clone(), &mut buffers)?;
        self.buffers = Some(buffers);
        self.next = rows.end;
        if self.next >= task.rows.end {
            self.task += 1;
            if let Some(task) = self.plan.tasks.get(self.task) {
                self.next = task.rows.start;
            }
        }
        Ok(rows.len().div_ceil(task.unit))
    }

    /// Rows `rows` (of the chunk) of a task.
    fn work(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        match task.part {
            Part::Embed => self.embed(task, rows, buffers),
            Part::Project => self.project(task, rows, buffers),
            Part::Maps => self.maps(task, rows, buffers),
            Part::Attend => self.attend(task, rows, buffers),
            Part::Output => self.output_rows(task, rows, buffers),
            Part::Gate => self.gate(task, rows, buffers),
            Part::Down => self.down(task, rows, buffers),
            Part::Norm => self.last_hidden_state(task, rows, buffers),
            Part::Head { first } => self.head(task, first, rows, buffers),
            Part::Commit => {
                if let Pasts::Given(caches) = &mut self.pasts {
                    for (cache, segment) in caches.iter_mut().zip(&self.segments) {
                        let tokens = self.plan.tokens(task.chunk, segment.ids.len());
                        cache.commit(&segment.ids[tokens]);
                    }
                }
                buffers.tables.clear();
                Ok(())
            }
        }
    }

    fn embed(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let width = self.model.config.hidden_size;
        for piece in self.plan.block(task).within(&rows) {
            let ids = &self.segments[piece.segment].ids[piece.tokens.clone()];
            let to = buffers.x[piece.row * width..].chunks_exact_mut(width);
            for (&id, to) in ids.iter().zip(to) {
                self.model.embedding.row(&self.model.head, id, to)?;
            }
        }
        self.keep_hidden_state(0, task, &rows, &buffers.x);
        Ok(())
    }

    /// Copies rows of x to hidden state `index`, where they are wanted.
    fn keep_hidden_state(&mut self, index: usize, task: &Task, rows: &Range<usize>, x: &[f32]) {
        let Some(outputs) = self.outputs.as_mut().filter(|_| self.wanted.hidden_states) else {
            return;
        };
        let (width, [batch, length]) = (self.model.config.hidden_size, self.shape);
        for piece in self.plan.block(task).within(rows) {
            let row = (index * batch + piece.segment) * length + piece.tokens.start;
            let len = piece.tokens.len() * width;
            outputs.hidden_states[row * width..][..len]
                .copy_from_slice(&x[piece.row * width..][..len]);
        }
    }

    /// q of the block; k and v to the caches.
    fn project(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let (model, run) = (self.model, self.run);
        let (config, layer) = (&model.config, &model.layers[task.layer]);
        let attention = &layer.attention;
        self.prepare(task, &rows, &mut buffers.tables)?;
        let block = self.plan.block(task);
        let width = config.hidden_size;
        let Buffers {
            x,
            row,
            still,
            q,
            k,
            v,
            tables,
            ..
        } = buffers;
        let normed = &mut row[..rows.len() * width];
        run.norm(
            &layer.input_norm,
            &x[rows.start * width..rows.end * width],
            normed,
        )?;
        let tables = &tables[task.block];
        for (linear, to) in [(&attention.q, &mut *q), (&attention.k, &mut *k)] {
            let width = linear.outputs();
            let still = &mut still[..rows.len() * width];
            run.linear(linear, normed, still)?;
            for (piece, table) in block.within_with(&rows, tables) {
                let from = (piece.row - rows.start) * width;
                let first = (piece.row - block.rows.start) * width;
                let len = piece.tokens.len() * width;
                let options = RopeOptions {
                    layout: Layout::Bshd,
                    interleaved: false,
                    first_position: Some(vec![
                        (self.segments[piece.segment].start + piece.tokens.start) as i64,
                    ]),
                    table: Some(table),
                    run: run.run,
                    ..RopeOptions::default()
                };
                let shape = [
                    1,
                    piece.tokens.len(),
                    width / config.head_dim,
                    config.head_dim,
                ];
                let call = Rope::new(Tensor::f32(&still[from..from + len], &shape), &options)?;
                call.into_work(DataMut::F32(&mut to[first..first + len]))?
                    .finish()?;
            }
        }
        let width = attention.v.outputs();
        let v = &mut v[..rows.len() * width];
        run.linear(&attention.v, normed, v)?;
        for piece in block.within(&rows) {
            let shape = [
                1,
                piece.tokens.len(),
                width / config.head_dim,
                config.head_dim,
            ];
            let len = piece.tokens.len() * width;
            let k = &k[(piece.row - block.rows.start) * width..][..len];
            let v = &v[(piece.row - rows.start) * width..][..len];
            let cache = match &mut self.pasts {
                Pasts::Own(caches) => &mut caches[piece.segment],
                Pasts::Given(caches) => &mut caches[piece.segment].layers[task.layer],
            };
            cache.append(Tensor::f32(k, &shape), Tensor::f32(v, &shape), Layout::Bshd)?;
        }
        Ok(())
    }

    /// Empties own caches at the start of a layer; makes the block's rotary tables, which all layers share.
    fn prepare(
        &mut self,
        task: &Task,
        rows: &Range<usize>,
        tables: &mut Vec<Vec<RopeTable>>,
    ) -> Result<(), Error> {
        if let Pasts::Own(caches) = &mut self.pasts
            && rows.start == 0
        {
            for segment in &self.segments[caches.len()..] {
                let layer = &self.model.layers[task.layer].attention;
                caches.push(KvCache::new(layer.cache_options(1, segment.ids.len()))?);
            }
            for cache in caches {
                cache.rewind(0)?;
            }
        }
        if tables.len() == task.block {
            let config = &self.model.config;
            let mut of_block = Vec::new();
            for piece in &self.plan.block(task).pieces {
                let start = self.segments[piece.segment].start;
                let positions =
                    (start + piece.tokens.start) as i64..(start + piece.tokens.end) as i64;
                of_block.push(RopeTable::new(
                    positions,
                    config.head_dim,
                    &config.rope,
                    self.run.run,
                )?);
            }
            tables.push(of_block);
        }
        Ok(())
    }

    /// The keys and values that a piece attends to, and where among them its first token lies.
    fn past(&self, task: &Task, piece: &Piece) -> (&KvCache, usize) {
        let position = self.segments[piece.segment].start + piece.tokens.start;
        match &self.pasts {
            Pasts::Own(caches) => (&caches[piece.segment], position),
            Pasts::Given(caches) => {
                let cache = &caches[piece.segment];
                (&cache.layers[task.layer], cache.place(position))
            }
        }
    }

    fn attend(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let config = &self.model.config;
        let layer = &self.model.layers[task.layer];
        let block = self.plan.block(task);
        let width = config.num_attention_heads * config.head_dim;
        let Some(norm) = &layer.attention.norm else {
            return Err(Error::Internal(
                "a layer of a model without its norm".to_owned(),
            ));
        };
        for piece in block.within(&rows) {
            let (cache, place) = self.past(task, &piece);
            let mut options = self.run.attention(layer, place)?;
            options.norm = Some(NormOptions {
                eps: norm.eps,
                weight: norm.weight.as_deref(),
                scale: norm.scale,
            });
            let first = (piece.row - block.rows.start) * width;
            let len = piece.tokens.len() * width;
            let shape = [
                1,
                piece.tokens.len(),
                config.num_attention_heads,
                config.head_dim,
            ];
            let q = Tensor::f32(&buffers.q[first..first + len], &shape);
            let call = DiffAttention::new(q, KeysValues::Cache(cache), &options)?;
            let to = DataMut::F32(&mut buffers.attended[first..first + len]);
            call.into_work(to, None)?.finish()?;
        }
        Ok(())
    }

    /// Maps of the rows, copied to where they belong; keys past those held are seen by none of them.
    fn maps(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let config = &self.model.config;
        let layer = &self.model.layers[task.layer];
        let block = self.plan.block(task);
        let width = config.num_attention_heads * config.head_dim;
        let (heads, [_, length]) = (config.num_heads(), self.shape);
        let mut outputs = self.outputs.take();
        for piece in block.within(&rows) {
            let (cache, place) = self.past(task, &piece);
            let queries = piece.tokens.len();
            let first = (piece.row - block.rows.start) * width;
            let shape = [1, queries, config.num_attention_heads, config.head_dim];
            let q = Tensor::f32(&buffers.q[first..first + queries * width], &shape);
            let options = self.run.attention(layer, place)?;
            let keys = cache.len();
            let len = checked_len("ids", &[heads, queries, keys])?;
            let mut made = [try_zeroed(len)?, try_zeroed(len)?, try_zeroed(len)?];
            {
                let [one, two, diff] = &mut made;
                let call = DiffAttentionMaps::new(q, KeysOnly::Cache(cache), &options, None, None)?;
                let terms: Vec<&mut [f32]> = vec![one, two];
                call.into_work(MapOutputs { terms, diff })?.finish()?;
            }
            let wanted = self.map_layers.iter().enumerate();
            for (index, _) in wanted.filter(|&(_, &layer)| layer == task.layer) {
                let Some(maps) = outputs
                    .as_mut()
                    .and_then(|outputs| outputs.maps.get_mut(index))
                else {
                    continue;
                };
                let maps = maps.terms.iter_mut().chain([&mut maps.diff]);
                for (to, from) in maps.zip(&made) {
                    for (row, from) in from.chunks_exact(keys).enumerate() {
                        let (head, query) = (row / queries, row % queries);
                        let at =
                            ((piece.segment * heads + head) * length + piece.tokens.start + query)
                                * length;
                        to[at..at + keys].copy_from_slice(from);
                        to[at + keys..at + length].fill(0.0);
                    }
                }
            }
        }
        self.outputs = outputs;
        Ok(())
    }

    fn output_rows(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let linear = &self.model.layers[task.layer].attention.out;
        let block = self.plan.block(task);
        let range = of_block(block, &rows, linear.inputs());
        let added = &mut buffers.row[..rows.len() * linear.outputs()];
        self.run.linear(linear, &buffers.attended[range], added)?;
        add(&mut buffers.x[rows.start * linear.outputs()..], added);
        Ok(())
    }

    /// act(gate) · up.
    fn gate(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let layer = &self.model.layers[task.layer];
        let width = self.model.config.hidden_size;
        let normed = &mut buffers.row[..rows.len() * width];
        self.run.norm(
            &layer.post_norm,
            &buffers.x[rows.start * width..rows.end * width],
            normed,
        )?;
        let range = of_block(self.plan.block(task), &rows, layer.gate.outputs());
        let gate = &mut buffers.gate[range.clone()];
        let up = &mut buffers.up[range.clone()];
        self.run.linear(&layer.gate, normed, gate)?;
        self.run.linear(&layer.up, normed, up)?;
        let act = match self.model.config.hidden_act {
            HiddenAct::Silu => {
                let sigmoids = &mut buffers.sigmoid[range];
                sigmoids.copy_from_slice(gate);
                sigmoid(sigmoids, self.run.run);
                for (gate, (sigmoid, up)) in gate.iter_mut().zip(sigmoids.iter().zip(up.iter())) {
                    *gate = *gate * sigmoid * up;
                }
                return Ok(());
            }
            HiddenAct::Gelu => gelu,
            HiddenAct::GeluTanh => gelu_tanh,
        };
        act(gate, self.run.run);
        for (gate, up) in gate.iter_mut().zip(up.iter()) {
            *gate *= up;
        }
        Ok(())
    }

    fn down(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let linear = &self.model.layers[task.layer].down;
        let range = of_block(self.plan.block(task), &rows, linear.inputs());
        let added = &mut buffers.row[..rows.len() * linear.outputs()];
        self.run.linear(linear, &buffers.gate[range], added)?;
        add(&mut buffers.x[rows.start * linear.outputs()..], added);
        // The last layer's is given after the norm.
        if task.layer + 1 < self.model.layers.len() {
            self.keep_hidden_state(task.layer + 1, task, &rows, &buffers.x);
        }
        Ok(())
    }

    fn last_hidden_state(
        &mut self,
        task: &Task,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let (width, [batch, length]) = (self.model.config.hidden_size, self.shape);
        let Some(outputs) = &mut self.outputs else {
            return Ok(());
        };
        for piece in self.plan.block(task).within(&rows) {
            let row =
                (self.model.layers.len() * batch + piece.segment) * length + piece.tokens.start;
            let len = piece.tokens.len() * width;
            self.run.norm(
                &self.model.norm,
                &buffers.x[piece.row * width..][..len],
                &mut outputs.hidden_states[row * width..][..len],
            )?;
        }
        Ok(())
    }

    /// Logits of the rows, the first of the task being row `first` of the result.
    fn head(
        &mut self,
        task: &Task,
        first: usize,
        rows: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let (width, linear) = (self.model.config.hidden_size, &self.model.head);
        let Some(outputs) = &mut self.outputs else {
            return Ok(());
        };
        let normed = &mut buffers.row[..rows.len() * width];
        self.run.norm(
            &self.model.norm,
            &buffers.x[rows.start * width..rows.end * width],
            normed,
        )?;
        let first = first + rows.start - task.rows.start;
        let logits = &mut outputs.logits[first * linear.outputs()..];
        self.run
            .linear(linear, normed, &mut logits[..rows.len() * linear.outputs()])
    }

    /// Gives the outputs back.
    pub(super) fn take_outputs(&mut self) -> Option<DiffLlamaOutputs<'a>> {
        self.outputs.take()
    }
}

/// Where rows lie in a buffer of the block.
fn of_block(block: &Block, rows: &Range<usize>, width: usize) -> Range<usize> {
    (rows.start - block.rows.start) * width..(rows.end - block.rows.start) * width
}

fn add(x: &mut [f32], added: &[f32]) {
    for (x, added) in x.iter_mut().zip(added) {
        *x += added;
    }
}

impl Slices for DiffLlamaForward<'_> {
    fn total(&self) -> usize {
        self.plan.units
    }

    fn done(&self) -> usize {
        self.done
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        if self.is_failed || (self.outputs.is_none() && self.done < self.plan.units) {
            return Err(Error::Internal(
                "a model was stepped after a step that failed, or before its outputs were bound"
                    .to_owned(),
            ));
        }
        let mut left = count.max(1);
        while left > 0 && self.done < self.plan.units {
            self.is_failed = true;
            let worked = self.advance(left)?;
            self.is_failed = false;
            self.done += worked;
            left -= worked.min(left);
        }
        Ok(())
    }
}
