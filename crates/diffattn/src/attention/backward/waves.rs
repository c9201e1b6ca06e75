//! Cuts a call of gradients into units, clusters of heads that share q, k or v of one sequence, and
//! those into blocks of rows: as many units at a time as there are threads, or as lie in cache.
//! Decides order and sizes only: no result depends on it.

use crate::attention::gradients::{GradientCall, Visits};
use crate::attention::groups::Shared;
use crate::attention::kept::Sharing;
use crate::attention::mask::Sequence;
use crate::attention::packed::ValueShape;
use crate::attention::panels::PackedUnit;
use crate::attention::prefill::GradientQueries;
use crate::attention::waves::{PackedSize, Wave, packed_unit};
use crate::blocks::{QUERY_STRIP, STRIP, WAVE_BYTES};
use crate::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A planned call of gradients.
#[derive(Debug)]
pub(super) struct PlannedGradients<'a> {
    pub(super) of: GradientCall<'a>,
    pub(super) sharing: Arc<Sharing>,
    /// Queries of a row block, whole vectors.
    pub(super) stride: usize,
    /// Threads at most.
    pub(super) threads: usize,
    /// The number of the first row block of each sequence.
    first_blocks: Vec<usize>,
}

/// A block of one group of one unit.
#[derive(Debug, Clone)]
pub(super) struct GradientItem {
    pub(super) unit: usize,
    pub(super) group: usize,
    pub(super) first: usize,
    pub(super) rows: usize,
    /// Its number in its sequence.
    pub(super) block: usize,
    /// Heads of the unit's groups before this one.
    pub(super) heads_before: usize,
    /// Strips that its rows see.
    pub(super) strips: Range<usize>,
}

/// Units whose K and V are packed together.
#[derive(Debug, Default)]
pub(super) struct GradientWave {
    /// K as keys, and V as values where the result is computed anew.
    pub(super) forward: Wave,
    /// V as keys and K as values.
    pub(super) mirror: Wave,
    /// Of each unit.
    pub(super) visits: Vec<Visits>,
    /// How many blocks have added to each strip, of each unit.
    pub(super) added: Vec<Vec<AtomicUsize>>,
    pub(super) items: Vec<GradientItem>,
}

impl<'a> PlannedGradients<'a> {
    pub(super) fn new(of: GradientCall<'a>, has_bias: bool) -> Self {
        let call = &of.call;
        let sharing = if call.sequences.is_empty() {
            Arc::default()
        } else {
            call.plan.sharing(call.masks_depend_on_head(), Shared::All)
        };
        let queries = call.sequences.iter().map(|sequence| sequence.queries);
        let longest = queries.clone().max().unwrap_or(0);
        let stride = call.run.kernel(GradientQueries { longest });
        let mut blocks = 0;
        let first_blocks = queries.map(|queries| {
            let first = blocks;
            blocks += queries.div_ceil(QUERY_STRIP);
            first
        });
        let mut first_blocks: Vec<usize> = first_blocks.collect();
        first_blocks.push(blocks);
        // Heads or batch entries that share a bias add to it one after the other.
        let shares_bias = call.elements.bias.is_some_and(|bias| {
            let [batch, head, _] = bias.strides;
            batch == 0 && call.axis.batch > 1 || head == 0 && call.axis.heads > 1
        });
        let threads = if has_bias && shares_bias {
            1
        } else {
            call.run.threads()
        };
        Self {
            sharing,
            stride,
            threads,
            first_blocks,
            of,
        }
    }

    /// Row blocks of all sequences.
    pub(super) fn row_blocks(&self) -> usize {
        self.first_blocks.last().copied().unwrap_or(0)
    }

    /// The number of a sequence's row block among those of all.
    pub(super) fn row_block(&self, sequence: usize, block: usize) -> usize {
        self.first_blocks[sequence] + block
    }

    /// Units of work: row blocks of groups.
    pub(super) fn total(&self) -> usize {
        self.row_blocks() * self.sharing.groups.len()
    }

    /// The shape of K packed as values.
    pub(super) fn mirror_shape(&self) -> ValueShape {
        ValueShape {
            width: self.of.call.width,
            ..self.of.call.value_shape
        }
    }

    /// The wave from unit `next` on (counted over sequences × clusters), which is then the first of
    /// the wave after it. None where no unit is left that has rows.
    pub(super) fn next_wave(&self, next: &mut usize) -> Result<Option<GradientWave>, Error> {
        let call = &self.of.call;
        let mut wave = GradientWave::default();
        let clusters = self.sharing.clusters.len();
        let wave_bytes = WAVE_BYTES.saturating_mul(self.threads);
        let mut lists = Vec::new();
        while *next < call.sequences.len() * clusters {
            let (sequence, cluster) = (*next / clusters, *next % clusters);
            if call.sequences[sequence].queries > 0 {
                let mut sizes = [wave.forward.size, wave.mirror.size];
                let [packed, mirrored] = self.packed_units(sequence, cluster, &mut sizes)?;
                let bytes = sizes
                    .iter()
                    .map(|size| (size.k + size.v) * size_of::<f32>());
                let unit = wave.visits.len();
                if unit >= self.threads && bytes.sum::<usize>() > wave_bytes {
                    break;
                }
                [wave.forward.size, wave.mirror.size] = sizes;
                for (wave, packed) in [(&mut wave.forward, packed), (&mut wave.mirror, mirrored)] {
                    wave.units.push((sequence, cluster));
                    wave.packed.push(packed);
                }
                let of = &call.sequences[sequence];
                let visits = self.visits(of);
                let mut added = Vec::new();
                added.resize_with(visits.count.len(), AtomicUsize::default);
                lists.push(self.items(unit, of, cluster));
                wave.visits.push(visits);
                wave.added.push(added);
            }
            *next += 1;
        }
        wave.items = self.in_turns(lists);
        Ok((!wave.items.is_empty()).then_some(wave))
    }

    /// Where the heads of a cluster are packed, past `sizes`, which grow by them.
    fn packed_units(
        &self,
        sequence: usize,
        cluster: usize,
        [forward, mirror]: &mut [PackedSize; 2],
    ) -> Result<[PackedUnit; 2], Error> {
        let call = &self.of.call;
        let keys = call.sequences[sequence].keys;
        let cluster = &self.sharing.clusters[cluster];
        let values = if self.of.recomputes() {
            cluster.v.as_slice()
        } else {
            &[]
        };
        let shape = call.value_shape;
        Ok([
            packed_unit(keys, (&cluster.k, call.width), (values, shape), forward)?,
            packed_unit(
                keys,
                (&cluster.v, shape.width),
                (&cluster.k, self.mirror_shape()),
                mirror,
            )?,
        ])
    }

    /// The strips that the rows of a block see.
    fn strips(&self, sequence: &Sequence, first: usize, rows: usize) -> Range<usize> {
        let band = &self.of.call.band;
        let seen = (first..first + rows).map(|row| band.keys(sequence, row));
        let seen = seen.filter(|(low, high)| low < high);
        let union = seen.reduce(|(low, high), (l, h)| (low.min(l), high.max(h)));
        union.map_or(0..0, |(low, high)| low / STRIP..high.div_ceil(STRIP))
    }

    /// Row blocks of a sequence, as (number, first row, rows).
    fn blocks(sequence: &Sequence) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let queries = sequence.queries;
        let firsts = (0..queries).step_by(QUERY_STRIP).enumerate();
        firsts.map(move |(block, first)| (block, first, QUERY_STRIP.min(queries - first)))
    }

    fn visits(&self, sequence: &Sequence) -> Visits {
        let strips = sequence.keys.div_ceil(STRIP);
        let mut visits = Visits {
            first: vec![0; strips],
            count: vec![0; strips],
        };
        for (block, first, rows) in Self::blocks(sequence) {
            for strip in self.strips(sequence, first, rows) {
                if visits.count[strip] == 0 {
                    visits.first[strip] = block;
                }
                visits.count[strip] += 1;
            }
        }
        visits
    }

    /// The blocks of a unit, in the order in which they add to what they share.
    fn items(&self, unit: usize, sequence: &Sequence, cluster: usize) -> Vec<GradientItem> {
        let mut items = Vec::new();
        let mut heads_before = 0;
        for &group in &self.sharing.clusters[cluster].groups {
            items.extend(
                Self::blocks(sequence).map(|(block, first, rows)| GradientItem {
                    unit,
                    group,
                    first,
                    rows,
                    block,
                    heads_before,
                    strips: self.strips(sequence, first, rows),
                }),
            );
            heads_before += self.sharing.groups[group].steps.len();
        }
        items
    }

    /// The blocks of all units: of as many units as there are threads by turns, so that a thread
    /// mostly stays with one and none waits for another.
    fn in_turns(&self, lists: Vec<Vec<GradientItem>>) -> Vec<GradientItem> {
        let mut items = Vec::with_capacity(lists.iter().map(Vec::len).sum());
        let mut lists = lists.into_iter().map(Vec::into_iter);
        loop {
            let mut some: Vec<_> = lists.by_ref().take(self.threads).collect();
            if some.is_empty() {
                return items;
            }
            let mut count = usize::MAX;
            while count != items.len() {
                count = items.len();
                items.extend(some.iter_mut().filter_map(Iterator::next));
            }
        }
    }
}
