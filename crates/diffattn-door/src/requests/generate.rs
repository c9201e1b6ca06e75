//! Requests of generation: a generator with its model and the caches that were lent to it, and its
//! steps.

use std::sync::Arc;

use diffattn::{CacheDType, DType, Error, Work};
use diffattn_nn::{
    Finish, Generation, Generator, GeneratorOptions, ModelCache, SamplerOptions, TextModel, Token,
};

use super::model::Model;
use super::model_cache::Caches;
use super::text::token_ids;
use crate::encoding::{
    Count, Encoded, Flag, Ints, List, Number, Object, Or, Seed, Size, record, request,
};
use crate::job::{OutputSpec, Outputs, Prepared};
use crate::kind::Kind;
use crate::objects::{Door, Held, Slot, Use};
use crate::operation::{Asked, Inputs, Operation, Query};
use crate::reader::Reader;
use crate::schema::Encoding;

/// A generator as an object.
#[derive(Debug)]
pub(crate) struct HeldGenerator {
    generator: Generator<Arc<dyn TextModel>>,
    lent: Lent,
}

impl Held for HeldGenerator {
    const NAME: &'static str = "a generator";
    const ARGUMENT: &'static str = "generator";
}

impl Drop for HeldGenerator {
    /// The caches that were lent return to their slots, holding the texts.
    fn drop(&mut self) {
        let Self { generator, lent } = self;
        let texts = 0..lent.slots.len();
        lent.caches = texts
            .filter_map(|text| generator.take_cache(text))
            .collect();
    }
}

/// Caches on loan. Dropping gives back those that are in the list.
#[derive(Debug)]
struct Lent {
    slots: Vec<Arc<Slot<ModelCache>>>,
    caches: Vec<ModelCache>,
}

impl Lent {
    fn take(slots: &[Arc<Slot<ModelCache>>]) -> Result<Self, Error> {
        let mut lent = Self {
            slots: Vec::new(),
            caches: Vec::new(),
        };
        for slot in slots {
            lent.caches.push(slot.lend()?);
            lent.slots.push(slot.clone());
        }
        Ok(lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        for (slot, cache) in self.slots.iter().zip(self.caches.drain(..)) {
            slot.give_back(cache);
        }
    }
}

record! {
    /// A text to go on with.
    fields TextAt {
        prompt: Ints,
        max_new_tokens: Count,
        stop_ids: Option<List<TokenId>>,
        temperature: Option<Number>,
        top_k: Option<Count>,
        top_p: Option<Number>,
        min_p: Option<Number>,
        repetition_penalty: Option<Number>,
        presence_penalty: Option<Number>,
        frequency_penalty: Option<Number>,
        logit_bias: Option<List<BiasAt>>,
        seed: Option<Seed>,
        logprobs: Option<Count>,
    }
}

record! {
    /// What is added to the logit of an id.
    fields BiasAt {
        id("logit_bias"): TokenId,
        bias("logit_bias"): Number,
    }
}

/// The id of a token.
pub(crate) enum TokenId {}

impl Encoded for TokenId {
    type Value = u32;
    const ENCODING: &'static Encoding = &Encoding::Atom("integer");

    fn read(_door: &Door, r: &mut Reader<'_>, argument: &'static str) -> u32 {
        let id = r.long(argument);
        let id = u32::try_from(id).map_err(|_| Error::option(argument, "token ids", id));
        r.found(id, || 0)
    }
}

impl TextAt {
    fn generation(&self, operands: &[&[u8]]) -> Result<Generation, Error> {
        let default = SamplerOptions::default();
        let biased = self.logit_bias.iter().flatten();
        Ok(Generation {
            prompt: token_ids("prompt", &self.prompt, operands)?,
            max_new_tokens: self.max_new_tokens,
            stop_ids: self.stop_ids.clone(),
            sampler: SamplerOptions {
                temperature: self.temperature.unwrap_or(default.temperature),
                top_k: self.top_k,
                top_p: self.top_p.unwrap_or(default.top_p),
                min_p: self.min_p.unwrap_or(default.min_p),
                repetition_penalty: self
                    .repetition_penalty
                    .unwrap_or(default.repetition_penalty),
                presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
                logit_bias: biased.map(|at| (at.id, at.bias)).collect(),
                seed: self.seed.unwrap_or(default.seed),
            },
            logprobs: self.logprobs,
        })
    }
}

request! {
    /// Makes a generator; its id.
    101 createGenerator CreateGeneratorRequest {
        model: Object<Model>,
        texts: List<TextAt>,
        window: Option<Count>,
        deterministic: Flag,
        caches: Caches,
        cache_dtype: Or<CacheDType>,
        prefix_bytes: Option<Size>,
        step_tokens: Option<Count>,
    }
}

impl Query for CreateGeneratorRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let options = GeneratorOptions {
            window: self.window,
            cache_dtype: self.cache_dtype,
            prefix_bytes: self.prefix_bytes,
            step_tokens: self.step_tokens,
            run: asked.run.with_deterministic(self.deterministic),
        };
        let texts = self.texts.iter();
        let texts = texts.map(|text| text.generation(asked.operands));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let model = self.model.look(|model| model.text())??;
        let mut lent = Lent::take(&self.caches)?;
        let caches = &mut lent.caches;
        let generator = if self.caches.is_empty() {
            Generator::new(model, texts, &options)?
        } else {
            Generator::with_caches(model, texts, caches, &options)?
        };
        let held = HeldGenerator { generator, lent };
        asked.door.insert(held).map(f64::from)
    }
}

request! {
    /// A request of `generatorStep`.
    81 generatorStep StepRequest {
        generator: Object<HeldGenerator>,
    }
}

impl Operation for StepRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.generator.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let held = inputs.objects.take(&self.generator)?;
        let step = held.generator.step_job()?;
        let (total, best) = (step.units(), step.logprobs());
        let width = TOLD + best.unwrap_or(0);
        let mut specs = vec![OutputSpec::new(
            "tokens",
            Kind::I32,
            &[step.tokens(), width],
        )?];
        if let Some(best) = best {
            let shape = [step.tokens(), 1 + best];
            specs.push(OutputSpec::new("logprobs", DType::F32, &shape)?);
        }
        Ok(Prepared::new(specs, move |outputs| {
            let out = outputs.i32()?;
            let probable = match best {
                Some(_) => outputs.f32()?,
                None => &mut [],
            };
            Ok(Work::new(total, |pace| async move {
                let mut tokens = Vec::new();
                let mut work = step.into_work(&mut tokens)?;
                pace.within(&mut work, total).await?;
                drop(work);
                let mut probable = probable.chunks_exact_mut(width + 1 - TOLD);
                for (row, token) in out.chunks_exact_mut(width).zip(tokens) {
                    write_token(row, probable.next().unwrap_or_default(), &token);
                }
                Ok(())
            }))
        }))
    }
}

/// Numbers of a token before the ids of the most probable ones.
const TOLD: usize = 4;

/// A token as numbers: its text, its id, how it ends, how many ids of the prompt were not computed,
/// and the ids of the most probable ones, −1 where its text asks for fewer; their logarithms apart,
/// NaN there, the token's own first.
fn write_token(row: &mut [i32], probable: &mut [f32], token: &Token) {
    // (Numbers of texts are below 2³¹, prompts came as int32, and ids are those of a vocabulary in
    // memory.)
    let finish = match token.finish {
        None => 0,
        Some(Finish::Stop) => 1,
        Some(Finish::Length) => 2,
        Some(Finish::Failed) => 3,
    };
    row.fill(-1);
    row[..TOLD].copy_from_slice(&[
        token.text as i32,
        token.id as i32,
        finish,
        token.reused as i32,
    ]);
    probable.fill(f32::NAN);
    if let (Some(told), Some((chosen, best))) = (&token.logprobs, probable.split_first_mut()) {
        *chosen = told.chosen as f32;
        for ((id, of), &(best_id, best_of)) in row[TOLD..].iter_mut().zip(best).zip(&told.best) {
            *id = best_id as i32;
            *of = best_of as f32;
        }
    }
}

/// A job that changes an object as it starts: its preparation may be repeated.
fn change<'m>(
    specs: Vec<OutputSpec>,
    work: impl FnOnce(&mut Outputs<'m>) -> Result<(), Error> + 'm,
) -> Prepared<'m> {
    Prepared::new(specs, |outputs| {
        work(outputs)?;
        Ok(Work::new(0, |_| async { Ok(()) }))
    })
}

request! {
    /// A request of `endText`.
    83 endText EndRequest {
        generator: Object<HeldGenerator>,
        text: Size,
        kept: Size,
    }
}

impl Operation for EndRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.generator.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let held = inputs.objects.take(&self.generator)?;
        let (text, kept) = (self.text, self.kept);
        Ok(change(Vec::new(), move |_| held.generator.end(text, kept)))
    }
}

request! {
    /// A request of `addText`.
    87 addText AddTextRequest {
        generator: Object<HeldGenerator>,
        text: TextAt,
    }
}

impl Operation for AddTextRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.generator.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let generation = self.text.generation(inputs.operands)?;
        let held = inputs.objects.take(&self.generator)?;
        let specs = vec![OutputSpec::new("text", Kind::I32, &[1])?];
        Ok(change(specs, move |outputs| {
            let out = outputs.i32()?;
            out.fill(held.generator.add(generation, None)? as i32);
            Ok(())
        }))
    }
}

request! {
    /// A request of `removeText`.
    94 removeText RemoveTextRequest {
        generator: Object<HeldGenerator>,
        text: Size,
        kept: Size,
    }
}

impl Operation for RemoveTextRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.generator.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let held = inputs.objects.take(&self.generator)?;
        let (text, kept) = (self.text, self.kept);
        Ok(change(Vec::new(), move |_| {
            held.generator.remove(text, kept)
        }))
    }
}
