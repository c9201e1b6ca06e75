//! Every reference case of gradients is used: the table below is compared with the folders that are
//! there, each of its rows with the cases of its folder, and each expected tensor with what is
//! computed.

use std::collections::BTreeSet;
use std::path::Path;

use diffattn_reference::fixture::folder;

use crate::support::Folder;
use crate::{attention, losses, operators};

#[rustfmt::skip]
const FOLDERS: [Folder; 16] = [
    Folder::new("gradients", 5, attention::attend::<f64>, attention::attend::<f32>),
    Folder::new("training/operators/adamw", 3, operators::steps::<f64>, operators::steps::<f32>),
    Folder::new("training/operators/attention", 53, attention::attend::<f64>, attention::attend::<f32>),
    Folder::new("training/operators/cross_entropy", 4, losses::of_logits::<f64>, losses::of_logits::<f32>),
    Folder::new("training/operators/distillation", 9, losses::of_teacher::<f64>, losses::of_teacher::<f32>),
    Folder::new("training/operators/embedding", 1, operators::embed::<f64>, operators::embed::<f32>),
    Folder::new("training/operators/gelu", 1, operators::error_linear::<f64>, operators::error_linear::<f32>),
    Folder::new("training/operators/group_norm", 11, operators::group::<f64>, operators::group::<f32>),
    Folder::new("training/operators/layer_norm", 4, operators::layer::<f64>, operators::layer::<f32>),
    Folder::new("training/operators/linear", 2, operators::linear_map::<f64>, operators::linear_map::<f32>),
    Folder::new("training/operators/linear_cross_entropy", 3, losses::of_hidden::<f64>, losses::of_hidden::<f32>),
    Folder::new("training/operators/polynorm", 7, operators::poly::<f64>, operators::poly::<f32>),
    Folder::new("training/operators/rms_norm", 7, operators::rms::<f64>, operators::rms::<f32>),
    Folder::new("training/operators/rope", 5, operators::rope::<f64>, operators::rope::<f32>),
    Folder::new("training/operators/sequence", 5, operators::sequence::<f64>, operators::sequence::<f32>),
    Folder::new("training/operators/swiglu", 1, operators::gated::<f64>, operators::gated::<f32>),
];

#[test]
fn reference_cases() {
    let mut failures = Vec::new();
    for folder in &FOLDERS {
        folder.compare(&mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The folders below `path` that hold cases, with the number of these.
fn folders(path: &Path, found: &mut BTreeSet<(String, usize)>) {
    let entries = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases = 0;
    for entry in entries {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let path = entry.path();
        if path.is_dir() {
            folders(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            cases += 1;
        }
    }
    if cases > 0 {
        let below = path.strip_prefix(folder()).unwrap_or(path);
        found.insert((below.to_string_lossy().replace('\\', "/"), cases));
    }
}

#[test]
fn every_case_is_used() {
    let mut found = BTreeSet::new();
    for root in ["training/operators", "gradients"] {
        folders(&folder().join(root), &mut found);
    }
    let named = FOLDERS
        .iter()
        .map(|folder| (folder.name.to_owned(), folder.cases));
    assert_eq!(found, named.collect());
    assert_eq!(found.iter().map(|(_, cases)| cases).sum::<usize>(), 121);
}
