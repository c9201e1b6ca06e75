//! The numbers that every subject computes with: a hash of the element's index, the same in every
//! language.

use diffattn::AdamW;

/// λ of every case.
pub const LAMBDA: f32 = 0.35;

/// Added to a norm's mean square or variance.
pub const EPS: f32 = 1e-5;

/// 32 bits that look random, of any number.
fn hash(mut x: u32) -> u32 {
    // Products wrap on purpose: indices count modulo 2^32.
    x ^= x >> 16;
    x = x.wrapping_mul(0x7FEB_352D);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// Element `i` of tensor number `t`, in [−1, 1) and exact in float32.
#[must_use]
pub(crate) fn value(t: usize, i: usize) -> f32 {
    let x = hash((i as u32).wrapping_add((t as u32).wrapping_mul(0x9E37_79B9)));
    (x >> 8) as f32 / 8_388_608.0 - 1.0
}

/// A block mask: in each row one of `one_of` blocks is live, those whose places have the smallest
/// hashes.
pub(crate) fn live_blocks([rows, columns]: [usize; 2], one_of: usize) -> Vec<u8> {
    let mut blocks = vec![0; rows * columns];
    for row in 0..rows {
        let mut places: Vec<usize> = (row * columns..(row + 1) * columns).collect();
        places.sort_by_key(|&place| hash(place as u32));
        for &place in &places[..columns / one_of] {
            blocks[place] = 1;
        }
    }
    blocks
}

/// Element `i` of AdamW's second moments before a step, from tensor 3: in [0.5, 1.5), for a root of
/// next to nothing would make one parameter larger than all others.
#[must_use]
pub(crate) fn second_moment(i: usize) -> f32 {
    1.0 + 0.5 * value(3, i)
}

/// AdamW of every case, whose step is number [`ADAMW_STEP`]: so fast that what is checked is what
/// moved.
pub(crate) const ADAMW: AdamW = AdamW {
    lr: 0.1,
    betas: [0.9, 0.95],
    eps: 1e-8,
    weight_decay: 0.1,
};

/// Number of each step of AdamW.
pub(crate) const ADAMW_STEP: u16 = 10;

/// Fills `data` with tensor number `t`.
pub fn fill(data: &mut [f32], t: usize) {
    for (i, to) in data.iter_mut().enumerate() {
        *to = value(t, i);
    }
}

/// Tensor number `t` with the given shape.
#[must_use]
pub fn made(shape: &[usize], t: usize) -> Vec<f32> {
    let mut data = vec![0.0; shape.iter().product()];
    fill(&mut data, t);
    data
}
