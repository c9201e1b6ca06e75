//! How x falls into runs and chunks, and how the work is cut. Knows nothing of moments.

use std::ops::Range;

use crate::blocks::norm::{AHEAD, CHUNK, CHUNK_POSITIONS, RUNS_PER_THREAD, UNIT, WHOLE};
use crate::tensor::Data;

/// Where the channel axis lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelLayout {
    /// `[N, C, …]`.
    #[default]
    Nchw,
    /// `[N, …, C]`.
    Nhwc,
}

/// Runs are contiguous stretches of x whose statistics depend on nothing else. A run is one group
/// of one batch entry (channels first) or all groups of one (channels last).
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    pub(super) count: usize,
    /// Elements per run.
    pub(super) len: usize,
    /// Elements per chunk; with channels last, whole positions.
    pub(super) chunk: usize,
    /// Groups within a run.
    pub(super) groups: usize,
    /// Channels of all groups.
    pub(super) channels: usize,
    /// Channels per group.
    pub(super) width: usize,
    /// Neighbouring elements of one channel: 1 with channels last.
    pub(super) stretch: usize,
}

impl Runs {
    /// Of a tensor without elements.
    pub(super) const NONE: Self = Self {
        count: 0,
        len: 0,
        chunk: 1,
        groups: 0,
        channels: 0,
        width: 0,
        stretch: 1,
    };

    pub(super) fn new(
        [batch, channels, positions]: [usize; 3],
        num_groups: usize,
        layout: ChannelLayout,
    ) -> Self {
        let width = channels / num_groups;
        match layout {
            // With one position both layouts are the same.
            ChannelLayout::Nchw if positions != 1 => Self {
                count: batch * num_groups,
                len: width * positions,
                chunk: CHUNK,
                groups: 1,
                channels,
                width,
                stretch: positions,
            },
            _ => Self {
                count: batch,
                len: positions * channels,
                chunk: channels * (CHUNK / channels).max(CHUNK_POSITIONS).min(positions),
                groups: num_groups,
                channels,
                width,
                stretch: 1,
            },
        }
    }

    pub(super) fn chunks(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    /// Channels where these are last, else none.
    pub(super) fn last_channels(&self) -> usize {
        if self.stretch == 1 { self.channels } else { 0 }
    }

    /// Elements of a chunk, within its run.
    pub(super) fn chunk(&self, index: usize) -> Range<usize> {
        index * self.chunk..((index + 1) * self.chunk).min(self.len)
    }
}

/// How the work is cut. Both ways give the same bits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    /// A unit is this many whole runs: each is read from memory once.
    Whole { runs: usize },
    /// Run after run, first its statistics, then its results, in units of this many chunks: so that
    /// few large runs keep all threads busy.
    Split { chunks: usize, units: usize },
}

impl Cut {
    pub(super) fn new(runs: &Runs, threads: usize) -> Self {
        let is_whole = runs.len <= UNIT
            || runs.len <= WHOLE
                && (threads == 1 || runs.count >= RUNS_PER_THREAD.saturating_mul(threads));
        if is_whole {
            let runs = UNIT.checked_div(runs.len).unwrap_or(1).max(1);
            Self::Whole { runs }
        } else {
            let chunks = (UNIT / runs.chunk).max(1);
            let units = runs.chunks().div_ceil(chunks);
            Self::Split { chunks, units }
        }
    }

    /// Units in all, and elements of each.
    pub(super) fn units(&self, of: &Runs) -> (usize, usize) {
        match *self {
            Self::Whole { runs } => (of.count.div_ceil(runs), runs * of.len),
            Self::Split { chunks, units } => (of.count * 2 * units, chunks * of.chunk),
        }
    }
}

/// x, and how it falls into runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) x: Data<'a>,
    pub(super) runs: Runs,
}

impl Input<'_> {
    /// The run after `run`, if x is float32 and one that L2 holds beside what is made of another.
    pub(super) fn next(&self, run: usize) -> Option<&[f32]> {
        let len = self.runs.len;
        match self.x {
            Data::F32(x) if len <= AHEAD => x.get((run + 1) * len..(run + 2) * len),
            _ => None,
        }
    }
}
