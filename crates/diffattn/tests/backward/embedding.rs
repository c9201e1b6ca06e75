//! Embedding backward: reference case, sums in token order, bits, refusals.

use diffattn::{DType, EmbeddingBackward, Isa, Run, Tensor, embedding_backward};
use diffattn_reference::testing::{bits, bits_with_one_nan, noise};

use crate::support::{Halves, cases, every_run, near, on, refusal, said, step_by_step};

/// The gradient, which is the same on every instruction set and any threads, fused or not.
fn everywhere(dy: Tensor<'_>, ids: &[u32], vocab_size: usize) -> Vec<f32> {
    let call = |run| embedding_backward(dy.clone(), ids, vocab_size, run).unwrap();
    let first = call(on(Isa::available()[0], 1, false));
    for run in every_run() {
        assert!(
            bits_with_one_nan(&first) == bits_with_one_nan(&call(run)),
            "{run:?}"
        );
    }
    first
}

#[test]
fn reference_cases() {
    for fixture in cases("embedding", 1) {
        let dy = fixture.f32("dy");
        let ids: Vec<u32> = fixture
            .i64("ids")
            .data
            .iter()
            .map(|&id| id as u32)
            .collect();
        let vocab_size = fixture.f32("weight").shape[0];
        let got = everywhere(Tensor::f32(&dy.data, &dy.shape), &ids, vocab_size);
        near(
            &fixture.name,
            &fixture.expected("dweight").unwrap().data,
            &got,
        );
    }
}

/// Ids of which few are met often.
fn ids(len: usize, vocab_size: usize) -> Vec<u32> {
    let skewed = |x: &f32| (x * x * vocab_size as f32) as u32 % vocab_size as u32;
    noise(len, 9).iter().map(skewed).collect()
}

#[test]
fn rows_are_sums_in_token_order() {
    let (tokens, vocab_size, width) = (3000, 500, 37);
    let (dy, ids) = (noise(tokens * width, 1), ids(tokens, vocab_size));
    let got = everywhere(Tensor::f32(&dy, &[3, 1000, width]), &ids, vocab_size);
    let mut sums = vec![0.0; vocab_size * width];
    for (row, &id) in dy.chunks(width).zip(&ids) {
        for (sum, &dy) in sums[id as usize * width..][..width].iter_mut().zip(row) {
            *sum += f64::from(dy);
        }
    }
    for (got, sum) in got.iter().zip(sums) {
        assert_eq!(got.to_bits(), (sum as f32).to_bits());
    }
}

#[test]
fn slices_halves_and_other_ids_change_no_bit() {
    let (tokens, vocab_size, width) = (2000, 9001, 64);
    let (dy, ids) = (noise(tokens * width, 2), ids(tokens, vocab_size));
    let shape = [tokens, width];
    let whole = everywhere(Tensor::f32(&dy, &shape), &ids, vocab_size);
    let mut got = vec![f32::NAN; vocab_size * width];
    let call =
        EmbeddingBackward::new(Tensor::f32(&dy, &shape), &ids, vocab_size, Run::default()).unwrap();
    assert_eq!(call.output_shape(), [vocab_size, width]);
    assert!(step_by_step(call.into_work(&mut got).unwrap()) > 2);
    assert_eq!(bits(&got), bits(&whole));

    // The tokens of one id alone.
    let id = ids[17];
    let mut rows = Vec::new();
    for (row, _) in dy
        .chunks(width)
        .zip(&ids)
        .filter(|&(_, &other)| other == id)
    {
        rows.extend_from_slice(row);
    }
    let count = rows.len() / width;
    let alone = everywhere(Tensor::f32(&rows, &[count, width]), &vec![0; count], 1);
    assert_eq!(bits(&alone), bits(&whole[id as usize * width..][..width]));

    for dtype in [DType::F16, DType::Bf16] {
        let dy = Halves::of(dtype, &dy);
        let expected = everywhere(Tensor::f32(&dy.values, &shape), &ids, vocab_size);
        assert_eq!(
            bits(&everywhere(dy.tensor(&shape), &ids, vocab_size)),
            bits(&expected)
        );
    }
}

#[test]
fn not_a_number_stays_within_its_row() {
    let mut dy = noise(40, 3);
    dy[13] = f32::NAN; // token 3, channel 1
    let got = everywhere(
        Tensor::f32(&dy, &[10, 4]),
        &[0, 1, 2, 1, 0, 1, 2, 0, 0, 0],
        4,
    );
    for (i, got) in got.iter().enumerate() {
        assert_eq!(got.is_nan(), i == 5, "{i}");
    }
    assert_eq!(got[12..], [0.0; 4]);
}

#[test]
fn empty_tensors_give_zeros_or_nothing() {
    assert_eq!(everywhere(Tensor::f32(&[], &[0, 3]), &[], 2), [0.0; 6]);
    assert!(everywhere(Tensor::f32(&[], &[2, 0]), &[1, 0], 2).is_empty());
    assert!(everywhere(Tensor::f32(&[], &[0, 5]), &[], 0).is_empty());
    let mut dweight = [f32::NAN; 6];
    let call = EmbeddingBackward::new(Tensor::f32(&[], &[0, 3]), &[], 2, Run::default()).unwrap();
    step_by_step(call.into_work(&mut dweight).unwrap());
    assert_eq!(dweight, [0.0; 6]);
}

#[test]
fn refusals_name_the_argument() {
    let dy = [0.0; 12];
    let call = |shape: &[usize], ids: &[u32], vocab_size| {
        refusal(embedding_backward(
            Tensor::f32(&dy, shape),
            ids,
            vocab_size,
            Run::default(),
        ))
    };
    assert_eq!(
        call(&[], &[], 3),
        said("SHAPE", "dy: expected 1 elements for shape [], got 12")
    );
    assert_eq!(
        call(&[3, 5], &[0; 3], 3),
        said("SHAPE", "dy: expected 15 elements for shape [3, 5], got 12")
    );
    assert_eq!(
        call(&[3, 4], &[0; 4], 3),
        said(
            "SHAPE",
            "ids: expected 3 ids, one for each row of dy, got 4"
        )
    );
    assert_eq!(
        call(&[3, 4], &[0, 3, 1], 3),
        said("OPTION", "ids: expected ids below vocab_size 3, got 3")
    );
    assert_eq!(call(&[3, 4], &[0; 3], usize::MAX / 2).0, "SHAPE");
    let job = EmbeddingBackward::new(Tensor::f32(&dy, &[3, 4]), &[0, 1, 2], 3, Run::default());
    assert_eq!(
        refusal(job.unwrap().into_work(&mut [0.0; 11])),
        said(
            "SHAPE",
            "dweight: expected 12 elements for shape [12], got 11"
        )
    );
}
