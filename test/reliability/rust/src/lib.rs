//! What both attacks share: random numbers that a seed gives again, the command line, and where an
//! attack stands, for whoever finds its process dead. Attacks nothing.

use std::fs::File;
use std::io::Write;

/// Numbers of a seed: SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of case `index` of `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        let mut mixed = Self(seed);
        Self(
            mixed
                .bits()
                .wrapping_add(index.wrapping_mul(0xd134_2543_de82_ef95)),
        )
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() >> 11).checked_rem(end as u64).unwrap_or(0) as usize
    }

    /// Whether one of `of` equal chances came.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of some.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }

    /// Values in [-1, 1).
    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    /// Bits of float16 or bfloat16 values below 2.
    pub fn halves(&mut self, count: usize) -> Vec<u16> {
        (0..count)
            .map(|_| (self.bits() >> 48) as u16 & 0xbfff)
            .collect()
    }
}

/// `--seed`, `--first`, `--count` and `--trace` of a command line.
#[derive(Debug)]
pub struct Arguments {
    /// Names all cases.
    pub seed: u64,
    /// The first case.
    pub first: u64,
    /// How many of them.
    pub count: u64,
    trace: Option<File>,
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// A sentence about what could not be read.
    pub fn read() -> Result<Self, String> {
        let mut read = Self {
            seed: 1,
            first: 0,
            count: 1,
            trace: None,
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given
                .next()
                .ok_or_else(|| format!("{name}: expected a value, got none"))?;
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("{name}: expected a count, got {value}"))
            };
            match name.as_str() {
                "--seed" => read.seed = number()?,
                "--first" => read.first = number()?,
                "--count" => read.count = number()?,
                "--trace" => {
                    read.trace =
                        Some(File::create(&value).map_err(|why| format!("{value}: {why}"))?)
                }
                _ => {
                    return Err(format!(
                        "expected --seed, --first, --count or --trace, got {name}"
                    ));
                }
            }
        }
        Ok(read)
    }

    /// Writes where the attack stands over what stood there before.
    ///
    /// # Errors
    /// A sentence about the file.
    pub fn trace(&mut self, case: u64, what: &str) -> Result<(), String> {
        use std::io::{Seek, SeekFrom};
        let Some(file) = &mut self.trace else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(format!("{case} {what:<80}\n").as_bytes()))
            .map_err(|why| format!("trace: {why}"))
    }
}

/// Prints a figure, as the runner reads it.
///
/// # Errors
/// A sentence about standard output.
pub fn figure(name: &str, value: u64) -> Result<(), String> {
    writeln!(std::io::stdout(), "{name} {value}").map_err(|why| format!("stdout: {why}"))
}

/// Prints a miss, as the runner reads it.
///
/// # Errors
/// A sentence about standard output.
pub fn miss(case: u64, what: &str) -> Result<(), String> {
    let line = what.replace('\n', " ");
    writeln!(std::io::stdout(), "miss case {case}: {line}").map_err(|why| format!("stdout: {why}"))
}
