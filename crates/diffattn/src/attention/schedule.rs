//! Cuts a call into units of work and runs them: waves of packed heads, then row blocks or decode phases,
//! in parallel. Knows nothing of numbers: no result depends on what is decided here.

use super::call::{Block, Call, HeadGroup, HeadStep, PackedUnit, Panels, Source, TermStep};
use super::decode::{DecodeFinish, DecodePlan, DecodeStrip, DecodeUnit, Phase, StripScratch};
use super::mask::Sequence;
use super::packed::{PackKeys, PackValues, keys_len};
use super::row_block::{BlockQueries, RowBlock};
use super::scratch::{Scratch, ScratchSize};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::shape::try_zeroed;
use crate::threads::{for_each, thread_count};
use crate::tile::{DECODE_QUERIES, PANEL, STRIP, WAVE_BYTES};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Float32 values of decode scratch at which no further unit joins a batch: 16 MiB.
const DECODE_SCRATCH: usize = 4 << 20;

/// Slots of shared maps in a group at most: more would push the scores of long rows out of cache.
const SHARED_SLOTS: usize = 8;

/// Head groups that share K or V heads.
#[derive(Debug, Default)]
struct Cluster {
    groups: Vec<usize>,
    k: Vec<usize>,
    v: Vec<usize>,
    /// Empty where no sequence decodes.
    decode: DecodePlan,
}

/// A block of one group of one unit of the wave.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Index into the wave's units.
    unit: usize,
    group: usize,
    first: usize,
    rows: usize,
}

/// Units whose K and V are packed (or cached) together.
#[derive(Debug, Default)]
struct Wave {
    /// (sequence, cluster) of each unit.
    units: Vec<(usize, usize)>,
    packed: Vec<PackedUnit>,
    items: Vec<Item>,
    next_item: usize,
    /// Units that decode.
    decode: Vec<usize>,
    next_decode: usize,
}

impl Wave {
    fn is_finished(&self) -> bool {
        self.next_item == self.items.len() && self.next_decode == self.decode.len()
    }
}

/// A planned call and how far it has come.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) call: Call<'a>,
    groups: Vec<HeadGroup>,
    clusters: Vec<Cluster>,
    /// Queries of a row block.
    block: usize,
    /// Whether few queries take the decode path: maps never do.
    decodes: bool,
    /// The half-open range of queries wanted.
    rows: [usize; 2],
    total: usize,
    done: usize,
    /// The next unit to join a wave, counted over sequences × clusters.
    next_unit: usize,
    wave: Wave,
    packed_k: Buffer,
    packed_v: Buffer,
    special: Vec<AtomicBool>,
    scratch: Vec<Mutex<Scratch>>,
}

impl<'a> Run<'a> {
    /// Plans the queries `rows` of a checked call.
    pub(super) fn new(call: Call<'a>, rows: [usize; 2], decodes: bool) -> Self {
        // (Without rows nothing is cut: a call over nothing costs nothing, however many heads it names.)
        let groups = if call.sequences.is_empty() {
            Vec::new()
        } else {
            head_groups(&call)
        };
        let mut clusters = clusters(&call, &groups);
        let is_decode = |sequence: &Sequence| decodes && sequence.queries <= DECODE_QUERIES;
        if call.sequences.iter().any(is_decode) {
            for cluster in &mut clusters {
                cluster.decode = decode_plan(&call, &groups, cluster);
            }
        }
        let queries = call.sequences.iter().map(|sequence| sequence.queries);
        let longest = queries.max().unwrap_or(0);
        let block = call.run.kernel(BlockQueries { longest });
        let mut run = Self {
            call,
            groups,
            clusters,
            block,
            decodes,
            rows,
            total: 0,
            done: 0,
            next_unit: 0,
            wave: Wave::default(),
            packed_k: Buffer::default(),
            packed_v: Buffer::default(),
            special: Vec::new(),
            scratch: Vec::new(),
        };
        run.total = (0..run.call.sequences.len())
            .map(|sequence| {
                let [first, end] = run.local_rows(sequence);
                if first >= end {
                    0
                } else if run.is_decode(sequence) {
                    run.clusters.len()
                } else {
                    run.groups.len() * (end - first).div_ceil(run.block)
                }
            })
            .sum();
        run
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    pub(super) fn done(&self) -> usize {
        self.done
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

    pub(super) fn step(&mut self, count: usize) -> Result<(), Error> {
        if !self.call.is_bound() {
            return Err(Error::Internal(
                "a call was stepped before its outputs were bound".to_owned(),
            ));
        }
        let mut left = count.max(1);
        while left > 0 && self.done < self.total {
            if self.wave.is_finished() {
                self.next_wave()?;
            }
            let worked = if self.wave.next_decode < self.wave.decode.len() {
                self.decode_batch(left)?
            } else {
                self.row_blocks(left)?
            };
            self.done += worked;
            left -= worked.min(left);
        }
        Ok(())
    }

    /// Gathers the next units, as many as fit [`WAVE_BYTES`], and packs their K and V.
    fn next_wave(&mut self) -> Result<(), Error> {
        let mut wave = Wave::default();
        let (mut k_len, mut v_len, mut flags) = (0usize, 0usize, 0);
        let too_long = || Error::shape("k", "a size that fits this machine", "one that overflows");
        let units = self.call.sequences.len() * self.clusters.len();
        let wave_bytes = WAVE_BYTES.saturating_mul(self.call.run.threads());
        while self.next_unit < units {
            let (sequence_index, cluster_index) = (
                self.next_unit / self.clusters.len(),
                self.next_unit % self.clusters.len(),
            );
            let [first, end] = self.local_rows(sequence_index);
            if first >= end {
                self.next_unit += 1;
                continue;
            }
            let cluster = &self.clusters[cluster_index];
            let sequence = &self.call.sequences[sequence_index];
            let mut packed = PackedUnit::default();
            if matches!(self.call.source, Source::Tensors { .. }) {
                let k_head = keys_len(sequence.keys, self.call.width).ok_or_else(too_long)?;
                let v_head = self
                    .call
                    .value_shape
                    .len(sequence.keys)
                    .ok_or_else(too_long)?;
                let (k_start, v_start) = (k_len, v_len);
                for &head in &cluster.k {
                    packed.k.push((head, k_len));
                    k_len = k_len.checked_add(k_head).ok_or_else(too_long)?;
                }
                for &head in &cluster.v {
                    packed.v.push((head, v_len, flags));
                    v_len = v_len.checked_add(v_head).ok_or_else(too_long)?;
                    flags += sequence.keys.div_ceil(STRIP);
                }
                let bytes = (k_len + v_len).saturating_mul(size_of::<f32>());
                if !wave.units.is_empty() && bytes > wave_bytes {
                    (k_len, v_len) = (k_start, v_start);
                    break;
                }
            }
            let unit = wave.units.len();
            wave.units.push((sequence_index, cluster_index));
            wave.packed.push(packed);
            if self.is_decode(sequence_index) {
                wave.decode.push(unit);
            } else {
                // From the last block to the first: under a causal mask the long ones start first, so threads
                // end together. The groups of a cluster side by side: they share K.
                let blocks = (end - first).div_ceil(self.block);
                for block in (0..blocks).rev() {
                    let first = first + block * self.block;
                    let rows = (end - first).min(self.block);
                    wave.items.extend(cluster.groups.iter().map(|&group| Item {
                        unit,
                        group,
                        first,
                        rows,
                    }));
                }
            }
            self.next_unit += 1;
        }
        self.pack(&wave, k_len, v_len, flags)?;
        self.wave = wave;
        Ok(())
    }

    fn pack(&mut self, wave: &Wave, k_len: usize, v_len: usize, flags: usize) -> Result<(), Error> {
        let Source::Tensors {
            k: (k_data, k_axis),
            v,
        } = self.call.source
        else {
            return Ok(());
        };
        grow(&mut self.packed_k, k_len)?;
        grow(&mut self.packed_v, v_len)?;
        self.special.clear();
        self.special
            .try_reserve(flags)
            .map_err(|_| Error::OutOfMemory {
                bytes: flags as u64,
            })?;
        self.special.resize_with(flags, AtomicBool::default);
        if k_len + v_len == 0 {
            return Ok(());
        }
        // One task per head and strip: (unit, is K, entry, strip).
        let mut tasks = Vec::new();
        for (unit, packed) in wave.packed.iter().enumerate() {
            let strips = self.call.sequences[wave.units[unit].0].keys.div_ceil(STRIP);
            for strip in 0..strips {
                tasks.extend((0..packed.k.len()).map(|entry| (unit, true, entry, strip)));
                tasks.extend((0..packed.v.len()).map(|entry| (unit, false, entry, strip)));
            }
        }
        let call = &self.call;
        let threads = thread_count(call.run.threads(), k_len + v_len);
        let rows_len = PANEL * call.width.max(call.value_shape.width);
        let mut buffers = Vec::with_capacity(threads);
        for _ in 0..threads {
            buffers.push(Mutex::new(Buffer::new(rows_len)?));
        }
        let (k_to, v_to) = (
            Shared(self.packed_k.as_mut_ptr()),
            Shared(self.packed_v.as_mut_ptr()),
        );
        let (special, shape) = (&self.special, call.value_shape);
        for_each(threads, tasks.len(), |slot, task| {
            let (unit, is_key, entry, strip) = tasks[task];
            let packed = &wave.packed[unit];
            let sequence = &call.sequences[wave.units[unit].0];
            let (from, to) = (strip * STRIP, ((strip + 1) * STRIP).min(sequence.keys));
            let from_row = sequence.first_key + from;
            let mut rows: MutexGuard<'_, Buffer> = lock(&buffers[slot]);
            if is_key {
                let (head, start) = packed.k[entry];
                let (start, len) = (
                    start + from * call.width,
                    (to - from).next_multiple_of(PANEL) * call.width,
                );
                // SAFETY: the panels of this strip of this head, inside `k_len`; no other task has them.
                let panels = unsafe { k_to.slice(start, len) };
                let source = k_axis.rows(k_data, sequence.batch, head, from_row);
                let kernel = PackKeys {
                    rows: source,
                    from_row: 0,
                    first: 0,
                    end: to - from,
                    panels,
                    buffer: &mut rows,
                };
                call.run.isa().run(false, kernel);
            } else if let Some((v_data, v_axis)) = v {
                let (head, start, flag) = packed.v[entry];
                // SAFETY: this strip of this head, inside `v_len`; no other task has it.
                let panels =
                    unsafe { v_to.slice(start + strip * shape.strip_len(), shape.strip_len()) };
                let source = v_axis.rows(v_data, sequence.batch, head, from_row);
                let kernel = PackValues {
                    rows: source,
                    from_row: 0,
                    first: from,
                    end: to,
                    shape,
                    strip: panels,
                    buffer: &mut rows,
                };
                let found = call.run.isa().run(false, kernel);
                special[flag + strip].store(found, Ordering::Relaxed);
            }
        });
        Ok(())
    }

    fn panels<'c>(&'c self, unit: usize) -> Panels<'c> {
        match self.call.source {
            Source::Tensors { .. } => Panels::Packed {
                k: &self.packed_k,
                v: &self.packed_v,
                special: &self.special,
                unit: &self.wave.packed[unit],
                width: self.call.width,
                shape: self.call.value_shape,
            },
            Source::Cache(cache) => Panels::Cache {
                cache,
                batch: self.call.sequences[self.wave.units[unit].0].batch,
            },
        }
    }

    /// Multiply-adds of one query row of a group, per key it sees.
    fn macs_per_score(&self, group: usize) -> usize {
        let steps = &self.groups[group].steps;
        let maps: usize = steps.iter().map(|step| step.compute.len()).sum();
        maps * self.call.width + steps.len() * self.call.plan.values * self.call.value_shape.width
    }

    /// Runs up to `count` row blocks of the wave.
    fn row_blocks(&mut self, count: usize) -> Result<usize, Error> {
        let items = &self.wave.items[self.wave.next_item..];
        let items = &items[..items.len().min(count)];
        let work = items
            .iter()
            .map(|item| {
                let sequence = &self.call.sequences[self.wave.units[item.unit].0];
                let seen = self.call.band.keys(sequence, item.first + item.rows - 1);
                item.rows
                    .saturating_mul(seen.1 - seen.0)
                    .saturating_mul(self.macs_per_score(item.group))
            })
            .fold(0, usize::saturating_add);
        let threads = thread_count(self.call.run.threads(), work).min(items.len());
        while self.scratch.len() < threads {
            let size = ScratchSize {
                stride: self.block,
                keys: self
                    .call
                    .sequences
                    .iter()
                    .map(|s| self.call.band.reach(s, self.block))
                    .max()
                    .unwrap_or(0),
                slots: self
                    .groups
                    .iter()
                    .map(|group| group.slots)
                    .max()
                    .unwrap_or(0),
                terms: self.call.plan.terms,
                width: self.call.width,
                channels: self.call.plan.values * self.call.value_shape.padded(),
                elements: !self.call.elements.is_empty(),
            };
            self.scratch.push(Mutex::new(Scratch::new(&size)?));
        }
        for_each(threads, items.len(), |slot, index| {
            let Item {
                unit,
                group,
                first,
                rows,
            } = items[index];
            let block = Block {
                sequence: &self.call.sequences[self.wave.units[unit].0],
                group: &self.groups[group],
                panels: self.panels(unit),
                first,
                rows,
            };
            let mut scratch = lock(&self.scratch[slot]);
            let kernel = RowBlock {
                call: &self.call,
                block,
                scratch: &mut scratch,
            };
            self.call.run.kernel(kernel);
        });
        let worked = items.len();
        self.wave.next_item += worked;
        Ok(worked)
    }

    /// Runs decode units of the wave, up to `count` and to [`DECODE_SCRATCH`], phase by phase.
    fn decode_batch(&mut self, count: usize) -> Result<usize, Error> {
        let mut units = Vec::new();
        let mut scratch_len = 0;
        let mut work = 0usize;
        for &unit in self.wave.decode[self.wave.next_decode..].iter().take(count) {
            let (sequence, cluster) = self.wave.units[unit];
            let (sequence, cluster) = (&self.call.sequences[sequence], &self.clusters[cluster]);
            scratch_len += DecodeUnit::scratch_len(&self.call, sequence, &cluster.decode);
            if !units.is_empty() && scratch_len > DECODE_SCRATCH {
                break;
            }
            let macs: usize = cluster
                .groups
                .iter()
                .map(|&group| self.macs_per_score(group))
                .sum();
            // Bound by bytes, not by multiply-adds: a key costs what its K and V cost to read.
            let bytes =
                cluster.k.len() * self.call.width + cluster.v.len() * self.call.value_shape.width;
            work = work.saturating_add(
                sequence
                    .keys
                    .saturating_mul(macs * sequence.queries + 8 * bytes),
            );
            let made = DecodeUnit::new(&self.call, sequence, &cluster.decode)?;
            units.push((unit, made));
        }
        let threads = thread_count(self.call.run.threads(), work);
        let rows = units
            .iter()
            .map(|(_, unit)| unit.value_rows())
            .max()
            .unwrap_or(0);
        let mut scratch = Vec::with_capacity(threads);
        for _ in 0..threads {
            scratch.push(Mutex::new(StripScratch::new(rows)?));
        }
        let strips: Vec<(usize, usize)> = units
            .iter()
            .enumerate()
            .flat_map(|(index, (_, unit))| (0..unit.strips()).map(move |s| (index, s)))
            .collect();
        for phase in [Phase::Exponentials, Phase::Values] {
            let memory: Vec<_> = units.iter_mut().map(|(_, unit)| unit.memory()).collect();
            for_each(threads, strips.len(), |slot, item| {
                let (index, strip) = strips[item];
                let (unit_index, unit) = &units[index];
                let kernel = DecodeStrip {
                    call: &self.call,
                    unit,
                    panels: self.panels(*unit_index),
                    memory: memory[index],
                    scratch: &mut lock(&scratch[slot]),
                    phase,
                    strip,
                };
                self.call.run.kernel(kernel);
            });
            if phase == Phase::Exponentials {
                for (_, unit) in &mut units {
                    unit.reduce(&self.call);
                }
            }
        }
        let mut row = try_zeroed(self.call.plan.values * self.call.value_shape.width)?;
        for (_, unit) in &units {
            self.call.run.kernel(DecodeFinish {
                call: &self.call,
                unit,
                row: &mut row,
            });
        }
        self.wave.next_decode += units.len();
        Ok(units.len())
    }
}

/// A pointer that tasks share, each its own stretch.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: see `slice`.
unsafe impl Send for Shared {}
// SAFETY: see `slice`.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The stretch lies inside the buffer, and nobody else has it while the slice lives.
    #[expect(
        clippy::mut_from_ref,
        reason = "disjoint stretches of one buffer, by the contract"
    )]
    unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes `buffer` at least `len` long. What it held does not matter.
fn grow(buffer: &mut Buffer, len: usize) -> Result<(), Error> {
    if buffer.len() < len {
        *buffer = Buffer::default();
        *buffer = Buffer::new(len)?;
    }
    Ok(())
}

/// Puts heads that share a map into one group, and gives every map a slot.
fn head_groups(call: &Call<'_>) -> Vec<HeadGroup> {
    let heads = call.plan.heads.len();
    // The last head before each one that has a map in common with it.
    let mut before: Vec<Option<usize>> = vec![None; heads];
    if !call.elements.depend_on_head() {
        let users = users(call, 0..heads);
        for pair in users.windows(2) {
            let ((one, other), (next, head)) = (pair[0], pair[1]);
            if one == next {
                before[head] = before[head].max(Some(other));
            }
        }
    }
    let mut groups = Vec::new();
    let mut first = 0;
    for (head, before) in before.iter().enumerate().skip(1) {
        // Heads that share lie side by side in every pairing: only the last group need be asked.
        if before.is_none_or(|other| other < first) {
            groups.push(head_group(call, first..head));
            first = head;
        }
    }
    if first < heads {
        groups.push(head_group(call, first..heads));
    }
    groups
}

/// Each map with each of the heads that use it: those of one map side by side.
fn users(call: &Call<'_>, heads: Range<usize>) -> Vec<((usize, usize), usize)> {
    let mut users: Vec<_> = heads
        .flat_map(|head| {
            let terms = call.plan.heads[head].terms.iter();
            terms.map(move |term| (*term, head))
        })
        .collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn head_group(call: &Call<'_>, members: Range<usize>) -> HeadGroup {
    let terms_of = |head: usize| &call.plan.heads[head].terms;
    let mut shared: Vec<(usize, usize)> = Vec::new();
    if members.len() > 1 {
        let users = users(call, members.clone());
        let is_shared = |term: &(usize, usize)| {
            let first = users.partition_point(|(other, _)| other < term);
            users.get(first + 1).is_some_and(|(other, _)| other == term)
        };
        for term in members.clone().flat_map(terms_of) {
            if shared.len() < SHARED_SLOTS && is_shared(term) && !shared.contains(term) {
                shared.push(*term);
            }
        }
    }
    let mut computed = [false; SHARED_SLOTS];
    let mut slots = shared.len();
    let mut steps = Vec::with_capacity(members.len());
    for head in members {
        // Past the shared maps, every head uses the same slots again.
        let mut own: Vec<(usize, usize)> = Vec::new();
        let mut step = HeadStep {
            head,
            compute: Vec::new(),
            slots: Vec::new(),
            v: call.plan.heads[head].v.clone(),
        };
        for term in terms_of(head) {
            let (slot, is_new) = match shared.iter().position(|other| other == term) {
                Some(slot) => (slot, !std::mem::replace(&mut computed[slot], true)),
                None => match own.iter().position(|other| other == term) {
                    Some(place) => (shared.len() + place, false),
                    None => {
                        own.push(*term);
                        (shared.len() + own.len() - 1, true)
                    }
                },
            };
            if is_new {
                step.compute.push(TermStep {
                    slot,
                    q: term.0,
                    k: term.1,
                });
            }
            step.slots.push(slot);
        }
        slots = slots.max(shared.len() + own.len());
        steps.push(step);
    }
    HeadGroup { steps, slots }
}

/// Joins groups that share a K or V head: what is packed together.
fn clusters(call: &Call<'_>, groups: &[HeadGroup]) -> Vec<Cluster> {
    let has_values = match call.source {
        Source::Tensors { v, .. } => v.is_some(),
        Source::Cache(_) => true,
    };
    // Groups that touch are joined to the last of them, by number (a forest: each points to a later one, or is the last).
    let mut joined: Vec<usize> = (0..groups.len()).collect();
    let (mut of_k, mut of_v) = (Vec::new(), Vec::new());
    for (index, group) in groups.iter().enumerate() {
        for step in &group.steps {
            let terms = &call.plan.heads[step.head].terms;
            for &(_, head) in terms {
                join(&mut joined, &mut of_k, head, index);
            }
            if has_values {
                for &head in &step.v {
                    join(&mut joined, &mut of_v, head, index);
                }
            }
        }
    }
    let mut clusters: Vec<Cluster> = Vec::new();
    clusters.resize_with(groups.len(), Cluster::default);
    for (index, group) in groups.iter().enumerate() {
        let cluster = &mut clusters[last_of(&mut joined, index)];
        cluster.groups.push(index);
        for step in &group.steps {
            let terms = call.plan.heads[step.head].terms.iter();
            cluster.k.extend(terms.map(|term| term.1));
            if has_values {
                cluster.v.extend(&step.v);
            }
        }
    }
    clusters.retain(|cluster| !cluster.groups.is_empty());
    for cluster in &mut clusters {
        for list in [&mut cluster.k, &mut cluster.v] {
            list.sort_unstable();
            list.dedup();
        }
    }
    clusters
}

/// The last group that `group` is joined to.
fn last_of(joined: &mut [usize], mut group: usize) -> usize {
    while joined[group] != group {
        joined[group] = joined[joined[group]];
        group = joined[group];
    }
    group
}

/// Joins the groups that took `head` before to group `index`, which is the last so far. `takers`: by head, one that took it.
fn join(joined: &mut [usize], takers: &mut Vec<Option<usize>>, head: usize, index: usize) {
    if takers.len() <= head {
        takers.resize(head + 1, None);
    }
    if let Some(taker) = takers[head].replace(index) {
        let last = last_of(joined, taker);
        joined[last] = index;
    }
}

fn decode_plan(call: &Call<'_>, groups: &[HeadGroup], cluster: &Cluster) -> DecodePlan {
    let per_head = call.elements.depend_on_head();
    let heads: Vec<usize> = cluster
        .groups
        .iter()
        .flat_map(|&group| groups[group].steps.iter().map(|step| step.head))
        .collect();
    // (k, q, output head): sorted by k. The head only tells maps apart where their masks differ.
    let key =
        |head: usize, term: &(usize, usize)| (term.1, term.0, if per_head { head } else { 0 });
    let mut maps: Vec<(usize, usize, usize)> = heads
        .iter()
        .flat_map(|&head| {
            call.plan.heads[head]
                .terms
                .iter()
                .map(move |term| key(head, term))
        })
        .collect();
    maps.sort_unstable();
    maps.dedup();
    let mut plan = DecodePlan {
        pairs: maps.iter().map(|map| (map.1, map.2)).collect(),
        ..DecodePlan::default()
    };
    for (index, map) in maps.iter().enumerate() {
        match plan.by_key.last_mut().filter(|entry| entry.0 == map.0) {
            Some((_, range)) => range.end = index + 1,
            None => plan.by_key.push((map.0, index..index + 1)),
        }
    }
    // By v head, its entry of `by_value`.
    let mut places: Vec<Option<usize>> = Vec::new();
    for (entry, &head) in heads.iter().enumerate() {
        let pairs = call.plan.heads[head]
            .terms
            .iter()
            .filter_map(|term| maps.binary_search(&key(head, term)).ok());
        plan.heads.push((head, pairs.collect()));
        for (place, &v) in call.plan.heads[head].v.iter().enumerate() {
            if places.len() <= v {
                places.resize(v + 1, None);
            }
            let by = *places[v].get_or_insert_with(|| {
                plan.by_value.push((v, Vec::new()));
                plan.by_value.len() - 1
            });
            plan.by_value[by].1.push((entry, place));
        }
    }
    let values = call.plan.values;
    plan.rows = vec![0; heads.len() * values];
    let uses = plan.by_value.iter().flat_map(|(_, uses)| uses);
    for (row, &(entry, place)) in uses.enumerate() {
        plan.rows[entry * values + place] = row;
    }
    plan
}
