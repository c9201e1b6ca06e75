//! How long attention's forward and backward pass take: V1, d 64, causal, one thread. Prints
//! seconds and useful multiply-adds (4 d and 10 d per visible pair) over the FMA peak.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]
use diffattn::{
    AttentionOptions, GradientOptions, Isa, Lambda, Run, Tensor, diff_attention,
    diff_attention_backward, fma_flops,
};
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let isa = args
        .next()
        .map_or(Isa::detect(), |name| Isa::named(&name).unwrap());
    let threads = args.next().map_or(1, |n| n.parse().unwrap());
    let run = Run::new(Some(isa), Some(threads), false).unwrap();
    let (heads, d) = (8, 64);
    for l in [512_usize, 2048] {
        let values = |n: usize, seed: u32| -> Vec<f32> {
            let mut x = seed;
            (0..n)
                .map(|_| {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (x >> 8) as f32 / (1 << 23) as f32 - 1.0
                })
                .collect()
        };
        let q = values(2 * heads * l * d, 1);
        let k = values(2 * heads * l * d, 2);
        let v = values(heads * l * 2 * d, 3);
        let dy = values(heads * l * 2 * d, 4);
        let (qs, vs) = ([1, 2 * heads, l, d], [1, heads, l, 2 * d]);
        let options = AttentionOptions {
            lambda: Some(Lambda::Value(0.4)),
            is_causal: true,
            run,
            ..AttentionOptions::default()
        };
        let pairs = (heads * l * (l + 1) / 2) as f64;
        let rounds = 1 << 22;
        let _ = fma_flops(isa, rounds);
        let start = Instant::now();
        let peak = fma_flops(isa, rounds) / start.elapsed().as_secs_f64() / 2.0;
        let (mut fw, mut bw) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            let start = Instant::now();
            let y = diff_attention(
                Tensor::f32(&q, &qs),
                Tensor::f32(&k, &qs),
                Tensor::f32(&v, &vs),
                &options,
            );
            fw.push(start.elapsed().as_secs_f64());
            assert!(y.is_ok());
            let start = Instant::now();
            let g = diff_attention_backward(
                Tensor::f32(&dy, &vs),
                [
                    Tensor::f32(&q, &qs),
                    Tensor::f32(&k, &qs),
                    Tensor::f32(&v, &vs),
                ],
                &options,
                &GradientOptions::default(),
            );
            bw.push(start.elapsed().as_secs_f64());
            assert!(g.is_ok());
        }
        let median = |x: &mut Vec<f64>| {
            x.sort_by(f64::total_cmp);
            x[x.len() / 2]
        };
        let (f, b) = (median(&mut fw), median(&mut bw));
        println!(
            "{} L {l}: forward {f:.4} s, {:.2} of peak; backward {b:.4} s, {:.2} of peak, {:.2} forwards",
            isa.name(),
            pairs * 4.0 * d as f64 / f / peak / threads as f64,
            pairs * 10.0 * d as f64 / b / peak / threads as f64,
            b / f
        );
    }
}
