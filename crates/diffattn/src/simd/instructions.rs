//! How the ops of an instruction set are written down: a signature and the instructions, one
//! `unsafe` for all of them. Knows no instruction.

/// Methods of [`Vector`](super::vector::Vector) and [`Wide`](super::wide::Wide) as `fn op(…) =
/// instructions;`, which give `Self(instructions)`, or with `-> T` the instructions' own value.
///
/// Of a plain `fn` the parameters are vectors, masks and numbers, and the instructions work on
/// registers alone. An `unsafe fn` may read or write memory, as the contract of its method has the
/// caller promise.
macro_rules! instructions {
    () => {};
    (
        fn $op:ident($first:ident $(: $first_type:ty)? $(, $x:ident: $type:ty)*) = $value:expr;
        $($rest:tt)*
    ) => {
        #[inline(always)]
        fn $op($first $(: $first_type)? $(, $x: $type)*) -> Self {
            // SAFETY: the set is there, by the law of `Vector`, and registers are all that is used.
            Self(unsafe { $value })
        }
        instructions! { $($rest)* }
    };
    (
        fn $op:ident($first:ident $(: $first_type:ty)? $(, $x:ident: $type:ty)*) -> $out:ty = $value:expr;
        $($rest:tt)*
    ) => {
        #[inline(always)]
        fn $op($first $(: $first_type)? $(, $x: $type)*) -> $out {
            // SAFETY: as above.
            unsafe { $value }
        }
        instructions! { $($rest)* }
    };
    (
        unsafe fn $op:ident($first:ident $(: $first_type:ty)? $(, $x:ident: $type:ty)*) = $value:expr;
        $($rest:tt)*
    ) => {
        #[inline(always)]
        unsafe fn $op($first $(: $first_type)? $(, $x: $type)*) -> Self {
            // SAFETY: the set is there, by the law of `Vector`; so is the memory, by the contract.
            Self(unsafe { $value })
        }
        instructions! { $($rest)* }
    };
    (
        unsafe fn $op:ident($first:ident $(: $first_type:ty)? $(, $x:ident: $type:ty)*) -> $out:ty = $value:expr;
        $($rest:tt)*
    ) => {
        #[inline(always)]
        unsafe fn $op($first $(: $first_type)? $(, $x: $type)*) -> $out {
            // SAFETY: as above.
            unsafe { $value }
        }
        instructions! { $($rest)* }
    };
}

pub(super) use instructions;
