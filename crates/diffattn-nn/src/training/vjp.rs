//! A public layer with its backward pass: for who has a framework of their own. Checks what it is
//! given; the numbers are `attention.rs`'s.

use super::arena::Arena;
use super::attention::{AttentionPass, KeptAttention, Tokens, without_backward};
use super::ids::{AttentionIds, LambdaParameters};
use super::maps::{MapIds, units};
use super::scratch::AttentionScratch;
use super::sums::{LayerGrads, LayerSums, join_sums};
use crate::layers::attention::{
    DiffAttnLayer, ForwardOptions, LambdaSource, LambdaWeights, LayerMask, Turn,
};
use diffattn::{
    Data, Error, Linear, RopeTable, Run, Tensor, Work, check_len, format_shape, try_copied,
    try_zeroed,
};

/// Queries of a unit of attention, as far as the count of units goes.
const ATTENTION_ROWS: usize = 64;

/// What a layer keeps of a call for its backward pass, which may be asked for more than once.
#[derive(Debug)]
pub struct LayerVjp<'l> {
    layer: &'l DiffAttnLayer,
    tape: LayerTape,
}

/// What [`KeptForward`] keeps: of no call before its work is complete.
#[derive(Debug, Default)]
pub struct LayerTape(Option<Kept>);

#[derive(Debug)]
struct Kept {
    x: Vec<f32>,
    shape: [usize; 2],
    mask: Option<LayerMask<'static>>,
    table: Option<RopeTable>,
    attention: KeptAttention,
    run: Run,
}

/// A checked call of a layer that keeps what its backward pass needs.
#[derive(Debug)]
pub struct KeptForward<'a> {
    layer: &'a DiffAttnLayer,
    x: &'a [f32],
    shape: [usize; 2],
    mask: Option<LayerMask<'a>>,
    run: Run,
}

/// A checked backward pass of a layer.
#[derive(Debug)]
pub struct LayerBackward<'a> {
    layer: &'a DiffAttnLayer,
    kept: &'a Kept,
    dy: &'a [f32],
}

/// Gradients of a layer: those of x `[B, L, embed_dim]`, and of every weight, in the arena by the
/// names `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `out_proj.weight` (a `.bias` beside any
/// of them), `lambda_q1` to `lambda_k2` or `lambda_a` and `lambda_b`, `lambda_proj.weight`,
/// `subln.weight`, as far as the layer has them.
#[derive(Debug)]
pub struct LayerGradients {
    /// Of x.
    pub dx: Vec<f32>,
    /// Of the weights: [`Arena::gradients`].
    pub weights: Arena,
}

impl DiffAttnLayer {
    /// y `[B, L, embed_dim]` of x, float32 and without a cache, and what its backward pass needs.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `x` or `attn_mask`;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `layer` for one that has norms of
    /// the heads of q and k, or DEX;
    /// [`Error::out_of_memory`].
    pub fn vjp<'l>(
        &'l self,
        x: Tensor<'_>,
        options: &ForwardOptions<'_>,
    ) -> Result<(Vec<f32>, LayerVjp<'l>), Error> {
        let call = KeptForward::new(self, x, options)?;
        let mut y = try_zeroed(call.x.len())?;
        let mut tape = LayerTape::default();
        call.into_work(&mut y, &mut tape).finish()?;
        Ok((y, LayerVjp { layer: self, tape }))
    }
}

impl LayerVjp<'_> {
    /// The gradients for `dy` `[B, L, embed_dim]`, that of y.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `dy`; [`Error::out_of_memory`].
    pub fn backward(&self, dy: &[f32]) -> Result<LayerGradients, Error> {
        let kept = self.tape.kept()?;
        check_len("dy", &kept.y_shape(self.layer), dy.len())?;
        let mut arena = Arena::default();
        let ids = all(self.layer, &mut arena)?;
        arena.allocate_gradients()?;
        let mut dx = try_zeroed(dy.len())?;
        let call = LayerBackward {
            layer: self.layer,
            kept,
            dy,
        };
        let (to, of) = (&mut dx, &mut arena);
        Work::new(1, |pace| async move { call.run(&pace, &ids, of, to).await }).finish()?;
        Ok(LayerGradients { dx, weights: arena })
    }
}

impl<'a> KeptForward<'a> {
    /// Checks a call of `layer` over `x` `[B, L, embed_dim]`, float32.
    ///
    /// # Errors
    /// As [`DiffAttnLayer::vjp`].
    pub fn new(
        layer: &'a DiffAttnLayer,
        x: Tensor<'a>,
        options: &ForwardOptions<'a>,
    ) -> Result<Self, Error> {
        check_layer(layer)?;
        let width = layer.embed_dim();
        let &[batch, length, channels] = x.shape.as_slice() else {
            return Err(Error::shape("x", "3 axes", x.shape.len()));
        };
        if channels != width {
            return Err(Error::shape(
                "x",
                format_args!("{width} channels"),
                channels,
            ));
        }
        check_len("x", &x.shape, x.data.len())?;
        let Data::F32(values) = x.data else {
            return Err(Error::dtype("x", "float32", x.data.dtype().name()));
        };
        let sizes = [batch, layer.num_heads(), length, length];
        let mask = options.attn_mask.as_ref();
        Ok(Self {
            layer,
            x: values,
            shape: [batch, length],
            mask: mask
                .map(|mask| {
                    let mask = LayerMask::check(mask, sizes)?;
                    match &layer.fusion {
                        Some(fusion) => mask.with_more_heads(fusion.heads),
                        None => Ok(mask),
                    }
                })
                .transpose()?,
            run: options.run,
        })
    }

    /// The work that writes y, as long as x, and gives the tape what it keeps.
    #[must_use]
    pub fn into_work(self, y: &'a mut [f32], tape: &'a mut LayerTape) -> Work<'a> {
        tape.0 = None;
        let total = work_units(self.layer, self.shape);
        Work::new(total, |pace| async move {
            pace.granted().await;
            let Self {
                layer,
                x,
                shape,
                mask,
                run,
            } = self;
            let table = layer.rope.as_ref().map(|rope| {
                let positions = 0..shape[1] as i64;
                RopeTable::new(positions, layer.rotary_dim, &rope.frequencies, run)
            });
            let mut kept = Kept {
                x: try_copied(x)?,
                shape,
                mask: mask.map(LayerMask::try_into_owned).transpose()?,
                table: table.transpose()?,
                attention: KeptAttention::default(),
                run,
            };
            if !y.is_empty() {
                let mut attention = KeptAttention::default();
                let turns = kept.turns();
                let pass = kept.pass(layer, &turns);
                let mut scratch = AttentionScratch::default();
                let memory = (&mut attention, &mut scratch);
                pass.forward(&pace, &kept.x, y, memory).await?;
                drop(turns);
                kept.attention = attention;
            }
            tape.0 = Some(kept);
            Ok(())
        })
    }
}

impl LayerTape {
    fn kept(&self) -> Result<&Kept, Error> {
        let kept = self.0.as_ref();
        kept.ok_or_else(|| Error::option("vjp", "one whose pass is complete", "another"))
    }
}

impl Kept {
    fn y_shape(&self, layer: &DiffAttnLayer) -> [usize; 3] {
        let [batch, length] = self.shape;
        [batch, length, layer.embed_dim()]
    }

    fn turns(&self) -> Vec<Turn<'_>> {
        let [batch, length] = self.shape;
        let Some(table) = &self.table else {
            return Vec::new();
        };
        let text = |text: usize| Turn {
            rows: text * length..(text + 1) * length,
            position: 0,
            table,
        };
        (0..batch).map(text).collect()
    }

    fn pass<'p>(&'p self, layer: &'p DiffAttnLayer, turns: &'p [Turn<'p>]) -> AttentionPass<'p> {
        AttentionPass {
            layer,
            tokens: Tokens {
                shape: self.shape,
                cu_seqlens: None,
                turns,
                mask: self.mask.as_ref(),
                run: self.run,
            },
        }
    }
}

impl<'a> LayerBackward<'a> {
    /// Checks the backward pass of `layer`, which made `tape`, for `dy` `[B, L, embed_dim]`, the
    /// gradient of y.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `dy`;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `vjp` for a tape of no call.
    pub fn new(
        layer: &'a DiffAttnLayer,
        tape: &'a LayerTape,
        dy: Tensor<'a>,
    ) -> Result<Self, Error> {
        let kept = tape.kept()?;
        let shape = kept.y_shape(layer);
        if dy.shape != shape {
            return Err(Error::shape(
                "dy",
                format_args!("y's shape {}", format_shape(&shape)),
                format_shape(&dy.shape),
            ));
        }
        let Data::F32(values) = dy.data else {
            return Err(Error::dtype("dy", "float32", dy.data.dtype().name()));
        };
        check_len("dy", &shape, values.len())?;
        Ok(Self {
            layer,
            kept,
            dy: values,
        })
    }

    /// The weights that gradients come for, by their names, and their shapes.
    #[must_use]
    pub fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let of = weights_of(self.layer).into_iter();
        of.map(|weight| (weight.name, weight.shape)).collect()
    }

    /// The work that writes dx, as long as dy, and the gradients of [`LayerBackward::weights`], in
    /// their order.
    #[must_use]
    pub fn into_work(self, dx: &'a mut [f32], weights: Vec<&'a mut [f32]>) -> Work<'a> {
        let total = 2 * work_units(self.layer, self.kept.shape);
        Work::new(total, |pace| async move {
            pace.granted().await;
            let mut arena = Arena::default();
            let ids = all(self.layer, &mut arena)?;
            arena.allocate_gradients()?;
            self.run(&pace, &ids, &mut arena, dx).await?;
            for (to, parameter) in weights.into_iter().zip(arena.parameters()) {
                match arena.gradients(&parameter.name) {
                    Some(from) if from.len() == to.len() => to.copy_from_slice(from),
                    _ => return Err(Error::internal("a gradient of another length")),
                }
            }
            Ok(())
        })
    }

    async fn run(
        &self,
        pace: &diffattn::Pace,
        ids: &AttentionIds,
        arena: &mut Arena,
        dx: &mut [f32],
    ) -> Result<(), Error> {
        let mut sums = LayerSums::default();
        if !self.dy.is_empty() {
            let turns = self.kept.turns();
            let pass = self.kept.pass(self.layer, &turns);
            let mut scratch = AttentionScratch::default();
            let memory = (&self.kept.attention, &mut scratch);
            let grads = LayerGrads {
                ids,
                arena: &mut *arena,
                sums: &mut sums,
            };
            pass.backward(pace, [&self.kept.x, self.dy], dx, memory, grads)
                .await?;
        }
        join_sums(self.layer, ids, &mut sums, arena);
        Ok(())
    }
}

/// Units of work of a forward pass, about.
fn work_units(layer: &DiffAttnLayer, [batch, length]: [usize; 2]) -> usize {
    let rows = batch * length;
    let maps = [&layer.q, &layer.k, &layer.v, &layer.out];
    let of_maps: usize = maps.iter().map(|map| units(map, rows)).sum();
    of_maps + batch * layer.num_heads() * length.div_ceil(ATTENTION_ROWS) + 1
}

/// Whether the layer is of a kind whose backward pass there is.
fn check_layer(layer: &DiffAttnLayer) -> Result<(), Error> {
    let is_dex = layer.dex.is_some();
    match without_backward(layer).or(is_dex.then_some("DEX, which is a model's")) {
        None => Ok(()),
        Some(other) => Err(Error::option(
            "layer",
            "one whose backward pass there is",
            other,
        )),
    }
}

/// A weight of a layer, and its values where gradients are made with them: those of λ.
struct Weight {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The weights of a layer, by the names of its list.
fn weights_of(layer: &DiffAttnLayer) -> Vec<Weight> {
    let mut found = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, values: Vec<f32>| {
        found.push(Weight {
            name,
            shape,
            values,
        });
    };
    let mut map = |name: &str, linear: &Linear| {
        let [outputs, inputs] = [linear.outputs(), linear.inputs()];
        add(format!("{name}.weight"), vec![outputs, inputs], Vec::new());
        if linear.bias().is_some() {
            add(format!("{name}.bias"), vec![outputs], Vec::new());
        }
    };
    for (name, linear) in [
        ("q_proj", &layer.q),
        ("k_proj", &layer.k),
        ("v_proj", &layer.v),
        ("out_proj", &layer.out),
    ] {
        map(name, linear);
    }
    if let LambdaSource::Projected(of) = &layer.lambda {
        map("lambda_proj", &of.linear);
    }
    match layer.lambda_parts.as_ref().map(|parts| &parts.weights) {
        Some(LambdaWeights::Vectors(vectors)) => {
            for (name, values) in VECTORS.iter().zip(vectors) {
                add((*name).to_owned(), vec![values.len()], values.clone());
            }
        }
        Some(LambdaWeights::Scalars(numbers)) => {
            for (name, &number) in SCALARS.iter().zip(numbers) {
                add((*name).to_owned(), Vec::new(), vec![number as f32]);
            }
        }
        None => {}
    }
    if let Some(weight) = layer.norm.as_ref().and_then(|norm| norm.weight.as_ref()) {
        add("subln.weight".to_owned(), vec![weight.len()], Vec::new());
    }
    found
}

const VECTORS: [&str; 4] = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];
const SCALARS: [&str; 2] = ["lambda_a", "lambda_b"];

/// Every weight of a layer as a parameter.
fn all(layer: &DiffAttnLayer, arena: &mut Arena) -> Result<AttentionIds, Error> {
    let mut ids = Vec::new();
    for Weight {
        name,
        shape,
        values,
    } in weights_of(layer)
    {
        let id = arena.add(name.clone(), &shape, |to| {
            to[..values.len()].copy_from_slice(&values);
            Ok(())
        })?;
        ids.push((name, id));
    }
    let find = |name: &str| ids.iter().find(|(of, _)| of == name).map(|&(_, id)| id);
    let map = |name: &str| MapIds {
        weight: find(&format!("{name}.weight")),
        bias: find(&format!("{name}.bias")),
        low_rank: None,
    };
    let lambda = match (&layer.lambda, VECTORS.map(find), SCALARS.map(find)) {
        (LambdaSource::Projected(_), ..) => LambdaParameters::Projected(map("lambda_proj")),
        (_, [Some(q1), Some(k1), Some(q2), Some(k2)], _) => {
            LambdaParameters::Vectors([q1, k1, q2, k2])
        }
        (_, _, [Some(a), Some(b)]) => LambdaParameters::Scalars([a, b]),
        _ => LambdaParameters::Frozen,
    };
    Ok(AttentionIds {
        q: map("q_proj"),
        k: map("k_proj"),
        v: map("v_proj"),
        out: map("out_proj"),
        lambda,
        norm: find("subln.weight"),
    })
}
