//! What a layer keeps of the tokens before those of a pass.

use diffattn::{KvCache, KvCacheOptions};

/// The state of one layer for one text, by kind.
///
/// There is one kind today. Others have a place here: a recurrent state (of Mamba: a few vectors,
/// which cannot be rewound), and a layer that reads what another keeps (YOCO: no memory of its own,
/// the number of that layer).
#[derive(Debug)]
pub(crate) enum State {
    /// Keys and values of every token.
    Kv(KvCache),
}

impl State {
    /// Forgets all but the first `length` tokens, which it holds.
    pub(crate) fn rewind(&mut self, length: usize) {
        let Self::Kv(cache) = self;
        // (Fails only where it holds fewer.)
        let _ = cache.rewind(length);
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        let Self::Kv(cache) = self;
        cache.bytes()
    }

    /// Lets go of tokens before the one at `first`, in whole strips; gives how many these are.
    pub(crate) fn discard_before(&mut self, first: usize) -> usize {
        let Self::Kv(cache) = self;
        cache.discard_before(first)
    }

    /// Keys and values, where it is of that kind.
    pub(crate) fn kv(&self) -> &KvCache {
        let Self::Kv(cache) = self;
        cache
    }

    /// Keys and values, to be added to.
    pub(crate) fn kv_mut(&mut self) -> &mut KvCache {
        let Self::Kv(cache) = self;
        cache
    }

    /// What its keys and values are made for.
    pub(crate) fn options(&self) -> &KvCacheOptions {
        self.kv().options()
    }

    /// Whether it is of the sizes and elements that are wanted, whatever its capacity.
    pub(crate) fn is_for(&self, wanted: &KvCacheOptions) -> bool {
        let capacity = 0;
        let sizes = |options: &KvCacheOptions| KvCacheOptions {
            capacity,
            ..*options
        };
        sizes(self.options()) == sizes(wanted)
    }

    /// `[k heads, head_dim]` and `[v heads, value_dim]`: what each token has.
    pub(crate) fn token_shapes(&self) -> [[usize; 2]; 2] {
        let KvCacheOptions {
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = *self.options();
        [[terms * groups, head_dim], [groups, value_dim]]
    }
}
