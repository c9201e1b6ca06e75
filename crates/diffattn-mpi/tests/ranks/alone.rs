//! The program alone, without MPI: what it writes loads, it goes on to the same bits, and what it
//! refuses it names.

use crate::common::{CONFIG, tokens};
use clap::Parser;
use diffattn_mpi::{Arguments, Ending, Failure, train};
use diffattn_nn::checkpoint::{FileRanges, Shards};
use diffattn_nn::training::Alone;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a configuration and some tokens.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        fs::write(folder.path().join("ids.tokens"), tokens()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program; what it told, and how it ended.
    fn run(&self, out: &str, more: &[&str]) -> (String, Result<Ending, Failure>) {
        let path = |name: &str| self.path(name).display().to_string();
        let mut arguments = vec!["diffattn-train".to_owned(), path("config.json")];
        arguments.extend(["--from-scratch", "--context", "64", "--lr", "0.01"].map(String::from));
        arguments.extend([
            "--data".into(),
            path("ids.tokens"),
            "--out".into(),
            path(out),
        ]);
        arguments.extend(more.iter().map(|&one| one.to_owned()));
        let mut told = Vec::new();
        let ending = train(&Arguments::parse_from(arguments), &mut Alone, &mut told);
        (String::from_utf8(told).unwrap(), ending)
    }

    fn bytes(&self, run: &str, step: u32, file: &str) -> Vec<u8> {
        fs::read(self.path(run).join(format!("step-{step:06}")).join(file)).unwrap()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Cut, gone on from, and cut into other micro-batches: the same weights, moments and history; two
/// checkpoints stay.
#[test]
fn it_goes_on_to_the_same_bits() {
    let place = Place::new();
    let common = ["--steps", "9", "--unit", "256", "--eval-every", "3"];
    let whole = [&common[..], &["--batch", "8", "--json"]].concat();
    let (told, ending) = place.run("whole", &whole);
    assert_eq!(ending.unwrap(), Ending::Done);
    let lines: Vec<serde_json::Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 9);
    let loss = |line: usize| lines[line]["loss"].as_f64().unwrap();
    assert!(loss(8) < loss(0) - 0.2, "it learns");
    assert!(lines[2]["evalLoss"].as_f64().unwrap() > 0.0);

    let cut = [
        &common[..],
        &["--batch", "4", "--accumulate", "2", "--save-every", "2"],
    ]
    .concat();
    place.run("cut", &cut).1.unwrap();
    assert_eq!(
        names(&place.path("cut")),
        ["latest", "step-000008", "step-000009"]
    );
    fs::remove_dir_all(place.path("cut/step-000009")).unwrap();
    fs::write(place.path("cut/latest"), "step-000008\n").unwrap();
    let (told, ending) = place.run("cut", &[&cut[..], &["--resume"]].concat());
    assert_eq!(ending.unwrap(), Ending::Done);
    assert!(told.starts_with("step 9/9 "), "{told}");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert!(
            place.bytes("cut", 9, file) == place.bytes("whole", 9, file),
            "{file}"
        );
    }
    let state: serde_json::Value =
        serde_json::from_slice(&place.bytes("cut", 9, "training.json")).unwrap();
    let steps: Vec<f64> = (state["history"].as_array().unwrap().iter())
        .map(|step| step["loss"].as_f64().unwrap())
        .collect();
    let expected: Vec<f64> = (0..9).map(loss).collect();
    assert_eq!(steps, expected);
}

/// What was trained goes on in another run as a folder; what stays is stored as it was.
#[test]
fn what_it_writes_loads() {
    let place = Place::new();
    place.run("first", &["--steps", "2"]).1.unwrap();
    let folder = place.path("first/step-000002");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    assert!(config.contains(r#""dtype": "float32""#), "{config}");
    let path = |name: &str| place.path(name).display().to_string();
    let arguments = Arguments::parse_from([
        "diffattn-train",
        &folder.display().to_string(),
        "--data",
        &path("ids.tokens"),
        "--out",
        &path("second"),
        "--context",
        "64",
        "--steps",
        "2",
        "--freeze",
        "*.mlp.*",
        "--teacher",
        &folder.display().to_string(),
    ]);
    let ending = train(&arguments, &mut Alone, &mut Vec::new());
    assert_eq!(ending.unwrap(), Ending::Done);
    let (one, other) = (
        Shards::<FileRanges>::open(&folder).unwrap(),
        Shards::<FileRanges>::open(place.path("second/step-000002")).unwrap(),
    );
    let entries: Vec<_> = one.entries().map(|entry| entry.name.clone()).collect();
    assert_eq!(entries.len(), other.entries().count());
    for name in entries {
        let same = one.read_f32(&name).unwrap() == other.read_f32(&name).unwrap();
        assert_eq!(same, name.contains(".mlp."), "{name}");
    }
}

/// Sentences that name what is wrong.
#[test]
fn it_names_what_it_refuses() {
    let place = Place::new();
    place.run("run", &["--steps", "2"]).1.unwrap();
    let refused = |out: &str, more: &[&str], word: &str| {
        let error = place.run(out, more).1.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused("run", &["--steps", "2", "--unit", "192"], "unit");
    refused("run", &["--steps", "3", "--resume"], "steps");
    refused(
        "run",
        &["--steps", "2", "--seed", "4", "--resume"],
        "windows",
    );
    refused(
        "run",
        &["--steps", "2", "--freeze", "nothing_such"],
        "freeze",
    );
    fs::write(place.path("run/latest"), "../../etc").unwrap();
    refused("run", &["--steps", "2", "--resume"], "latest");
    fs::write(place.path("ids.tokens"), "no tokens").unwrap();
    refused("other", &["--steps", "2"], "ids.tokens");
    fs::write(place.path("config.json"), "{").unwrap();
    refused("other", &["--steps", "2"], "config");
    let (_, ending) = Place::new().run("run", &["--lr", "1e30", "--clip", "0", "--steps", "4"]);
    assert!(matches!(ending.unwrap(), Ending::Diverged(sentence) if sentence.contains("step")));
}

/// Of an option that is given twice the last counts; of patterns all do.
#[test]
fn options_that_are_given_twice() {
    let given = "diffattn-train m --data d --out o --lr 1 --lr 2 --freeze a --freeze b";
    let arguments = Arguments::parse_from(given.split(' '));
    assert!((arguments.lr - 2.0).abs() < 1e-12);
    assert_eq!(arguments.freeze, ["a", "b"]);
}
