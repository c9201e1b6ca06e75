//! The list of families: which loader a configuration leads to, and what it makes.

use crate::common::{Checkpoint, bits, logits, ok, refusal};
use diffattn::Error;
use diffattn_nn::{
    FAMILIES, Family, Model, ModelFiles, ModelLoader, Task, WeightFormats, WeightInfo,
};
use diffattn_nn::{TextForward, TextOptions, TextOutputs, TokenIds};
use serde_json::json;

fn entries(checkpoint: &Checkpoint) -> Vec<WeightInfo> {
    let weights = checkpoint.weights();
    let entries = weights.iter();
    entries
        .map(|(name, tensor)| WeightInfo::of(name, tensor))
        .collect()
}

fn open(
    task: Task,
    config: &str,
    entries: &[WeightInfo],
) -> Result<(&'static Family, Box<dyn ModelLoader>), Error> {
    let files = ModelFiles {
        config,
        generation_config: None,
        entries,
        formats: WeightFormats::default(),
    };
    Family::open(task, &files)
}

/// The same bits as by the family's own types.
#[test]
fn a_configuration_leads_to_its_model() {
    for (name, family, head_dim) in [
        ("diffllama_gqa", "diffllama", 8),
        ("llama", "llama", 8),
        ("motif_gda", "motif", 12),
        ("diff_mlx", "diff_mlx", 12),
    ] {
        let checkpoint = Checkpoint::fixture(name);
        let config = checkpoint.text("config.json");
        let (found, mut loader) = ok(open(Task::Text, &config, &entries(&checkpoint)));
        assert_eq!(found.architecture.name(), family);
        let known = loader.config_json();
        assert_eq!(known["head_dim"], json!(head_dim));
        assert_eq!(known.get("mlp_bias").is_some(), family == "llama");
        assert_eq!(known.get("lambda_std_dev").is_some(), family == "diffllama");
        assert_eq!(known.get("num_noise_heads").is_some(), family == "motif");
        assert_eq!(known.get("use_bias").is_some(), family == "motif");
        assert_eq!(known.get("attention_bias").is_none(), family == "motif");
        let unfinished = loader.whole().map(drop);
        assert_eq!(refusal(unfinished).0, "OPTION");
        let weights = checkpoint.weights();
        ok(loader.load_all(&mut &weights));
        let Model::Text(model) = ok(loader.whole()) else {
            panic!("a model of texts")
        };
        let (ids, options) = (TokenIds::u32(&[1, 2, 3], &[1, 3]), TextOptions::default());
        let job = ok(TextForward::new(model.decoder(), &ids, None, &options));
        assert_eq!(job.terms(0), if family == "llama" { 1 } else { 2 });
        let mut got = vec![0.0; job.logits_shape().iter().product()];
        let outputs = TextOutputs {
            logits: &mut got,
            ..TextOutputs::default()
        };
        ok(ok(job.into_work(outputs)).finish());
        assert_eq!(bits(&got), bits(&logits(&checkpoint)));
    }
    let names = FAMILIES.map(|family| family.architecture.name());
    let text = [
        "diffllama",
        "llama",
        "diffattn_llama",
        "motif",
        "diff_mlx",
        "phi4flash",
    ];
    assert_eq!(names[..6], text);
    assert_eq!(names[6..], ["diff_vit", "same_s"]);
}

#[test]
fn what_no_family_takes() {
    let entries = entries(&Checkpoint::fixture("llama"));
    let vit = "{\"architecture\": \"vit_dwee_patch16_reg1_gap_256\"}";
    let one_of = "config.model_type: expected one of \"diffllama\", \"llama\", \"diffattn_llama\", \"motif\", \"phi4flash\", got ";
    for (config, got) in [
        ("{\"model_type\": \"mistral\"}", "\"mistral\""),
        ("{}", "none"),
        (
            vit,
            "the configuration of a DIFF vision transformer: DiffViT loads it, and the command classify",
        ),
    ] {
        let refused = refusal(open(Task::Text, config, &entries));
        assert_eq!(refused, ("FILE", format!("{one_of}{got}")));
    }
    let llama = "{\"model_type\": \"llama\"}";
    let (code, sentence) = refusal(open(Task::Image, llama, &entries));
    assert_eq!(code, "FILE");
    let got = "got the configuration of a Llama, a language model: LanguageModel loads it, and the commands generate and maps";
    assert!(sentence.starts_with("config.architecture: expected one of vit_dwee_"));
    assert!(sentence.ends_with(got), "{sentence}");
    let (_, sentence) = refusal(open(Task::Text, "[", &entries));
    assert!(
        sentence.starts_with("config: expected a JSON object, got "),
        "{sentence}"
    );
}
