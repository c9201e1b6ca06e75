//! Requests of a DIFF vision transformer: images to logits, classes or maps.

use std::sync::Arc;

use diffattn::{DType, DataMut, Error, MapOutputs, Slices, Tensor, checked_len, try_zeroed};
use diffattn_nn::{DiffViT, DiffViTForward, DiffViTMaps, DiffViTOptions, Image, top_classes};
use self_cell::{MutBorrow, self_cell};

use super::Operation;
use super::model::Model;
use crate::attention::{Prepared, map_outputs, take_map_outputs};
use crate::job::{OutputSpec, Outputs, Work};
use crate::kind::Kind;
use crate::objects::{Door, Lender, Slot, Use};
use crate::reader::{Reader, TensorAt};
use crate::settings::Settings;

/// What images a request names, and of which model.
#[derive(Debug)]
struct ImagesAt {
    model: Arc<Slot<Model>>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Pixels(TensorAt),
    Bytes(Vec<TensorAt>),
}

impl ImagesAt {
    fn read(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        let id = r.object("model")?;
        let model = door.model("model", id)?;
        let source = if r.flag("image")? {
            Source::Bytes(r.list("image", Reader::tensor)?)
        } else {
            Source::Pixels(r.tensor("pixels")?)
        };
        Ok(Self { model, source })
    }

    /// Checks the images. What is to be resized waits until the job is worked off.
    fn prepare<'m>(
        &self,
        operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Images<'m>, Error> {
        let model = lender.look(&self.model)?.vit()?;
        let size = model.img_size();
        Ok(match &self.source {
            Source::Pixels(at) => Images {
                model,
                pixels: at.tensor(operands)?,
                made: Vec::new(),
                images: Vec::new(),
            },
            Source::Bytes(list) => {
                model.check_images()?;
                let mut images = Vec::with_capacity(list.len());
                for at in list {
                    let data = at.u8(operands)?;
                    let &[height, width, 3 | 4] = at.shape.as_slice() else {
                        return Err(wrong_image(&at.shape));
                    };
                    if height == 0 || width == 0 {
                        return Err(wrong_image(&at.shape));
                    }
                    images.push(Image {
                        data,
                        width,
                        height,
                    });
                }
                let shape = [images.len(), model.in_chans(), size, size];
                Images {
                    model,
                    pixels: Tensor::f32(&[], &shape),
                    made: try_zeroed(checked_len("image", &shape)?)?,
                    images,
                }
            }
        })
    }
}

fn wrong_image(shape: &[usize]) -> Error {
    Error::shape(
        "image",
        "[height, width, 3 or 4], of a row and a column or more",
        diffattn::format_shape(shape),
    )
}

/// Images on their way to pixels.
struct Images<'m> {
    model: &'m DiffViT,
    /// Those that came as pixels; the shape of those that are made.
    pixels: Tensor<'m>,
    made: Vec<f32>,
    images: Vec<Image<'m>>,
}

/// What is wanted of the pixels.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Logits,
    Maps { layer: usize },
    Classes { top: usize },
}

/// Where it goes.
enum To<'m> {
    Logits(&'m mut [f32]),
    Maps(MapOutputs<'m>),
    Classes(&'m mut [i32], &'m mut [f32]),
}

/// What a model's job borrows.
struct Operands<'m> {
    images: Images<'m>,
    /// Of a classification, whose logits nobody else wants.
    logits: MutBorrow<Vec<f32>>,
}

enum Running<'a> {
    Forward(DiffViTForward<'a>),
    Maps(DiffViTMaps<'a>),
}

impl Running<'_> {
    fn slices(&mut self) -> &mut dyn Slices {
        match self {
            Self::Forward(job) => job,
            Self::Maps(job) => job,
        }
    }

    fn progress(&self) -> (usize, usize) {
        match self {
            Self::Forward(job) => (job.done(), job.total()),
            Self::Maps(job) => (job.done(), job.total()),
        }
    }
}

self_cell!(
    /// A model's job and what it borrows.
    struct Inference<'m> {
        owner: Operands<'m>,
        #[not_covariant]
        dependent: Running,
    }
);

/// A job of the model over these pixels, its output not yet bound.
fn job<'a>(
    model: &'a DiffViT,
    pixels: Tensor<'a>,
    wanted: Wanted,
    options: &DiffViTOptions,
) -> Result<Running<'a>, Error> {
    Ok(match wanted {
        Wanted::Logits | Wanted::Classes { .. } => {
            Running::Forward(model.forward_job(pixels, options)?)
        }
        Wanted::Maps { layer } => Running::Maps(model.maps_job(pixels, layer, options)?),
    })
}

enum Stage<'m> {
    /// The pixels of the images before `next` are there.
    Images {
        images: Images<'m>,
        next: usize,
    },
    Inference(Inference<'m>),
    Done,
    /// A step failed.
    Failed,
}

struct VitWork<'m> {
    stage: Stage<'m>,
    wanted: Wanted,
    options: DiffViTOptions,
    to: Option<To<'m>>,
    /// Units of the images, of the model, and of what is made of its logits.
    units: [usize; 3],
    classes: usize,
}

fn prepare<'m>(
    images: Images<'m>,
    wanted: Wanted,
    deterministic: bool,
    settings: Settings,
) -> Result<Prepared<'m>, Error> {
    let options = DiffViTOptions {
        run: settings.run().with_deterministic(deterministic),
    };
    if matches!(wanted, Wanted::Classes { .. }) {
        images.model.check_classes()?;
    }
    let classes = images.model.num_classes();
    let batch = images.pixels.shape.first().copied().unwrap_or(0);
    let (specs, units) = {
        let running = job(images.model, pixels(&images), wanted, &options)?;
        let specs = match (&running, wanted) {
            (_, Wanted::Classes { top }) => {
                if top == 0 || top > classes {
                    return Err(Error::option("top", format_args!("1 to {classes}"), top));
                }
                vec![
                    OutputSpec::new("classes", Kind::I32, &[batch, top])?,
                    OutputSpec::new("probabilities", DType::F32, &[batch, top])?,
                ]
            }
            (Running::Forward(job), _) => {
                vec![OutputSpec::new("logits", DType::F32, &job.output_shape())?]
            }
            (Running::Maps(job), _) => map_outputs(job.terms(), &job.map_shape())?,
        };
        (specs, running.progress().1)
    };
    let last = usize::from(matches!(wanted, Wanted::Classes { .. }) && batch > 0);
    let work = VitWork {
        units: [images.images.len(), units, last],
        stage: Stage::Images { images, next: 0 },
        wanted,
        options,
        to: None,
        classes,
    };
    Ok((Box::new(work), specs))
}

/// The pixels, given or made.
fn pixels<'a>(images: &'a Images<'_>) -> Tensor<'a> {
    if images.images.is_empty() && images.made.is_empty() {
        return images.pixels.clone();
    }
    Tensor::f32(&images.made, &images.pixels.shape)
}

impl<'m> VitWork<'m> {
    /// The model's job, with somewhere to write.
    fn infer(&mut self, images: Images<'m>) -> Result<Inference<'m>, Error> {
        let is_classification = matches!(self.wanted, Wanted::Classes { .. });
        let batch = images.pixels.shape.first().copied().unwrap_or(0);
        let logits = if is_classification {
            try_zeroed(checked_len("image", &[batch, self.classes])?)?
        } else {
            Vec::new()
        };
        let to = if is_classification {
            None
        } else {
            self.to.take()
        };
        let operands = Operands {
            images,
            logits: MutBorrow::new(logits),
        };
        let (wanted, options) = (self.wanted, self.options);
        Inference::try_new(operands, |operands| {
            let images = &operands.images;
            let mut running = job(images.model, pixels(images), wanted, &options)?;
            match (&mut running, to) {
                (Running::Forward(job), None) => {
                    job.bind(DataMut::F32(operands.logits.borrow_mut()))?;
                }
                (Running::Forward(job), Some(To::Logits(out))) => job.bind(DataMut::F32(out))?,
                (Running::Maps(job), Some(To::Maps(out))) => job.bind(out)?,
                _ => return Err(Error::Internal("outputs that are not bound".into())),
            }
            Ok(running)
        })
    }

    /// Classes and probabilities of the logits.
    fn classify(&mut self, logits: &[f32], top: usize) -> Result<(), Error> {
        let Some(To::Classes(classes, probabilities)) = &mut self.to else {
            return Err(Error::Internal("outputs that are not bound".into()));
        };
        let rows = classes
            .chunks_exact_mut(top)
            .zip(probabilities.chunks_exact_mut(top));
        for ((classes, probabilities), logits) in rows.zip(logits.chunks_exact(self.classes)) {
            let scores = top_classes(logits, top)?;
            for ((class, probability), score) in classes.iter_mut().zip(probabilities).zip(&scores)
            {
                // (There are fewer classes than rows of a weight in memory.)
                (*class, *probability) = (score.id as i32, score.probability as f32);
            }
        }
        Ok(())
    }

    /// Works on `count` units of the stage at most; returns how many.
    fn advance(&mut self, count: usize) -> Result<usize, Error> {
        let (stage, worked) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Images { mut images, next } if next < images.images.len() => {
                let size = images.made.len() / images.images.len();
                let pixels = images.model.preprocess(&images.images[next])?;
                images.made[next * size..(next + 1) * size].copy_from_slice(&pixels);
                (
                    Stage::Images {
                        images,
                        next: next + 1,
                    },
                    1,
                )
            }
            Stage::Images { images, .. } => (Stage::Inference(self.infer(images)?), 0),
            Stage::Inference(mut inference) => {
                let (worked, is_done) = inference.with_dependent_mut(|_, running| {
                    let (before, total) = running.progress();
                    if before < total {
                        running.slices().step(count)?;
                    }
                    let (after, _) = running.progress();
                    Ok::<_, Error>((after - before, after == total))
                })?;
                match self.wanted {
                    _ if !is_done => (Stage::Inference(inference), worked),
                    Wanted::Classes { top } => {
                        let logits = inference.into_owner().logits.into_inner();
                        self.classify(&logits, top)?;
                        (Stage::Done, worked + self.units[2])
                    }
                    _ => (Stage::Done, worked),
                }
            }
            Stage::Done => (Stage::Done, 0),
            Stage::Failed => {
                return Err(Error::Internal(
                    "a model was stepped after a step that failed".into(),
                ));
            }
        };
        self.stage = stage;
        Ok(worked)
    }
}

impl<'m> Work<'m> for VitWork<'m> {
    fn bind(&mut self, outputs: &mut Outputs<'m>) -> Result<(), Error> {
        self.to = Some(match self.wanted {
            Wanted::Logits => To::Logits(outputs.f32()?),
            Wanted::Maps { .. } => To::Maps(take_map_outputs(2, outputs)?),
            Wanted::Classes { .. } => To::Classes(outputs.i32()?, outputs.f32()?),
        });
        Ok(())
    }
}

impl Slices for VitWork<'_> {
    fn total(&self) -> usize {
        self.units.iter().sum()
    }

    fn done(&self) -> usize {
        match &self.stage {
            Stage::Images { next, .. } => *next,
            Stage::Inference(inference) => {
                let done = inference.with_dependent(|_, running| running.progress().0);
                self.units[0] + done
            }
            Stage::Done => self.total(),
            Stage::Failed => 0,
        }
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let mut left = count.max(1);
        while left > 0 && !matches!(self.stage, Stage::Done) {
            left -= self.advance(left)?.min(left);
        }
        Ok(())
    }
}

/// A request of `vitForward`, `vitMaps` or `vitClassify`.
#[derive(Debug)]
pub(super) struct VitRequest {
    images: ImagesAt,
    wanted: Wanted,
    deterministic: bool,
    settings: Settings,
}

impl VitRequest {
    fn read(
        door: &Door,
        r: &mut Reader<'_>,
        wanted: impl FnOnce(&mut Reader<'_>) -> Result<Wanted, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            images: ImagesAt::read(door, r)?,
            wanted: wanted(r)?,
            deterministic: r.flag("deterministic")?,
            settings: Settings::now(),
        })
    }

    pub(super) fn forward(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        Self::read(door, r, |_| Ok(Wanted::Logits))
    }

    pub(super) fn maps(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        Self::read(door, r, |r| {
            let layer = r.count("layer")?;
            Ok(Wanted::Maps { layer })
        })
    }

    pub(super) fn classify(door: &Door, r: &mut Reader<'_>) -> Result<Self, Error> {
        Self::read(door, r, |r| {
            let top = r.count("top")?;
            Ok(Wanted::Classes { top })
        })
    }
}

impl Operation for VitRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.images.model.to_use(false)]
    }

    fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let images = self.images.prepare(operands, lender)?;
        prepare(images, self.wanted, self.deterministic, self.settings)
    }
}
