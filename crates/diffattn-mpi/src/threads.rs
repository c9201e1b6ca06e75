//! Ranks that are threads of one process and tell each other by channels. Starts no thread.

use diffattn::Error;
use diffattn_nn::training::{Message, Ranks};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a rank tells another: floats of a message, or numbers that all gather.
#[derive(Debug)]
enum Told {
    Floats(Message, Vec<f32>),
    Numbers(usize, Vec<f64>),
}

/// A rank that is a thread of this process: for tests, and for who looks at what ranks do without
/// MPI.
#[derive(Debug)]
pub struct ThreadRanks {
    rank: usize,
    to: Vec<Sender<Told>>,
    from_all: Receiver<Told>,
    floats: HashMap<Message, VecDeque<Vec<f32>>>,
    numbers: HashMap<usize, VecDeque<Vec<f64>>>,
    expected: HashMap<Message, VecDeque<usize>>,
}

impl ThreadRanks {
    /// All ranks of a group, to be given to a thread each.
    #[must_use]
    pub fn all(size: usize) -> Vec<Self> {
        let (to, from): (Vec<_>, Vec<_>) = (0..size).map(|_| channel()).unzip();
        let ranks = from.into_iter().enumerate();
        ranks
            .map(|(rank, from_all)| Self {
                rank,
                to: to.clone(),
                from_all,
                floats: HashMap::new(),
                numbers: HashMap::new(),
                expected: HashMap::new(),
            })
            .collect()
    }

    /// Waits for what any rank tells.
    fn hear(&mut self) -> Result<(), Error> {
        match self.from_all.recv().map_err(|_| gone())? {
            Told::Floats(message, values) => {
                self.floats.entry(message).or_default().push_back(values);
            }
            Told::Numbers(from, values) => {
                self.numbers.entry(from).or_default().push_back(values);
            }
        }
        Ok(())
    }

    fn tell(&self, to: usize, told: Told) -> Result<(), Error> {
        let to = self.to.get(to).ok_or_else(gone)?;
        to.send(told).map_err(|_| gone())
    }
}

impl Ranks for ThreadRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn expect(&mut self, message: Message, len: usize) -> Result<(), Error> {
        self.expected.entry(message).or_default().push_back(len);
        Ok(())
    }

    fn send(&mut self, message: Message, values: &[f32]) -> Result<(), Error> {
        self.tell(message.to, Told::Floats(message, values.to_vec()))
    }

    fn receive(&mut self, message: Message) -> Result<Vec<f32>, Error> {
        let expected = self
            .expected
            .get_mut(&message)
            .and_then(VecDeque::pop_front);
        let len = expected.ok_or_else(|| Error::internal("a message that nobody expects"))?;
        loop {
            if let Some(values) = self.floats.entry(message).or_default().pop_front() {
                if values.len() != len {
                    return Err(Error::internal("a message of another length"));
                }
                return Ok(values);
            }
            self.hear()?;
        }
    }

    fn gather(&mut self, values: &mut [f32], parts: &[Range<usize>]) -> Result<(), Error> {
        let own = &values[parts[self.rank].clone()];
        let own: Vec<f64> = own.iter().map(|&value| f64::from(value)).collect();
        let counts: Vec<usize> = parts.iter().map(Range::len).collect();
        let all = self.gather_numbers(&own, &counts)?;
        let places = parts.iter().flat_map(Clone::clone);
        for (place, value) in places.zip(all) {
            values[place] = value as f32;
        }
        Ok(())
    }

    fn gather_numbers(&mut self, own: &[f64], counts: &[usize]) -> Result<Vec<f64>, Error> {
        for to in 0..self.size() {
            self.tell(to, Told::Numbers(self.rank, own.to_vec()))?;
        }
        let mut all = Vec::new();
        for (from, &count) in counts.iter().enumerate() {
            let values = loop {
                if let Some(values) = self.numbers.entry(from).or_default().pop_front() {
                    break values;
                }
                self.hear()?;
            };
            if values.len() != count {
                return Err(Error::internal(
                    "a rank that tells another number of numbers",
                ));
            }
            all.extend(values);
        }
        Ok(all)
    }
}

/// What is said where a rank has ended before the others.
fn gone() -> Error {
    Error::internal("a rank that has ended")
}
