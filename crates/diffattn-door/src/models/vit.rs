//! Requests of a DIFF vision transformer: images to logits, classes or maps.

use std::sync::Arc;

use diffattn::{DType, DataMut, Error, MapOutputs, Pace, Tensor, Work, checked_len, try_zeroed};
use diffattn_nn::{DiffViT, DiffViTOptions, Image, top_classes};

use super::Operation;
use super::model::Model;
use crate::attention::{Prepared, map_outputs, take_map_outputs};
use crate::job::{Later, OutputSpec};
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

fn prepare<'m>(
    images: Images<'m>,
    wanted: Wanted,
    options: DiffViTOptions,
) -> Result<Prepared<'m>, Error> {
    let model = images.model;
    let batch = images.pixels.shape.first().copied().unwrap_or(0);
    let (specs, units) = match wanted {
        Wanted::Maps { layer } => {
            let job = model.maps_job(pixels(&images), layer, &options)?;
            (map_outputs(job.terms(), &job.map_shape())?, job.units())
        }
        Wanted::Logits => {
            let job = model.forward_job(pixels(&images), &options)?;
            let spec = OutputSpec::new("logits", DType::F32, &job.output_shape())?;
            (vec![spec], job.units())
        }
        Wanted::Classes { top } => {
            model.check_classes()?;
            let units = model.forward_job(pixels(&images), &options)?.units();
            let classes = model.num_classes();
            if top == 0 || top > classes {
                return Err(Error::option("top", format_args!("1 to {classes}"), top));
            }
            let specs = vec![
                OutputSpec::new("classes", Kind::I32, &[batch, top])?,
                OutputSpec::new("probabilities", DType::F32, &[batch, top])?,
            ];
            // (One for what is made of the logits.)
            (specs, if batch > 0 { units + 1 } else { units })
        }
    };
    let total = images.images.len() + units;
    let work = Later::new(move |outputs| {
        let to = match wanted {
            Wanted::Logits => To::Logits(outputs.f32()?),
            Wanted::Maps { .. } => To::Maps(take_map_outputs(2, outputs)?),
            Wanted::Classes { .. } => To::Classes(outputs.i32()?, outputs.f32()?),
        };
        Ok(Work::new(total, |pace| async move {
            infer(images, wanted, options, to, &pace).await
        }))
    });
    Ok((work, specs))
}

/// The pixels, given or made.
fn pixels<'a>(images: &'a Images<'_>) -> Tensor<'a> {
    if images.images.is_empty() && images.made.is_empty() {
        return images.pixels.clone();
    }
    Tensor::f32(&images.made, &images.pixels.shape)
}

/// Makes the pixels of images, and what is wanted of them.
async fn infer(
    mut images: Images<'_>,
    wanted: Wanted,
    options: DiffViTOptions,
    to: To<'_>,
    pace: &Pace,
) -> Result<(), Error> {
    let model = images.model;
    let size = images.made.len() / images.images.len().max(1);
    let made = |image: std::ops::Range<usize>| {
        for index in image {
            let pixels = model.preprocess(&images.images[index])?;
            images.made[index * size..(index + 1) * size].copy_from_slice(&pixels);
        }
        Ok(())
    };
    let count = images.images.len();
    pace.rows(0..count, 1, made).await?;
    let pixels = pixels(&images);
    match (to, wanted) {
        (To::Maps(out), Wanted::Maps { layer }) => {
            let job = model.maps_job(pixels, layer, &options)?;
            let units = job.units();
            pace.within(&mut job.into_work(out)?, units).await
        }
        (To::Logits(out), _) => {
            let job = model.forward_job(pixels, &options)?;
            let units = job.units();
            pace.within(&mut job.into_work(DataMut::F32(out))?, units)
                .await
        }
        (To::Classes(classes, probabilities), Wanted::Classes { top }) => {
            let job = model.forward_job(pixels, &options)?;
            let units = job.units();
            let mut logits = try_zeroed(checked_len("image", &job.output_shape())?)?;
            let mut work = job.into_work(DataMut::F32(&mut logits))?;
            pace.within(&mut work, units).await?;
            drop(work);
            let classify =
                |_| classify(&logits, (model.num_classes(), top), classes, probabilities);
            pace.rows(0..1, 1, classify).await
        }
        _ => Err(Error::Internal("outputs that are not those wanted".into())),
    }
}

/// Classes and probabilities of logits.
fn classify(
    logits: &[f32],
    (classes, top): (usize, usize),
    ids: &mut [i32],
    probabilities: &mut [f32],
) -> Result<(), Error> {
    let rows = ids
        .chunks_exact_mut(top)
        .zip(probabilities.chunks_exact_mut(top));
    for ((ids, probabilities), logits) in rows.zip(logits.chunks_exact(classes)) {
        let scores = top_classes(logits, top)?;
        for ((id, probability), score) in ids.iter_mut().zip(probabilities).zip(&scores) {
            // (There are fewer classes than rows of a weight in memory.)
            (*id, *probability) = (score.id as i32, score.probability as f32);
        }
    }
    Ok(())
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
        let run = self.settings.run().with_deterministic(self.deterministic);
        prepare(images, self.wanted, DiffViTOptions { run })
    }
}
