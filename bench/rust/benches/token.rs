//! What a decoded token of SmolLM2's sizes costs, part by part: linears of four bits, attention over
//! a cache in bfloat16, norms, the head of eight bits. All layers in order, each with weights of its
//! own, so that memory is read as a model reads it. Beside it the same with maps of one x fused to
//! one, and the time that reading the weights alone takes. A model has rotary embeddings,
//! activations and sums besides; what it takes beyond all that is between its parts.
//!
//! `cargo bench -p diffattn-bench --bench token [-- ISA [THREADS]]`

#![expect(clippy::print_stdout, reason = "a bench tells what it found")]

use diffattn::{
    AttentionOptions, CacheDType, Data, DataMut, DiffAttention, Error, Isa, KeysValues, KvCache,
    KvCacheOptions, Layout, Linear, Quantisation, RmsNorm, RmsNormOptions, Run, Tensor,
};
use diffattn_bench::{EPS, Limits, bench, halves, made};
use std::process::ExitCode;
use std::time::Instant;

const LAYERS: usize = 30;
const HIDDEN: usize = 576;
const INNER: usize = 1536;
const HEADS: usize = 9;
const GROUPS: usize = 3;
const WIDTH: usize = 64;
const VOCABULARY: usize = 49_152;

/// Tokens in the caches: the middle of 128 new ones after 16.
const PAST: usize = 80;

/// Tokens that are timed; of each part the middle time counts.
const TOKENS: usize = 31;

const PARTS: [&str; 7] = [
    "norms",
    "q, k, v",
    "attention",
    "o",
    "gate, up",
    "down",
    "head",
];
const NORMS: usize = 0;
const QKV: usize = 1;
const ATTENTION: usize = 2;
const O: usize = 3;
const GATE_UP: usize = 4;
const DOWN: usize = 5;
const HEAD: usize = 6;

/// Output channels of the linears of one x, one after the other or all at once.
fn widths(of: &[usize], fused: bool) -> Vec<usize> {
    if fused {
        return vec![of.iter().sum()];
    }
    of.to_vec()
}

fn linear(outputs: usize, inputs: usize, to: Quantisation) -> Result<Linear, Error> {
    let bits = halves(outputs * inputs);
    let weight = Tensor {
        data: Data::F16(&bits),
        shape: vec![outputs, inputs],
    };
    Linear::quantise(&weight, None, to)
}

fn linears(outputs: &[usize], inputs: usize) -> Result<Vec<Linear>, Error> {
    let each = outputs.iter();
    each.map(|&outputs| linear(outputs, inputs, Quantisation::Q4_1))
        .collect()
}

struct Layer {
    qkv: Vec<Linear>,
    cache: KvCache,
    o: Vec<Linear>,
    gate_up: Vec<Linear>,
    down: Vec<Linear>,
}

impl Layer {
    fn new(fused: bool) -> Result<Self, Error> {
        let mut cache = KvCache::new(KvCacheOptions {
            batch: 1,
            groups: GROUPS,
            terms: 1,
            head_dim: WIDTH,
            value_dim: WIDTH,
            capacity: PAST,
            dtype: CacheDType::Bf16,
        })?;
        let shape = [1, GROUPS, PAST, WIDTH];
        let (k, v) = (made(&shape, 1), made(&shape, 2));
        let held = [&k, &v].map(|rows| Tensor::f32(rows, &shape));
        let [k, v] = held;
        cache.append(k, v, Layout::Bhsd)?;
        let kv = GROUPS * WIDTH;
        Ok(Self {
            qkv: linears(&widths(&[HEADS * WIDTH, kv, kv], fused), HIDDEN)?,
            cache,
            o: linears(&[HIDDEN], HEADS * WIDTH)?,
            gate_up: linears(&widths(&[INNER, INNER], fused), HIDDEN)?,
            down: linears(&[HIDDEN], INNER)?,
        })
    }
}

/// Times of the parts of one token, summed over the layers.
struct Clock([f64; PARTS.len()]);

impl Clock {
    fn time(&mut self, part: usize, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let start = Instant::now();
        work()?;
        self.0[part] += start.elapsed().as_secs_f64();
        Ok(())
    }
}

fn all(linears: &[Linear], x: &[f32], y: &mut [f32], run: Run) -> Result<(), Error> {
    linears
        .iter()
        .try_for_each(|linear| linear.forward(x, &mut y[..linear.outputs()], run))
}

fn norm(x: &[f32], y: &mut [f32], weight: &[f32], run: Run) -> Result<(), Error> {
    let options = RmsNormOptions {
        eps: EPS,
        weight: Some(weight),
        run,
        ..RmsNormOptions::default()
    };
    RmsNorm::new(Tensor::f32(x, &[1, HIDDEN]), &options)?
        .into_work(DataMut::F32(y))?
        .finish()
}

fn attend(q: &[f32], cache: &KvCache, out: &mut [f32], run: Run) -> Result<(), Error> {
    let options = AttentionOptions {
        coefficients: Some(&[1.0]),
        is_causal: true,
        run,
        ..AttentionOptions::default()
    };
    let q = Tensor::f32(q, &[1, HEADS, 1, WIDTH]);
    DiffAttention::new(q, KeysValues::Cache(cache), &options)?
        .into_work(DataMut::F32(out), None)?
        .finish()
}

/// One token: the parts' seconds.
fn token(layers: &[Layer], head: &Linear, run: Run) -> Result<[f64; PARTS.len()], Error> {
    let x = made(&[HIDDEN], 0);
    let inner = made(&[INNER], 0);
    let weight = made(&[HIDDEN], 1);
    let mut y = vec![0.0; VOCABULARY];
    let mut clock = Clock([0.0; PARTS.len()]);
    for layer in layers {
        clock.time(NORMS, || norm(&x, &mut y[..HIDDEN], &weight, run))?;
        clock.time(QKV, || all(&layer.qkv, &x, &mut y, run))?;
        clock.time(ATTENTION, || {
            attend(&x, &layer.cache, &mut y[..HEADS * WIDTH], run)
        })?;
        clock.time(O, || all(&layer.o, &x, &mut y, run))?;
        clock.time(NORMS, || norm(&x, &mut y[..HIDDEN], &weight, run))?;
        clock.time(GATE_UP, || all(&layer.gate_up, &x, &mut y, run))?;
        clock.time(DOWN, || all(&layer.down, &inner, &mut y, run))?;
    }
    clock.time(NORMS, || norm(&x, &mut y[..HIDDEN], &weight, run))?;
    clock.time(HEAD, || head.forward(&x, &mut y, run))?;
    Ok(clock.0)
}

/// Bytes of the weights that each part reads.
fn bytes_of(part: usize) -> f64 {
    let weights = match part {
        QKV => LAYERS * HIDDEN * (HEADS + 2 * GROUPS) * WIDTH,
        O => LAYERS * HIDDEN * HEADS * WIDTH,
        GATE_UP => LAYERS * HIDDEN * 2 * INNER,
        DOWN => LAYERS * HIDDEN * INNER,
        HEAD => return (HIDDEN * VOCABULARY) as f64 * 8.5 / 8.0,
        _ => 0,
    };
    weights as f64 * 5.0 / 8.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(isa: Isa, run: Run) -> Result<(), Error> {
    let total: f64 = (0..PARTS.len()).map(bytes_of).sum();
    let mut limits = Limits::default();
    let head = linear(VOCABULARY, HIDDEN, Quantisation::Q8_0)?;
    for fused in [false, true] {
        let layers = (0..LAYERS).map(|_| Layer::new(fused));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let (mut times, mut read) = (Vec::new(), Vec::new());
        for _ in 0..TOKENS {
            times.push(token(&layers, &head, run)?);
            read.push(limits.read(Some(total as usize), run.threads())?);
        }
        let read = median(read);
        let parts: Vec<f64> = (0..PARTS.len())
            .map(|part| median(times.iter().map(|one| one[part]).collect()))
            .collect();
        let how = if fused { "fused" } else { "apart" };
        println!(
            "{}, {} threads, maps of one x {how}",
            isa.name(),
            run.threads()
        );
        for (part, (name, seconds)) in PARTS.iter().zip(&parts).enumerate() {
            let rate = bytes_of(part) / seconds;
            println!(
                "  {name:<10} {:>7.3} ms  {:>6.1} GB/s ({:.2} of reading)",
                seconds * 1e3,
                rate / 1e9,
                rate / read
            );
        }
        let sum: f64 = parts.iter().sum();
        println!(
            "  {:<10} {:>7.3} ms  reading alone {:.3} ms at {:.1} GB/s ({:.2})",
            "all",
            sum * 1e3,
            total / read * 1e3,
            read / 1e9,
            total / read / sum
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    bench(measure)
}
