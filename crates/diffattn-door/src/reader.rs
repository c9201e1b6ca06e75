//! Reads the atoms of a request (`PROTOCOL.md`), each with a check. Knows no operator.

use std::fmt;

use diffattn::{DType, Data, Error, ErrorKind, Tensor, check_len};

use crate::kind::Kind;

/// The largest whole number that a float64 holds without a gap: 2⁵³.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A tensor that a request names: its elements come with the operands.
#[derive(Debug, Clone)]
pub(crate) struct TensorAt {
    pub(crate) argument: &'static str,
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
    operand: usize,
}

impl TensorAt {
    fn bytes<'m>(&self, operands: &[&'m [u8]]) -> Result<&'m [u8], Error> {
        let operand = operands.get(self.operand).ok_or_else(|| {
            Error::internal(format!(
                "{} operands, but {} is number {}",
                operands.len(),
                self.argument,
                self.operand
            ))
        })?;
        let width = self.kind.bytes();
        if operand.len() % width != 0 {
            return Err(Error::shape(
                self.argument,
                format_args!("whole elements of {width} bytes"),
                format_args!("{} bytes", operand.len()),
            ));
        }
        check_len(self.argument, &self.shape, operand.len() / width)?;
        Ok(operand)
    }

    fn cast<'m, T: bytemuck::Pod>(&self, operands: &[&'m [u8]]) -> Result<&'m [T], Error> {
        let bytes = self.bytes(operands)?;
        if bytes.is_empty() {
            return Ok(&[]); // its address means nothing
        }
        bytemuck::try_cast_slice(bytes).map_err(|_| unaligned(self.argument, self.kind))
    }

    fn expect(&self, kind: &'static str) -> Error {
        Error::dtype(self.argument, kind, self.kind.name())
    }

    /// The elements, of any floating-point type.
    pub(crate) fn tensor<'m>(&self, operands: &[&'m [u8]]) -> Result<Tensor<'m>, Error> {
        let data = match self.kind {
            Kind::Float(DType::F32) => Data::F32(self.cast(operands)?),
            Kind::Float(DType::F16) => Data::F16(self.cast(operands)?),
            Kind::Float(DType::Bf16) => Data::Bf16(self.cast(operands)?),
            Kind::U8 | Kind::I32 => return Err(self.expect("float32, float16 or bfloat16")),
        };
        Ok(Tensor {
            data,
            shape: self.shape.clone(),
        })
    }

    /// The elements, which must be float32.
    pub(crate) fn f32<'m>(&self, operands: &[&'m [u8]]) -> Result<&'m [f32], Error> {
        match self.kind {
            Kind::Float(DType::F32) => self.cast(operands),
            _ => Err(self.expect("float32")),
        }
    }

    /// The elements of a vector, which must be float32.
    pub(crate) fn f32_vector<'m>(&self, operands: &[&'m [u8]]) -> Result<&'m [f32], Error> {
        if self.shape.len() != 1 {
            return Err(Error::shape(
                self.argument,
                "one axis",
                diffattn::format_shape(&self.shape),
            ));
        }
        self.f32(operands)
    }

    /// The elements, which must be uint8.
    pub(crate) fn u8<'m>(&self, operands: &[&'m [u8]]) -> Result<&'m [u8], Error> {
        match self.kind {
            Kind::U8 => self.cast(operands),
            _ => Err(self.expect("uint8")),
        }
    }
}

/// The elements of a vector of float32 that may be absent.
pub(crate) fn vector_or_none<'m>(
    at: &Option<TensorAt>,
    operands: &[&'m [u8]],
) -> Result<Option<&'m [f32]>, Error> {
    at.as_ref().map(|at| at.f32_vector(operands)).transpose()
}

#[cfg(feature = "models")]
impl TensorAt {
    /// The elements, which must be int32.
    pub(crate) fn i32<'m>(&self, operands: &[&'m [u8]]) -> Result<&'m [i32], Error> {
        match self.kind {
            Kind::I32 => self.cast(operands),
            _ => Err(self.expect("int32")),
        }
    }

    /// The text.
    pub(crate) fn text<'m>(&self, operands: &[&'m [u8]]) -> Result<&'m str, Error> {
        std::str::from_utf8(self.u8(operands)?)
            .map_err(|why| Error::file(self.argument, "text in UTF-8", why))
    }
}

/// Memory of an element type that does not begin where such elements may: no typed array of a
/// buffer of JavaScript's own does, but a buffer that other native code made can, and what says
/// that it is another type than it is.
pub(crate) fn unaligned(argument: &str, kind: Kind) -> Error {
    let (name, bytes) = (kind.name(), kind.bytes());
    Error::dtype(
        argument,
        format_args!("{name} elements at an address that is a multiple of {bytes}"),
        "bytes at another",
    )
}

/// A number as JavaScript prints it, near enough.
pub(crate) fn format_number(x: f64) -> String {
    if x.is_infinite() {
        return if x > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        };
    }
    x.to_string()
}

/// Goes through `params` from the front to the end. The first thing that is wrong is kept for
/// [`Reader::finish`], and nothing is left to read then: all that follows is zeros and absent.
#[derive(Debug)]
pub(crate) struct Reader<'p> {
    params: &'p [f64],
    named: Named,
    refused: Option<Error>,
}

/// What a request names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Named {
    /// How many operands.
    pub(crate) operands: usize,
    /// Whether any object. (What an operation `uses` leaves out those that need no turn: layers.)
    pub(crate) objects: bool,
}

impl<'p> Reader<'p> {
    pub(crate) fn new(params: &'p [f64]) -> Self {
        Self {
            params,
            named: Named::default(),
            refused: None,
        }
    }

    /// What the request named, once it is read to its end.
    pub(crate) fn finish(self) -> Result<Named, Error> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        if self.params.is_empty() {
            Ok(self.named)
        } else {
            Err(Error::internal(format!(
                "{} numbers are left over at the end of a request",
                self.params.len()
            )))
        }
    }

    /// Ends the request with this error, unless one came before.
    #[cold]
    pub(crate) fn refuse(&mut self, error: Error) {
        self.params = &[];
        self.refused.get_or_insert(error);
    }

    #[cold]
    fn refuse_argument(
        &mut self,
        kind: ErrorKind,
        argument: &'static str,
        expected: &'static str,
        got: String,
    ) {
        self.refuse(Error::argument(kind, argument, expected, got));
    }

    /// A bug of ours.
    #[cold]
    fn refuse_request(&mut self, argument: &'static str, what: fmt::Arguments<'_>) {
        self.refuse(Error::internal(format!("{argument}: {what}")));
    }

    /// What was found, or what stands in for it.
    pub(crate) fn found<T>(&mut self, found: Result<T, Error>, or: impl FnOnce() -> T) -> T {
        found.unwrap_or_else(|error| {
            self.refuse(error);
            or()
        })
    }

    /// Any float64.
    pub(crate) fn number(&mut self, argument: &'static str) -> f64 {
        let Some((&first, rest)) = self.params.split_first() else {
            self.refuse(Error::internal(format!(
                "the request ends before {argument}"
            )));
            return 0.0;
        };
        self.params = rest;
        first
    }

    /// Narrowed to what kernels compute in.
    pub(crate) fn f32(&mut self, argument: &'static str) -> f32 {
        self.number(argument) as f32
    }

    /// `kind` is what a number that is not whole, or is negative, is wrong as: by what it means to
    /// the user.
    fn whole(&mut self, argument: &'static str, kind: ErrorKind) -> i64 {
        let x = self.number(argument);
        if x.fract() == 0.0 && x.abs() <= MAX_WHOLE {
            return x as i64;
        }
        self.refuse_argument(kind, argument, "a whole number", format_number(x));
        0
    }

    fn whole_from_zero(&mut self, argument: &'static str, kind: ErrorKind) -> usize {
        let x = self.whole(argument, kind);
        usize::try_from(x).unwrap_or_else(|_| {
            let expected = if x < 0 {
                "a whole number from 0"
            } else {
                "a number that fits this machine"
            };
            self.refuse_argument(kind, argument, expected, x.to_string());
            0
        })
    }

    /// A whole number of either sign.
    pub(crate) fn integer(&mut self, argument: &'static str) -> i64 {
        self.whole(argument, ErrorKind::Shape)
    }

    /// A whole number of either sign that kernels keep in 32 bits.
    pub(crate) fn int32(&mut self, argument: &'static str) -> i32 {
        let x = self.integer(argument);
        i32::try_from(x).unwrap_or_else(|_| {
            let expected = "numbers that fit int32";
            self.refuse_argument(ErrorKind::Shape, argument, expected, x.to_string());
            0
        })
    }

    /// A whole number from 0 that is a length, a head count or a size: SHAPE when it is not.
    pub(crate) fn size(&mut self, argument: &'static str) -> usize {
        self.whole_from_zero(argument, ErrorKind::Shape)
    }

    /// A whole number from 0 that is a choice: OPTION when it is not.
    pub(crate) fn count(&mut self, argument: &'static str) -> usize {
        self.whole_from_zero(argument, ErrorKind::Option)
    }

    /// A whole number from 0 of which a machine's own sizes may be too short: a file's bytes, a
    /// seed.
    #[cfg(feature = "models")]
    pub(crate) fn long(&mut self, argument: &'static str) -> u64 {
        let x = self.number(argument);
        if x.fract() == 0.0 && (0.0..=MAX_WHOLE).contains(&x) {
            return x as u64;
        }
        let expected = "a whole number from 0 to 2⁵³";
        self.refuse_argument(ErrorKind::Option, argument, expected, format_number(x));
        0
    }

    /// Which of `count` an enum index means.
    pub(crate) fn index(&mut self, argument: &'static str, count: usize) -> usize {
        let x = self.number(argument);
        let index = x as usize;
        if index < count && index as f64 == x {
            return index;
        }
        self.refuse_request(argument, format_args!("no choice has the number {x}"));
        0
    }

    /// Which of `values` an enum index means.
    pub(crate) fn choice<T: Copy>(&mut self, argument: &'static str, values: &[T]) -> T {
        values[self.index(argument, values.len())]
    }

    pub(crate) fn flag(&mut self, argument: &'static str) -> bool {
        self.index(argument, 2) == 1
    }

    pub(crate) fn object(&mut self, argument: &'static str) -> u32 {
        self.named.objects = true;
        let x = self.number(argument);
        if x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&x) {
            return x as u32;
        }
        self.refuse_request(argument, format_args!("no object has the id {x}"));
        0
    }

    fn len(&mut self, argument: &'static str) -> usize {
        let count = self.number(argument);
        // Each item takes a slot at least, so a wrong count cannot ask for more memory than the
        // request has.
        if count.fract() == 0.0 && (0.0..=self.params.len() as f64).contains(&count) {
            return count as usize;
        }
        self.refuse_request(
            argument,
            format_args!("the request holds no list of {count}"),
        );
        0
    }

    pub(crate) fn list<T>(
        &mut self,
        argument: &'static str,
        mut read: impl FnMut(&mut Self, &'static str) -> T,
    ) -> Vec<T> {
        let len = self.len(argument);
        (0..len).map(|_| read(self, argument)).collect()
    }

    /// A tensor, or `None` where the stream says that it is absent.
    pub(crate) fn tensor_or_none(&mut self, argument: &'static str) -> Option<TensorAt> {
        const KINDS: [Option<Kind>; 6] = [
            None,
            Some(Kind::Float(DType::F32)),
            Some(Kind::Float(DType::F16)),
            Some(Kind::Float(DType::Bf16)),
            Some(Kind::U8),
            Some(Kind::I32),
        ];
        let kind = self.choice(argument, &KINDS)?;
        let shape = self.list(argument, Self::size);
        let operand = self.named.operands;
        self.named.operands += 1;
        Some(TensorAt {
            argument,
            kind,
            shape,
            operand,
        })
    }

    /// A tensor that must be there.
    pub(crate) fn tensor(&mut self, argument: &'static str) -> TensorAt {
        self.tensor_or_none(argument).unwrap_or_else(|| {
            self.refuse(Error::internal(format!(
                "{argument} is absent from the request"
            )));
            TensorAt {
                argument,
                kind: Kind::U8,
                shape: Vec::new(),
                operand: 0,
            }
        })
    }
}

#[cfg(test)]
mod tests;
