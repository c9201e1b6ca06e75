//! Tensors of files that come with a request. Checks their bytes against their shape, no more.

use diffattn::Error;
use diffattn_nn::checkpoint::RawTensor;

use super::files;
use super::ready::in_file;
use crate::encoding::{List, Size, Text, Uint8, record};

record! {
    /// A tensor of a file that comes with the request.
    fields "storedTensor" StoredTensorAt {
        name: Text,
        dtype: Text,
        shape: List<Size>,
        data: Uint8,
    }
}

impl StoredTensorAt {
    /// Its name, and itself, with the element type and the bytes checked against each other.
    pub(super) fn tensor<'m>(
        &self,
        operands: &[&'m [u8]],
    ) -> Result<(&'m str, RawTensor<'m>), Error> {
        let name = self.name.text(operands)?;
        let argument = format!("weights.{name}");
        let dtype = files::dtype(&argument, self.dtype.text(operands)?)?;
        let data = self.data.u8(operands)?;
        let tensor = RawTensor::new(&argument, dtype, &self.shape, data).map_err(in_file)?;
        Ok((name, tensor))
    }
}
