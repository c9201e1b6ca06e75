//! What is written is read back identical: by the reader here and by the `safetensors` crate's own.

use crate::common::{ok, put, refusal, scratch, values};
use diffattn::{Error, Tensor};
use diffattn_files::{
    ByteSource, Checkpoint, Dtype, FileLayout, FileMap, FileRanges, RawTensor, TensorSpec, write,
    write_to,
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::collections::BTreeMap;

const DTYPES: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

/// The crate's own, by its name in files.
fn theirs(dtype: Dtype) -> safetensors::Dtype {
    serde_json::from_value(dtype.name().into()).unwrap_or_else(|e| panic!("{e}"))
}

/// Names, widths and order are those of the crate.
#[test]
fn element_types() {
    let mut sorted = DTYPES;
    sorted.sort();
    assert_eq!(sorted, DTYPES);
    let mut sorted = DTYPES.map(theirs);
    sorted.sort();
    assert_eq!(sorted, DTYPES.map(theirs));
    for dtype in DTYPES {
        assert_eq!(Dtype::named(dtype.name()), Some(dtype));
        assert_eq!(theirs(dtype).to_string(), dtype.to_string());
        assert_eq!(theirs(dtype).bitsize(), dtype.bitsize(), "{dtype}");
    }
    assert_eq!(Dtype::named("f32"), None);
}

/// Tensors of every type, with names of any letters; narrow elements fill whole bytes.
fn tensors() -> impl Strategy<Value = BTreeMap<String, RawTensor<'static>>> {
    let tensor = (
        0..DTYPES.len(),
        prop::collection::vec(0usize..4, 0..4),
        any::<u64>(),
    )
        .prop_map(|(dtype, mut shape, seed)| {
            let dtype = DTYPES[dtype];
            if dtype.bitsize() < 8 {
                shape.push(8);
            }
            let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let bytes: Vec<u8> = values(seed, len, 1.0)
                .iter()
                .map(|x| x.to_bits() as u8)
                .collect();
            ok(RawTensor::new("tensor", dtype, &shape, bytes))
        });
    prop::collection::btree_map("\\PC{0,12}", tensor, 0..9)
}

fn listed<'t>(tensors: &'t BTreeMap<String, RawTensor<'static>>) -> Vec<(&'t str, RawTensor<'t>)> {
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.borrowed()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tensors(
        tensors in tensors(),
        metadata in prop::collection::btree_map("\\PC{0,8}", "\\PC{0,20}", 0..4),
    ) {
        let bytes = ok(write(&listed(&tensors), &metadata));
        let checkpoint = ok(Checkpoint::open("f", &bytes));
        prop_assert_eq!(checkpoint.metadata(), &metadata);
        prop_assert_eq!(checkpoint.entries().len(), tensors.len());
        prop_assert_eq!(checkpoint.header().data_start() % 8, 0);
        for (name, tensor) in &tensors {
            prop_assert_eq!(&ok(checkpoint.raw(name)), tensor);
            // Every element lies where its type wants it.
            let entry = checkpoint.header().get(name);
            let start = entry.map_or(1, |entry| entry.range.start);
            prop_assert_eq!(start % (tensor.dtype().bitsize() as u64).div_ceil(8).min(8), 0);
        }
        // The crate's reader sees the same.
        let read = SafeTensors::deserialize(&bytes);
        let read = read.unwrap_or_else(|e| panic!("{e}"));
        prop_assert_eq!(read.len(), tensors.len());
        for (name, view) in read.iter() {
            let tensor = &tensors[name];
            prop_assert_eq!(view.dtype(), theirs(tensor.dtype()));
            prop_assert_eq!(view.shape(), tensor.shape());
            prop_assert_eq!(view.data(), tensor.bytes());
        }
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| panic!("{e}"));
        let said: BTreeMap<String, String> =
            header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        prop_assert_eq!(said, metadata);
    }

    /// What the crate writes is read here.
    #[test]
    fn of_the_crate(tensors in tensors()) {
        let views: Vec<(&str, safetensors::tensor::TensorView<'_>)> = tensors
            .iter()
            .map(|(name, tensor)| {
                let view = safetensors::tensor::TensorView::new(
                    theirs(tensor.dtype()),
                    tensor.shape().to_vec(),
                    tensor.bytes(),
                );
                (name.as_str(), view.unwrap_or_else(|e| panic!("{e}")))
            })
            .collect();
        let bytes = safetensors::serialize(views, None).unwrap_or_else(|e| panic!("{e}"));
        let checkpoint = ok(Checkpoint::open("f", &bytes));
        prop_assert_eq!(checkpoint.entries().len(), tensors.len());
        for (name, tensor) in &tensors {
            prop_assert_eq!(&ok(checkpoint.raw(name)), tensor);
        }
        // With no metadata both lay the same file out.
        prop_assert_eq!(ok(write(&listed(&tensors), &BTreeMap::new())), bytes);
    }
}

/// A file through a writer, a map and ranges.
#[test]
fn files() {
    let x = values(1, 600, 1.0);
    let tensors = [
        ("x", ok(RawTensor::of("x", &Tensor::f32(&x, &[20, 30])))),
        (
            "y",
            ok(RawTensor::new("y", Dtype::BOOL, &[3], vec![1, 0, 1])),
        ),
    ];
    let metadata = BTreeMap::from([("made".to_owned(), "here".to_owned())]);
    let path = scratch("files").join("model.safetensors");
    let mut file = std::fs::File::create(&path).unwrap_or_else(|e| panic!("{e}"));
    ok(write_to(
        &mut file,
        "model.safetensors",
        &tensors,
        &metadata,
    ));
    drop(file);
    assert_eq!(
        std::fs::read(&path).ok(),
        Some(ok(write(&tensors, &metadata)))
    );

    // SAFETY: nobody else knows of the file.
    let map = ok(Checkpoint::open("map", ok(unsafe { FileMap::open(&path) })));
    let ranges = ok(Checkpoint::open("ranges", ok(FileRanges::open(&path))));
    assert_eq!(map.header(), ranges.header());
    for (name, tensor) in &tensors {
        assert_eq!(&ok(map.raw(name)), tensor);
        assert_eq!(&ok(ranges.raw(name)), tensor);
    }
    assert_eq!(ok(ranges.read_f32("x")), x);
    assert_eq!(ok(map.read_f32("y")), [1.0, 0.0, 1.0]);
    let raw = ok(map.raw("x"));
    assert!(ok(raw.floats("x")).is_borrowed(), "a map is read in place");

    // A file that is shortened after it was opened.
    let whole = std::fs::read(&path).unwrap_or_else(|e| panic!("{e}"));
    drop(raw);
    drop(map);
    put(&path, &whole[..whole.len() - 3]);
    let (code, sentence) = refusal(ranges.raw("y"));
    assert_eq!(code, "FILE");
    assert!(
        sentence.starts_with("ranges, tensor \"y\": expected bytes ")
            && sentence.contains("failed to fill whole buffer"),
        "{sentence}"
    );
    let (code, sentence) = refusal(FileRanges::open(path.with_file_name("none")));
    assert_eq!(code, "FILE");
    assert!(
        sentence.contains("none: expected a file to read, got "),
        "{sentence}"
    );
    let folder = refusal(FileRanges::open(path.with_file_name("")));
    assert!(
        folder
            .1
            .ends_with("expected a file to read, got a folder or a device"),
        "{folder:?}"
    );
    let beyond = refusal(ok(FileRanges::open(&path)).read("f", 5..1 << 50));
    assert!(
        beyond
            .1
            .starts_with("f: expected bytes 5 to 1125899906842624, got "),
        "{beyond:?}"
    );
}

/// One tensor at a time, in the order of the file, and no other bytes than were said.
#[test]
fn streamed() {
    let specs = [
        TensorSpec {
            name: "b",
            dtype: Dtype::U8,
            shape: &[3],
        },
        TensorSpec {
            name: "a",
            dtype: Dtype::U8,
            shape: &[2],
        },
        TensorSpec {
            name: "c",
            dtype: Dtype::F32,
            shape: &[1],
        },
    ];
    let layout = ok(FileLayout::new(&specs, &BTreeMap::new()));
    assert_eq!(layout.order(), [2, 1, 0]);
    let mut asked = Vec::new();
    let mut file = Vec::new();
    ok(layout.write("f", &mut file, |index| {
        asked.push(index);
        Ok(vec![index as u8; [3, 2, 4][index]].into())
    }));
    assert_eq!(asked, layout.order());
    assert_eq!(file.len() as u64, layout.file_len());
    assert!(file.starts_with(layout.header()));
    assert_eq!(file[file.len() - 9..], [2, 2, 2, 2, 1, 1, 0, 0, 0]);
    assert_eq!(
        refusal(layout.write("f", &mut Vec::new(), |_| Ok(vec![0u8].into()))),
        ("SHAPE", "c: expected 4 bytes, got 1".to_owned())
    );
    let failed = layout.write("f", &mut Vec::new(), |_| Err(Error::aborted()));
    assert_eq!(refusal(failed).0, "ABORTED");

    /// A disk that is full after some bytes.
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let room = layout.header().len() + 4;
    let bytes = |index: usize| Ok(vec![0u8; [3, 2, 4][index]].into());
    assert_eq!(
        refusal(layout.write("f", &mut Full(room), bytes)),
        (
            "FILE",
            "f, tensor \"a\": expected to write 2 bytes, got no storage space".to_owned()
        )
    );
}

/// Every float16 and bfloat16 there is, to float32 and back; and the rounding of what lies between.
#[test]
fn casts() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (dtype, quiet, infinity) in [
        (Dtype::F16, 0x0200u16, 0x7c00u16),
        (Dtype::BF16, 0x0040, 0x7f80),
    ] {
        let narrow = ok(RawTensor::new("x", dtype, &[1 << 16], all.clone()));
        let wide = ok(narrow.cast("x", Dtype::F32));
        assert_eq!((wide.overflowed, wide.vanished), (0, 0));
        let back = ok(wide.tensor.cast("x", dtype));
        assert_eq!((back.overflowed, back.vanished), (0, 0));
        for (bits, got) in (0..=u16::MAX).zip(back.tensor.bytes().as_chunks().0) {
            let is_nan = bits & 0x7fff > infinity;
            let wanted = if is_nan { bits | quiet } else { bits };
            assert_eq!(u16::from_le_bytes(*got), wanted, "{dtype} {bits:#06x}");
        }
        // Halfway between two neighbours goes to the even one; one step further up goes up.
        let floats = ok(wide.tensor.to_f32("x"));
        for bits in 0..infinity - 1 {
            let (low, high) = (
                f64::from(floats[bits as usize]),
                f64::from(floats[bits as usize + 1]),
            );
            let middle = ((low + high) / 2.0) as f32;
            if f64::from(middle) != (low + high) / 2.0 {
                // Below the smallest float32 there is no middle.
                assert_eq!(dtype, Dtype::BF16);
                continue;
            }
            let up = f32::from_bits(middle.to_bits() + 1);
            let pair = ok(RawTensor::of("x", &Tensor::f32(&[middle, up], &[2])));
            let cast = ok(pair.cast("x", dtype));
            let got: Vec<u16> = cast
                .tensor
                .bytes()
                .as_chunks()
                .0
                .iter()
                .map(|&x| u16::from_le_bytes(x))
                .collect();
            assert_eq!(
                got,
                [bits + (bits & 1), bits + 1],
                "{dtype} above {bits:#06x}"
            );
        }
    }
    // 65520 is halfway between the largest float16 and what would come next.
    let x = [65519.9, 65520.0, -1e30, f32::INFINITY, 1e-9, -0.0, f32::NAN];
    let x = ok(RawTensor::of("x", &Tensor::f32(&x, &[7])));
    let cast = ok(x.cast("x", Dtype::F16));
    assert_eq!((cast.overflowed, cast.vanished), (2, 1));
    let same = ok(x.cast("x", Dtype::F32));
    assert_eq!(same.tensor, x);
    assert_eq!(
        refusal(x.cast("x", Dtype::F64)),
        ("DTYPE", "x: expected F32, F16 or BF16, got F64".to_owned())
    );
}

/// Every type that has numbers.
#[test]
fn numbers() {
    let cases: [(Dtype, Vec<u8>, f32); 12] = [
        (Dtype::F64, (-1.5f64).to_le_bytes().to_vec(), -1.5),
        (Dtype::F32, 0.25f32.to_le_bytes().to_vec(), 0.25),
        (Dtype::F16, vec![0, 0x3c], 1.0),
        (Dtype::BF16, vec![0x80, 0x3f], 1.0),
        (Dtype::I64, (-5i64).to_le_bytes().to_vec(), -5.0),
        (
            Dtype::U64,
            u64::MAX.to_le_bytes().to_vec(),
            18446744073709551616.0,
        ),
        (Dtype::I32, i32::MIN.to_le_bytes().to_vec(), -2147483648.0),
        (Dtype::U32, 7u32.to_le_bytes().to_vec(), 7.0),
        (Dtype::I16, (-7i16).to_le_bytes().to_vec(), -7.0),
        (Dtype::U16, 9u16.to_le_bytes().to_vec(), 9.0),
        (Dtype::I8, vec![0xff], -1.0),
        (Dtype::BOOL, vec![2], 1.0),
    ];
    for (dtype, bytes, value) in cases {
        let x = ok(RawTensor::new("x", dtype, &[1], bytes));
        assert_eq!(ok(x.to_f32("x")), [value], "{dtype}");
    }
}
