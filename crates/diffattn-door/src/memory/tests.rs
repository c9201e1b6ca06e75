//! Blocks: alignment, reuse, refusal, and how much is kept.

use super::*;

#[test]
fn blocks_are_aligned_reused_and_refused() {
    let mut block = Block::zeroed(100_003).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(block.as_ptr() as usize % ALIGNMENT, 0);
    assert!(block.iter().all(|&byte| byte == 0));
    block.fill(7);
    drop(block);
    let again = Block::zeroed(100_000).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (again.len(), again.iter().all(|&byte| byte == 0)),
        (100_000, true)
    );
    let copy = Block::copy_of(&[1, 2, 3]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&*copy, &[1, 2, 3]);
    assert!(Block::new(0).is_ok_and(|block| block.is_empty()));
    for bytes in [usize::MAX, usize::MAX / 2, isize::MAX as usize - 64] {
        assert_eq!(
            Block::new(bytes).map(|_| ()),
            Err(Error::out_of_memory(bytes as u64))
        );
    }
    drop(again);
    release_idle_memory();
}

#[test]
fn idle_memory_has_an_upper_bound() {
    let blocks: Vec<_> = (0..3).map(|_| Block::new(KEPT_BYTES / 2)).collect();
    assert!(blocks.iter().all(Result::is_ok));
    drop(blocks);
    let kept: usize = IDLE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|block| block.capacity)
        .sum();
    assert!(kept <= KEPT_BYTES);
}
