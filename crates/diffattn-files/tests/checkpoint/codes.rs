//! Quantised Llamas whose heads are made differential: codes stay, so what is made is, value by
//! value, what is made of the floats that they stand for.

use crate::common::{models, ok, refusal};
use diffattn_files::{
    ConversionForm, ConversionTarget, Dtype, Entry, GgufFiles, ModelConversion, RawTensor,
    TargetHeads,
};

#[test]
fn quantised_llamas() {
    for name in ["q8_0", "q4_0", "q4_1"] {
        let files = ok(GgufFiles::open(
            models().join("gguf").join(name).join("model.gguf"),
        ));
        let entries: Vec<Entry> = files.entries().iter().map(|of| of.entry.clone()).collect();
        let widened: Vec<Entry> = entries
            .iter()
            .cloned()
            .map(|entry| Entry {
                dtype: Dtype::F32,
                ..entry
            })
            .collect();
        let target = ConversionTarget::new(ConversionForm::V2, TargetHeads::All);
        let plan = |entries: &[Entry]| {
            ok(ModelConversion::to_differential(
                entries,
                files.config(),
                &target,
            ))
        };
        let (codes, floats) = (plan(&entries), plan(&widened));
        let of = |plan: &ModelConversion, index: usize, widen: bool| -> RawTensor<'static> {
            let sources = plan.sources(index).iter().map(|name| {
                let tensor = ok(files.raw(name));
                match widen {
                    false => ok(tensor.into_owned()),
                    true => {
                        let values = ok(tensor.to_f32(name)).into_iter();
                        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
                        ok(RawTensor::new(name, Dtype::F32, tensor.shape(), bytes))
                    }
                }
            });
            ok(ok(plan.make(index, sources.collect())).into_owned())
        };
        let mut quantised = 0;
        for (index, spec) in codes.tensors().iter().enumerate() {
            let (made, expected) = (of(&codes, index, false), of(&floats, index, true));
            assert_eq!(made.dtype(), spec.dtype, "{}", spec.name);
            quantised += usize::from(!made.dtype().is_float());
            let (made, expected) = (ok(made.to_f32("made")), ok(expected.to_f32("expected")));
            assert!(made == expected, "{name}: {}", spec.name);
        }
        assert!(quantised > 10, "{name}: {quantised}");
    }
}

/// Made in floats, they are made of what their codes stand for.
#[test]
fn quantised_llamas_in_floats() {
    let files = ok(GgufFiles::open(models().join("gguf/q4_1/model.gguf")));
    let entries: Vec<Entry> = files.entries().iter().map(|of| of.entry.clone()).collect();
    let target = ConversionTarget {
        dtype: Some(Dtype::F32),
        ..ConversionTarget::new(ConversionForm::V2, TargetHeads::First(0.25))
    };
    let plan = ok(ModelConversion::to_differential(
        &entries,
        files.config(),
        &target,
    ));
    for (index, spec) in plan.tensors().iter().enumerate() {
        let sources = plan.sources(index).iter().map(|name| ok(files.raw(name)));
        let made = ok(plan.make(index, sources.collect()));
        assert_eq!(made.dtype(), Dtype::F32, "{}", spec.name);
        if let [source] = plan.sources(index)
            && source.contains("embed_tokens")
        {
            let wide = ok(ok(files.raw(source)).to_f32(source));
            assert!(ok(made.to_f32(source)) == wide);
        }
    }
}

/// What blocks cannot hold is refused, by the tensor's name.
#[test]
fn what_is_not_exact() {
    let files = ok(GgufFiles::open(models().join("gguf/q4_0/model.gguf")));
    let entries: Vec<Entry> = files.entries().iter().map(|of| of.entry.clone()).collect();
    let mut third = ConversionTarget::new(ConversionForm::V2, TargetHeads::All);
    third.lambda = Some(0.3);
    // (Heads of 16 channels: half of a block.)
    let some = ConversionTarget::new(ConversionForm::V2, TargetHeads::First(0.25));
    for target in [third, some] {
        let plan = ok(ModelConversion::to_differential(
            &entries,
            files.config(),
            &target,
        ));
        let name = "model.layers.0.self_attn.o_proj.weight";
        let specs = plan.tensors();
        let index = specs.iter().position(|spec| spec.name == name);
        let index = index.unwrap_or_else(|| panic!("no {name}"));
        let (code, sentence) = refusal(plan.make(index, vec![ok(files.raw(name))]));
        assert_eq!(code, "DTYPE", "{sentence}");
        assert!(sentence.contains(name), "{sentence}");
    }
}
