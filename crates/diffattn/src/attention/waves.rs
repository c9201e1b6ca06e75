//! Cuts a call into units of work, and those into waves of heads whose K and V are packed together.
//! Decides order and sizes only: no result depends on it.

use super::call::Call;
use super::groups::Shared;
use super::inputs::Source;
use super::kept::Sharing;
use super::packed::{ValueShape, keys_len};
use super::panels::PackedUnit;
use super::prefill::BlockQueries;
use super::visible::MASK_BLOCK;
use crate::blocks::{DECODE_QUERIES, STRIP, WAVE_BYTES};
use crate::error::Error;
use crate::run::few::Few;
use std::sync::Arc;

/// A block of one group of one unit of the wave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// Index into the wave's units.
    pub(super) unit: usize,
    pub(super) group: usize,
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// Units whose K and V are packed (or cached) together.
#[derive(Debug, Default)]
pub(super) struct Wave {
    /// (sequence, cluster) of each unit.
    pub(super) units: Few<(usize, usize), 2>,
    pub(super) packed: Few<PackedUnit, 2>,
    /// What the units want packed.
    pub(super) size: PackedSize,
    /// Row blocks.
    pub(super) items: Few<Item, 4>,
    /// Units that decode.
    pub(super) decode: Vec<usize>,
}

/// Float32 values of packed K and of packed V, and flags of its strips.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PackedSize {
    pub(super) k: usize,
    pub(super) v: usize,
    pub(super) flags: usize,
}

/// A planned call: what runs together, and which of its queries.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) call: Call<'a>,
    pub(super) sharing: Arc<Sharing>,
    /// Queries of a row block.
    pub(super) block: usize,
    /// Whether few queries take the decode path: maps never do.
    decodes: bool,
    /// The half-open range of queries wanted.
    rows: [usize; 2],
}

impl<'a> Planned<'a> {
    /// Plans the queries `rows` of a checked call.
    pub(super) fn new(call: Call<'a>, rows: [usize; 2], decodes: bool) -> Self {
        // (Without rows nothing is cut: a call over nothing costs nothing, however many heads it
        // names.)
        let sharing = if call.sequences.is_empty() {
            Arc::default()
        } else {
            let shared = if call.source.has_values() {
                Shared::KeysValues
            } else {
                Shared::Keys
            };
            call.plan.sharing(call.masks_depend_on_head(), shared)
        };
        let queries = call.sequences.iter().map(|sequence| sequence.queries);
        let longest = queries.max().unwrap_or(0);
        let block = call.run.kernel(BlockQueries {
            longest,
            is_block_masked: !call.blocks.is_empty(),
        });
        Self {
            call,
            sharing,
            block,
            decodes,
            rows,
        }
    }

    /// Units of work: row blocks of groups, and clusters that decode.
    pub(super) fn total(&self) -> usize {
        let units = |sequence: usize| {
            let rows = self.local_rows(sequence);
            if rows[0] >= rows[1] {
                0
            } else if self.is_decode(sequence) {
                self.sharing.clusters.len()
            } else {
                self.sharing.groups.len() * self.row_blocks(rows).count()
            }
        };
        (0..self.call.sequences.len()).map(units).sum()
    }

    /// The wanted queries of a sequence, counted within it.
    fn local_rows(&self, sequence: usize) -> [usize; 2] {
        let sequence = &self.call.sequences[sequence];
        self.rows.map(|row| {
            row.clamp(
                sequence.first_query,
                sequence.first_query + sequence.queries,
            ) - sequence.first_query
        })
    }

    fn is_decode(&self, sequence: usize) -> bool {
        self.decodes && self.call.sequences[sequence].queries <= DECODE_QUERIES
    }

    /// The row blocks of queries `first..end` of a sequence as (first, rows), from the last to the
    /// first: under a causal mask the long ones start first, so threads end together. Where there
    /// is a block mask, none crosses a block of it. (A call with one has no packed sequences: its
    /// queries count from the call's first.)
    fn row_blocks(&self, [first, end]: [usize; 2]) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut end = end;
        std::iter::from_fn(move || {
            let last = end.checked_sub(1).filter(|&last| last >= first)?;
            let base = if self.call.blocks.is_empty() {
                first
            } else {
                first.max(last / MASK_BLOCK * MASK_BLOCK)
            };
            let start = base + (last - base) / self.block * self.block;
            let rows = end - start;
            end = start;
            Some((start, rows))
        })
    }

    /// The wave from unit `next` on (counted over sequences × clusters), which is then the first of
    /// the wave after it: as many units as fit [`WAVE_BYTES`]. None where no unit is left that has
    /// rows.
    pub(super) fn next_wave(&self, next: &mut usize) -> Result<Option<Wave>, Error> {
        let mut wave = Wave::default();
        let clusters = self.sharing.clusters.len();
        let wave_bytes = WAVE_BYTES.saturating_mul(self.call.run.threads());
        while *next < self.call.sequences.len() * clusters {
            let (sequence, cluster) = (*next / clusters, *next % clusters);
            let rows = self.local_rows(sequence);
            if rows[0] < rows[1] {
                let mut size = wave.size;
                let packed = self.packed_unit(sequence, cluster, &mut size)?;
                let bytes = (size.k + size.v).saturating_mul(size_of::<f32>());
                if !wave.units.is_empty() && bytes > wave_bytes {
                    break;
                }
                wave.size = size;
                let unit = wave.units.len();
                wave.units.push((sequence, cluster));
                wave.packed.push(packed);
                if self.is_decode(sequence) {
                    wave.decode.push(unit);
                } else {
                    // The groups of a cluster side by side: they share K.
                    for (first, rows) in self.row_blocks(rows) {
                        let groups = self.sharing.clusters[cluster].groups.iter();
                        wave.items.extend(groups.map(|&group| Item {
                            unit,
                            group,
                            first,
                            rows,
                        }));
                    }
                }
            }
            *next += 1;
        }
        Ok((!wave.units.is_empty()).then_some(wave))
    }

    /// Where the heads of a cluster are packed, past `size`, which grows by them; empty with a
    /// cache.
    fn packed_unit(
        &self,
        sequence: usize,
        cluster: usize,
        size: &mut PackedSize,
    ) -> Result<PackedUnit, Error> {
        if matches!(self.call.source, Source::Cache(_)) {
            return Ok(PackedUnit::default());
        }
        let keys = self.call.sequences[sequence].keys;
        let cluster = &self.sharing.clusters[cluster];
        let values = (cluster.v.as_slice(), self.call.value_shape);
        packed_unit(keys, (&cluster.k, self.call.width), values, size)
    }
}

/// Where heads of keys, so many channels wide, and heads of values are packed, past `size`, which
/// grows by them.
pub(super) fn packed_unit(
    keys: usize,
    (k, width): (&[usize], usize),
    (v, shape): (&[usize], ValueShape),
    size: &mut PackedSize,
) -> Result<PackedUnit, Error> {
    let mut packed = PackedUnit::default();
    let too_long = || Error::shape("k", "a size that fits this machine", "one that overflows");
    let k_head = keys_len(keys, width).ok_or_else(too_long)?;
    let v_head = shape.len(keys).ok_or_else(too_long)?;
    packed.k.reserve_exact(k.len());
    packed.v.reserve_exact(v.len());
    for &head in k {
        packed.k.push((head, size.k));
        size.k = size.k.checked_add(k_head).ok_or_else(too_long)?;
    }
    for &head in v {
        packed.v.push((head, size.v, size.flags));
        size.v = size.v.checked_add(v_head).ok_or_else(too_long)?;
        size.flags += keys.div_ceil(STRIP);
    }
    Ok(packed)
}
