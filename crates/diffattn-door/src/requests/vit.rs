//! Requests of a DIFF vision transformer: images to logits, classes or maps.

use diffattn::{DType, DataMut, Error, Pace, Run, Tensor, Work, checked_len, try_zeroed};
use diffattn_nn::{DiffViT, DiffViTOptions, Image, top_classes};

use super::maps::{map_outputs, take_map_outputs};
use super::model::Model;
use crate::encoding::{Count, Flag, List, Object, Tensor as TensorOf, Uint8, request, variant};
use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;
use crate::objects::{Slot, Use};
use crate::operation::{Inputs, Operation};

variant! {
    /// What images a request names.
    ImagesAt ("image") "image" {
        "pixels" Pixels("pixels": TensorOf),
        "bytes" Bytes("image": List<Uint8>),
    }
}

impl ImagesAt {
    /// Checks the images. What is to be resized waits until the job is worked off.
    fn with<'m>(&self, model: &Slot<Model>, inputs: Inputs<'_, 'm>) -> Result<Images<'m>, Error> {
        let model = inputs.objects.look(model)?.image()?;
        let model = inputs.objects.keep(model);
        let list = match self {
            Self::Pixels(at) => {
                return Ok(Images {
                    model,
                    pixels: at.tensor(inputs.operands)?,
                    made: Vec::new(),
                    images: Vec::new(),
                });
            }
            Self::Bytes(list) => list,
        };
        model.check_images()?;
        let mut images = Vec::with_capacity(list.len());
        for at in list {
            let data = at.u8(inputs.operands)?;
            let &[height @ 1..=usize::MAX, width @ 1..=usize::MAX, 3 | 4] = at.shape.as_slice()
            else {
                return Err(Error::shape(
                    "image",
                    "[height, width, 3 or 4], of a row and a column or more",
                    diffattn::format_shape(&at.shape),
                ));
            };
            images.push(Image {
                data,
                width,
                height,
            });
        }
        let size = model.img_size();
        let shape = [images.len(), model.in_chans(), size, size];
        Ok(Images {
            model,
            pixels: Tensor::f32(&[], &shape),
            made: try_zeroed(checked_len("image", &shape)?)?,
            images,
        })
    }
}

/// Images on their way to pixels.
struct Images<'m> {
    model: &'m DiffViT,
    /// Those that came as pixels; the shape of those that are made.
    pixels: Tensor<'m>,
    made: Vec<f32>,
    images: Vec<Image<'m>>,
}

impl<'m> Images<'m> {
    /// How many images there are.
    fn batch(&self) -> usize {
        self.pixels.shape.first().copied().unwrap_or(0)
    }

    /// Makes the pixels of one image.
    fn preprocess(&mut self, image: usize) -> Result<(), Error> {
        let size = self.made.len() / self.images.len();
        let pixels = self.model.preprocess(&self.images[image])?;
        self.made[image * size..(image + 1) * size].copy_from_slice(&pixels);
        Ok(())
    }

    /// The pixels, given or made.
    fn pixels(&self) -> Tensor<'_> {
        if self.images.is_empty() && self.made.is_empty() {
            return self.pixels.clone();
        }
        Tensor::f32(&self.made, &self.pixels.shape)
    }
}

impl Images<'_> {
    /// Makes the pixels of every image, a unit of work each.
    async fn make(&mut self, pace: &Pace) -> Result<(), Error> {
        pace.rows(0..self.images.len(), 1, |range| {
            range
                .into_iter()
                .try_for_each(|image| self.preprocess(image))
        })
        .await
    }
}

fn options(run: Run, deterministic: bool) -> DiffViTOptions {
    DiffViTOptions {
        run: run.with_deterministic(deterministic),
    }
}

request! {
    /// Logits of images.
    88 vitForward VitForwardRequest {
        model: Object<Model>,
        image: ImagesAt,
        deterministic: Flag,
    }
}

impl Operation for VitForwardRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let options = options(inputs.run, self.deterministic);
        let mut images = self.image.with(&self.model, inputs)?;
        let (units, shape) = {
            let job = images.model.forward_job(images.pixels(), &options)?;
            (job.units(), job.output_shape())
        };
        let spec = OutputSpec::new("logits", DType::F32, &shape)?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            let logits = DataMut::F32(outputs.f32()?);
            Ok(Work::new(images.images.len() + units, |pace| async move {
                images.make(&pace).await?;
                let job = images.model.forward_job(images.pixels(), &options)?;
                pace.within(&mut job.into_work(logits)?, units).await
            }))
        }))
    }
}

request! {
    /// The attention maps of a layer.
    89 vitMaps VitMapsRequest {
        model: Object<Model>,
        image: ImagesAt,
        layer: Count,
        deterministic: Flag,
    }
}

impl Operation for VitMapsRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let options = options(inputs.run, self.deterministic);
        let layer = self.layer;
        let mut images = self.image.with(&self.model, inputs)?;
        let (units, terms, shape) = {
            let job = images.model.maps_job(images.pixels(), layer, &options)?;
            (job.units(), job.terms(), job.map_shape())
        };
        Ok(Prepared::new(map_outputs(terms, &shape)?, move |outputs| {
            let maps = take_map_outputs(terms, outputs)?;
            Ok(Work::new(images.images.len() + units, |pace| async move {
                images.make(&pace).await?;
                let job = images.model.maps_job(images.pixels(), layer, &options)?;
                pace.within(&mut job.into_work(maps)?, units).await
            }))
        }))
    }
}

request! {
    /// The likeliest classes of images, and how likely they are.
    90 vitClassify VitClassifyRequest {
        model: Object<Model>,
        image: ImagesAt,
        top: Count,
        deterministic: Flag,
    }
}

impl Operation for VitClassifyRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let options = options(inputs.run, self.deterministic);
        let top = self.top;
        let mut images = self.image.with(&self.model, inputs)?;
        images.model.check_classes()?;
        let (batch, classes) = (images.batch(), images.model.num_classes());
        let units = images.model.forward_job(images.pixels(), &options)?.units();
        if top == 0 || top > classes {
            return Err(Error::option("top", format_args!("1 to {classes}"), top));
        }
        let specs = vec![
            OutputSpec::new("classes", Kind::I32, &[batch, top])?,
            OutputSpec::new("probabilities", DType::F32, &[batch, top])?,
        ];
        Ok(Prepared::new(specs, move |outputs| {
            let mut best = Best {
                top,
                classes: outputs.i32()?,
                probabilities: outputs.f32()?,
            };
            let total = images.images.len() + units + usize::from(batch > 0);
            Ok(Work::new(total, |pace| async move {
                images.make(&pace).await?;
                let mut logits = try_zeroed(checked_len("image", &[batch, classes])?)?;
                let job = images.model.forward_job(images.pixels(), &options)?;
                let mut work = job.into_work(DataMut::F32(&mut logits))?;
                pace.within(&mut work, units).await?;
                drop(work);
                best.of(logits.chunks_exact(classes))?;
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

/// Where the likeliest classes of each image go.
struct Best<'m> {
    /// How many of each.
    top: usize,
    classes: &'m mut [i32],
    probabilities: &'m mut [f32],
}

impl Best<'_> {
    fn of<'l>(&mut self, images: impl Iterator<Item = &'l [f32]>) -> Result<(), Error> {
        let rows = self
            .classes
            .chunks_exact_mut(self.top)
            .zip(self.probabilities.chunks_exact_mut(self.top));
        for ((classes, probabilities), logits) in rows.zip(images) {
            let scores = top_classes(logits, self.top)?;
            for ((class, probability), score) in classes.iter_mut().zip(probabilities).zip(&scores)
            {
                // (There are fewer classes than rows of a weight in memory.)
                (*class, *probability) = (score.id as i32, score.probability as f32);
            }
        }
        Ok(())
    }
}
