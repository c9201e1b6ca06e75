//! Llamas whose heads are made differential, against what the reference makes of the same Llama,
//! byte for byte.

use crate::common::{models, ok, refusal};
use diffattn_files::{
    ConversionForm, ConversionStart, ConversionTarget, Dtype, Entry, FileLayout, LambdaForm,
    ModelConversion, RawTensor, Shards, TargetHeads,
};
use serde_json::Value;
use std::collections::BTreeMap;

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn text(name: &str) -> String {
    let path = models().join(name).join("config.json");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn stored(name: &str) -> Tensors {
    let shards = ok(Shards::open(models().join(name)));
    let names: Vec<String> = shards.entries().map(|entry| entry.name.clone()).collect();
    let tensors = names.into_iter().map(|name| {
        let tensor = ok(shards.raw(&name));
        let told = (tensor.dtype(), tensor.shape().to_vec());
        (name, (told.0, told.1, tensor.bytes().to_vec()))
    });
    tensors.collect()
}

/// The second version with that λ.
fn v2(lambda: f64, heads: TargetHeads) -> ConversionTarget {
    ConversionTarget {
        lambda: Some(lambda),
        ..ConversionTarget::new(ConversionForm::V2, heads)
    }
}

fn started(form: ConversionForm, start: ConversionStart) -> ConversionTarget {
    ConversionTarget {
        start: Some(start),
        ..ConversionTarget::new(form, TargetHeads::All)
    }
}

/// The whole conversion, tensor by tensor, as a file has it.
fn converted(target: &ConversionTarget) -> (Tensors, Value) {
    let shards = ok(Shards::open(models().join("llama")));
    let config = text("llama");
    let planned = ModelConversion::to_differential(shards.entries(), &config, target);
    written("llama", &ok(planned))
}

/// What a conversion writes of the model of that name.
fn written(name: &str, conversion: &ModelConversion) -> (Tensors, Value) {
    let shards = ok(Shards::open(models().join(name)));
    let specs = conversion.tensors();
    let layout = ok(FileLayout::new(&specs, &BTreeMap::new()));
    let mut file = Vec::new();
    ok(layout.write("file", &mut file, |index| {
        let sources = conversion.sources(index).iter();
        let sources = sources.map(|name| shards.raw(name));
        let made = conversion.make(index, sources.collect::<Result<_, _>>()?)?;
        Ok(made.into_bytes().into())
    }));
    let read = ok(diffattn_files::Checkpoint::open("file", file));
    let tensors = read.entries().iter().map(|entry: &Entry| {
        let tensor = ok(read.raw(&entry.name));
        let shape = tensor.shape().to_vec();
        (
            entry.name.clone(),
            (tensor.dtype(), shape, tensor.bytes().to_vec()),
        )
    });
    let config = conversion.config();
    let config = serde_json::from_str(&config).unwrap_or_else(|e| panic!("{e}: {config}"));
    (tensors.collect(), config)
}

#[test]
fn the_bytes_of_the_reference() {
    let listed =
        |lists: &[&[usize]]| TargetHeads::Listed(lists.iter().map(|list| list.to_vec()).collect());
    for (name, target) in [
        ("v2_mirror", v2(0.5, TargetHeads::All)),
        ("v2_mirror", v2(0.5, TargetHeads::Last(1.0))),
        ("v2_mirror_lambda_0_3", v2(0.3, TargetHeads::All)),
        ("share_third", v2(0.5, listed(&[&[1, 4], &[0, 5]]))),
        ("share_half", v2(0.5, listed(&[&[0, 2, 4], &[3, 4, 5]]))),
        (
            "v1_zero_scalars",
            started(
                ConversionForm::V1(LambdaForm::Scalars),
                ConversionStart::Zero,
            ),
        ),
    ] {
        let folder = format!("diffattn_llama/{name}");
        let (tensors, config) = converted(&target);
        let expected = stored(&folder);
        assert_eq!(
            tensors.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (tensor, expected) in &expected {
            assert!(tensors.get(tensor) == Some(expected), "{name}: {tensor}");
        }
        let mut wanted: Value =
            serde_json::from_str(&text(&folder)).unwrap_or_else(|e| panic!("{e}"));
        if let Some(conversion) = wanted["diff_attention"].as_object_mut() {
            conversion.remove("share");
        }
        assert_eq!(config, wanted, "{name}");
    }
}

/// DEX begins with zeros, and changes nothing else.
#[test]
fn dex() {
    let heads = TargetHeads::Last(0.5);
    let (mut tensors, config) = converted(&ConversionTarget::new(ConversionForm::Dex, heads));
    assert_eq!(
        config["diff_attention"]["heads"],
        serde_json::json!([[3, 4, 5], [3, 4, 5]])
    );
    for layer in 0..2 {
        for (name, shape) in [("weight", vec![8, 8]), ("lambda_learn", vec![])] {
            let name = format!("model.layers.{layer}.self_attn.dex.{name}");
            let bytes = 4 * shape.iter().product::<usize>();
            let expected = (Dtype::F32, shape, vec![0; bytes]);
            assert_eq!(tensors.remove(&name), Some(expected));
        }
    }
    assert!(tensors == stored("llama"));
}

#[test]
fn shares_of_heads() {
    let shards = ok(Shards::open(models().join("llama")));
    let heads = |heads| {
        let target = v2(0.5, heads);
        let conversion =
            ModelConversion::to_differential(shards.entries(), &text("llama"), &target);
        conversion.map(|conversion| conversion.heads()[0].clone())
    };
    assert_eq!(ok(heads(TargetHeads::First(1.0 / 3.0))), [0, 1]);
    assert_eq!(ok(heads(TargetHeads::Last(1.0 / 3.0))), [4, 5]);
    assert_eq!(ok(heads(TargetHeads::Last(0.25))), [4, 5]);
    assert_eq!(ok(heads(TargetHeads::First(0.24))), [0]);
    for (given, sentence) in [
        (
            TargetHeads::First(0.01),
            "heads: expected one head or more, got none",
        ),
        (
            TargetHeads::First(1.5),
            "share: expected a number from 0 to 1, got 1.5",
        ),
        (
            TargetHeads::Listed(vec![vec![0]]),
            "heads: expected a list for each of 2 layers, got 1",
        ),
        (
            TargetHeads::Listed(vec![vec![0], vec![3, 3]]),
            "heads[1]: expected numbers of heads below 6, ascending, got [3, 3]",
        ),
    ] {
        assert_eq!(refusal(heads(given)), ("OPTION", sentence.to_owned()));
    }
}

/// What is no plain Llama, and numbers that λ cannot be.
#[test]
fn what_is_refused() {
    let refused = |name: &str, config: &str, target: ConversionTarget| {
        let shards = ok(Shards::open(models().join(name)));
        refusal(ModelConversion::to_differential(
            shards.entries(),
            config,
            &target,
        ))
    };
    let half = |lambda| v2(lambda, TargetHeads::First(0.5));
    for (name, got) in [
        ("diffllama_gqa", "Hugging Face diffllama"),
        (
            "diffattn_llama/share_half",
            "Llama converted to differential attention",
        ),
    ] {
        let expected = "source: expected a plain Llama (model_type \"llama\"), got";
        assert_eq!(
            refused(name, &text(name), half(0.5)),
            ("FILE", format!("{expected} {got}"))
        );
    }
    let llama = text("llama");
    for (target, sentence) in [
        (
            half(1.0),
            "lambda: expected a number between 0 and 1, got 1",
        ),
        (
            half(f64::NAN),
            "lambda: expected a number between 0 and 1, got NaN",
        ),
        (
            ConversionTarget::new(
                ConversionForm::V1(LambdaForm::Vectors),
                TargetHeads::First(0.5),
            ),
            "heads: expected all heads of a layer or none, with \"v1\", got some",
        ),
    ] {
        assert_eq!(
            refused("llama", &llama, target),
            ("OPTION", sentence.to_owned())
        );
    }
    let fewer = llama.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    let (code, sentence) = refused("llama", &fewer, half(0.5));
    assert_eq!(
        (code, sentence.as_str()),
        (
            "FILE",
            "config.num_hidden_layers: expected 2 layers, as the tensors have, got 1"
        )
    );
}

/// Halves are doubled bit for bit, and a value that they cannot hold is no infinity.
#[test]
fn halves() {
    let shards = ok(Shards::open(models().join("llama")));
    let target = v2(0.5, TargetHeads::All);
    let entries: Vec<Entry> = shards
        .entries()
        .map(|entry| Entry {
            dtype: Dtype::F16,
            ..entry.clone()
        })
        .collect();
    let conversion = ok(ModelConversion::to_differential(
        &entries,
        &text("llama"),
        &target,
    ));
    let o = "model.layers.0.self_attn.o_proj.weight";
    let index = conversion.tensors().iter().position(|spec| spec.name == o);
    let index = index.unwrap_or_else(|| panic!("no {o}"));
    let make = |bits: u16| {
        let bytes: Vec<u8> = bits.to_le_bytes().repeat(48 * 48);
        let source = ok(RawTensor::new(o, Dtype::F16, &[48, 48], bytes));
        conversion.make(index, vec![source])
    };
    // 1.5, and the largest.
    assert_eq!(ok(make(0x3e00)).bytes()[..2], 0x4200u16.to_le_bytes());
    assert_eq!(
        refusal(make(0x7bff)),
        (
            "DTYPE",
            format!(
                "weights.{o}: expected elements that hold what its values become: F32 or BF16, \
                 got some that become infinite"
            )
        )
    );
    let gate = "model.layers.0.self_attn.lambda_proj.weight";
    let specs = conversion.tensors();
    let gate = specs.iter().find(|spec| spec.name == gate);
    assert_eq!(gate.map(|spec| spec.dtype), Some(Dtype::F16));
    let refused = refusal(conversion.make(index, Vec::new()));
    let sentence = format!("sources: expected 1 tensors: {o}, got 0");
    assert_eq!(refused, ("OPTION", sentence));
}

/// DEX folded is the reference's Llama, rounded to float32 as it is.
#[test]
fn folded() {
    let name = "diffattn_llama/dex_trained";
    let shards = ok(Shards::open(models().join(name)));
    let conversion = ok(ModelConversion::fold_dex(shards.entries(), &text(name)));
    assert_eq!(conversion.heads(), [[1, 3, 5], [0, 1, 2]]);
    let (tensors, config) = written(name, &conversion);
    assert!(tensors == stored("diffattn_llama/dex_folded"));
    let wanted: Value =
        serde_json::from_str(&text("diffattn_llama/dex_folded")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config, wanted);
    for (name, got) in [
        ("llama", "Hugging Face llama"),
        (
            "diffattn_llama/v2_mirror",
            "one whose heads are differential otherwise",
        ),
    ] {
        let shards = ok(Shards::open(models().join(name)));
        let refused = refusal(ModelConversion::fold_dex(shards.entries(), &text(name)));
        let sentence = format!(
            "source: expected a Llama with DEX (model_type \"diffattn_llama\", kind \"dex\"), got {got}"
        );
        assert_eq!(refused, ("FILE", sentence));
    }
}
