//! Files of tokens and the order in which training reads them.

use diffattn_nn::checkpoint::{TokenFile, write_tokens};
use diffattn_nn::training::{
    Cursor, DataOptions, Dataset, Documents, Schedule, ScheduleShape, TrainingData,
};

fn file(ids: &[u32], starts: &[u64]) -> Vec<u8> {
    write_tokens(ids, starts).unwrap()
}

/// What is written is read, in two bytes where ids fit and in four where not.
#[test]
fn files_of_tokens() {
    for largest in [65_535_u32, 65_536] {
        let mut ids: Vec<u32> = (0..1000).collect();
        ids[7] = largest;
        let bytes = file(&ids, &[0, 10, 999]);
        let width = if largest == 65_535 { 2 } else { 4 };
        assert_eq!(bytes.len(), 32 + 1000 * width + 24);
        let read = TokenFile::open("book.tokens", &bytes[..]).unwrap();
        assert_eq!((read.tokens(), read.documents()), (1000, 3));
        assert_eq!(read.ids(0..1000).unwrap(), ids);
        assert_eq!(read.ids(990..2000).unwrap(), ids[990..]);
        for (token, document) in [(0, 0), (9, 0), (10, 1), (998, 1), (999, 2)] {
            assert_eq!(read.document_of(token).unwrap(), document);
        }
    }
}

/// A file that says what is not so is refused by its name, whatever it claims.
#[test]
fn hostile_files() {
    let good = file(&[1, 2, 3, 4], &[0, 2]);
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let huge = u64::MAX.to_le_bytes();
    for bad in [
        Vec::new(),
        good[..31].to_vec(),
        good[..good.len() - 1].to_vec(),
        changed(0, b"NOPE"),
        changed(4, &[2]),
        changed(8, &[3]),
        changed(16, &huge),
        changed(24, &huge),
        changed(24, &[0; 8]),
        changed(40, &[1]),
        changed(48, &[0]),
        changed(48, &[9]),
    ] {
        let error = TokenFile::open("bad.tokens", &bad[..]).unwrap_err();
        assert_eq!(error.code(), "FILE", "{error}");
        assert!(error.to_string().contains("bad.tokens"), "{error}");
    }
    assert!(write_tokens(&[1, 2], &[1]).is_err());
    assert!(write_tokens(&[1, 2], &[0, 2]).is_err());
    assert!(write_tokens(&[], &[]).is_ok());
}

/// An epoch sees every window once, in an order of its own, which follows from the seed; what is
/// measured is never trained on.
#[test]
fn every_window_once() {
    let ids: Vec<u32> = (0..8 * 101).map(|i| i / 8).collect();
    let bytes = file(&ids, &[0]);
    let data = |seed| {
        let options = DataOptions {
            context: 8,
            seed,
            eval: 0.05,
            documents: Documents::Join,
        };
        TrainingData::new(TokenFile::open("a", &bytes[..]).unwrap(), options).unwrap()
    };
    let of = |seed, rows: usize| {
        let data = data(seed);
        assert_eq!(data.windows(), [96, 5]);
        let mut cursor = Cursor::default();
        let mut seen = Vec::new();
        for _ in 0..2 * 96 / rows {
            let batch = data.next(&mut cursor, rows).unwrap();
            assert_eq!((batch.tokens(), batch.counted()), (8 * rows, 7 * rows));
            seen.push(format!("{batch:?}"));
        }
        (seen, cursor)
    };
    let (one, cursor) = of(1, 1);
    assert_eq!(
        cursor,
        Cursor {
            epoch: 1,
            index: 96
        }
    );
    let [first, second] = [&one[..96], &one[96..]].map(|epoch| {
        let mut epoch = epoch.to_vec();
        epoch.sort();
        epoch.dedup();
        epoch
    });
    assert_eq!((first.len(), &first), (96, &second));
    assert_ne!(one[..96], one[96..]);
    assert_eq!(one, of(1, 1).0);
    assert_ne!(one, of(2, 1).0);
    let data = data(1);
    let measured = data.eval(0, 100).unwrap().unwrap();
    assert_eq!(measured.tokens(), 40);
    assert!(data.eval(5, 1).unwrap().is_none());
    let measured = format!("{:?}", data.eval(4, 1).unwrap().unwrap());
    assert!(!first.contains(&measured));
}

/// Documents begin anew within a window, or are joined.
#[test]
fn documents() {
    let ids: Vec<u32> = (0..16).collect();
    let bytes = file(&ids, &[0, 3, 10]);
    let batch = |documents| {
        let options = DataOptions {
            context: 8,
            documents,
            eval: 0.0,
            seed: 0,
        };
        let data = TrainingData::new(TokenFile::open("a", &bytes[..]).unwrap(), options).unwrap();
        data.next(&mut Cursor::default(), 2).unwrap().counted()
    };
    // Two windows of 8, cut at 3 and 10: the first token of each piece is no label.
    assert_eq!(batch(Documents::Mask), 16 - 4);
    assert_eq!(batch(Documents::Join), 16 - 2);
}

/// The learning rate rises over the warm-up and falls to its last share.
#[test]
fn schedules() {
    let of = |shape| Schedule {
        lr: 1.0,
        steps: 100,
        warmup: 10,
        final_share: 0.1,
        shape,
    };
    for shape in [ScheduleShape::Cosine, ScheduleShape::Linear] {
        let schedule = of(shape);
        schedule.check().unwrap();
        assert!((schedule.at(1) - 0.1).abs() < 1e-12);
        assert!((schedule.at(10) - 1.0).abs() < 1e-12);
        assert!((schedule.at(55) - 0.55).abs() < 1e-12);
        assert!((schedule.at(100) - 0.1).abs() < 1e-12);
        assert!((schedule.at(1000) - 0.1).abs() < 1e-12);
    }
    assert!((of(ScheduleShape::Constant).at(99) - 1.0).abs() < 1e-12);
    for (wrong, name) in [
        (
            Schedule {
                lr: f64::NAN,
                ..of(ScheduleShape::Cosine)
            },
            "lr",
        ),
        (
            Schedule {
                steps: 0,
                ..of(ScheduleShape::Cosine)
            },
            "steps",
        ),
        (
            Schedule {
                warmup: 101,
                ..of(ScheduleShape::Cosine)
            },
            "warmup",
        ),
        (
            Schedule {
                final_share: 2.0,
                ..of(ScheduleShape::Cosine)
            },
            "final",
        ),
    ] {
        assert!(wrong.check().unwrap_err().to_string().contains(name));
    }
}
