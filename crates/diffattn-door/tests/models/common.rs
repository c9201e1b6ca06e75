//! What the tests share: requests as the other side writes them, and models loaded through the
//! door.

use std::path::{Path, PathBuf};

use diffattn::Error;
use diffattn_door::{Call, Door, Failure, Kind, OutputSpec};
use diffattn_nn::checkpoint::{Checkpoint, Entry, FileRanges};
use diffattn_nn::{DiffLlama, DiffLlamaConfig, Weights};
use diffattn_reference::testing;
use serde_json::{Value, json};

pub(crate) use diffattn_reference::testing::{bits, ok};

/// The code and sentence that JavaScript gets.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    let failed = result.map_err(Failure::from);
    testing::refusal(failed, |failure: Failure| (failure.code, failure.message))
}

/// An output with its memory, which is aligned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) spec: OutputSpec,
    words: Vec<u64>,
}

impl Output {
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.spec.bytes]
    }

    pub(crate) fn f32(&self) -> &[f32] {
        assert_eq!(self.spec.kind, Kind::Float(diffattn::DType::F32));
        bytemuck::cast_slice(self.bytes())
    }

    pub(crate) fn i32(&self) -> &[i32] {
        assert_eq!(self.spec.kind, Kind::I32);
        bytemuck::cast_slice(self.bytes())
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.spec.kind, Kind::U8);
        assert_eq!(self.spec.shape, [self.spec.bytes]);
        serde_json::from_slice(self.bytes()).unwrap_or_else(|why| panic!("{why}"))
    }
}

/// A request under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) params: Vec<f64>,
    /// Each in words, so that it is aligned, with its bytes.
    operands: Vec<(Vec<u64>, usize)>,
}

impl Request {
    pub(crate) fn n(mut self, numbers: &[f64]) -> Self {
        self.params.extend(numbers);
        self
    }

    pub(crate) fn raw(mut self, kind: u32, shape: &[usize], bytes: &[u8]) -> Self {
        self.params.extend([f64::from(kind), shape.len() as f64]);
        self.params.extend(shape.iter().map(|&size| size as f64));
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        self.operands.push((words, bytes.len()));
        self
    }

    pub(crate) fn u8(self, bytes: &[u8]) -> Self {
        self.raw(4, &[bytes.len()], bytes)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.u8(text.as_bytes())
    }

    pub(crate) fn f32(self, shape: &[usize], data: &[f32]) -> Self {
        self.raw(1, shape, bytemuck::cast_slice(data))
    }

    pub(crate) fn i32(self, shape: &[usize], data: &[i32]) -> Self {
        self.raw(5, shape, bytemuck::cast_slice(data))
    }

    pub(crate) fn list(self, numbers: &[f64]) -> Self {
        self.n(&[numbers.len() as f64]).n(numbers)
    }

    /// A tensor as a file holds it.
    pub(crate) fn stored(self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> Self {
        let shape: Vec<f64> = shape.iter().map(|&size| size as f64).collect();
        // (Its rows lie as Hugging Face has them.)
        self.text(name).text(dtype).list(&shape).u8(bytes).n(&[0.0])
    }

    /// A tensor as a file holds it, of an entry that was told.
    pub(crate) fn entry(self, entry: &Value, bytes: &[u8]) -> Self {
        let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("{entry}"));
        let shape = entry["shape"].as_array().into_iter().flatten();
        let shape: Vec<f64> = shape.filter_map(Value::as_f64).collect();
        let request = self.text(text("name")).text(text("dtype"));
        let request = request.list(&shape).u8(bytes);
        match entry["turnedHeads"].as_f64() {
            Some(heads) => request.n(&[1.0, heads]),
            None => request.n(&[0.0]),
        }
    }

    pub(crate) fn operands(&self) -> Vec<&[u8]> {
        self.operands
            .iter()
            .map(|(words, len)| &bytemuck::cast_slice(words)[..*len])
            .collect()
    }

    pub(crate) fn query(&self, door: &Door, op: u32) -> Result<f64, Error> {
        door.query(op, &self.params, &self.operands())
    }

    pub(crate) fn call(&self, door: &Door, op: u32) -> Result<Call, Error> {
        door.call(op, &self.params)
    }

    /// Runs a job in steps of one unit.
    pub(crate) fn run(&self, door: &Door, op: u32) -> Result<Vec<Output>, Error> {
        self.run_for(door, op, usize::MAX)
            .map(|outputs| outputs.unwrap_or_else(|| panic!("a job without an end")))
    }

    /// Runs a job in at most so many steps of one unit, then drops it: as a cancelled one. `None`
    /// when that was too early.
    pub(crate) fn run_for(
        &self,
        door: &Door,
        op: u32,
        steps: usize,
    ) -> Result<Option<Vec<Output>>, Error> {
        let call = self.call(door, op)?;
        let operands = self.operands();
        let specs = call.prepare(&operands)?.outputs().to_vec();
        let mut outputs: Vec<Output> = specs
            .into_iter()
            .map(|spec| Output {
                words: vec![u64::MAX; spec.bytes.div_ceil(8)],
                spec,
            })
            .collect();
        let mut job = call.prepare(&operands)?;
        job.bind(
            outputs
                .iter_mut()
                .map(|Output { spec, words }| &mut bytemuck::cast_slice_mut(words)[..spec.bytes])
                .collect::<Vec<_>>(),
        )?;
        let (mut before, total) = (job.done(), job.total());
        let mut left = steps;
        while !job.is_complete() {
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            job.step(1)?;
            assert!(job.done() >= before && job.total() == total);
            before = job.done();
        }
        assert_eq!(job.done(), total);
        drop(job);
        Ok(Some(outputs))
    }
}

/// A folder with a checkpoint.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn fixture(name: &str) -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models");
        Self(models.join(name))
    }

    pub(crate) fn trained() -> Self {
        Self(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/model"))
    }

    pub(crate) fn bytes(&self, file: &str) -> Vec<u8> {
        let path = self.0.join(file);
        std::fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }

    pub(crate) fn text(&self, file: &str) -> String {
        String::from_utf8(self.bytes(file)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The text of its `generation_config.json`, where it has one.
    fn generation_config(&self) -> Option<String> {
        std::fs::read_to_string(self.0.join("generation_config.json")).ok()
    }

    pub(crate) fn open(&self, file: &str) -> Checkpoint<FileRanges> {
        ok(Checkpoint::open(
            file,
            ok(FileRanges::open(self.0.join(file))),
        ))
    }

    /// What is expected of it.
    pub(crate) fn ids(&self, name: &str) -> (Vec<usize>, Vec<i32>) {
        let raw = self.open("expected.safetensors");
        let raw = ok(raw.raw(name));
        let (ids, _) = raw.bytes().as_chunks();
        let ids = ids.iter().map(|&id| i64::from_le_bytes(id) as i32);
        (raw.shape().to_vec(), ids.collect())
    }

    /// `tensors` of op 64, asked in two steps as who fetches by range does.
    pub(crate) fn entries(&self, door: &Door) -> Value {
        let file = self.bytes("model.safetensors");
        let ask = |first: &[u8]| {
            let request = Request::default().n(&[0.0, 1.0]).text("model.safetensors");
            let request = request.n(&[file.len() as f64]).u8(first).n(&[0.0]);
            ok(request.run(door, 64))[0].json()
        };
        let mut need = 0;
        for _ in 0..2 {
            need = ask(&file[..need])["need"][0]
                .as_u64()
                .unwrap_or_else(|| panic!("bytes that are needed")) as usize;
        }
        let found = ask(&file[..need]);
        assert_eq!(found, ask(&file), "more than what is needed is fine");
        found["tensors"].clone()
    }

    pub(crate) fn create(&self, door: &Door, entries: &Value) -> Result<f64, Error> {
        let config = self.text("config.json");
        let is = |part: &str| config.contains(part);
        let task = match (is("llama"), is("same_s")) {
            (true, _) => 0.0,
            (_, true) => 2.0,
            _ => 1.0,
        };
        let mut request = Request::default().n(&[task]).text(&config);
        request = match self.generation_config() {
            Some(generation) => request.n(&[1.0]).text(&generation),
            None => request.n(&[0.0]),
        };
        // (Held as the files have it: neither `dtype` nor `head`.)
        request = request.text(&entries.to_string()).n(&[0.0, 0.0]);
        request.query(door, 96)
    }

    pub(crate) fn part(&self, model: f64, part: usize, names: &Value) -> Request {
        let file = self.open("model.safetensors");
        let names: Vec<&str> = names
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut request = Request::default().n(&[model, part as f64, names.len() as f64]);
        for name in names {
            let tensor = ok(file.raw(name));
            request = request.stored(
                name,
                &tensor.dtype().to_string(),
                tensor.shape(),
                tensor.bytes(),
            );
        }
        request
    }

    /// The whole model through the door.
    pub(crate) fn load(&self, door: &Door) -> f64 {
        let model = ok(self.create(door, &self.entries(door)));
        for (part, names) in parts(door, model).iter().enumerate() {
            ok(self.part(model, part, names).run(door, 73));
        }
        model
    }

    /// The same without the door.
    pub(crate) fn llama(&self) -> DiffLlama {
        let text = self.text("config.json");
        let is_of = |family: &str| text.contains(&format!("\"{family}\""));
        let read = match (is_of("diffllama"), is_of("diffattn_llama")) {
            (true, _) => DiffLlamaConfig::from_json,
            (_, true) => DiffLlamaConfig::from_diffattn_llama_json,
            _ => DiffLlamaConfig::from_llama_json,
        };
        let mut config = ok(read(&text));
        if let Some(generation) = self.generation_config() {
            config = ok(config.with_generation_config(&generation));
        }
        self.with_weights(|weights| ok(DiffLlama::new(&config, weights)))
    }

    pub(crate) fn with_weights<T>(&self, make: impl FnOnce(&Weights<'_>) -> T) -> T {
        let file = self.open("model.safetensors");
        let raw: Vec<_> = file
            .entries()
            .iter()
            .map(|Entry { name, .. }| (name.clone(), ok(file.raw(name))))
            .collect();
        let floats: Vec<_> = raw
            .iter()
            .map(|(name, tensor)| (name.clone(), ok(tensor.floats(name))))
            .collect();
        make(
            &floats
                .iter()
                .map(|(name, floats)| (name.clone(), floats.tensor()))
                .collect(),
        )
    }
}

pub(crate) fn info(door: &Door, model: f64) -> Value {
    ok(Request::default().n(&[model]).run(door, 72))[0].json()
}

pub(crate) fn parts(door: &Door, model: f64) -> Vec<Value> {
    let parts = info(door, model)["parts"].clone();
    match parts {
        Value::Array(parts) => parts,
        other => panic!("{other}"),
    }
}

/// The parts of an answer that are as expected.
pub(crate) fn assert_has(value: &Value, expected: &Value) {
    for (key, expected) in expected.as_object().into_iter().flatten() {
        assert_eq!(&value[key], expected, "{key}");
    }
    assert_ne!(expected, &json!({}));
}
