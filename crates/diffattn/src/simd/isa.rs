//! Which instruction set a call runs on: detection, forcing one for tests, and the one dispatch.
//! Holds no kernel. With its neighbours, the only place that names an instruction set.

use super::unfused::Unfused;
use super::vector::Vector;
use crate::error::Error;

/// An instruction set that this machine was found to have. Values are only made by
/// [`Isa::available`], [`Isa::detect`] and [`Isa::named`], so holding one proves the instructions
/// are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    // A WebAssembly module with SIMD runs nowhere without it: scalar kernels would be a third of
    // its bytes.
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
}

/// A computation written once over [`Vector`]. `run` must be `#[inline(always)]`, and so must all
/// it calls.
pub(crate) trait Kernel {
    type Output;
    fn run<V: Vector>(self) -> Self::Output;
}

impl Isa {
    /// What every machine has that this build runs on.
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    const SLOWEST: Self = Self(Kind::Scalar);
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    const SLOWEST: Self = Self(Kind::Simd128);

    /// Every instruction set of this machine, slowest first. Scalar is always there, but in
    /// WebAssembly with SIMD.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64")),
            expect(unused_mut, reason = "only one here")
        )]
        let mut found = vec![Self::SLOWEST];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
                && std::arch::is_x86_feature_detected!("f16c")
            {
                found.push(Self(Kind::Avx2));
            }
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("fma")
            {
                found.push(Self(Kind::Avx512));
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Self(Kind::Neon));
        found
    }

    /// The fastest instruction set of this machine, found once.
    #[must_use]
    pub fn detect() -> Self {
        static FASTEST: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *FASTEST.get_or_init(|| Self::available().last().copied().unwrap_or(Self::SLOWEST))
    }

    /// The instruction set called `name` (`"scalar"`, `"avx2"`, `"avx512"`, `"neon"`, `"simd128"`,
    /// `"relaxed-simd"`), or [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
    pub fn named(name: &str) -> Result<Self, Error> {
        let available = Self::available();
        available
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
                Error::unavailable(
                    "isa",
                    format_args!("one of {}", names.join(", ")),
                    format_args!("{name:?}"),
                )
            })
    }

    /// Its name in `api.md`'s spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(all(
                target_arch = "wasm32",
                target_feature = "simd128",
                not(target_feature = "relaxed-simd")
            ))]
            Kind::Simd128 => "simd128",
            #[cfg(all(
                target_arch = "wasm32",
                target_feature = "simd128",
                target_feature = "relaxed-simd"
            ))]
            Kind::Simd128 => "relaxed-simd",
        }
    }

    /// Runs `kernel` on this instruction set; `deterministic` unfuses its multiply-adds.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, deterministic: bool, kernel: K) -> K::Output {
        /// # Safety
        /// The machine has AVX2, FMA and F16C.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn run_avx2<V: Vector, K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<V>()
        }
        /// # Safety
        /// The machine has AVX-512 F, DQ, VL and BW, and FMA.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
        unsafe fn run_avx512<V: Vector, K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<V>()
        }
        match (self.0, deterministic) {
            // Scalar never fuses: its plain and its deterministic bits are the same.
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            (Kind::Scalar, _) => kernel.run::<super::scalar::Scalar>(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an x86 kind is only made by `available`, which detected its features.
            (Kind::Avx2, false) => unsafe { run_avx2::<super::avx2::F32x8, K>(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Kind::Avx2, true) => unsafe { run_avx2::<Unfused<super::avx2::F32x8>, K>(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Kind::Avx512, false) => unsafe { run_avx512::<super::avx512::F32x16, K>(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Kind::Avx512, true) => unsafe {
                run_avx512::<Unfused<super::avx512::F32x16>, K>(kernel)
            },
            #[cfg(target_arch = "aarch64")]
            (Kind::Neon, false) => kernel.run::<super::neon::F32x4>(),
            #[cfg(target_arch = "aarch64")]
            (Kind::Neon, true) => kernel.run::<Unfused<super::neon::F32x4>>(),
            // Nor does plain SIMD.
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            (Kind::Simd128, deterministic) => {
                use super::simd128::F32x4;
                if deterministic && F32x4::FUSES {
                    kernel.run::<Unfused<F32x4>>()
                } else {
                    kernel.run::<F32x4>()
                }
            }
        }
    }
}
