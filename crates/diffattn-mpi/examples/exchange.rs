//! What an ordered reduction costs beside MPI_Allreduce: gradients of one unit per rank, of FLOATS
//! values, summed in the order of the units by parts (each rank adds the part that it has), then
//! gathered as parameters are. Prints medians as one JSON object. Trains nothing.
//!
//! `mpirun -n N exchange [FLOATS [ROUNDS]]`

#![expect(clippy::print_stdout, reason = "what it is for")]

use diffattn::Error;
use diffattn_mpi::wire::MpiRanks;
use diffattn_nn::training::{Message, Ranks};
use std::ops::Range;
use std::time::Instant;

/// Buckets that the values are sent in, as a model of as many layers has them.
const BUCKETS: usize = 8;

/// Adds what all ranks have, in their order, of this rank's part of each bucket.
fn ordered(
    ranks: &mut dyn Ranks,
    gradients: &[f32],
    parts: &[Vec<Range<usize>>],
    sums: &mut [f32],
) -> Result<(), Error> {
    let (rank, size) = (ranks.rank(), ranks.size());
    let message = |from, to, bucket: usize| Message {
        from,
        to,
        tag: bucket as u32,
    };
    for (bucket, parts) in parts.iter().enumerate() {
        for from in (0..size).filter(|&from| from != rank) {
            ranks.expect(message(from, rank, bucket), parts[rank].len())?;
        }
    }
    for (bucket, parts) in parts.iter().enumerate() {
        for to in (0..size).filter(|&to| to != rank) {
            ranks.send(message(rank, to, bucket), &gradients[parts[to].clone()])?;
        }
    }
    for (bucket, parts) in parts.iter().enumerate() {
        let part = parts[rank].clone();
        sums[part.clone()].fill(0.0);
        for from in 0..size {
            let own = from == rank;
            let values = match own {
                true => gradients[part.clone()].to_vec(),
                false => ranks.receive(message(from, rank, bucket))?,
            };
            let sums = sums[part.clone()].iter_mut();
            sums.zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    for parts in parts {
        ranks.gather(sums, parts)?;
    }
    ranks.progress()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: usize| {
        arguments
            .get(index)
            .map_or(Ok(default), |text| text.parse())
    };
    let (floats, rounds) = (number(0, 7_000_000)?, number(1, 7)?);
    let mut ranks = MpiRanks::start()?;
    let (rank, size) = (ranks.rank(), ranks.size());
    let parts: Vec<Vec<_>> = (0..BUCKETS)
        .map(|bucket| {
            let at = |part: usize| floats * (bucket * size + part) / (BUCKETS * size);
            (0..size).map(|part| at(part)..at(part + 1)).collect()
        })
        .collect();
    let gradients: Vec<f32> = (0..floats)
        .map(|i| (i * 31 + rank * 17) as f32 % 97.0)
        .collect();
    let (mut sums, mut reduced) = (vec![0.0; floats], vec![0.0; floats]);
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ranks.gather_numbers(&[0.0], &vec![1; size])?;
        let start = Instant::now();
        ordered(&mut ranks, &gradients, &parts, &mut sums)?;
        own.push(start.elapsed().as_secs_f64());
        ranks.gather_numbers(&[0.0], &vec![1; size])?;
        let start = Instant::now();
        ranks.all_reduce(&gradients, &mut reduced);
        theirs.push(start.elapsed().as_secs_f64());
    }
    let largest = reduced.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    let pairs = sums.iter().zip(&reduced);
    let off = pairs.fold(0.0, |max: f32, (x, y)| max.max((x - y).abs()));
    if rank == 0 {
        println!(
            r#"{{"ranks":{size},"floats":{floats},"ordered":{:.6},"allreduce":{:.6},"off":{}}}"#,
            median(own),
            median(theirs),
            off / largest
        );
    }
    Ok(())
}
