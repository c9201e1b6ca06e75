//! Requests of generation: a generator with its model and the caches that were lent to it, and its steps.

use std::sync::Arc;

use diffattn::{Error, Pace, Work};
use diffattn_nn::{
    DiffLlama, Finish, Generation, GenerationStep, Generator, GeneratorOptions, ModelCache,
    SamplerOptions,
};
use self_cell::self_cell;

use super::llama::caches;
use super::model::Model;
use super::{Operation, ready};
use crate::attention::Prepared;
use crate::job::{Later, OutputSpec};
use crate::kind::Kind;
use crate::objects::{Door, Lender, Object, Slot, Use};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

/// `None` once it gave up its caches.
type Running<'m> = Option<Generator<'m>>;

self_cell!(
    /// A generator and its model.
    struct Owned {
        owner: Arc<DiffLlama>,
        #[not_covariant]
        dependent: Running,
    }
);

/// A generator as an object.
pub(crate) struct HeldGenerator {
    generator: Owned,
    lent: Lent,
}

impl HeldGenerator {
    /// Does something with the generator.
    fn running<'a, R>(
        &'a mut self,
        body: impl for<'m> FnOnce(&'a mut Generator<'m>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.generator.with_dependent_mut(|_, generator| {
            let generator = generator.as_mut();
            body(
                generator
                    .ok_or_else(|| Error::Internal("a generator without its caches".into()))?,
            )
        })
    }
}

impl std::fmt::Debug for HeldGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldGenerator")
            .field("lent", &self.lent.slots.len())
            .finish_non_exhaustive()
    }
}

impl Drop for HeldGenerator {
    /// The caches that were lent return to their slots, holding the texts.
    fn drop(&mut self) {
        let generator = self
            .generator
            .with_dependent_mut(|_, generator| generator.take().map(Generator::into_caches));
        if let Some(caches) = generator {
            self.lent.caches = caches;
        }
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

/// A text of a request.
#[derive(Debug)]
struct TextAt {
    prompt: TensorAt,
    max_new_tokens: usize,
    stop_ids: Option<Vec<u32>>,
    sampler: SamplerOptions,
}

impl TextAt {
    fn read(r: &mut Reader<'_>, _argument: &'static str) -> Result<Self, Error> {
        let default = SamplerOptions::default();
        Ok(Self {
            prompt: r.tensor("prompt")?,
            max_new_tokens: r.count("max_new_tokens")?,
            stop_ids: r.optional("stop_ids", |r, name| r.list(name, id))?,
            sampler: SamplerOptions {
                temperature: r
                    .optional("temperature", Reader::number)?
                    .unwrap_or(default.temperature),
                top_k: r.optional("top_k", Reader::count)?,
                top_p: r
                    .optional("top_p", Reader::number)?
                    .unwrap_or(default.top_p),
                repetition_penalty: r
                    .optional("repetition_penalty", Reader::number)?
                    .unwrap_or(default.repetition_penalty),
                seed: r.optional("seed", Reader::long)?.unwrap_or(default.seed),
            },
        })
    }

    fn generation(&self, operands: &[&[u8]]) -> Result<Generation, Error> {
        let prompt = self.prompt.i32(operands)?.iter();
        let prompt = prompt
            .map(|&id| u32::try_from(id).map_err(|_| Error::option("prompt", "ids from 0", id)));
        Ok(Generation {
            prompt: prompt.collect::<Result<_, _>>()?,
            max_new_tokens: self.max_new_tokens,
            stop_ids: self.stop_ids.clone(),
            sampler: self.sampler,
        })
    }
}

fn id(r: &mut Reader<'_>, argument: &'static str) -> Result<u32, Error> {
    let id = r.long(argument)?;
    u32::try_from(id).map_err(|_| Error::option(argument, "token ids", id))
}

/// A request of `createGenerator`.
#[derive(Debug)]
pub(super) struct CreateRequest {
    model: Arc<Slot<Model>>,
    texts: Vec<TextAt>,
    options: GeneratorOptions,
    caches: Vec<Arc<Slot<ModelCache>>>,
}

impl CreateRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("model")?;
        let model = door.model("model", id)?;
        let texts = r.list("texts", TextAt::read)?;
        let settings = Settings::now();
        let options = GeneratorOptions {
            window: r.optional("window", Reader::count)?,
            run: settings.run().with_deterministic(r.flag("deterministic")?),
        };
        Ok(Self {
            model,
            texts,
            options,
            caches: caches(door, r)?,
        })
    }

    pub(super) fn create(&self, operands: &[&[u8]]) -> Result<Object, Error> {
        let texts = self.texts.iter();
        let texts = texts.map(|text| text.generation(operands));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let model = self.model.look(|model| model.llama().cloned())??;
        let mut lent = Lent::take(&self.caches)?;
        let caches = &mut lent.caches;
        let generator = Owned::try_new(model, |model| {
            let model: &DiffLlama = model;
            let generator = if self.caches.is_empty() {
                Generator::new(model, texts, &self.options)
            } else {
                Generator::with_caches(model, texts, caches, &self.options)
            };
            generator.map(Some)
        })?;
        let held = HeldGenerator { generator, lent };
        Ok(Object::Generator(Slot::new("generator", held)))
    }
}

/// A request of `generatorStep`.
#[derive(Debug)]
pub(super) struct StepRequest {
    generator: Arc<Slot<HeldGenerator>>,
}

impl StepRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("generator")?;
        Ok(Self {
            generator: door.generator("generator", id)?,
        })
    }
}

impl Operation for StepRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.generator.to_use(true)]
    }

    fn prepare<'m>(
        &'m self,
        _operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let held = lender.take(&self.generator)?;
        let step = held.running(|generator| generator.step_job())?;
        let spec = OutputSpec::new("tokens", Kind::I32, &[step.tokens(), 3])?;
        let work = Later::new(|outputs| {
            let out = outputs.i32()?;
            Ok(Work::new(step.units(), |pace| told(step, out, pace)))
        });
        Ok((work, vec![spec]))
    }
}

/// Works a step off and writes its tokens: which text, which id, and whether it ends the text.
async fn told(step: GenerationStep<'_>, out: &mut [i32], pace: Arc<Pace>) -> Result<(), Error> {
    let total = step.units();
    let mut tokens = Vec::new();
    let mut work = step.into_work(&mut tokens)?;
    pace.within(&mut work, total).await?;
    drop(work);
    for (row, token) in out.chunks_exact_mut(3).zip(tokens) {
        // (A batch is no longer than its request, and ids are those of a vocabulary in memory.)
        let finish = match token.finish {
            None | Some(Finish::Failed) => 0,
            Some(Finish::Stop) => 1,
            Some(Finish::Length) => 2,
        };
        row.copy_from_slice(&[token.text as i32, token.id as i32, finish]);
    }
    Ok(())
}

/// A request of `endText`.
#[derive(Debug)]
pub(super) struct EndRequest {
    generator: Arc<Slot<HeldGenerator>>,
    text: usize,
    kept: usize,
}

impl EndRequest {
    pub(super) fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("generator")?;
        Ok(Self {
            generator: door.generator("generator", id)?,
            text: r.size("text")?,
            kept: r.size("kept")?,
        })
    }
}

impl Operation for EndRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.generator.to_use(true)]
    }

    fn prepare<'m>(
        &'m self,
        _operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let held = lender.take(&self.generator)?;
        held.running(|generator| generator.end(self.text, self.kept))?;
        ready(Vec::new())
    }
}
