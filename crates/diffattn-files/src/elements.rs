//! Bytes as elements and back, little-endian as files are. Knows no tensor.

use diffattn::Error;
use std::borrow::Cow;

/// The bytes as elements, in place where they can be.
pub(crate) fn elements<'a, const N: usize, T: bytemuck::AnyBitPattern>(
    bytes: Cow<'a, [u8]>,
    element: impl Fn([u8; N]) -> T,
) -> Result<Cow<'a, [T]>, Error> {
    if let Cow::Borrowed(bytes) = bytes
        && let Some(elements) = in_place(bytes)
    {
        return Ok(Cow::Borrowed(elements));
    }
    Ok(Cow::Owned(read(&bytes, element)?))
}

/// The bytes as elements, where they are aligned and the machine is little-endian as files are.
fn in_place<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    bytemuck::try_cast_slice(bytes).ok()
}

/// Every N bytes through `element`.
pub(crate) fn read<const N: usize, T>(
    bytes: &[u8],
    element: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Error> {
    let (chunks, _) = bytes.as_chunks();
    let mut values = Vec::new();
    values.try_reserve_exact(chunks.len()).map_err(|_| {
        Error::out_of_memory((chunks.len() as u64).saturating_mul(size_of::<T>() as u64))
    })?;
    values.extend(chunks.iter().map(|&chunk| element(chunk)));
    Ok(values)
}

/// Every element through `bytes`.
pub(crate) fn write<const N: usize, T: Copy>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, Error> {
    let len = values.len().saturating_mul(N);
    let mut all = Vec::new();
    all.try_reserve_exact(len)
        .map_err(|_| Error::out_of_memory(len as u64))?;
    for &value in values {
        all.extend_from_slice(&bytes(value));
    }
    Ok(all)
}
