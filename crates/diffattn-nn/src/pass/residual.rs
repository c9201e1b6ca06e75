//! What a layer adds to its rows. Knows nothing of what it adds.

/// `x += scale · y`, the scale one per channel.
pub(super) fn add(x: &mut [f32], y: &[f32], scale: Option<&[f32]>) {
    match scale {
        None => x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
        Some(scale) => {
            let rows = x.chunks_exact_mut(scale.len());
            for (x, y) in rows.zip(y.chunks_exact(scale.len())) {
                for ((x, y), scale) in x.iter_mut().zip(y).zip(scale) {
                    *x += scale * y;
                }
            }
        }
    }
}
