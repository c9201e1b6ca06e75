//! A public layer with its backward pass: for who has a framework of their own. Checks what it is
//! given; the numbers are `attention.rs`'s.

use super::arena::Arena;
use super::attention::{
    AttentionGrads, AttentionIds, AttentionPass, KeptAttention, LambdaParameters, Tokens,
    without_backward,
};
use super::maps::MapIds;
use super::parameters::lambda_gradients;
use super::scratch::AttentionScratch;
use crate::layers::attention::{
    DiffAttnLayer, ForwardOptions, LambdaSource, LambdaWeights, LayerMask, Turn,
};
use diffattn::{Data, Error, Linear, RopeTable, Run, Tensor, Work, check_len, try_zeroed};

/// What a layer keeps of a call for its backward pass, which may be asked for more than once.
#[derive(Debug)]
pub struct LayerVjp<'l> {
    layer: &'l DiffAttnLayer,
    x: Vec<f32>,
    shape: [usize; 2],
    mask: Option<LayerMask<'l>>,
    table: Option<RopeTable>,
    kept: KeptAttention,
    run: Run,
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
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `layer` for one that mixes in
    /// differences along the sequence, has norms of the heads of q and k, or DEX;
    /// [`Error::out_of_memory`].
    pub fn vjp<'l>(
        &'l self,
        x: Tensor<'_>,
        options: &ForwardOptions<'l>,
    ) -> Result<(Vec<f32>, LayerVjp<'l>), Error> {
        check_layer(self)?;
        let width = self.embed_dim();
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
        let sizes = [batch, self.num_heads(), length, length];
        let mask = options.attn_mask.as_ref();
        let mask = mask.map(|mask| LayerMask::check(mask, sizes)).transpose()?;
        let table = match &self.rope {
            None => None,
            Some(rope) => {
                let positions = 0..length as i64;
                let table =
                    RopeTable::new(positions, self.rotary_dim, &rope.frequencies, options.run)?;
                Some(table)
            }
        };
        let mut vjp = LayerVjp {
            layer: self,
            x: diffattn::try_copied(values)?,
            shape: [batch, length],
            mask,
            table,
            kept: KeptAttention::default(),
            run: options.run,
        };
        let mut y = try_zeroed(values.len())?;
        if y.is_empty() {
            return Ok((y, vjp));
        }
        let mut kept = std::mem::take(&mut vjp.kept);
        let (turns, to) = (vjp.turns(), &mut y);
        let pass = vjp.pass(&turns);
        let (x, memory) = (&vjp.x, &mut kept);
        Work::new(1, |pace| async move {
            let mut scratch = AttentionScratch::default();
            pass.forward(&pace, x, to, (memory, &mut scratch)).await
        })
        .finish()?;
        drop(turns);
        vjp.kept = kept;
        Ok((y, vjp))
    }
}

impl LayerVjp<'_> {
    /// The gradients for `dy` `[B, L, embed_dim]`, that of y.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `dy`; [`Error::out_of_memory`].
    pub fn backward(&self, dy: &[f32]) -> Result<LayerGradients, Error> {
        let [batch, length] = self.shape;
        check_len("dy", &[batch, length, self.layer.embed_dim()], dy.len())?;
        let mut arena = Arena::default();
        let ids = all(self.layer, &mut arena)?;
        arena.allocate_gradients()?;
        let mut dx = try_zeroed(dy.len())?;
        let mut lambda = 0.0;
        if !dy.is_empty() {
            let turns = self.turns();
            let pass = self.pass(&turns);
            let (to, sum) = (&mut dx, &mut lambda);
            let grads = AttentionGrads {
                ids: &ids,
                arena: &mut arena,
                lambda: sum,
            };
            Work::new(1, |pace| async move {
                let mut scratch = AttentionScratch::default();
                let memory = (&self.kept, &mut scratch);
                pass.backward(&pace, [&self.x, dy], to, memory, grads).await
            })
            .finish()?;
        }
        lambda_gradients(self.layer, &ids, lambda, &mut arena);
        Ok(LayerGradients { dx, weights: arena })
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

    fn pass<'p>(&'p self, turns: &'p [Turn<'p>]) -> AttentionPass<'p> {
        AttentionPass {
            layer: self.layer,
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

/// Whether the layer is of a kind whose backward pass there is.
fn check_layer(layer: &DiffAttnLayer) -> Result<(), Error> {
    match without_backward(layer) {
        None => Ok(()),
        Some(other) => Err(Error::option(
            "layer",
            "one whose backward pass there is",
            other,
        )),
    }
}

/// Every weight of a layer as a parameter.
fn all(layer: &DiffAttnLayer, arena: &mut Arena) -> Result<AttentionIds, Error> {
    let mut map = |name: &str, linear: &Linear| -> Result<MapIds, Error> {
        let shape = [linear.outputs(), linear.inputs()];
        let weight = arena.add(format!("{name}.weight"), &shape, |_| Ok(()))?;
        let bias = linear
            .bias()
            .map(|_| arena.add(format!("{name}.bias"), &shape[..1], |_| Ok(())));
        Ok(MapIds {
            weight: Some(weight),
            bias: bias.transpose()?,
            low_rank: None,
        })
    };
    let (q, k) = (map("q_proj", &layer.q)?, map("k_proj", &layer.k)?);
    let (v, out) = (map("v_proj", &layer.v)?, map("out_proj", &layer.out)?);
    let mut lambda = match &layer.lambda {
        LambdaSource::Projected(of) => LambdaParameters::Projected(map("lambda_proj", &of.linear)?),
        _ => LambdaParameters::Frozen,
    };
    match layer.lambda_parts.as_ref().map(|parts| &parts.weights) {
        Some(LambdaWeights::Vectors(vectors)) => {
            let mut made = Vec::new();
            for (which, values) in ["q1", "k1", "q2", "k2"].iter().zip(vectors) {
                made.push(arena.add(format!("lambda_{which}"), &[values.len()], |to| {
                    to.copy_from_slice(values);
                    Ok(())
                })?);
            }
            if let Ok(made) = made.try_into() {
                lambda = LambdaParameters::Vectors(made);
            }
        }
        Some(LambdaWeights::Scalars(values)) => {
            let mut made = Vec::new();
            for (which, &value) in ["a", "b"].iter().zip(values) {
                made.push(arena.add(format!("lambda_{which}"), &[], |to| {
                    to.fill(value as f32);
                    Ok(())
                })?);
            }
            if let Ok(made) = made.try_into() {
                lambda = LambdaParameters::Scalars(made);
            }
        }
        None => {}
    }
    let weight = layer.norm.as_ref().and_then(|norm| norm.weight.as_ref());
    let norm =
        weight.map(|weight| arena.add("subln.weight".to_owned(), &[weight.len()], |_| Ok(())));
    Ok(AttentionIds {
        q,
        k,
        v,
        out,
        lambda,
        norm: norm.transpose()?,
    })
}
