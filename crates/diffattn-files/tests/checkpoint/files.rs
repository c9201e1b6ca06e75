//! Every file of the project opens, and says the same as the `safetensors` crate's reader.

use crate::common::{all_files, ok};
use diffattn_files::{Checkpoint, FileMap, FileRanges};
use safetensors::SafeTensors;

#[test]
fn all_open() {
    let files = all_files("safetensors");
    assert!(files.len() > 80, "{} files", files.len());
    for path in files {
        let name = path.display().to_string();
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let theirs = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let memory = ok(Checkpoint::open(&name, &bytes));
        let ranges = ok(Checkpoint::open(&name, ok(FileRanges::open(&path))));
        // SAFETY: the project's own files stay as they are.
        let map = ok(Checkpoint::open(&name, ok(unsafe { FileMap::open(&path) })));
        assert_eq!(memory.header(), ranges.header());
        assert_eq!(memory.header(), map.header());
        assert_eq!(memory.entries().len(), theirs.len(), "{name}");
        for (tensor, view) in theirs.iter() {
            let raw = ok(memory.raw(tensor));
            assert_eq!(
                (raw.dtype().to_string(), raw.shape(), raw.bytes()),
                (view.dtype().to_string(), view.shape(), view.data())
            );
            assert_eq!(raw, ok(ranges.raw(tensor)), "{name} {tensor}");
            assert_eq!(raw, ok(map.raw(tensor)), "{name} {tensor}");
            assert_eq!(
                ok(raw.to_f32(tensor)).len(),
                raw.shape().iter().product::<usize>()
            );
        }
    }
}
