//! Memory that crosses the door: buffers of ours that JavaScript has, views of JavaScript's that
//! calls use.

use std::sync::Arc;

use diffattn_door::{Block, Error};
use napi::bindgen_prelude::{ArrayBuffer, JsValue, Object};
use napi::{Env, sys};

use super::Environment;
use crate::answer::{Thrown, bug, thrown};
use crate::js::{View, array_buffer, detach_buffer, new_buffer};
use crate::runner::Memory;

impl Environment {
    /// A new ArrayBuffer.
    pub(super) fn new_buffer(&self, env: &Env, bytes: usize) -> Result<View, Thrown> {
        let constructor = self.buffer_constructor.borrow();
        constructor
            .as_ref()
            .and_then(|constructor| new_buffer(env, constructor, bytes))
            .ok_or_else(|| thrown(Error::out_of_memory(bytes as u64)))
    }

    /// The memory of `createBuffer` that `view` lies in.
    pub(super) fn held(&self, view: &View) -> Option<Memory> {
        let start = view.start as usize;
        let buffers = self.buffers.borrow();
        let (&first, block) = buffers.range(..=start).next_back()?;
        let owner = block.upgrade()?;
        if view.len == 0 || start - first + view.len > owner.len() {
            return None;
        }
        Some(Memory::Held {
            _owner: owner,
            start: view.start,
            len: view.len,
        })
    }

    /// Zeroed memory that calls use in place.
    pub(crate) fn create_buffer<'env>(
        &self,
        env: &'env Env,
        bytes: usize,
    ) -> Result<ArrayBuffer<'env>, Thrown> {
        if bytes == 0 {
            return array_buffer(env, self.new_buffer(env, 0)?.buffer).map_err(bug);
        }
        let mut block = Block::zeroed(bytes).map_err(thrown)?;
        let start = block.as_mut_ptr();
        let owner = Arc::new(block);
        let mut buffers = self.buffers.borrow_mut();
        buffers.retain(|_, block| block.strong_count() > 0);
        buffers.insert(start as usize, Arc::downgrade(&owner));
        // SAFETY: the bytes live as long as `owner`, which the finalizer drops.
        unsafe { ArrayBuffer::from_external(env, start, bytes, owner, |_, owner| drop(owner)) }
            .map_err(bug)
    }

    /// Detaches a buffer.
    pub(crate) fn release_buffer(env: &Env, buffer: &ArrayBuffer<'_>) -> Result<(), Thrown> {
        detach_buffer(env, buffer.raw()).map_err(bug)
    }
}

/// Whether two values are one.
pub(super) fn same(env: &Env, a: sys::napi_value, b: sys::napi_value) -> bool {
    let mut same = false;
    // SAFETY: both handles are live in this call, and the out pointer is to a local.
    unsafe { sys::napi_strict_equals(env.raw(), a, b, &mut same) };
    same
}

/// The views of operands.
pub(super) fn views(env: &Env, arrays: &[Object<'_>]) -> Result<Vec<View>, Thrown> {
    arrays
        .iter()
        .map(|array| View::of(env, array).map_err(bug))
        .collect()
}

/// The views that the caller gave for the outputs, `None` where there is none.
pub(super) fn given_outputs(
    env: &Env,
    outs: &[Option<Object<'_>>],
    count: usize,
) -> Result<Vec<Option<View>>, Thrown> {
    (0..count)
        .map(|index| match outs.get(index) {
            Some(Some(array)) => View::of(env, array).map(Some).map_err(bug),
            _ => Ok(None),
        })
        .collect()
}

/// Checks that nothing that is written overlaps an operand or another result.
pub(super) fn check_overlaps<'v>(
    operands: impl Iterator<Item = &'v View>,
    mut outs: impl Iterator<Item = &'v View>,
) -> Result<(), Thrown> {
    let Some(first) = outs.next() else {
        return Ok(());
    };
    let mut others: Vec<View> = operands.copied().collect();
    for out in std::iter::once(first).chain(outs) {
        if others.iter().any(|other| other.overlaps(out)) {
            return Err(thrown(Error::option(
                "out",
                "memory that does not overlap an input",
                "an overlap",
            )));
        }
        others.push(*out);
    }
    Ok(())
}
