//! Calls every operator with each operand flush against a page that nobody may touch: behind its
//! last element, then before its first. A read or write past either end kills the process, which
//! the runner sees. Both placements must give the same bits.

#[cfg(not(unix))]
fn main() {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "unavailable guard pages need mmap");
}

#[cfg(unix)]
fn main() -> Result<(), String> {
    unix::run()
}

#[cfg(unix)]
mod unix {
    use diffattn::{
        Activation, AttentionOptions, ChannelLayout, DType, Data, DataMut, DiffAttention,
        DiffAttentionMaps, Error, GroupNorm, GroupNormOptions, Isa, KeysOnly, KeysValues, KvCache,
        KvCacheOptions, Lambda, LayerNormOptions, Layout, Linear, MapOutputs, Mask, NormOptions,
        Pairing, Positions, RmsNorm, RmsNormOptions, Rope, RopeOptions, Run, SequenceDifference,
        SequenceDifferenceOptions, Tensor, Work, lambda_full, layer_norm,
    };
    use diffattn_reliability::{Arguments, Random, figure, miss};
    use std::ops::{Deref, DerefMut};

    /// Which end of an operand has no room.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Flush {
        Start,
        End,
    }

    /// Elements between two pages that nobody may touch.
    struct Guarded<T> {
        map: *mut libc::c_void,
        bytes: usize,
        data: *mut T,
        len: usize,
    }

    /// Types of which every bit pattern is a value.
    trait Plain: Copy {}
    impl Plain for u8 {}
    impl Plain for u16 {}
    impl Plain for i32 {}
    impl Plain for i64 {}
    impl Plain for f32 {}

    impl<T: Plain> Guarded<T> {
        fn new(values: &[T], flush: Flush) -> Result<Self, String> {
            let wrong = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
            // SAFETY: asks for a constant of the system.
            let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) })
                .map_err(|_| wrong("page size"))?;
            let wanted = size_of_val(values);
            let room = wanted.div_ceil(page).max(1) * page;
            let bytes = room + 2 * page;
            // SAFETY: a new mapping at a place of the system's choice.
            let map = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    bytes,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if map == libc::MAP_FAILED {
                return Err(wrong("mmap"));
            }
            // SAFETY: the first page's end is within the mapping.
            let first = unsafe { map.cast::<u8>().add(page) };
            // SAFETY: the pages between the first and the last one of the mapping above,
            // page-aligned.
            if unsafe { libc::mprotect(first.cast(), room, libc::PROT_READ | libc::PROT_WRITE) }
                != 0
            {
                return Err(wrong("mprotect"));
            }
            let offset = if flush == Flush::End {
                room - wanted
            } else {
                0
            };
            // SAFETY: `offset + wanted` is at most `room`. Aligned: a page is, and `wanted` is
            // whole elements.
            let data = unsafe { first.add(offset).cast::<T>() };
            // SAFETY: `wanted` writable bytes lie there, apart from `values`.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), data, values.len()) };
            Ok(Self {
                map,
                bytes,
                data,
                len: values.len(),
            })
        }
    }

    impl<T> Deref for Guarded<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            // SAFETY: `new` put `len` elements there; the mapping lives as long as `self`.
            unsafe { std::slice::from_raw_parts(self.data, self.len) }
        }
    }

    impl<T> DerefMut for Guarded<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            // SAFETY: as in `deref`, and `self` is borrowed alone.
            unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
        }
    }

    impl<T> Drop for Guarded<T> {
        fn drop(&mut self) {
            // SAFETY: the mapping of `new`, which nothing refers to any more.
            unsafe { libc::munmap(self.map, self.bytes) };
        }
    }

    /// Elements of one of the three types.
    enum Floats {
        F32(Guarded<f32>),
        F16(Guarded<u16>),
        Bf16(Guarded<u16>),
    }

    impl Floats {
        fn data(&self) -> Data<'_> {
            match self {
                Self::F32(x) => Data::F32(x),
                Self::F16(x) => Data::F16(x),
                Self::Bf16(x) => Data::Bf16(x),
            }
        }

        fn data_mut(&mut self) -> DataMut<'_> {
            match self {
                Self::F32(x) => DataMut::F32(x),
                Self::F16(x) => DataMut::F16(x),
                Self::Bf16(x) => DataMut::Bf16(x),
            }
        }

        fn tensor(&self, shape: &[usize]) -> Tensor<'_> {
            Tensor {
                data: self.data(),
                shape: shape.to_vec(),
            }
        }
    }

    /// One case: its numbers, where its operands lie, and the bits of its results.
    struct Case {
        random: Random,
        flush: Flush,
        isa: Isa,
        bits: Vec<u32>,
    }

    type Outcome = Result<&'static str, String>;

    fn said(error: Error) -> String {
        error.to_string()
    }

    const WIDTHS: [usize; 20] = [
        1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 64, 65, 79,
    ];
    const LENGTHS: [usize; 20] = [
        0, 1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 33, 48, 65, 100, 259,
    ];

    impl Case {
        fn place<T: Plain>(&self, values: &[T]) -> Result<Guarded<T>, String> {
            Guarded::new(values, self.flush)
        }

        fn floats(&mut self, count: usize) -> Result<Guarded<f32>, String> {
            let values = self.random.floats(count);
            self.place(&values)
        }

        fn of(&mut self, dtype: DType, shape: &[usize]) -> Result<Floats, String> {
            let count = shape.iter().product();
            Ok(match dtype {
                DType::F32 => Floats::F32(self.floats(count)?),
                DType::F16 | DType::Bf16 => {
                    let values = self.random.halves(count);
                    let placed = self.place(&values)?;
                    if dtype == DType::F16 {
                        Floats::F16(placed)
                    } else {
                        Floats::Bf16(placed)
                    }
                }
            })
        }

        fn dtype(&mut self) -> DType {
            self.random
                .pick(&[DType::F32, DType::F32, DType::F16, DType::Bf16])
                .unwrap_or_default()
        }

        fn width(&mut self) -> usize {
            self.random.pick(&WIDTHS).unwrap_or(1)
        }

        fn length(&mut self) -> usize {
            self.random.pick(&LENGTHS).unwrap_or(1)
        }

        fn optional(&mut self, count: usize) -> Result<Option<Guarded<f32>>, String> {
            if self.random.one_in(2) {
                self.floats(count).map(Some)
            } else {
                Ok(None)
            }
        }

        fn way(&mut self) -> Run {
            Run::new(Some(self.isa), Some(1 + self.random.below(2)), false)
                .unwrap_or_else(|error| panic!("{error}"))
        }

        fn keep(&mut self, result: &Floats) {
            match result {
                Floats::F32(x) => self.bits.extend(x.iter().map(|x| x.to_bits())),
                Floats::F16(x) | Floats::Bf16(x) => {
                    self.bits.extend(x.iter().map(|&x| u32::from(x)))
                }
            }
        }

        fn keep_floats(&mut self, result: &[f32]) {
            self.bits.extend(result.iter().map(|x| x.to_bits()));
        }

        /// Attention of tensors or of a cache, or its maps.
        fn attention(&mut self) -> Outcome {
            let (batch, groups, repeat) = (
                1 + self.random.below(2),
                1 + self.random.below(2),
                1 + self.random.below(2),
            );
            let (d, dv) = (self.width(), self.width());
            let (mut queries, keys) = (self.length(), self.length());
            if self.random.one_in(3) {
                queries = self.random.below(3); // decoding
            }
            let pairing = [
                Pairing::Interleaved,
                Pairing::Halves,
                Pairing::Grouped,
                Pairing::Shared,
            ][self.random.below(4)];
            let heads = groups * repeat;
            // "halves" has two flat v heads per group; all others have one.
            let (q_heads, k_heads, v_heads, width) = match pairing {
                Pairing::Interleaved | Pairing::Grouped => (2 * heads, 2 * groups, groups, dv),
                Pairing::Halves => (2 * heads, 2 * groups, 2 * groups, 2 * dv),
                Pairing::Shared => (2 * heads, groups, groups, dv),
            };
            let is_cached = self.random.one_in(4);
            let is_map = self.random.one_in(4);
            let is_packed = !is_cached && self.random.one_in(5);
            let batch = if is_packed { 1 } else { batch };
            let layout = if self.random.one_in(2) {
                Layout::Bhsd
            } else {
                Layout::Bshd
            };
            let shape = |heads: usize, length: usize, width: usize| match layout {
                Layout::Bhsd => [batch, heads, length, width],
                Layout::Bshd => [batch, length, heads, width],
            };
            let dtype = self.dtype();
            let q = self.of(dtype, &shape(q_heads, queries, d))?;
            let k = self.of(dtype, &shape(k_heads, keys, d))?;
            let v = self.of(dtype, &shape(v_heads, keys, dv))?;
            let (rows, columns) = (queries, keys);
            let one_or = |random: &mut Random, n: usize| if random.one_in(2) { n } else { 1 };
            let broadcast: [usize; 4] = [
                one_or(&mut self.random, batch),
                one_or(&mut self.random, heads),
                one_or(&mut self.random, rows),
                columns,
            ];
            let elements: usize = broadcast.iter().product();
            let bytes: Vec<u8> = (0..elements)
                .map(|_| u8::from(!self.random.one_in(3)))
                .collect();
            let mask = self.place(&bytes)?;
            let bias = self.floats(elements)?;
            let (has_mask, has_bias) = (
                !is_packed && self.random.one_in(3),
                !is_packed && self.random.one_in(3),
            );
            let lambda_shape = [
                one_or(&mut self.random, batch),
                one_or(&mut self.random, rows),
                heads,
            ];
            let lambda = self.floats(lambda_shape.iter().product())?;
            let per_head = self.floats(heads)?;
            let coefficients = self.place(&[1.0f32, -0.5])?;
            let has_coefficients = self.random.one_in(5);
            let lengths: Vec<i32> = (0..batch)
                .map(|_| self.random.below(keys + 1) as i32)
                .collect();
            let lengths = self.place(&lengths)?;
            let cut = |random: &mut Random, n: usize| [0, random.below(n + 1) as i32, n as i32];
            let cu = [cut(&mut self.random, queries), cut(&mut self.random, keys)];
            let (cu_q, cu_k) = (self.place(&cu[0])?, self.place(&cu[1])?);
            let weight = self.optional(width)?;
            let has_norm = !is_map && self.random.one_in(2);
            let options = AttentionOptions {
                lambda: (!has_coefficients).then(|| match self.random.below(3) {
                    0 => Lambda::Value(0.5),
                    1 => Lambda::PerHead(&per_head),
                    _ => Lambda::PerToken {
                        data: &lambda,
                        shape: lambda_shape.to_vec(),
                    },
                }),
                coefficients: has_coefficients.then_some(&*coefficients),
                pairing,
                layout,
                is_causal: self.random.one_in(2),
                softcap: self.random.one_in(4).then_some(5.0),
                window: self.random.one_in(4).then(|| {
                    [
                        Some(self.random.below(40)),
                        self.random.one_in(2).then_some(7),
                    ]
                }),
                attn_mask: has_mask.then(|| Mask {
                    data: &mask,
                    shape: broadcast.to_vec(),
                }),
                attn_bias: has_bias.then(|| Tensor::f32(&bias, &broadcast)),
                key_lengths: (!is_packed && self.random.one_in(4)).then_some(&*lengths),
                query_offset: (!is_packed && self.random.one_in(4))
                    .then(|| vec![self.random.below(60) as i64 - 20]),
                cu_seqlens_q: is_packed.then_some(&*cu_q),
                cu_seqlens_k: is_packed.then_some(&*cu_k),
                norm: has_norm.then(|| NormOptions {
                    weight: weight.as_deref(),
                    ..NormOptions::default()
                }),
                return_lse: !is_map && self.random.one_in(2),
                run: self.way().with_deterministic(self.random.one_in(3)),
                ..AttentionOptions::default()
            };
            let cache = if is_cached {
                let mut cache = KvCache::new(KvCacheOptions {
                    batch,
                    groups: v_heads,
                    terms: k_heads / v_heads,
                    head_dim: d,
                    value_dim: dv,
                    capacity: 0,
                    dtype: dtype.into(),
                })
                .map_err(said)?;
                let (k, v) = (
                    k.tensor(&shape(k_heads, keys, d)),
                    v.tensor(&shape(v_heads, keys, dv)),
                );
                cache.append(k, v, layout).map_err(said)?;
                Some(cache)
            } else {
                None
            };
            let (q, k, v) = (
                q.tensor(&shape(q_heads, queries, d)),
                k.tensor(&shape(k_heads, keys, d)),
                v.tensor(&shape(v_heads, keys, dv)),
            );
            if is_map {
                let from = cache.as_ref().map_or(KeysOnly::Tensor(k), KeysOnly::Cache);
                let call = DiffAttentionMaps::new(q, from, &options, None, None).map_err(said)?;
                let count = call.map_shape().iter().product();
                let mut maps = [
                    self.floats(count)?,
                    self.floats(count)?,
                    self.floats(count)?,
                ];
                let [one, two, diff] = &mut maps;
                let terms: Vec<&mut [f32]> = vec![one, two];
                let work = call.into_work(MapOutputs { terms, diff });
                work.and_then(Work::finish).map_err(said)?;
                for map in &maps {
                    self.keep_floats(map);
                }
                return Ok("maps");
            }
            let from = cache
                .as_ref()
                .map_or(KeysValues::Tensors { k, v }, KeysValues::Cache);
            let call = DiffAttention::new(q, from, &options).map_err(said)?;
            let mut out = self.of(call.output_dtype(), &call.output_shape())?;
            let mut lse = self.floats(call.lse_shape().iter().product())?;
            let mut work = call
                .into_work(out.data_mut(), options.return_lse.then_some(&mut *lse))
                .map_err(said)?;
            while work.done() < work.total() {
                work.step(1 + self.random.below(9)).map_err(said)?;
            }
            drop(work);
            self.keep(&out);
            if options.return_lse {
                self.keep_floats(&lse);
            }
            Ok(if is_cached {
                "attention of a cache"
            } else {
                "attention"
            })
        }

        fn group_norm(&mut self) -> Outcome {
            let (batch, groups, per, inner) = (
                1 + self.random.below(3),
                1 + self.random.below(4),
                self.width(),
                self.length(),
            );
            let channels = groups * per;
            let layout = if self.random.one_in(2) {
                ChannelLayout::Nchw
            } else {
                ChannelLayout::Nhwc
            };
            let shape = match layout {
                ChannelLayout::Nchw => [batch, channels, inner],
                ChannelLayout::Nhwc => [batch, inner, channels],
            };
            let dtype = self.dtype();
            let x = self.of(dtype, &shape)?;
            let mut y = self.of(dtype, &shape)?;
            let (weight, bias) = (self.optional(channels)?, self.optional(channels)?);
            let options = GroupNormOptions {
                num_groups: groups,
                weight: weight.as_deref(),
                bias: bias.as_deref(),
                layout,
                activation: self.random.one_in(2).then_some(Activation::Silu),
                run: self.way(),
                ..GroupNormOptions::default()
            };
            let call = GroupNorm::new(x.tensor(&shape), &options).map_err(said)?;
            call.into_work(y.data_mut())
                .map_err(said)?
                .finish()
                .map_err(said)?;
            self.keep(&y);
            Ok("groupNorm")
        }

        fn rms_norm(&mut self) -> Outcome {
            let (rows, width) = (self.length(), self.width());
            let shape = [rows, width];
            let dtype = self.dtype();
            let x = self.of(dtype, &shape)?;
            let mut y = self.of(dtype, &shape)?;
            let weight = self.optional(width)?;
            let options = RmsNormOptions {
                weight: weight.as_deref(),
                run: self.way(),
                ..RmsNormOptions::default()
            };
            let call = RmsNorm::new(x.tensor(&shape), &options).map_err(said)?;
            call.into_work(y.data_mut())
                .map_err(said)?
                .finish()
                .map_err(said)?;
            self.keep(&y);
            Ok("rmsNorm")
        }

        fn layer_norm(&mut self) -> Outcome {
            let (rows, width) = (self.length(), self.width());
            let x = self.floats(rows * width)?;
            let mut y = self.floats(rows * width)?;
            let (weight, bias) = (self.optional(width)?, self.optional(width)?);
            let options = LayerNormOptions {
                weight: weight.as_deref(),
                bias: bias.as_deref(),
                run: self.way(),
                ..LayerNormOptions::default()
            };
            layer_norm(Tensor::f32(&x, &[rows, width]), &mut y, &options).map_err(said)?;
            self.keep_floats(&y);
            Ok("layer norm")
        }

        fn rope(&mut self) -> Outcome {
            let (batch, heads, length, width) = (
                1 + self.random.below(2),
                1 + self.random.below(3),
                self.length(),
                2 * self.width(),
            );
            let layout = if self.random.one_in(2) {
                Layout::Bhsd
            } else {
                Layout::Bshd
            };
            let shape = match layout {
                Layout::Bhsd => [batch, heads, length, width],
                Layout::Bshd => [batch, length, heads, width],
            };
            let dtype = self.dtype();
            let x = self.of(dtype, &shape)?;
            let mut y = self.of(dtype, &shape)?;
            let places: Vec<i64> = (0..batch * length)
                .map(|_| self.random.below(5000) as i64 - 100)
                .collect();
            let places = self.place(&places)?;
            let options = RopeOptions {
                layout,
                interleaved: self.random.one_in(2),
                rotary_dim: self
                    .random
                    .one_in(2)
                    .then(|| 2 * self.random.below(width / 2 + 1)),
                positions: self.random.one_in(2).then(|| Positions {
                    data: &places,
                    shape: vec![batch, length],
                }),
                run: self.way(),
                ..RopeOptions::default()
            };
            let call = Rope::new(x.tensor(&shape), &options).map_err(said)?;
            call.into_work(y.data_mut())
                .map_err(said)?
                .finish()
                .map_err(said)?;
            self.keep(&y);
            Ok("applyRope")
        }

        fn difference(&mut self) -> Outcome {
            let (batch, heads, length, width) = (
                1 + self.random.below(2),
                1 + self.random.below(3),
                self.length(),
                self.width(),
            );
            let layout = if self.random.one_in(2) {
                Layout::Bhsd
            } else {
                Layout::Bshd
            };
            let shape = match layout {
                Layout::Bhsd => [batch, heads, length, width],
                Layout::Bshd => [batch, length, heads, width],
            };
            let dtype = self.dtype();
            let x = self.of(dtype, &shape)?;
            let mut y = self.of(dtype, &shape)?;
            let options = SequenceDifferenceOptions {
                order: self.random.below(4),
                layout,
                run: self.way(),
            };
            let call = SequenceDifference::new(x.tensor(&shape), &options).map_err(said)?;
            call.into_work(y.data_mut())
                .map_err(said)?
                .finish()
                .map_err(said)?;
            self.keep(&y);
            Ok("sequenceDifference")
        }

        fn linear(&mut self) -> Outcome {
            let (rows, inputs, outputs) = (
                self.length(),
                self.width(),
                self.width() + self.random.below(70),
            );
            let dtype = self.dtype();
            let weight = self.of(dtype, &[outputs, inputs])?;
            let bias = self.optional(outputs)?;
            let x = self.floats(rows * inputs)?;
            let mut y = self.floats(rows * outputs)?;
            let bias = bias.as_deref().map(|bias| Tensor::f32(bias, &[outputs]));
            let linear =
                Linear::new(&weight.tensor(&[outputs, inputs]), bias.as_ref()).map_err(said)?;
            let run = self.way().with_deterministic(self.random.one_in(2));
            linear.forward(&x, &mut y, run).map_err(said)?;
            self.keep_floats(&y);
            let mut row = self.floats(inputs)?;
            linear
                .weight_row(self.random.below(outputs), &mut row)
                .map_err(said)?;
            self.keep_floats(&row);
            Ok("linear")
        }

        fn lambda(&mut self) -> Outcome {
            let width = self.width();
            let [q1, k1, q2, k2] = [
                self.floats(width)?,
                self.floats(width)?,
                self.floats(width)?,
                self.floats(width)?,
            ];
            let lambda = lambda_full(&q1, &k1, &q2, &k2, 0.2).map_err(said)?;
            self.keep_floats(&[lambda as f32]);
            Ok("lambdaFull")
        }

        fn run(&mut self) -> Outcome {
            match self.random.below(16) {
                0..=6 => self.attention(),
                7 | 8 => self.group_norm(),
                9 => self.rms_norm(),
                10 => self.layer_norm(),
                11 => self.rope(),
                12 => self.difference(),
                13 | 14 => self.linear(),
                _ => self.lambda(),
            }
        }
    }

    pub(super) fn run() -> Result<(), String> {
        let mut arguments = Arguments::read()?;
        let (mut calls, mut refused, mut differing) = (0, 0, 0);
        for index in arguments.first..arguments.first + arguments.count {
            for isa in Isa::available() {
                let mut before: Option<Vec<u32>> = None;
                for flush in [Flush::End, Flush::Start] {
                    arguments.trace(index, &format!("{} {flush:?}", isa.name()))?;
                    let mut case = Case {
                        random: Random::new(arguments.seed, index),
                        flush,
                        isa,
                        bits: Vec::new(),
                    };
                    calls += 1;
                    match case.run() {
                        // A case that is refused shows nothing: the attack itself is wrong then.
                        Err(why) => {
                            refused += 1;
                            miss(index, &format!("refused: {why}"))?;
                        }
                        Ok(operator) => {
                            if before.as_ref().is_some_and(|bits| *bits != case.bits) {
                                differing += 1;
                                miss(
                                    index,
                                    &format!(
                                        "{operator} on {}: other bits at the other end of a page",
                                        isa.name()
                                    ),
                                )?;
                            }
                            before = Some(case.bits);
                        }
                    }
                }
            }
        }
        figure("calls", calls)?;
        figure("refused", refused)?;
        figure("differing", differing)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Whether a process that reads `at` dies of it.
        fn kills(at: *const u8) -> bool {
            // SAFETY: the child does nothing but read, or end.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: what is not there ends the child, which is the point.
                let byte = unsafe { at.read_volatile() };
                // SAFETY: ends the child without a word.
                unsafe { libc::_exit(i32::from(byte)) };
            }
            let mut status = 0;
            // SAFETY: waits for the child that was made above.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            libc::WIFSIGNALED(status)
        }

        #[test]
        fn a_byte_past_either_end_kills() {
            for flush in [Flush::End, Flush::Start] {
                let Ok(values) = Guarded::new(&[7u8; 5000], flush) else {
                    panic!("no guard pages");
                };
                let data = values.as_ptr();
                let (last, past) = (data.wrapping_add(4999), data.wrapping_add(5000));
                assert!(!kills(data) && !kills(last));
                match flush {
                    Flush::End => assert!(kills(past)),
                    Flush::Start => assert!(kills(data.wrapping_sub(1))),
                }
            }
        }
    }
}
