//! Beginnings that texts have in common: caches of texts that are gone, kept within a limit of
//! memory, and the choice of what a new text begins with. Computes nothing.

use super::cache::ModelCache;
use super::text::Text;

/// Ids in common that a text waits for while another computes them: fewer are computed sooner than
/// a step takes.
const WORTH: usize = 32;

/// Caches of texts that are gone, for texts that begin as they did.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// Bytes that they may have together.
    limit: usize,
    /// The one that was used last is the last.
    kept: Vec<ModelCache>,
}

impl Prefixes {
    pub(super) fn new(limit: usize) -> Self {
        let kept = Vec::new();
        Self { limit, kept }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.kept.iter().map(ModelCache::bytes).sum()
    }

    /// Keeps the cache of a text that is gone, in the place of those that held a part of it; those
    /// that were not used for the longest time go.
    pub(super) fn keep(&mut self, cache: ModelCache) {
        if cache.is_empty() || !cache.is_whole() || cache.bytes() > self.limit {
            return;
        }
        let more = |kept: &ModelCache| kept.common_prefix(cache.ids()) == cache.len();
        if let Some(place) = self.kept.iter().position(more) {
            self.used(place);
            return;
        }
        self.kept
            .retain(|kept| kept.common_prefix(cache.ids()) < kept.len());
        self.kept.push(cache);
        while self.bytes() > self.limit {
            self.kept.remove(0);
        }
    }

    /// Notes that one was used.
    fn used(&mut self, place: usize) {
        let cache = self.kept.remove(place);
        self.kept.push(cache);
    }

    /// Whether one of the other texts is computing more of what a text begins with than is there.
    pub(super) fn is_worth_waiting<'t>(
        &self,
        text: &Text,
        others: impl Iterator<Item = &'t Text>,
    ) -> bool {
        let most = text.prompt.saturating_sub(1);
        let kept = self.kept.iter().map(|cache| cache.common_prefix(&text.ids));
        let (mut there, mut coming) = (kept.max().unwrap_or(0), 0);
        for other in others {
            let Some(cache) = other.cache.as_ref().filter(|cache| cache.is_whole()) else {
                continue;
            };
            there = there.max(cache.common_prefix(&text.ids));
            if other.finish.is_none() && cache.len() < other.prompt {
                let pairs = other.ids[..other.prompt].iter().zip(&text.ids);
                coming = coming.max(pairs.take_while(|(theirs, ours)| theirs == ours).count());
            }
        }
        coming.min(most) >= there.min(most) + WORTH
    }

    /// A cache with the longest beginning of a prompt that another text or one that is gone has.
    /// Nothing where none has any, or there is no memory for a copy.
    pub(super) fn beginning<'t>(
        &mut self,
        ids: &[u32],
        others: impl Iterator<Item = &'t Text>,
    ) -> Option<ModelCache> {
        let most = ids.len().saturating_sub(1);
        let shared = |cache: &ModelCache| cache.common_prefix(ids).min(most);
        let running = others.filter_map(|text| text.cache.as_ref());
        let running = running.filter(|cache| cache.is_whole());
        let running = running.max_by_key(|cache| shared(cache));
        let kept = self.kept.iter().enumerate();
        let kept = kept.max_by_key(|(_, cache)| shared(cache));
        let of_running = running.map_or(0, shared);
        match kept.map(|(place, cache)| (place, shared(cache), cache.len())) {
            Some((place, length, whole)) if length > 0 && length >= of_running => {
                // One that is used up to its end goes on in the text; else others need the rest.
                if length + 1 >= whole {
                    return Some(self.kept.remove(place));
                }
                self.used(place);
                self.kept.last()?.copy_prefix(length).ok()
            }
            _ if of_running > 0 => running?.copy_prefix(of_running).ok(),
            _ => None,
        }
    }
}
