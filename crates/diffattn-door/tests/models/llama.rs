//! Forward passes.

use crate::common::{Folder, Request, bits, ok, refusal};
use diffattn::Run;
use diffattn_door::Door;
use diffattn_nn::{DiffLlamaOptions, Logits, TokenIds};

/// textForward without caches.
pub(crate) fn forward(model: f64, ids: &[i32], shape: &[usize], rest: &[f64]) -> Request {
    Request::default()
        .n(&[model])
        .i32(shape, ids)
        .list(&[])
        .n(rest)
}

/// logits all, no hidden states, no maps, no window, fused.
pub(crate) const PLAIN: [f64; 5] = [2.0, 0.0, 0.0, 0.0, 0.0];

#[test]
fn every_fixture_gives_the_bits_of_a_direct_call() {
    for name in [
        "diffllama_bias",
        "diffllama_gqa",
        "diffllama_llama3_rope",
        "diffllama_mha",
        "llama",
        "diffattn_llama/share_half_moved",
        "diffattn_llama/v1_mirror_half",
        "diffattn_llama/dex_trained",
    ] {
        let folder = Folder::fixture(name);
        let has_one = name == "llama" || name.ends_with("dex_trained");
        let terms = if has_one { 1 } else { 2 };
        let door = Door::new();
        let model = folder.load(&door);
        let (shape, ids) = folder.ids("input_ids");
        let direct = folder.llama();
        for is_deterministic in [false, true] {
            let options = DiffLlamaOptions {
                hidden_states: true,
                map_layers: vec![1, 0],
                window: Some(7),
                run: Run::default().with_deterministic(is_deterministic),
                ..DiffLlamaOptions::default()
            };
            let expected = ok(direct.forward(TokenIds::i32(&ids, &shape), None, &options));
            let deterministic = f64::from(u8::from(is_deterministic));
            let rest = [2.0, 1.0, 2.0, 1.0, 0.0, 1.0, 7.0, deterministic];
            let got = ok(forward(model, &ids, &shape, &rest).run(&door, 80));
            assert_eq!(got.len(), 2 + 2 * (terms + 1));
            assert_eq!(got[0].spec.shape, expected.logits_shape);
            assert_eq!(bits(got[0].f32()), bits(&expected.logits), "{name}");
            assert_eq!(got[1].spec.shape, expected.hidden_states_shape);
            assert_eq!(bits(got[1].f32()), bits(&expected.hidden_states));
            for (maps, got) in expected.maps.iter().zip(got[2..].chunks_exact(terms + 1)) {
                assert_eq!(got[0].spec.shape, maps.shape);
                assert_eq!(got[0].spec.name, "map1");
                assert_eq!(got[terms].spec.name, "diff");
                let expected = maps.terms.iter().chain([&maps.diff]);
                for (expected, got) in expected.zip(got) {
                    assert_eq!(bits(got.f32()), bits(expected));
                }
            }
        }
        // The last tokens' logits alone, and nothing at all.
        let last = ok(forward(model, &ids, &shape, &[1.0, 0.0, 0.0, 0.0, 0.0]).run(&door, 80));
        let options = DiffLlamaOptions {
            logits: Logits::Last,
            ..DiffLlamaOptions::default()
        };
        let expected = ok(direct.forward(TokenIds::i32(&ids, &shape), None, &options));
        assert_eq!(bits(last[0].f32()), bits(&expected.logits));
        assert_eq!(last[0].spec.shape, expected.logits_shape);
        let none = ok(forward(model, &ids, &shape, &[0.0, 0.0, 0.0, 0.0, 0.0]).run(&door, 80));
        assert_eq!(none, []);
    }
}

#[test]
fn wrong_requests_are_refused() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let refused = |request: Request| refusal(request.run(&door, 80));
    assert_eq!(
        refused(forward(model, &[1, 97], &[1, 2], &PLAIN)),
        (
            "OPTION",
            "ids: expected ids from 0 to 96, got 97 at 1".into()
        )
    );
    assert_eq!(
        refused(forward(model, &[1, 2], &[2], &PLAIN)),
        ("SHAPE", "ids: expected 2 axes, [B, L], got [2]".into())
    );
    let layers = [2.0, 0.0, 1.0, 3.0, 0.0, 0.0];
    assert_eq!(
        refused(forward(model, &[1, 2], &[1, 2], &layers)),
        (
            "OPTION",
            "mapLayers: expected layers from 0 to 2, got 3".into()
        )
    );
    let floats = Request::default().n(&[model]).f32(&[1, 1], &[1.0]);
    assert_eq!(
        refused(floats.list(&[]).n(&PLAIN)),
        ("DTYPE", "ids: expected int32, got float32".into())
    );
    assert_eq!(
        refused(forward(model + 1.0, &[1], &[1, 1], &PLAIN)).0,
        "DISPOSED"
    );
    let layer = Folder::fixture("diff_vit").load(&door);
    assert_eq!(
        refused(forward(layer, &[1], &[1, 1], &PLAIN)),
        ("DTYPE", "model: expected a DiffLlama, got a DiffViT".into())
    );
    // A stream that ends too early, or too late, is a bug of ours.
    let whole = forward(model, &[1], &[1, 1], &PLAIN);
    for len in 0..whole.params.len() {
        let mut short = whole.clone();
        short.params.truncate(len);
        assert_eq!(refused(short).0, "INTERNAL");
    }
    assert_eq!(refused(whole.n(&[0.0])).0, "INTERNAL");
}

#[test]
fn a_dropped_model_serves_its_open_jobs() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let (shape, ids) = folder.ids("input_ids");
    let expected = ok(forward(model, &ids, &shape, &PLAIN).run(&door, 80));
    let request = forward(model, &ids, &shape, &PLAIN);
    let call = ok(request.call(&door, 80));
    let operands = request.operands();
    let mut logits = vec![0.0f32; expected[0].f32().len()];
    let mut job = ok(call.prepare(&operands));
    ok(Request::default().n(&[model]).query(&door, 46));
    ok(job.bind(vec![bytemuck::cast_slice_mut(&mut logits)]));
    ok(job.finish());
    drop(job);
    assert_eq!(bits(&logits), bits(expected[0].f32()));
    assert_eq!(refusal(request.run(&door, 80)).0, "DISPOSED");
}
