//! Block sizes that more than one file needs: every constant with its unit and its reason. Holds no code.

/// Keys per strip: a row is reduced strip by strip, each from zero, added in order. Part of the numeric
/// contract (results change with it), so it is one number on every instruction set.
pub(crate) const STRIP: usize = 256;

/// Interleaved sums of exponentials within a strip (key modulo this): shorter chains are faster and more
/// accurate. Part of the numeric contract.
pub(crate) const ROW_SUMS: usize = 4;

/// Keys (of K) or channels (of V) per packed panel: the lanes of the widest vector, and a multiple of
/// every tile's rows, so that a panel packed on one instruction set serves all.
pub(crate) const PANEL: usize = 16;

/// Queries up to which the decode path (lanes = keys) is taken. (AVX2, 256 keys: 4 queries take 0.83 times what the prefill
/// takes, 8 take 1.24 times, 16 take 1.61 times; 16 and 4096 keys alike.)
pub(crate) const DECODE_QUERIES: usize = 4;

/// Bytes of packed K and V in one wave per thread, past which no further head is packed: many short sequences share
/// one parallel section, and panels are still in L2 when they are read (8 MiB: 3 % slower at 512 and 2048 tokens).
pub(crate) const WAVE_BYTES: usize = 512 << 10;
