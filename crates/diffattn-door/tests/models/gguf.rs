//! GGUF files through the door: asked as who fetches by range does, loaded part by part.

use crate::common::{Folder, Output, Request, bits, ok, parts, refusal};
use crate::llama::{PLAIN, forward};
use diffattn::{Data, Error, Tensor};
use diffattn_door::Door;
use diffattn_nn::checkpoint::GgufFiles;
use diffattn_nn::{DiffLlama, DiffLlamaConfig, DiffLlamaOptions, TokenIds, Weights};
use serde_json::Value;

const SPLIT: [&str; 2] = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];

/// A model's files, as much of each as was asked for.
struct Asked {
    files: Vec<(String, Vec<u8>)>,
    have: Vec<usize>,
}

impl Asked {
    fn new(case: &str) -> Self {
        let names: &[&str] = match case {
            "split" => &SPLIT,
            _ => &["model.gguf"],
        };
        let folder = Folder::fixture(&format!("gguf/{case}"));
        let files = names
            .iter()
            .map(|name| ((*name).to_owned(), folder.bytes(name)));
        Self {
            files: files.collect(),
            have: vec![0; names.len()],
        }
    }

    fn request(&self) -> Request {
        let mut request = Request::default().n(&[self.files.len() as f64]);
        for ((name, bytes), have) in self.files.iter().zip(&self.have) {
            request = request
                .text(name)
                .n(&[bytes.len() as f64])
                .u8(&bytes[..*have]);
        }
        request
    }

    /// Request 71, without `maxTensors`.
    fn ask(&self, door: &Door, factors: Option<&[u8]>) -> Result<Vec<Output>, Error> {
        let request = match factors {
            Some(bytes) => self.request().u8(bytes),
            None => self.request().n(&[0.0]),
        };
        request.n(&[0.0]).run(door, 71)
    }

    fn bytes(&self, entry: &Value) -> &[u8] {
        let file = self.files.iter().find(|(name, _)| entry["file"] == **name);
        let (_, bytes) = file.unwrap_or_else(|| panic!("no file of {entry}"));
        let at = |end: usize| {
            entry["range"][end]
                .as_u64()
                .unwrap_or_else(|| panic!("{entry}"))
        };
        &bytes[at(0) as usize..at(1) as usize]
    }

    /// Everything that 71 tells, asked again until nothing is wanting.
    fn open(&mut self, door: &Door) -> Vec<Output> {
        let mut factors = None;
        for _ in 0..8 {
            let outputs = ok(self.ask(door, factors.as_deref()));
            let told = outputs[0].json();
            if let Some(need) = told["need"].as_array() {
                let mut more = false;
                for (need, have) in need.iter().zip(&mut self.have) {
                    let need = need.as_u64().unwrap_or_else(|| panic!("{told}")) as usize;
                    more |= need > *have;
                    *have = need.max(*have);
                }
                assert!(more, "{told}");
            } else if told["factors"].is_object() {
                assert!(factors.is_none());
                factors = Some(self.bytes(&told["factors"]).to_vec());
            } else {
                return outputs;
            }
        }
        panic!("asked without an end")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.bytes().to_vec()).unwrap_or_else(|why| panic!("{why}"))
}

/// The same model without the door.
fn direct(files: Vec<(String, Vec<u8>)>) -> DiffLlama {
    let files = ok(GgufFiles::new(files));
    let config = ok(DiffLlamaConfig::from_llama_json(files.config()));
    let tensors: Vec<_> = files
        .entries()
        .iter()
        .map(|entry| {
            let name = &entry.entry.name;
            let raw = ok(files.raw(name));
            let (shape, floats) = (raw.shape().to_vec(), ok(raw.to_f32(name)));
            (name.clone(), shape, floats)
        })
        .collect();
    let weights: Weights<'_> = tensors
        .iter()
        .map(|(name, shape, floats)| {
            let tensor = Tensor {
                data: Data::F32(floats),
                shape: shape.clone(),
            };
            (name.clone(), tensor)
        })
        .collect();
    ok(DiffLlama::new(&config, &weights))
}

#[test]
fn files_become_models() {
    for case in ["f32", "q4_1", "rope_freqs", "split"] {
        let door = Door::new();
        let mut asked = Asked::new(case);
        let opened = asked.open(&door);
        let tensors = opened[0].json()["tensors"].clone();
        let request = Request::default().n(&[0.0]).text(&text(&opened[1]));
        let request = request.n(&[1.0]).text(&text(&opened[2]));
        let model = ok(request.text(&tensors.to_string()).query(&door, 96));
        for (part, names) in parts(&door, model).iter().enumerate() {
            let names = names.as_array().unwrap_or_else(|| panic!("{names}"));
            let mut request = Request::default().n(&[model, part as f64, names.len() as f64]);
            for name in names {
                let mut entries = tensors.as_array().into_iter().flatten();
                let entry = entries.find(|entry| entry["name"] == *name);
                let entry = entry.unwrap_or_else(|| panic!("no {name}"));
                request = request.entry(entry, asked.bytes(entry));
            }
            ok(request.run(&door, 73));
        }
        let (shape, ids) = Folder::fixture(&format!("gguf/{case}")).ids("input_ids");
        let got = ok(forward(model, &ids, &shape, &PLAIN).run(&door, 80));
        let options = DiffLlamaOptions::default();
        let expected = direct(asked.files);
        let expected = ok(expected.forward(TokenIds::i32(&ids, &shape), None, &options));
        // (Weights of half a float's width stay so here, to the same bits.)
        assert_eq!(bits(got[0].f32()), bits(&expected.logits), "{case}");
    }
}

#[test]
fn tokenizers_and_names() {
    let door = Door::new();
    let mut asked = Asked::new("split");
    let short = asked.request().n(&[0.0]);
    assert_eq!(refusal(short.run(&door, 74)).0, "FILE");
    asked.open(&door);
    let tokenizer = ok(asked.request().n(&[0.0]).run(&door, 74));
    let files = ok(GgufFiles::new(asked.files.clone()));
    let direct = ok(files.tokenizer()).unwrap_or_else(|| panic!("no tokenizer"));
    assert_eq!(text(&tokenizer[0]), direct.tokenizer);
    assert_eq!(text(&tokenizer[1]), direct.config);
    let names = |name: &str| ok(Request::default().text(name).run(&door, 75))[0].json();
    assert_eq!(names(SPLIT[1]), serde_json::json!(SPLIT));
    assert_eq!(names("model.gguf"), serde_json::json!(["model.gguf"]));
}

#[test]
fn what_is_wrong_is_refused() {
    let door = Door::new();
    let mut asked = Asked::new("q4_0");
    asked.open(&door);
    let limited = asked.request().n(&[0.0]).n(&[1.0, 19.0]);
    assert_eq!(
        refusal(limited.run(&door, 71)),
        (
            "FILE",
            "model.gguf: expected at most 19 tensors (maxTensors), got 20".into()
        )
    );
    let mut split = Asked::new("split");
    split.open(&door);
    split.files.pop();
    split.have.pop();
    assert_eq!(
        refusal(split.ask(&door, None)),
        (
            "FILE",
            "model-00001-of-00002.gguf: expected the 2 files of its model (split.count), got 1"
                .into()
        )
    );
    // Factors that are not as many as the tensor has.
    let mut scaled = Asked::new("rope_freqs");
    scaled.open(&door);
    assert_eq!(refusal(scaled.ask(&door, Some(&[0; 3]))).0, "FILE");
    // Heads that the rows are not of.
    let model = {
        let opened = asked.open(&door);
        let request = Request::default()
            .n(&[0.0])
            .text(&text(&opened[1]))
            .n(&[0.0]);
        let tensors = opened[0].json()["tensors"].to_string();
        ok(request.text(&tensors).query(&door, 96))
    };
    let odd = Request::default().n(&[model, 0.0, 1.0]);
    let odd = odd.text("x").text("F32").list(&[3.0, 1.0]).u8(&[0; 12]);
    assert_eq!(refusal(odd.n(&[1.0, 2.0]).run(&door, 73)).0, "FILE");
}
