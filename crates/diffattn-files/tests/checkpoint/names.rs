//! Names of tensors as models have them, whatever wrapped the model.

use crate::common::ok;
use diffattn_files::{Entries, WeightInfo};

/// The names as models have them, sorted, and what is told of them.
fn read(names: &[&str]) -> (Vec<String>, Vec<String>) {
    let info = names.iter().map(|name| WeightInfo {
        name: (*name).to_owned(),
        dtype: diffattn::DType::F32.into(),
        shape: Vec::new(),
    });
    let info: Vec<WeightInfo> = info.collect();
    let entries = ok(Entries::new(&info, true));
    let read = entries.names().map(str::to_owned).collect();
    let parts = ok(entries.finish(|_| true, |_| false));
    (read, parts.notices().to_vec())
}

#[test]
fn wrappers_go_in_any_order_and_number() {
    for prefix in [
        "_orig_mod.",
        "module.",
        "base_model.model.",
        "module._orig_mod.",
        "_orig_mod.module.module.",
        "base_model.model._orig_mod.module.base_model.model.",
        "_fsdp_wrapped_module._orig_mod.",
    ] {
        let names = [
            format!("{prefix}model.layers.0.x"),
            format!("{prefix}lm_head.weight"),
        ];
        let (read, notices) = read(&names.each_ref().map(String::as_str));
        assert_eq!(read, ["lm_head.weight", "model.layers.0.x"], "{prefix}");
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains("prefix"), "{notices:?}");
    }
    let (within, _) = read(&["model.layers.0._orig_mod.self_attn._checkpoint_wrapped_module.x"]);
    assert_eq!(within, ["model.layers.0.self_attn.x"]);
}

#[test]
fn a_base_model_has_its_prefix_and_others_keep_their_names() {
    let (names, notices) = read(&[
        "module.layers.0.x",
        "norm.weight",
        "lm_head.weight",
        "norms.y",
    ]);
    assert_eq!(
        names,
        [
            "lm_head.weight",
            "model.layers.0.x",
            "model.norm.weight",
            "norms.y"
        ]
    );
    assert_eq!(notices.len(), 2, "{notices:?}");
    for plain in [
        &["layers.0.x", "model.layers.0.x"][..],
        &["blocks.0.norm.weight", "norm.weight"],
        &["a.module.x", "modules.x"],
        &[""],
    ] {
        let (names, notices) = read(plain);
        assert_eq!(
            (names.as_slice(), notices.len()),
            (&*plain.iter().map(|x| x.to_string()).collect::<Vec<_>>(), 0)
        );
    }
}
