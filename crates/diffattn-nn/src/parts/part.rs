//! The weights of a part on their way into layers, by the list that they were checked against: they
//! are known to be there, and of their shapes. Runs nothing.

use super::PartWeights;
use super::matrix::{Matrix, floats};
use super::source::Weight;
use crate::layers::attention::LambdaWeights;
use diffattn::{Data, Error, ErrorKind, Linear, Pace, Tensor};
use diffattn_files::{Declare, Dtype, Id, LambdaIds, MlxQuantization, Projections, low_rank_names};
use std::collections::BTreeMap;

/// The weights of a part, and those of its maps that are packed already.
pub(crate) struct Part<'w> {
    list: Declare,
    weights: PartWeights<'w>,
    packed: BTreeMap<Id, Linear>,
}

/// Rows of a table: floats, or packed as a linear map's are.
pub(crate) enum Table<'w> {
    Floats(Weight<'w>),
    Packed(Linear),
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

    /// A linear map, and its elements go: packed before, or now. A table may be one, too.
    pub(crate) fn linear(&mut self, id: Id) -> Result<Linear, Error> {
        if let Some(packed) = self.packed.remove(&id) {
            return Ok(packed);
        }
        let bias = self.weights.remove(&self.list.get(id).bias());
        let bias = bias.as_ref().and_then(Weight::tensor);
        let matrix = self.matrix(id)?;
        let packed = match &matrix {
            Matrix::Floats(weight) => Linear::new(&floats(weight)?, bias.as_ref()),
            Matrix::Coded(codes) => codes.linear(bias.as_ref()),
            Matrix::Quantised(weight, to) => Linear::quantise(&floats(weight)?, bias.as_ref(), *to),
        };
        let packed = packed.map_err(|error| self.named(id, error))?;
        self.with_low_rank(id, packed)
    }

    /// The rows of a linear map as maps of so many rows each, one behind the other, and its
    /// elements go.
    pub(crate) fn split<const N: usize>(
        &mut self,
        id: Id,
        rows: [usize; N],
    ) -> Result<[Linear; N], Error> {
        let bias = self.weights.remove(&self.list.get(id).bias());
        let bias = bias.as_ref().and_then(Weight::tensor);
        let matrix = self.matrix(id)?;
        let (mut first, mut made) = (0, Vec::with_capacity(N));
        for rows in rows {
            let range = first..first + rows;
            first = range.end;
            let bias = bias.as_ref().map(|bias| Tensor {
                data: elements(&bias.data, range.clone()),
                shape: vec![rows],
            });
            let packed = match &matrix {
                Matrix::Floats(weight) => {
                    Linear::new(&rows_of(&floats(weight)?, range), bias.as_ref())
                }
                Matrix::Coded(codes) => codes.rows(range, bias.as_ref()),
                Matrix::Quantised(weight, to) => {
                    let weight = rows_of(&floats(weight)?, range);
                    Linear::quantise(&weight, bias.as_ref(), *to)
                }
            };
            made.push(packed.map_err(|error| self.named(id, error))?);
        }
        let counted = |_| Error::internal("parts of a map were lost");
        <[Linear; N]>::try_from(made).map_err(counted)
    }

    /// A map with the low-rank difference that is beside its weight, where there is one.
    fn with_low_rank(&mut self, id: Id, map: Linear) -> Result<Linear, Error> {
        let Some(names) = low_rank_names(&self.list.get(id).weight()) else {
            return Ok(map);
        };
        let mut thin = Vec::new();
        for name in names {
            let Some(weight) = self.weights.remove(&name) else {
                return Ok(map);
            };
            thin.push(Linear::new(&floats(&weight.into_floats(&name)?)?, None)?);
        }
        let (Some(b), Some(a)) = (thin.pop(), thin.pop()) else {
            return Ok(map);
        };
        map.with_low_rank(a, b)
    }

    /// The table of embeddings, out of the part: floats that were read for this purpose need not be
    /// copied.
    pub(crate) fn table(&mut self, id: Id) -> Result<Table<'w>, Error> {
        let packed = match self.matrix(id)? {
            Matrix::Floats(weight) => return Ok(Table::Floats(weight)),
            Matrix::Coded(codes) => codes.linear(None),
            Matrix::Quantised(weight, to) => Linear::quantise(&floats(&weight)?, None, to),
        };
        packed
            .map(Table::Packed)
            .map_err(|error| self.named(id, error))
    }

    /// A weight that the core refuses, by its name.
    fn named(&self, id: Id, error: Error) -> Error {
        let name = self.list.get(id).weight();
        match error.kind() {
            Some(kind @ (ErrorKind::Option | ErrorKind::Shape)) => error
                .renamed(kind, |_| format!("weights.{name}"))
                .of(ErrorKind::File),
            _ => error,
        }
    }

    /// The weight of a map or a table, out of the part, as what it is to be held.
    fn matrix(&mut self, id: Id) -> Result<Matrix<'w>, Error> {
        let declared = self.list.get(id);
        let (name, precision) = (declared.weight(), declared.precision);
        let shape = declared.tensors().swap_remove(0).shape;
        let weight = self.weights.remove(&name);
        let weight = weight.ok_or_else(|| self.missing(id))?;
        let beside = match weight.dtype() {
            Dtype::U32 => {
                let beside = MlxQuantization::beside(&name);
                match beside.map(|name| self.weights.remove(&name)) {
                    [Some(scales), Some(biases)] => Some([scales, biases]),
                    _ => return Err(self.missing(id)),
                }
            }
            _ => None,
        };
        let format = self.weights.formats.of(precision);
        Matrix::new(&format!("weights.{name}"), weight, beside, &shape, format)
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

    /// Whether two weights of one shape are the same bits, scales and biases beside codes included.
    pub(crate) fn are_equal(&self, a: Id, b: Id) -> bool {
        let [a, b] = [a, b].map(|id| self.list.get(id).weight());
        let names = |name: &str| {
            let [scales, biases] = MlxQuantization::beside(name);
            [name.to_owned(), scales, biases]
        };
        let mut pairs = names(&a).into_iter().zip(names(&b));
        pairs.all(
            |(a, b)| match (self.weights.get(&a), self.weights.get(&b)) {
                (Some(a), Some(b)) => a.data.has_bits_of(&b.data),
                (None, None) => true,
                _ => false,
            },
        )
    }

    /// A weight where it lies.
    pub(crate) fn weight(&self, id: Id) -> Option<&Weight<'w>> {
        self.weights.get(&self.list.get(id).weight())
    }

    pub(crate) fn optional(&self, id: Id) -> Option<Tensor<'_>> {
        self.weight(id).and_then(Weight::tensor)
    }

    pub(crate) fn tensor(&self, id: Id) -> Result<Tensor<'_>, Error> {
        self.optional(id).ok_or_else(|| self.missing(id))
    }

    /// The bias of a linear map, where it has one.
    pub(crate) fn bias(&self, id: Id) -> Option<Tensor<'_>> {
        let bias = self.weights.get(&self.list.get(id).bias());
        bias.and_then(Weight::tensor)
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

/// Some rows of a matrix, where they lie.
fn rows_of<'a>(matrix: &Tensor<'a>, rows: std::ops::Range<usize>) -> Tensor<'a> {
    let inputs = matrix.shape.last().copied().unwrap_or(0);
    Tensor {
        data: elements(&matrix.data, rows.start * inputs..rows.end * inputs),
        shape: vec![rows.len(), inputs],
    }
}
