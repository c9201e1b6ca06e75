//! Rows before their norm: the bits of the call without one, and no bit of the rest changes.

use crate::accuracy::random_spec;
use crate::support::{How, Owned, bits, drive, every_way};
use diffattn::{
    AttentionOptions, DataMut, DiffAttention, Error, KeysValues, Layout, NormOptions, Tensor,
};

fn call<'a>(owned: &'a Owned, options: &AttentionOptions<'a>) -> DiffAttention<'a> {
    let (k, v) = (owned.k(), owned.v());
    DiffAttention::new(owned.q(), KeysValues::Tensors { k, v }, options).unwrap()
}

/// The result, and where it is `kept` the rows before their norm.
fn run(
    owned: &Owned,
    options: &AttentionOptions<'_>,
    how: &How,
    kept: bool,
) -> Result<[Vec<f32>; 2], Error> {
    let call = call(owned, options);
    let len = call.output_shape().iter().product();
    let mut out = vec![f32::NAN; len];
    let mut rows = vec![f32::NAN; if kept { len } else { 0 }];
    let to = DataMut::F32(&mut out);
    let mut work = match kept {
        true => call.into_work_keeping(to, None, Some(&mut rows))?,
        false => call.into_work(to, None)?,
    };
    drive(&mut work, how)?;
    drop(work);
    Ok([out, rows])
}

#[test]
fn rows_before_their_norm_are_those_of_the_call_without_it() {
    // Few queries are decoded, many are not; 33 channels are no whole vectors.
    let sizes = [(1, 300, 64, 128), (3, 40, 16, 33), (49, 520, 16, 24)];
    for (index, (lq, lk, d, dv)) in sizes.into_iter().enumerate() {
        let spec = random_spec(77 + index as u64, lq, lk, d, dv, index == 2);
        for way in every_way() {
            for layout in [Layout::Bhsd, Layout::Bshd] {
                let how = How {
                    layout,
                    threads: 2,
                    slice: 1,
                    ..way
                };
                let owned = Owned::new(&spec, layout);
                let plain = AttentionOptions {
                    return_lse: false,
                    norm: None,
                    ..owned.options(&spec, &how)
                };
                let width = call(&owned, &plain).output_shape()[3];
                let weight: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / 64.0).collect();
                let normed = AttentionOptions {
                    norm: Some(NormOptions {
                        weight: Some(&weight),
                        scale: 0.8,
                        ..NormOptions::default()
                    }),
                    ..plain.clone()
                };
                let [without, _] = run(&owned, &plain, &how, false).unwrap();
                let [expected, _] = run(&owned, &normed, &how, false).unwrap();
                let [out, rows] = run(&owned, &normed, &how, true).unwrap();
                assert_eq!(bits(&rows), bits(&without), "{how:?}");
                assert_eq!(bits(&out), bits(&expected), "{how:?}");
                let refused = run(&owned, &plain, &how, true).unwrap_err();
                assert_eq!(
                    refused.to_string(),
                    "pre_norm: expected none without a norm, got one"
                );
            }
        }
    }
}

#[test]
fn of_halves_they_are_float32() {
    let q = [0x3c00u16, 0x3800, 0x4000, 0x3c00]; // 1, ½, 2, 1 as float16
    let tensor = |shape: &[usize]| Tensor {
        data: diffattn::Data::F16(&q),
        shape: shape.to_vec(),
    };
    let options = AttentionOptions {
        coefficients: Some(&[1.0]),
        norm: Some(NormOptions::default()),
        ..AttentionOptions::default()
    };
    let [q, k, v] = [[1, 1, 1, 4], [1, 1, 1, 4], [1, 1, 1, 4]].map(|shape| tensor(&shape));
    let call = DiffAttention::new(q, KeysValues::Tensors { k, v }, &options).unwrap();
    let (mut out, mut rows) = ([0u16; 4], [0.0f32; 4]);
    let work = call.into_work_keeping(DataMut::F16(&mut out), None, Some(&mut rows));
    work.unwrap().finish().unwrap();
    assert_eq!(rows, [1.0, 0.5, 2.0, 1.0]);
}
