//! Tensors of files that come with a request. Checks their bytes against their shape, no more.

use diffattn::Error;
use diffattn_nn::checkpoint::{Dtype, RawTensor};

use super::ready::in_file;
use crate::encoding::{Count, List, Size, Text, Uint8, record};

record! {
    /// A tensor of a file that comes with the request.
    fields "storedTensor" StoredTensorAt {
        name: Text,
        dtype: Text,
        shape: List<Size>,
        data: Uint8,
        turned_heads: Option<Count>,
    }
}

impl StoredTensorAt {
    /// Its name, and itself, with the element type and the bytes checked against each other, rows
    /// where Hugging Face has them.
    pub(super) fn tensor<'m>(
        &self,
        operands: &[&'m [u8]],
    ) -> Result<(&'m str, RawTensor<'m>), Error> {
        let name = self.name.text(operands)?;
        let argument = format!("weights.{name}");
        let dtype = dtype(&argument, self.dtype.text(operands)?)?;
        let data = self.data.u8(operands)?;
        let mut tensor = RawTensor::new(&argument, dtype, &self.shape, data).map_err(in_file)?;
        if let Some(heads) = self.turned_heads {
            tensor = tensor.half_split(&argument, heads).map_err(in_file)?;
        }
        Ok((name, tensor))
    }
}

/// An element type by its name in files of any format.
fn dtype(argument: &str, name: &str) -> Result<Dtype, Error> {
    serde_json::from_value(name.into()).map_err(|_| {
        Error::file(
            argument,
            "an element type of safetensors or GGUF files",
            format_args!("{name:?}"),
        )
    })
}
