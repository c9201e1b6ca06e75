//! JavaScript values that napi's own types do not cover: views with their buffers, buffers that are
//! moved or kept, promises settled later. No diffattn in it.

use std::ffi::c_void;
use std::ptr;

use napi::bindgen_prelude::{
    ArrayBuffer, FnArgs, FromNapiValue, Function, JsObjectValue, JsValue, Object, ToNapiValue,
    TypeName, Unknown, ValidateNapiValue,
};
use napi::{Env, Error, JsError, Result, Status, ValueType, sys};
use smallvec::SmallVec;

/// Bytes of a buffer up to which the engine need not be asked by its constructor, which costs a
/// call into JavaScript (0.4 of the smallest call's 6.4 µs): where it has no memory for so few, it
/// has none to throw with.
const SMALL_BUFFER: usize = 64 << 10;

fn check(status: sys::napi_status, what: &str) -> Result<()> {
    if status == sys::Status::napi_ok {
        Ok(())
    } else {
        Err(Error::new(Status::from(status), what))
    }
}

/// What a typed array holds. (Not its buffer: a small array would have to be given one first.)
struct Elements {
    kind: sys::napi_typedarray_type,
    start: *mut c_void,
    len: usize,
}

impl Elements {
    fn of(env: sys::napi_env, value: sys::napi_value) -> Option<Self> {
        let (mut kind, mut len, mut start) = (0, 0, ptr::null_mut());
        let (no_buffer, no_offset) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is live in this call, and the out pointers are to locals, or null
        // where nothing is asked.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                env, value, &mut kind, &mut len, &mut start, no_buffer, no_offset,
            )
        };
        (status == sys::Status::napi_ok).then_some(Self { kind, start, len })
    }
}

/// The values of a `Float64Array`, until the call that was given it returns.
pub struct Numbers {
    start: *mut f64,
    len: usize,
}

impl Numbers {
    /// The request that they begin with: how many numbers it has, and these.
    pub(crate) fn request(&self) -> Result<&[f64]> {
        let all: &[f64] = if self.len == 0 {
            &[]
        } else {
            // SAFETY: the engine says that `len` values lie there; JavaScript does not run
            // meanwhile.
            unsafe { std::slice::from_raw_parts(self.start, self.len) }
        };
        let [count, rest @ ..] = all else {
            return Err(Error::new(Status::InvalidArg, "a stream is empty"));
        };
        // (Casting saturates, and makes zero of what is no number.)
        rest.get(..*count as usize).ok_or_else(|| {
            let reason = "a stream is shorter than its request";
            Error::new(Status::InvalidArg, reason)
        })
    }

    /// All of them, to write.
    pub(crate) fn values(&mut self) -> &mut [f64] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as above; nothing else has them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl TypeName for Numbers {
    fn type_name() -> &'static str {
        "Float64Array"
    }
    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ValidateNapiValue for Numbers {}

impl FromNapiValue for Numbers {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        let float64 = |array: &Elements| array.kind == sys::TypedarrayType::float64_array;
        let array = Elements::of(env, value).filter(float64).ok_or_else(|| {
            let reason = "a stream is not a Float64Array";
            Error::new(Status::InvalidArg, reason)
        })?;
        Ok(Self {
            start: array.start.cast(),
            len: array.len,
        })
    }
}

/// A list of `Uint8Array`s, or null for one, as what a call reads and writes before it returns:
/// without their buffers.
pub struct Views(pub(crate) SmallVec<[Option<View>; 4]>);

impl TypeName for Views {
    fn type_name() -> &'static str {
        "Array"
    }
    fn value_type() -> ValueType {
        ValueType::Object
    }
}

impl ValidateNapiValue for Views {}

impl FromNapiValue for Views {
    unsafe fn from_napi_value(env: sys::napi_env, list: sys::napi_value) -> Result<Self> {
        let mut count = 0;
        // SAFETY: the handle is live in this call, and the out pointer is to a local.
        let status = unsafe { sys::napi_get_array_length(env, list, &mut count) };
        check(status, "a list was expected")?;
        let mut views = SmallVec::new();
        for index in 0..count {
            let mut value = ptr::null_mut();
            // SAFETY: as above.
            let status = unsafe { sys::napi_get_element(env, list, index, &mut value) };
            check(status, "a list has no such element")?;
            views.push(match Elements::of(env, value) {
                Some(array) if array.kind == sys::TypedarrayType::uint8_array => Some(View {
                    start: array.start.cast(),
                    len: array.len,
                    buffer: ptr::null_mut(),
                    offset: 0,
                }),
                _ => is_null(env, value)?,
            });
        }
        Ok(Self(views))
    }
}

/// None for null or undefined; an error for anything else.
fn is_null(env: sys::napi_env, value: sys::napi_value) -> Result<Option<View>> {
    let mut kind = 0;
    // SAFETY: the handle is live in this call, and the out pointer is to a local.
    let status = unsafe { sys::napi_typeof(env, value, &mut kind) };
    check(status, "an operand has no type")?;
    match kind {
        sys::ValueType::napi_null | sys::ValueType::napi_undefined => Ok(None),
        _ => Err(Error::new(
            Status::InvalidArg,
            "an operand is not a Uint8Array",
        )),
    }
}

/// The bytes of a `Uint8Array`, and which buffer they lie in.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) start: *mut u8,
    pub(crate) len: usize,
    pub(crate) buffer: sys::napi_value,
    offset: usize,
}

impl View {
    pub(crate) fn of(env: &Env, array: &Object<'_>) -> Result<Self> {
        let (mut kind, mut len, mut start, mut buffer, mut offset) =
            (0, 0, ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: both handles are live in this call, and the out pointers are to locals.
        let status = unsafe {
            sys::napi_get_typedarray_info(
                env.raw(),
                array.raw(),
                &mut kind,
                &mut len,
                &mut start,
                &mut buffer,
                &mut offset,
            )
        };
        check(status, "an operand is not a typed array")?;
        if kind != sys::TypedarrayType::uint8_array {
            return Err(Error::new(
                Status::InvalidArg,
                "an operand is not a Uint8Array",
            ));
        }
        Ok(Self {
            start: start.cast(),
            len,
            buffer,
            offset,
        })
    }

    /// The same range of a buffer that holds this view's content.
    pub(crate) fn within(self, env: &Env, buffer: sys::napi_value) -> Result<Self> {
        let (start, len) = buffer_range(env, buffer)?;
        if self
            .offset
            .checked_add(self.len)
            .is_none_or(|end| end > len)
        {
            return Err(Error::new(
                Status::InvalidArg,
                "a moved buffer is shorter than its view",
            ));
        }
        Ok(Self {
            start: start.wrapping_add(self.offset),
            buffer,
            ..self
        })
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.start as usize, other.start as usize);
        self.len > 0 && other.len > 0 && a < b + other.len && b < a + self.len
    }

    /// The bytes.
    ///
    /// # Safety
    /// The buffer stays where it is, and is not written, for `'a`.
    pub(crate) unsafe fn bytes<'a>(&self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the engine says that `len` bytes lie there; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// The bytes, to write.
    ///
    /// # Safety
    /// The buffer stays where it is, and no one else uses these bytes, for `'a`.
    pub(crate) unsafe fn bytes_mut<'a>(&self) -> &'a mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// Where the content of an ArrayBuffer lies, and how long it is.
fn buffer_range(env: &Env, buffer: sys::napi_value) -> Result<(*mut u8, usize)> {
    let (mut start, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the handle is live in this call, and the out pointers are to locals.
    let status = unsafe { sys::napi_get_arraybuffer_info(env.raw(), buffer, &mut start, &mut len) };
    check(status, "an ArrayBuffer was expected")?;
    Ok((start.cast(), len))
}

/// Forgets an exception that a call into JavaScript left behind.
fn clear_exception(env: &Env) {
    let mut exception = ptr::null_mut();
    // SAFETY: the out pointer is to a local. Without an exception this does nothing.
    unsafe { sys::napi_get_and_clear_last_exception(env.raw(), &mut exception) };
}

/// A new ArrayBuffer as a view of all of it, or `None` when the engine refuses the memory.
/// (`napi_create_arraybuffer` would end the process; the constructor throws.)
pub(crate) fn new_buffer(env: &Env, constructor: &Kept, bytes: usize) -> Option<View> {
    if bytes <= SMALL_BUFFER {
        let (mut start, mut buffer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the out pointers are to locals.
        let status =
            unsafe { sys::napi_create_arraybuffer(env.raw(), bytes, &mut start, &mut buffer) };
        return check(status, "a buffer was refused").ok().map(|()| View {
            start: start.cast(),
            len: bytes,
            buffer,
            offset: 0,
        });
    }
    let make = || -> Result<View> {
        let constructor = constructor.value(env)?;
        // SAFETY: the value was kept from the global constructor.
        let constructor: Function<'_, f64, Unknown<'_>> =
            unsafe { Function::from_napi_value(env.raw(), constructor) }?;
        let buffer = constructor.new_instance(bytes as f64)?.raw();
        let (start, len) = buffer_range(env, buffer)?;
        Ok(View {
            start,
            len,
            buffer,
            offset: 0,
        })
    };
    make().ok().filter(|view| view.len == bytes).or_else(|| {
        clear_exception(env);
        None
    })
}

/// The global of this name, kept: looking it up takes a string and a property each time.
pub(crate) fn global(env: &Env, name: &str) -> Result<Kept> {
    let value: Unknown<'_> = env.get_global()?.get_named_property(name)?;
    Kept::new(env, value.raw())
}

/// Moves the content of an ArrayBuffer into a new one, which is detached from the old without a
/// copy. `None` when the engine refuses: shared, or not its own memory.
pub(crate) fn move_buffer(env: &Env, buffer: sys::napi_value) -> Option<sys::napi_value> {
    let moved = || -> Result<sys::napi_value> {
        let clone: Function<'_, FnArgs<(Object<'_>, Object<'_>)>, Unknown<'_>> =
            env.get_global()?.get_named_property("structuredClone")?;
        let buffer = Object::from_raw(env.raw(), buffer);
        let mut options = Object::new(env)?;
        options.set("transfer", vec![buffer])?;
        Ok(clone.call((buffer, options).into())?.raw())
    };
    moved().ok().or_else(|| {
        clear_exception(env);
        None
    })
}

/// Detaches an ArrayBuffer; its memory goes when nothing else holds it.
pub(crate) fn detach_buffer(env: &Env, buffer: sys::napi_value) -> Result<()> {
    // SAFETY: the handle is live in this call.
    check(
        unsafe { sys::napi_detach_arraybuffer(env.raw(), buffer) },
        "the buffer cannot be detached",
    )
}

/// A value that JavaScript must not collect. Lives on its thread, at most as long as its
/// environment.
pub(crate) struct Kept {
    env: sys::napi_env,
    reference: sys::napi_ref,
}

impl Kept {
    pub(crate) fn new(env: &Env, value: sys::napi_value) -> Result<Self> {
        let mut reference = ptr::null_mut();
        // SAFETY: the handle is live in this call, and the out pointer is to a local.
        let status = unsafe { sys::napi_create_reference(env.raw(), value, 1, &mut reference) };
        check(status, "a reference was refused")?;
        Ok(Self {
            env: env.raw(),
            reference,
        })
    }

    pub(crate) fn value(&self, env: &Env) -> Result<sys::napi_value> {
        let mut value = ptr::null_mut();
        // SAFETY: the reference is live until `drop`, and the out pointer is to a local.
        let status =
            unsafe { sys::napi_get_reference_value(env.raw(), self.reference, &mut value) };
        check(status, "a reference is dead")?;
        Ok(value)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: made in `new`, deleted once; the environment outlives its open calls (see
        // `Environment::shut_down`).
        unsafe { sys::napi_delete_reference(self.env, self.reference) };
    }
}

/// A promise that is settled later, once.
pub(crate) struct Deferred(sys::napi_deferred);

impl Deferred {
    /// With its promise.
    pub(crate) fn new<'env>(env: &'env Env) -> Result<(Self, Object<'env>)> {
        let (mut deferred, mut promise) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the out pointers are to locals.
        let status = unsafe { sys::napi_create_promise(env.raw(), &mut deferred, &mut promise) };
        check(status, "a promise was refused")?;
        Ok((Self(deferred), Object::from_raw(env.raw(), promise)))
    }

    pub(crate) fn settle<T: ToNapiValue>(
        self,
        env: &Env,
        result: std::result::Result<T, Error<&'static str>>,
    ) {
        let value = result.and_then(|value| {
            // SAFETY: on the thread of `env`.
            unsafe { T::to_napi_value(env.raw(), value) }
                .map_err(|error| Error::new("INTERNAL", error.reason.clone()))
        });
        // A failure means that the environment is ending: no one is left to hear of it.
        match value {
            // SAFETY: the deferred is settled once, as `self` is consumed.
            Ok(value) => unsafe { sys::napi_resolve_deferred(env.raw(), self.0, value) },
            // SAFETY: as above.
            Err(error) => unsafe {
                sys::napi_reject_deferred(
                    env.raw(),
                    self.0,
                    JsError::from(error).into_value(env.raw()),
                )
            },
        };
    }
}

/// An ArrayBuffer for a result.
pub(crate) fn array_buffer<'env>(
    env: &'env Env,
    value: sys::napi_value,
) -> Result<ArrayBuffer<'env>> {
    // SAFETY: the handle is live in this call.
    unsafe { ArrayBuffer::from_napi_value(env.raw(), value) }
}
