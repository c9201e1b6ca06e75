//! Writes GGUF files, right and wrong ones, for the tests of the reader.

/// A file that is being written.
#[derive(Default, Clone)]
pub(super) struct Writer {
    pub(super) values: Vec<(String, u32, Vec<u8>)>,
    pub(super) tensors: Vec<(String, Vec<u64>, u32, u64)>,
    version: Option<u32>,
    alignment: Option<u32>,
    data: Vec<u8>,
}

pub(super) fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

pub(super) fn texts(list: &[&str]) -> Vec<u8> {
    let mut bytes = 8u32.to_le_bytes().to_vec();
    bytes.extend((list.len() as u64).to_le_bytes());
    list.iter().for_each(|one| bytes.extend(text(one)));
    bytes
}

/// A list of numbers of 4 bytes.
pub(super) fn list(kind: u32, list: &[u32]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((list.len() as u64).to_le_bytes());
    list.iter().for_each(|one| bytes.extend(one.to_le_bytes()));
    bytes
}

impl Writer {
    pub(super) fn value(mut self, key: &str, kind: u32, bytes: Vec<u8>) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self.values.push((key.to_owned(), kind, bytes));
        self
    }

    pub(super) fn without(mut self, key: &str) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self
    }

    pub(super) fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, value.to_le_bytes().to_vec())
    }

    pub(super) fn f32(self, key: &str, value: f32) -> Self {
        self.value(key, 6, value.to_le_bytes().to_vec())
    }

    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.value(key, 8, text(value))
    }

    pub(super) fn tensor(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.retain(|(known, ..)| known != name);
        self.tensors
            .push((name.to_owned(), shape.to_vec(), kind, offset));
        self
    }

    /// Bytes of tensors, all 0.
    pub(super) fn data(self, bytes: usize) -> Self {
        self.holding(vec![0; bytes])
    }

    /// Bytes of tensors.
    pub(super) fn holding(mut self, bytes: Vec<u8>) -> Self {
        self.data = bytes;
        self
    }

    pub(super) fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    pub(super) fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = Some(alignment);
        self.u32("general.alignment", alignment)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.unwrap_or(3).to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.values.len() as u64).to_le_bytes());
        for (key, kind, bytes) in &self.values {
            file.extend(text(key));
            file.extend(kind.to_le_bytes());
            file.extend_from_slice(bytes);
        }
        for (name, shape, kind, offset) in &self.tensors {
            file.extend(text(name));
            file.extend((shape.len() as u32).to_le_bytes());
            shape
                .iter()
                .for_each(|size| file.extend(size.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        let alignment = self.alignment.unwrap_or(32) as usize;
        file.resize(file.len().next_multiple_of(alignment), 0);
        file.extend_from_slice(&self.data);
        file
    }
}

/// The values of a Llama of one layer, without tensors.
pub(super) fn llama() -> Writer {
    Writer::default()
        .text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 32)
        .u32("llama.attention.head_count", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
}
