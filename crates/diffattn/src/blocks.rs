//! Block sizes that more than one file needs: every constant with its unit and its reason. Holds no
//! code.

/// Keys per strip: a row is reduced strip by strip, each from zero, added in order. Part of the
/// numeric contract (results change with it), so it is one number on every instruction set.
pub(crate) const STRIP: usize = 256;

/// Queries per strip of the gradients of keys and values: a key's sum runs over the queries of a
/// strip from zero, strip after strip added in order. A row block of gradients is one such strip,
/// and a block of a block mask no more than one. Part of the numeric contract. (128: 1.1 of the
/// time at 512 tokens, 1.0 to 1.05 at 2048, AVX2 and AVX-512.)
pub(crate) const QUERY_STRIP: usize = 64;

/// Interleaved sums of exponentials within a strip (key modulo this): shorter chains are faster and
/// more accurate. Part of the numeric contract.
pub(crate) const ROW_SUMS: usize = 4;

/// Keys (of K) or channels (of V) per packed panel: the lanes of the widest vector, and a multiple
/// of every tile's rows, so that a panel packed on one instruction set serves all.
pub(crate) const PANEL: usize = 16;

/// Queries up to which the decode path (lanes = keys) is taken. (AVX2, 256 keys: 4 queries take
/// 0.83 times what the prefill takes, 8 take 1.24 times, 16 take 1.61 times; 16 and 4096 keys
/// alike.)
pub(crate) const DECODE_QUERIES: usize = 4;

/// Bytes of packed K and V in one wave per thread, past which no further head is packed: many short
/// sequences share one parallel section, and panels are still in L2 when they are read (8 MiB: 3 %
/// slower at 512 and 2048 tokens).
pub(crate) const WAVE_BYTES: usize = 512 << 10;

/// The product of a [`Linear`](crate::Linear).
pub(crate) mod linear {
    /// Input channels per strip. Part of the numeric contract, as the strips of keys are. A chain
    /// of n products has an error that grows with √n, so strips of 128 halve that of 512
    /// channels, and a strip of a panel (24 KiB) fits L1.
    pub(crate) const CHANNELS: usize = 128;

    /// Output channels per packed panel: the widest register tile (three vectors of 16), a multiple
    /// of every other's.
    pub(crate) const PANEL: usize = 48;

    /// Rows of a block: one strip of them, packed, is 64 KiB, which leaves room in L2 for their
    /// results.
    pub(crate) const BLOCK: usize = 128;

    /// Rows of a block whose weights are widened or turned on the way, which more rows share.
    pub(crate) const TURNED_BLOCK: usize = 256;

    /// Rows of a block at least, where there are more than threads need. Fewer would read weights
    /// too often.
    pub(crate) const LEAST_BLOCK: usize = 32;

    /// Rows (tokens) of a strip of a weight's gradient: each strip is summed from zero, then added.
    /// Part of the numeric contract.
    pub(crate) const TOKENS: usize = 256;

    /// Tokens that are packed side by side for it: as many streams are read, and of each panel
    /// some lines in a row written. Divides [`TOKENS`].
    pub(crate) const TOKENS_TOGETHER: usize = 8;

    /// Output channels of a block of a weight's gradient: packed, a strip of them is 64 KiB.
    pub(crate) const GRADIENT_BLOCK: usize = 64;

    /// Output channels of such a block at least: a multiple of every tile's rows.
    pub(crate) const LEAST_GRADIENT_BLOCK: usize = 16;

    /// Bytes of packed strips of x, which all blocks of a weight's gradient read.
    pub(crate) const PANEL_BYTES: usize = 2 << 20;

    /// Multiply-adds of a unit of work where a call gives its caller turns.
    pub(crate) const UNIT_WORK: usize = 1 << 24;

    /// Rows of such a unit at least: fewer read the weight too often.
    pub(crate) const LEAST_UNIT_ROWS: usize = 16;

    /// Multiply-adds that reading one byte of a weight from memory costs: what few rows are bound
    /// by.
    pub(crate) const READ_COST: usize = 2;

    /// Rows of a weight that are packed side by side: divides [`PANEL`].
    pub(crate) const PACKED_ROWS: usize = 8;

    /// Channels of a weight that are packed side by side, whole strips.
    pub(crate) const PACKED_CHANNELS: usize = 8 * CHANNELS;

    /// Rows of a register tile at most.
    pub(crate) const MAX_ROWS: usize = 16;

    /// Vectors of a tile of one row, where a panel has them: as many sums hide the latency of a
    /// multiply-add. (With AVX-512 a panel is three, which is enough for what is read. Six of two
    /// panels are two streams: on Zen 5, bfloat16 from memory 1.4 times the time.)
    pub(crate) const ROW_VECTORS: usize = 6;

    /// Rows up to which weights are asked for ahead of time, and widened in registers, tile by
    /// tile, not once per panel. (AVX2, weights from memory: 1 row of halves takes 0.53 times
    /// as long, 4 rows 0.63, 8 rows 0.82, 16 rows 0.94; from L2 16 rows take as long. Zen 5, 8
    /// rows of float32 from memory: AVX-512 0.88, AVX2 0.85.) In WebAssembly the tiles of more
    /// rows would be 2 KB, gzipped.
    pub(crate) const FEW_ROWS: usize = if cfg!(target_arch = "wasm32") { 1 } else { 8 };

    /// How many bytes ahead few rows ask for weights: the hardware stops at a page's end, and one
    /// row of halves is not in time for what it fetches. (Zen 1, from memory, 1 row: bfloat16
    /// 0.72 of the time, float16 0.70, float32 0.84 to 0.93; halves by a half or twice that as
    /// much.)
    pub(crate) const AHEAD: usize = 8 << 10;
}

/// Norms and the operators along the sequence.
pub(crate) mod norm {
    /// Elements per unit: a tenth of a millisecond or so, long enough that handing out units costs
    /// nothing.
    pub(crate) const UNIT: usize = 1 << 17;

    /// Elements whose moments are summed on their own, by group norm and layer norm: 16 KiB of
    /// float32, half of the smallest L1, as each chunk is walked twice. Part of the numeric
    /// contract.
    pub(crate) const CHUNK: usize = 1 << 12;

    /// Positions per chunk at least, with channels last: the moments of a chunk then take less
    /// memory than a fifth of its elements, however many groups there are.
    pub(crate) const CHUNK_POSITIONS: usize = 32;

    /// Elements of the largest run of group norm that one thread works off alone: milliseconds even
    /// in WebAssembly, with SiLU, so that a call can be cancelled between runs.
    pub(crate) const WHOLE: usize = 1 << 20;

    /// Runs per thread from which whole runs keep the threads evenly busy.
    pub(crate) const RUNS_PER_THREAD: usize = 4;

    /// Elements of the largest group whose successor is asked for while it is normalised: a fourth
    /// of the smallest L2 is taken by each.
    pub(crate) const AHEAD: usize = 1 << 15;

    /// How many elements ahead a larger group is asked for instead, from L3, while it is
    /// normalised.
    pub(crate) const NEAR: usize = 1 << 10;

    /// How many elements ahead such a group is asked for, from memory, while its moments are
    /// summed: the hardware stops at a page's end (Zen 1: 0.88 of the time; by a fourth of that
    /// 0.94).
    pub(crate) const FAR_AHEAD: usize = 1 << 13;

    /// Elements per block of rows of RMS norm (8 KiB of float32, and as much again of results, stay
    /// in L1), unless one row is longer.
    pub(crate) const ROWS_BLOCK: usize = 1 << 11;

    /// Elements per such block of a backward pass: of x and dy, and as much of the next block,
    /// which is asked for meanwhile, in half of the smallest L1.
    pub(crate) const GRADIENTS_BLOCK: usize = 1 << 10;

    /// Rows per such block at most.
    pub(crate) const BLOCK_ROWS: usize = 16;

    /// Elements of a result from which it is streamed: a line need not be read before it is
    /// written, and what is read next stays in the caches.
    pub(crate) const STREAMED: usize = 1 << 20;

    /// Elements of a group up to which its backward pass takes its last steps in float64: of more,
    /// plain float32 loses more in its sums than we do anywhere.
    pub(crate) const SMALL_GROUP: usize = 1 << 9;

    /// Rows whose sums for the gradient of a weight start from zero, counted from row 0: part of
    /// the numeric contract. Rows of as many tokens as this divides add up to the bits of all at
    /// once, and the sums take a sixteenth of the memory of x.
    pub(crate) const WEIGHT_ROWS: usize = 128;

    /// Elements of such a strip at most, of which longer rows make fewer: milliseconds, so that a
    /// call can be cancelled between two. Part of the numeric contract.
    pub(crate) const WEIGHT_ELEMENTS: usize = 1 << 20;

    /// Lanes of a sum along memory: four AVX-512 accumulators, enough to cover the latency of an
    /// addition. Part of the numeric contract.
    pub(crate) const LANES: usize = 32;

    /// Lanes of two such sums at once. Part of the numeric contract.
    pub(crate) const SHIFTED_LANES: usize = 16;

    /// Lanes of three such sums at once. Part of the numeric contract.
    pub(crate) const POWER_LANES: usize = 16;
}

/// What stands between two projections.
pub(crate) mod activation {
    /// Values per unit of a backward pass: some tens of microseconds.
    pub(crate) const UNIT: usize = 1 << 14;

    /// Values of each input per block, which a thread widens before they are met.
    pub(crate) const BLOCK: usize = 1 << 10;

    /// Float64 vectors of GELU whose steps go side by side. (AVX2: four take 0.94 of the time of
    /// two, one 1.3 times; in WebAssembly four would be 2 KB.)
    pub(crate) const AT_ONCE: usize = if cfg!(target_arch = "wasm32") { 2 } else { 4 };
}

/// Losses of rows of logits.
pub(crate) mod loss {
    /// Tokens of a window, counted from the first: rows that count are gathered within one, so that
    /// calls on whole windows give the bits of one call. Part of the numeric contract.
    pub(crate) const WINDOW: usize = 256;

    /// Rows of logits that exist at once: of a vocabulary of 4096 they are 2 MiB. As many tokens
    /// are a strip of the head's gradient. Part of the numeric contract.
    pub(crate) const CHUNK: usize = 128;

    /// Logits of a strip, whose exponentials are summed from zero: 2 KiB. Part of the numeric
    /// contract.
    pub(crate) const STRIP: usize = 512;

    /// Lanes of such a sum. Part of the numeric contract.
    pub(crate) const LANES: usize = 32;

    /// Vectors whose exponentials are made side by side.
    pub(crate) const AT_ONCE: usize = 4;

    /// Multiply-adds that one logit costs in time.
    pub(crate) const LOGIT_WORK: usize = 24;
}

/// Steps of an optimiser.
pub(crate) mod optimizer {
    /// Parameters of a chunk: 448 KiB are read and written, long enough that handing out chunks
    /// costs nothing. Part of the numeric contract of the norm of gradients.
    pub(crate) const CHUNK: usize = 1 << 14;

    /// Multiply-adds that one parameter costs in time, memory included.
    pub(crate) const ELEMENT_WORK: usize = 64;

    /// Vectors of a turn of the loop.
    pub(crate) const AT_ONCE: usize = 2;
}
