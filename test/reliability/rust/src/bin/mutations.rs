//! Changes headers, of safetensors and GGUF files, indices of shards and configs at random and reads
//! them as a checkpoint is read, down to the point where a model asks for its weights. Nothing may
//! panic, take memory out of proportion, or be refused with another error than one about the file.
//! Run with AddressSanitizer where the toolchain has it: that is how the runner builds this.

use diffattn::Error;
use diffattn_nn::checkpoint::{Checkpoint, Entry, GgufFiles, ShardIndex, inspect};
use diffattn_nn::{Family, ModelFiles, Task, WeightFormats, WeightInfo};
use diffattn_reliability::{Arguments, Random, figure, miss};
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's memory, and how much of it is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; beside it are only counters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static MEMORY: Counting = Counting;

/// Bytes that a case may hold beyond `PROPORTION` times what it was given.
const ROOM: usize = 1 << 17;
const PROPORTION: usize = 16;

/// No case of a few kilobytes takes longer, on the slowest machine and under a sanitizer.
const LONG: Duration = Duration::from_secs(2);

/// A model as its files have it.
struct Model {
    task: Task,
    config: Vec<u8>,
    generation: Vec<u8>,
    weights: Vec<u8>,
    /// Bytes of the header, its length included.
    header: usize,
    inspected: Vec<Entry>,
    entries: Vec<WeightInfo>,
    /// Another model, a GGUF file.
    gguf: Vec<u8>,
}

/// Bytes of a GGUF file's header, about: what lies behind them are blocks, of any bytes.
const GGUF_HEADER: usize = 4480;

fn infos<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Vec<WeightInfo> {
    entries
        .into_iter()
        .map(|entry| WeightInfo {
            name: entry.name.clone(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
        })
        .collect()
}

impl Model {
    fn read(name: &str) -> Result<Self, String> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let read_of = |name: &str, file: &str| {
            let path = models.join(name).join(file);
            std::fs::read(path).map_err(|why| format!("{name}/{file}: {why}"))
        };
        let read = |file: &str| read_of(name, file);
        let weights = read("model.safetensors")?;
        let inspected = {
            let checkpoint =
                Checkpoint::open("f", weights.as_slice()).map_err(|why| why.to_string())?;
            checkpoint.entries().to_vec()
        };
        let length = weights
            .iter()
            .take(8)
            .rev()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        let task = match name {
            "diff_vit" => Task::Image,
            "same_s" => Task::Audio,
            _ => Task::Text,
        };
        Ok(Self {
            task,
            config: read("config.json")?,
            generation: read("generation_config.json").unwrap_or_else(|_| b"{}".to_vec()),
            weights,
            header: 8 + length,
            entries: infos(&inspected),
            inspected,
            gguf: read_of("gguf/q4_1", "model.gguf")?,
        })
    }

    /// An index that says of every tensor that it lies in one of two shards.
    fn index(&self) -> Vec<u8> {
        let lines: Vec<String> = self
            .entries
            .iter()
            .enumerate()
            .map(|(at, entry)| format!("\"{}\":\"model-{}-of-2.safetensors\"", entry.name, at % 2))
            .collect();
        format!(
            "{{\"metadata\":{{\"total_size\":1234}},\"weight_map\":{{{}}}}}",
            lines.join(",")
        )
        .into_bytes()
    }
}

/// What JSON may hold where something else belongs.
const VALUES: [&str; 34] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "0.5",
    "1e-300",
    "1e300",
    "1e400",
    "-1e400",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "\"\"",
    "\"x\"",
    "\"1\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "[1]",
    "[[[[]]]]",
    "[null,null]",
    "{}",
    "{\"a\":{\"a\":{}}}",
    "NaN",
    "\"../../x\"",
    "[0,0,0,0,0,0,0,0,0,0,0,0]",
];

/// Where the JSON values of a text lie, as well as one can see without parsing: after a colon, up
/// to a comma or a closing bracket.
fn value_ranges(text: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in text.iter().enumerate().filter(|&(_, &byte)| byte == b':') {
        let rest = text.get(at + 1..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|byte| b",}]".contains(byte))
            .unwrap_or(rest.len());
        found.push((at + 1, at + 1 + len));
    }
    found
}

/// Changes `text` from `start` up to `end` in one of many ways.
fn change(random: &mut Random, text: &mut Vec<u8>, start: usize, end: usize) {
    let end = end.min(text.len());
    if start >= end {
        return;
    }
    let at = start + random.below(end - start);
    match random.below(9) {
        // A byte, any or a digit.
        0 => text[at] = random.bits() as u8,
        1 | 2 => {
            let digits: Vec<usize> = (start..end)
                .filter(|&at| text[at].is_ascii_digit())
                .collect();
            if let Some(at) = random.pick(&digits) {
                text[at] = b'0' + random.below(10) as u8;
            }
        }
        // A piece away, doubled, or put elsewhere.
        3 => {
            let last = (at + 1 + random.below(40)).min(end);
            text.drain(at..last);
        }
        4 => {
            let piece = text[at..(at + 1 + random.below(200)).min(end)].to_vec();
            let to = start + random.below(end - start);
            text.splice(to..to, piece);
        }
        5 => {
            let piece = text[at..(at + 1 + random.below(100)).min(end)].to_vec();
            let to = start + random.below(end - start);
            let last = (to + piece.len()).min(end);
            text.splice(to..last, piece);
        }
        // A value for another one.
        6 | 7 => {
            let ranges = value_ranges(&text[start..end]);
            if let (Some((from, to)), Some(value)) = (random.pick(&ranges), random.pick(&VALUES)) {
                text.splice(start + from..start + to, value.bytes());
            }
        }
        // Deep or long.
        _ => {
            let count = 1 + random.below(2000);
            let byte = random.pick(b"[{\" 9,-").unwrap_or(b'[');
            text.splice(at..at, std::iter::repeat_n(byte, count));
        }
    }
}

fn changed(random: &mut Random, text: &[u8], start: usize, end: usize) -> Vec<u8> {
    let mut text = text.to_vec();
    let before = text.len();
    for _ in 0..1 + random.below(4) {
        let end = end + text.len() - before.min(text.len());
        change(random, &mut text, start, end);
    }
    if random.one_in(20) {
        text.truncate(random.below(text.len() + 1));
    }
    text
}

/// What a case reads, and how many of its bytes are text.
enum Given {
    Header { file: Vec<u8>, text: usize },
    Config { config: String, generation: String },
    Index(Vec<u8>),
    Gguf(Vec<u8>),
}

impl Given {
    fn new(random: &mut Random, model: &Model) -> Self {
        match random.below(6) {
            5 => Self::Gguf(changed(random, &model.gguf, 4, GGUF_HEADER)),
            0 | 1 => {
                let start = if random.one_in(10) { 0 } else { 8 };
                let mut file = changed(random, &model.weights, start, model.header);
                let text = (model.header + file.len()).saturating_sub(model.weights.len() + 8);
                // The length of what is a header now, most times: else nearly all would end there.
                if !random.one_in(4) {
                    for (to, byte) in file.iter_mut().zip((text as u64).to_le_bytes()) {
                        *to = byte;
                    }
                }
                Self::Header { file, text }
            }
            2 | 3 => {
                let mut text = |of: &[u8]| {
                    let bytes = changed(random, of, 0, of.len());
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                Self::Config {
                    config: text(&model.config),
                    generation: text(&model.generation),
                }
            }
            _ => {
                let index = model.index();
                Self::Index(changed(random, &index, 0, index.len()))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Header { .. } => "header",
            Self::Config { .. } => "config",
            Self::Index(_) => "index",
            Self::Gguf(_) => "gguf",
        }
    }

    /// Bytes that are read. (A config is read beside the header of weights: what it names is
    /// compared with what they are.)
    fn len(&self, model: &Model) -> usize {
        match self {
            Self::Header { text, .. } => *text,
            Self::Config { config, generation } => config.len() + generation.len() + model.header,
            Self::Index(text) => text.len(),
            Self::Gguf(_) => GGUF_HEADER,
        }
    }

    fn read(&self, model: &Model) -> Result<(), Error> {
        match self {
            Self::Header { file, .. } => {
                let checkpoint = Checkpoint::open("f", file.as_slice())?;
                for entry in checkpoint.entries() {
                    let raw = checkpoint.raw(&entry.name)?;
                    if raw.bytes().len() as u64 != entry.byte_len() {
                        return Err(Error::internal(
                            "a tensor of other bytes than its entry says".to_owned(),
                        ));
                    }
                }
                let config = String::from_utf8_lossy(&model.config);
                inspect(checkpoint.entries(), Some(&config))?;
                model.load(&config, "{}", &infos(checkpoint.entries()))
            }
            Self::Config { config, generation } => {
                inspect(&model.inspected, Some(config))?;
                model.load(config, generation, &model.entries)
            }
            Self::Index(text) => ShardIndex::parse("index", text).map(|index| {
                let _ = index.files();
            }),
            Self::Gguf(file) => {
                let files = GgufFiles::new(vec![("f".to_owned(), file.as_slice())])?;
                let entries = files.entries().iter().map(|entry| &entry.entry);
                inspect(entries.clone(), Some(files.config()))?;
                files.tokenizer()?;
                // (A GGUF model is one of texts, whatever the other is.)
                let files = ModelFiles {
                    config: files.config(),
                    generation_config: Some(files.generation_config()),
                    entries: &infos(entries),
                    formats: WeightFormats::default(),
                };
                Family::open(Task::Text, &files).map(|_| ())
            }
        }
    }
}

impl Model {
    /// As far as a model goes before it has weights.
    fn load(&self, config: &str, generation: &str, entries: &[WeightInfo]) -> Result<(), Error> {
        let files = ModelFiles {
            config,
            generation_config: (self.task == Task::Text).then_some(generation),
            entries,
            formats: WeightFormats::default(),
        };
        Family::open(self.task, &files).map(|_| ())
    }
}

fn main() -> Result<(), String> {
    let mut arguments = Arguments::read()?;
    // A panic is counted; its words go into the miss.
    std::panic::set_hook(Box::new(|_| {}));
    let names = [
        "diffllama_gqa",
        "diffllama_mha",
        "diffllama_bias",
        "diffllama_llama3_rope",
        "llama",
        "mlx",
        "diffattn_llama/share_half",
        "diffattn_llama/v1_mirror_half",
        "motif_gda",
        "phi4flash",
        "diff_vit",
        "same_s",
    ];
    let models = names
        .iter()
        .map(|name| Model::read(name))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut accepted, mut panics, mut others, mut large, mut slow) = (0, 0, 0, 0, 0);
    for case in arguments.first..arguments.first + arguments.count {
        let mut random = Random::new(arguments.seed, case);
        let Some(model) = models.get(random.below(models.len())) else {
            continue;
        };
        let given = Given::new(&mut random, model);
        let what = given.name();
        arguments.trace(case, what)?;
        let held = HELD.load(Ordering::Relaxed);
        PEAK.store(held, Ordering::Relaxed);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| given.read(model)));
        let (took, grown) = (start.elapsed(), PEAK.load(Ordering::Relaxed) - held);
        match outcome {
            Ok(Ok(())) => accepted += 1,
            Ok(Err(error)) => {
                // (However long a name of the file makes its sentence: the door cuts it.)
                if !matches!(error.code(), "FILE" | "OUT_OF_MEMORY") {
                    others += 1;
                    miss(case, &format!("{what}: {}: {error:.300}", error.code()))?;
                }
            }
            Err(panic) => {
                panics += 1;
                let said = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                miss(
                    case,
                    &format!("{what}: a panic: {}", said.unwrap_or("of no words")),
                )?;
            }
        }
        if grown > ROOM + PROPORTION * given.len(model) {
            large += 1;
            miss(
                case,
                &format!("{what}: {grown} bytes held for {}", given.len(model)),
            )?;
        }
        if took > LONG {
            slow += 1;
            miss(case, &format!("{what}: {} ms", took.as_millis()))?;
        }
    }
    for (name, value) in [
        ("accepted", accepted),
        ("panics", panics),
        ("others", others),
        ("large", large),
        ("slow", slow),
    ] {
        figure(name, value)?;
    }
    Ok(())
}
