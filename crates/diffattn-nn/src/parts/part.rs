//! The weights of a part on their way into layers, by the list that they were checked against: they
//! are known to be there, and of their shapes. Runs nothing.

use super::PartWeights;
use super::source::Weight;
use crate::layers::attention::LambdaWeights;
use diffattn::{Data, Error, Linear, Pace, Tensor};
use diffattn_files::{Declare, Id, LambdaIds, Projections};
use std::collections::BTreeMap;

/// The weights of a part, and those of its maps that are packed already.
pub(crate) struct Part<'w> {
    list: Declare,
    weights: PartWeights<'w>,
    packed: BTreeMap<Id, Linear>,
}

impl<'w> Part<'w> {
    pub(crate) fn new(list: Declare, weights: PartWeights<'w>) -> Self {
        Self {
            list,
            weights,
            packed: BTreeMap::new(),
        }
    }

    /// Packs every linear map, one per unit of work, and lets go of its elements.
    pub(crate) async fn pack(&mut self, pace: &Pace) -> Result<(), Error> {
        let maps: Vec<Id> = self.list.linears().collect();
        for id in maps {
            pace.granted().await;
            let linear = self.linear(id)?;
            self.packed.insert(id, linear);
            pace.worked(1);
        }
        Ok(())
    }

    /// A linear map, and its elements go: packed before, or now.
    pub(crate) fn linear(&mut self, id: Id) -> Result<Linear, Error> {
        if let Some(packed) = self.packed.remove(&id) {
            return Ok(packed);
        }
        let linear = Linear::new(&self.tensor(id)?, self.bias(id).as_ref())?;
        self.let_go(id);
        Ok(linear)
    }

    /// The rows of a linear map as maps of so many rows each, one behind the other, and its
    /// elements go.
    pub(crate) fn split<const N: usize>(
        &mut self,
        id: Id,
        rows: [usize; N],
    ) -> Result<[Linear; N], Error> {
        let whole = self.tensor(id)?;
        let bias = self.bias(id);
        let inputs = whole.shape.last().copied().unwrap_or(0);
        let (mut first, mut made) = (0, Vec::with_capacity(N));
        for rows in rows {
            let range = first..first + rows;
            let weight = Tensor {
                data: elements(&whole.data, range.start * inputs..range.end * inputs),
                shape: vec![rows, inputs],
            };
            let bias = bias.as_ref().map(|bias| Tensor {
                data: elements(&bias.data, range.clone()),
                shape: vec![rows],
            });
            made.push(Linear::new(&weight, bias.as_ref())?);
            first = range.end;
        }
        self.let_go(id);
        let counted = |_| Error::internal("parts of a map were lost");
        <[Linear; N]>::try_from(made).map_err(counted)
    }

    /// The elements of a linear map go.
    fn let_go(&mut self, id: Id) {
        let map = self.list.get(id);
        self.weights.remove(&map.weight());
        self.weights.remove(&map.bias());
    }

    pub(crate) fn projections(
        &mut self,
        ids: Projections<Id>,
    ) -> Result<Projections<Linear>, Error> {
        Ok(Projections {
            q: self.linear(ids.q)?,
            k: self.linear(ids.k)?,
            v: self.linear(ids.v)?,
            out: self.linear(ids.out)?,
        })
    }

    pub(crate) fn lambda(&self, ids: LambdaIds) -> Result<LambdaWeights, Error> {
        Ok(match ids {
            LambdaIds::Vectors(ids) => {
                let [q1, k1, q2, k2] = ids.map(|id| self.vector(id));
                LambdaWeights::Vectors([q1?, k1?, q2?, k2?])
            }
            LambdaIds::Scalars(ids) => {
                let [a, b] = ids.map(|id| self.number(id));
                LambdaWeights::Scalars([a?, b?])
            }
        })
    }

    fn missing(&self, id: Id) -> Error {
        let name = self.list.get(id).weight();
        Error::internal(format!("{name} is not in its part"))
    }

    /// A weight, out of the part: one that was read for this purpose need not be copied.
    pub(crate) fn take(&mut self, id: Id) -> Result<Weight<'w>, Error> {
        let name = self.list.get(id).weight();
        self.weights.remove(&name).ok_or_else(|| self.missing(id))
    }

    /// A weight where it lies.
    pub(crate) fn weight(&self, id: Id) -> Option<&Weight<'w>> {
        self.weights.get(&self.list.get(id).weight())
    }

    pub(crate) fn optional(&self, id: Id) -> Option<Tensor<'_>> {
        self.weight(id).map(Weight::tensor)
    }

    pub(crate) fn tensor(&self, id: Id) -> Result<Tensor<'_>, Error> {
        self.optional(id).ok_or_else(|| self.missing(id))
    }

    /// The bias of a linear map, where it has one.
    pub(crate) fn bias(&self, id: Id) -> Option<Tensor<'_>> {
        let bias = self.weights.get(&self.list.get(id).bias());
        bias.map(Weight::tensor)
    }

    pub(crate) fn vector(&self, id: Id) -> Result<Vec<f32>, Error> {
        self.tensor(id)?.data.to_f32()
    }

    pub(crate) fn optional_vector(&self, id: Id) -> Result<Option<Vec<f32>>, Error> {
        let tensor = self.optional(id);
        tensor.map(|tensor| tensor.data.to_f32()).transpose()
    }

    pub(crate) fn number(&self, id: Id) -> Result<f64, Error> {
        let first = self.vector(id)?.first().copied();
        first.map(f64::from).ok_or_else(|| self.missing(id))
    }
}

/// Elements of a weight, where they lie.
pub(crate) fn elements<'a>(data: &Data<'a>, range: std::ops::Range<usize>) -> Data<'a> {
    match *data {
        Data::F32(x) => Data::F32(&x[range]),
        Data::F16(x) => Data::F16(&x[range]),
        Data::Bf16(x) => Data::Bf16(&x[range]),
    }
}
