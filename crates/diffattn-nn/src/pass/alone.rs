//! A layer on its own: a pass over its attention alone. Checks the call; computes nothing itself.

use super::plan::{After, Keys, Plan};
use super::whole::append_unit;
use super::{Memory, Outputs, Pass, Settings, Text};
use crate::layers::Layer;
use crate::layers::attention::DiffAttnLayer;
use crate::layers::attention::ForwardOptions;
use crate::layers::attention::LayerMask;
use diffattn::{
    Data, DataMut, Error, KvCache, KvCacheOptions, MapOutputs, Pace, Run, Tensor, Work, check_len,
    checked_len, format_shape, try_zeroed,
};

/// The maps of a layer, float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps {
    /// `[B, H, L, L]`; over caches `[B, H, L, T]`, T being all tokens that they know.
    pub shape: [usize; 4],
    /// The softmax of each term, of that shape.
    pub terms: Vec<Vec<f32>>,
    /// `map₁ − λ · map₂`.
    pub diff: Vec<f32>,
}

impl Maps {
    /// Memory for maps of that shape, all zeros; `argument` is what an error calls it.
    pub(crate) fn zeroed(argument: &str, shape: [usize; 4], terms: usize) -> Result<Self, Error> {
        let len = checked_len(argument, &shape)?;
        let mut maps = Vec::with_capacity(terms);
        for _ in 0..terms {
            maps.push(try_zeroed(len)?);
        }
        Ok(Self {
            shape,
            terms: maps,
            diff: try_zeroed(len)?,
        })
    }

    /// Where a job writes.
    pub(crate) fn as_outputs(&mut self) -> MapOutputs<'_> {
        MapOutputs {
            terms: self.terms.iter_mut().map(Vec::as_mut_slice).collect(),
            diff: &mut self.diff,
        }
    }
}

/// A checked call of a layer.
#[derive(Debug, Clone)]
struct Call<'a> {
    layer: &'a DiffAttnLayer,
    x: &'a [f32],
    /// B and L.
    shape: [usize; 2],
    /// Tokens in the cache before the call.
    past: usize,
    mask: Option<LayerMask<'a>>,
    run: Run,
}

impl<'a> Call<'a> {
    fn new(
        layer: &'a DiffAttnLayer,
        x: &Tensor<'a>,
        cache: Option<&KvCache>,
        options: &ForwardOptions<'a>,
    ) -> Result<Self, Error> {
        let embed_dim = layer.embed_dim();
        let Data::F32(data) = x.data else {
            return Err(Error::dtype("x", "float32", x.data.dtype().name()));
        };
        let &[batch, length, channels] = x.shape.as_slice() else {
            return Err(wrong_shape(embed_dim, &x.shape));
        };
        if channels != embed_dim {
            return Err(wrong_shape(embed_dim, &x.shape));
        }
        check_len("x", &x.shape, data.len())?;
        if let Some(cache) = cache {
            let wanted = layer.cache_options(batch, 0);
            check_cache(cache.options(), &wanted, layer.fusion.is_some())?;
        }
        let past = cache.map_or(0, KvCache::len);
        let sizes = [batch, layer.num_heads(), length, past + length];
        let mask = options.attn_mask.as_ref();
        Ok(Self {
            layer,
            x: data,
            shape: [batch, length],
            past,
            mask: mask.map(|mask| LayerMask::check(mask, sizes)).transpose()?,
            run: options.run,
        })
    }

    fn plan(&self, keys: Keys, after: After) -> Plan<'a> {
        let [batch, length] = self.shape;
        let text = Text {
            length,
            start: self.past,
            #[cfg(feature = "models")]
            again: 0,
        };
        Plan {
            layers: vec![Layer::alone(self.layer)],
            // (Of texts without tokens, there could be any number.)
            texts: if length == 0 {
                Vec::new()
            } else {
                vec![text; batch]
            },
            chunk: usize::MAX,
            keys,
            after,
            map_layers: if after == After::None {
                vec![0]
            } else {
                Vec::new()
            },
        }
    }

    /// The pass itself.
    async fn work(
        self,
        plan: Plan<'a>,
        memory: Memory<'_>,
        mut outputs: Outputs<'_>,
        pace: &Pace,
    ) -> Result<(), Error> {
        let mut mask = self.mask;
        if let Some(fusion) = self.layer.fused(plan.wanted(0)) {
            let more = |mask: LayerMask<'a>| mask.with_more_heads(fusion.heads);
            mask = mask.map(more).transpose()?;
        }
        let settings = Settings {
            run: self.run,
            window: None,
            argument: "x",
            mask: mask.as_ref(),
        };
        let mut pass = Pass::over(plan, settings, Some(self.x))?;
        pass.layer(0, memory, &mut outputs, pace).await
    }
}

fn wrong_shape(embed_dim: usize, shape: &[usize]) -> Error {
    let expected = format!("shape [B, L, {embed_dim}]");
    Error::shape("x", expected, format_shape(shape))
}

/// The cache of a call. Unless the call succeeds, what it appended is forgotten again.
#[derive(Debug)]
struct CacheLoan<'a> {
    cache: &'a mut KvCache,
    length: usize,
    keep: bool,
}

impl Drop for CacheLoan<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // It holds at least what it held before, so this cannot fail.
            let _ = self.cache.rewind(self.length);
        }
    }
}

/// A checked forward pass of a layer: made by [`DiffAttnLayer::forward_job`], worked off by what
/// [`Forward::into_work`] makes of it. The cache, if any, is longer once that is done; work that
/// fails or is dropped before leaves it as it was.
#[derive(Debug)]
pub struct Forward<'a> {
    call: Call<'a>,
    cache: Option<&'a mut KvCache>,
}

impl<'a> Forward<'a> {
    /// `[B, L, embed_dim]`, as x.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 3] {
        let [batch, length] = self.call.shape;
        [batch, length, self.call.layer.embed_dim()]
    }

    /// The work that writes the result, float32, into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) when it does not fit.
    pub fn into_work(self, out: DataMut<'a>) -> Result<Work<'a>, Error> {
        let DataMut::F32(out) = out else {
            return Err(Error::dtype("out", "float32", out.dtype().name()));
        };
        check_len("out", &self.output_shape(), out.len())?;
        let Self { call, cache } = self;
        let append = cache.as_deref().map(|cache| append_unit(cache.options()));
        let plan = call.plan(Keys::Whole { append }, After::All);
        let outputs = Outputs {
            alone: Some(out),
            ..Outputs::default()
        };
        Ok(Work::new(plan.units(), |pace| async move {
            let mut loan = cache.map(|cache| CacheLoan {
                length: cache.len(),
                cache,
                keep: false,
            });
            let memory = match &mut loan {
                None => Memory::Rows,
                Some(loan) => Memory::Cache(loan.cache),
            };
            call.work(plan, memory, outputs, &pace).await?;
            if let Some(loan) = &mut loan {
                loan.keep = true;
            }
            Ok(())
        }))
    }
}

/// A checked maps call of a layer: made by [`DiffAttnLayer::maps_job`], worked off by what
/// [`LayerMaps::into_work`] makes of it.
#[derive(Debug)]
pub struct LayerMaps<'a> {
    call: Call<'a>,
}

impl<'a> LayerMaps<'a> {
    /// Maps besides the difference: two, one of plain attention.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.call.layer.terms()
    }

    /// `[B, H, L, L]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        let [batch, length] = self.call.shape;
        [batch, self.call.layer.num_heads(), length, length]
    }

    /// The work that writes the maps, each of [`LayerMaps::map_shape`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when one does not fit.
    pub fn into_work(self, outputs: MapOutputs<'a>) -> Result<Work<'a>, Error> {
        outputs.check(self.terms(), &self.map_shape())?;
        let call = self.call;
        let plan = call.plan(Keys::Whole { append: None }, After::None);
        let outputs = Outputs {
            maps: vec![outputs],
            ..Outputs::default()
        };
        Ok(Work::new(plan.units(), |pace| async move {
            call.work(plan, Memory::Rows, outputs, &pace).await
        }))
    }
}

impl DiffAttnLayer {
    /// Checks a call and prepares it; its output is `[B, L, embed_dim]`. x is `[B, L, embed_dim]`,
    /// float32. With a cache (see [`DiffAttnLayer::cache_options`]) positions start at its length,
    /// and x's tokens are appended to it; work that fails or is dropped before its end leaves the
    /// cache as it was.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape),
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option), naming the argument.
    pub fn forward_job<'a>(
        &'a self,
        x: Tensor<'a>,
        cache: Option<&'a mut KvCache>,
        options: &ForwardOptions<'a>,
    ) -> Result<Forward<'a>, Error> {
        let call = Call::new(self, &x, cache.as_deref(), options)?;
        Ok(Forward { call, cache })
    }

    /// y `[B, L, embed_dim]` of x, as [`DiffAttnLayer::forward_job`] in one call.
    ///
    /// # Errors
    /// As [`DiffAttnLayer::forward_job`], and [`Error::out_of_memory`].
    pub fn forward(
        &self,
        x: Tensor<'_>,
        cache: Option<&mut KvCache>,
        options: &ForwardOptions<'_>,
    ) -> Result<Vec<f32>, Error> {
        let len = x.data.len();
        let call = self.forward_job(x, cache, options)?;
        let mut y = try_zeroed(len)?;
        call.into_work(DataMut::F32(&mut y))?.finish()?;
        Ok(y)
    }

    /// Checks a call for the maps behind [`DiffAttnLayer::forward`] and prepares it: of the plain
    /// attention where the layer has `sequence`.
    ///
    /// # Errors
    /// As [`DiffAttnLayer::forward_job`].
    pub fn maps_job<'a>(
        &'a self,
        x: Tensor<'a>,
        options: &ForwardOptions<'a>,
    ) -> Result<LayerMaps<'a>, Error> {
        let call = Call::new(self, &x, None, options)?;
        let job = LayerMaps { call };
        checked_len("x", &job.map_shape())?;
        Ok(job)
    }

    /// The maps behind [`DiffAttnLayer::forward`] in one call.
    ///
    /// # Errors
    /// As [`DiffAttnLayer::maps_job`], and [`Error::out_of_memory`].
    pub fn maps(&self, x: Tensor<'_>, options: &ForwardOptions<'_>) -> Result<Maps, Error> {
        let job = self.maps_job(x, options)?;
        let mut maps = Maps::zeroed("x", job.map_shape(), job.terms())?;
        job.into_work(maps.as_outputs())?.finish()?;
        Ok(maps)
    }
}

/// The cache must be made for such a layer and batch; its capacity is its own affair, and what it
/// holds numbers as, unless it `keeps_inputs`, which must stay what they are.
fn check_cache(
    given: &KvCacheOptions,
    wanted: &KvCacheOptions,
    keeps_inputs: bool,
) -> Result<(), Error> {
    if keeps_inputs && given.dtype != wanted.dtype {
        return Err(Error::dtype(
            "cache",
            format_args!("{} for a layer with sequence", wanted.dtype.name()),
            given.dtype.name(),
        ));
    }
    let sizes = |options: &KvCacheOptions| {
        let KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = options;
        format!(
            "batch {batch}, groups {groups}, terms {terms}, head_dim {head_dim}, value_dim {value_dim}"
        )
    };
    let (given, wanted) = (sizes(given), sizes(wanted));
    if given == wanted {
        Ok(())
    } else {
        Err(Error::shape("cache", wanted, given))
    }
}
