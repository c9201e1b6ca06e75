//! The stretches of queries and keys that see each other: one per batch entry, or the packed ones;
//! their key lengths and offsets.

use super::Operands;
use crate::attention::inputs::Source;
use crate::attention::mask::{Sequence, Sequences};
use crate::attention::options::AttentionOptions;
use crate::error::Error;

/// The stretches of queries and of keys of packed sequences, as (first, length) pairs.
struct Packed {
    q: Vec<[usize; 2]>,
    k: Vec<[usize; 2]>,
}

/// The sequences of a call; none where it has no queries.
pub(in crate::attention) fn sequences(
    options: &AttentionOptions<'_>,
    operands: &Operands<'_>,
) -> Result<Sequences, Error> {
    let (batch, queries) = (operands.q_axis.batch, operands.q_axis.length);
    let packed = packed(options, operands)?;
    let count = packed.as_ref().map_or(batch, |packed| packed.q.len());
    let stretch = |index: usize| match &packed {
        Some(Packed { q, k }) => (0, q[index], k[index]),
        None => (index, [0, queries], [0, operands.keys]),
    };
    check_counts(options, count, packed.is_some())?;
    for (index, &length) in options.key_lengths.unwrap_or_default().iter().enumerate() {
        let (_, _, [_, keys]) = stretch(index);
        if !usize::try_from(length).is_ok_and(|length| length <= keys) {
            let expected = format_args!("lengths from 0 to {keys}").to_string();
            return Err(Error::shape("key_lengths", expected, length));
        }
    }
    let mut sequences = Sequences::new();
    // Without queries there is no row to compute, however many batch entries there are.
    if queries == 0 {
        return Ok(sequences);
    }
    sequences.try_reserve_exact(count).map_err(|_| {
        Error::out_of_memory((count as u64).saturating_mul(size_of::<Sequence>() as u64))
    })?;
    for index in 0..count {
        let (batch, [first_query, queries], [first_key, keys]) = stretch(index);
        // (Checked: it is from 0 to `keys`.)
        let seen = options.key_lengths.map(|lengths| lengths[index] as usize);
        let query_offset = match options.query_offset.as_deref() {
            None => keys as i64 - queries as i64,
            Some([offset]) => *offset,
            Some(offsets) => offsets[index],
        };
        sequences.push(Sequence {
            batch,
            first_query,
            queries,
            first_key,
            keys: seen.unwrap_or(keys),
            query_offset,
        });
    }
    Ok(sequences)
}

/// Checks that there is a key length and an offset for each of `count` sequences, or one offset for
/// all.
fn check_counts(
    options: &AttentionOptions<'_>,
    count: usize,
    is_packed: bool,
) -> Result<(), Error> {
    let per = if is_packed { "sequence" } else { "batch entry" };
    if let Some(lengths) = options.key_lengths
        && lengths.len() != count
    {
        return Err(Error::shape(
            "key_lengths",
            format_args!("length {count}, one per {per}"),
            lengths.len(),
        ));
    }
    if let Some(offsets) = &options.query_offset
        && offsets.len() != 1
        && offsets.len() != count
    {
        return Err(Error::shape(
            "query_offset",
            format_args!("1 or {count} values, one per {per}"),
            offsets.len(),
        ));
    }
    Ok(())
}

/// The packed sequences of a call, where it has them.
fn packed(
    options: &AttentionOptions<'_>,
    operands: &Operands<'_>,
) -> Result<Option<Packed>, Error> {
    let together = |argument: &str, got: &str| {
        let expected = "cu_seqlens_q and cu_seqlens_k together";
        Err(Error::option(argument, expected, got))
    };
    let (cu_q, cu_k) = match (options.cu_seqlens_q, options.cu_seqlens_k) {
        (None, None) => return Ok(None),
        (Some(_), None) => return together("cu_seqlens_k", "only cu_seqlens_q"),
        (None, Some(_)) => return together("cu_seqlens_q", "only cu_seqlens_k"),
        (Some(cu_q), Some(cu_k)) => (cu_q, cu_k),
    };
    if matches!(operands.source, Source::Cache(_)) {
        return Err(Error::option("cu_seqlens_k", "none with a cache", "one"));
    }
    let batch = operands.q_axis.batch;
    if batch != 1 {
        return Err(Error::shape("q", "batch 1 with packed sequences", batch));
    }
    for (argument, is_given) in [
        ("attn_mask", options.attn_mask.is_some()),
        ("attn_bias", options.attn_bias.is_some()),
        ("block_mask", options.block_mask.is_some()),
    ] {
        if is_given {
            let expected = "none with packed sequences";
            return Err(Error::option(argument, expected, "one"));
        }
    }
    if cu_q.len() != cu_k.len() {
        return Err(Error::shape(
            "cu_seqlens_k",
            format_args!("length {} as cu_seqlens_q", cu_q.len()),
            cu_k.len(),
        ));
    }
    Ok(Some(Packed {
        q: check_cumulative("cu_seqlens_q", cu_q, operands.q_axis.length)?,
        k: check_cumulative("cu_seqlens_k", cu_k, operands.keys)?,
    }))
}

/// `[0, …, total]`, never falling, as (first, length) pairs.
fn check_cumulative(argument: &str, cu: &[i32], total: usize) -> Result<Vec<[usize; 2]>, Error> {
    if cu.first() != Some(&0) {
        return Err(Error::shape(
            argument,
            "a first entry of 0",
            cu.first().map_or("none".to_owned(), i32::to_string),
        ));
    }
    if cu.last().and_then(|&last| usize::try_from(last).ok()) != Some(total) {
        return Err(Error::shape(
            argument,
            format_args!("a last entry of {total}, the tokens given"),
            cu.last().map_or("none".to_owned(), i32::to_string),
        ));
    }
    cu.windows(2)
        .map(
            |ends| match (usize::try_from(ends[0]), usize::try_from(ends[1])) {
                (Ok(first), Ok(end)) if first <= end => Ok([first, end - first]),
                _ => Err(Error::shape(
                    argument,
                    "entries that never fall",
                    format_args!("{} after {}", ends[1], ends[0]),
                )),
            },
        )
        .collect()
}
