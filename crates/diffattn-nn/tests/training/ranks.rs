//! Several ranks that train together, here threads that tell each other by channels: the same bits
//! as one rank alone, whatever their number, the batch and the accumulation.

use crate::trainer::{data, fresh};
use diffattn::Error;
use diffattn_nn::training::{
    Alone, Message, Ranks, Schedule, StateTensor, StepReport, Trainer, TrainerOptions,
    TrainerState, TrainingModel, TrainingOptions,
};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a rank tells another: floats of a message, or numbers that all gather.
#[derive(Debug)]
enum Told {
    Floats(Message, Vec<f32>),
    Numbers(usize, Vec<f64>),
}

/// A rank that is a thread.
#[derive(Debug)]
struct Threads {
    rank: usize,
    to: Vec<Sender<Told>>,
    from_all: Receiver<Told>,
    floats: HashMap<Message, VecDeque<Vec<f32>>>,
    numbers: HashMap<usize, VecDeque<Vec<f64>>>,
    expected: HashMap<Message, VecDeque<usize>>,
}

impl Threads {
    fn all(size: usize) -> Vec<Self> {
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

    fn hear(&mut self) {
        match self.from_all.recv().unwrap() {
            Told::Floats(message, values) => {
                self.floats.entry(message).or_default().push_back(values);
            }
            Told::Numbers(from, values) => {
                self.numbers.entry(from).or_default().push_back(values);
            }
        }
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn expect(&mut self, message: Message, len: usize) -> Result<(), Error> {
        assert_eq!(message.to, self.rank);
        self.expected.entry(message).or_default().push_back(len);
        Ok(())
    }

    fn send(&mut self, message: Message, values: &[f32]) -> Result<(), Error> {
        assert_eq!(message.from, self.rank);
        let told = Told::Floats(message, values.to_vec());
        self.to[message.to].send(told).unwrap();
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Result<Vec<f32>, Error> {
        let len = self
            .expected
            .get_mut(&message)
            .unwrap()
            .pop_front()
            .unwrap();
        loop {
            if let Some(values) = self.floats.entry(message).or_default().pop_front() {
                assert_eq!(values.len(), len);
                return Ok(values);
            }
            self.hear();
        }
    }

    fn gather(&mut self, values: &mut [f32], parts: &[Range<usize>]) -> Result<(), Error> {
        assert_eq!(parts.len(), self.size());
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
        for to in &self.to {
            to.send(Told::Numbers(self.rank, own.to_vec())).unwrap();
        }
        let mut all = Vec::new();
        for (from, &count) in counts.iter().enumerate() {
            let values = loop {
                if let Some(values) = self.numbers.entry(from).or_default().pop_front() {
                    break values;
                }
                self.hear();
            };
            assert_eq!(values.len(), count);
            all.extend(values);
        }
        Ok(all)
    }
}

const STEPS: usize = 6;

fn options(batch: usize, accumulate: usize) -> TrainerOptions {
    let mut schedule = Schedule::new(0.02, 30);
    schedule.warmup = 3;
    TrainerOptions {
        batch,
        accumulate,
        unit: Some(256),
        ..TrainerOptions::new(schedule)
    }
}

fn trainer(options: TrainerOptions) -> Trainer<Vec<u8>> {
    let model = TrainingModel::new(fresh(), &TrainingOptions::default()).unwrap();
    Trainer::new(model, data(9), options).unwrap()
}

/// What training left: reports, the loss that is measured, the state's tensors in order.
#[derive(Debug, PartialEq)]
struct Left {
    reports: Vec<StepReport>,
    measured: Option<f64>,
    tensors: Vec<Vec<f32>>,
}

/// Trains as one of the ranks, from the beginning or a state.
fn as_rank(ranks: &mut dyn Ranks, options: TrainerOptions, from: Option<&TrainerState>) -> Left {
    let mut trainer = trainer(options);
    trainer.join(ranks).unwrap();
    if let Some(state) = from {
        trainer.restore(state).unwrap();
    }
    let mut reports = Vec::new();
    while trainer.step() < STEPS as u64 {
        reports.push(trainer.advance_among(ranks, None).unwrap().unwrap());
    }
    let measured = trainer.evaluate_among(ranks, None).unwrap();
    let parameters = trainer.model().arena().parameters().to_vec();
    let mut tensors = Vec::new();
    for parameter in &parameters {
        for of in [
            StateTensor::Value,
            StateTensor::FirstMoment,
            StateTensor::SecondMoment,
        ] {
            tensors.push(trainer.tensor_among(ranks, &parameter.name, of).unwrap());
        }
    }
    Left {
        reports,
        measured,
        tensors,
    }
}

fn among(size: usize, options: &TrainerOptions, from: Option<&TrainerState>) -> Vec<Left> {
    std::thread::scope(|scope| {
        let ranks: Vec<_> = Threads::all(size)
            .into_iter()
            .map(|mut ranks| {
                let options = options.clone();
                scope.spawn(move || as_rank(&mut ranks, options, from))
            })
            .collect();
        ranks.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// One rank by the ordinary way, by the way of many, and many: bit for bit the same, whatever batch
/// and accumulation are; seven units are no multiple of the ranks.
#[test]
fn ranks_do_what_one_does() {
    let mut alone = trainer(options(28, 1));
    let mut reports = Vec::new();
    while reports.len() < STEPS {
        reports.push(alone.advance(None).unwrap().unwrap());
    }
    let expected = Left {
        measured: alone.evaluate(None).unwrap(),
        reports,
        tensors: (alone.model().arena().parameters().iter())
            .flat_map(|of| {
                [
                    StateTensor::Value,
                    StateTensor::FirstMoment,
                    StateTensor::SecondMoment,
                ]
                .map(|tensor| alone.tensor(&of.name, tensor).unwrap().to_vec())
            })
            .collect(),
    };
    assert!(expected.reports[STEPS - 1].loss < expected.reports[0].loss);
    let cut = as_rank(&mut Alone, options(4, 7), None);
    assert_eq!(cut.reports, expected.reports);
    assert!(cut.tensors == expected.tensors);
    for size in [2, 3, 4, 9] {
        for (rank, left) in among(size, &options(28, 1), None).into_iter().enumerate() {
            assert_eq!(left.reports, expected.reports, "rank {rank} of {size}");
            assert!(left.tensors == expected.tensors, "rank {rank} of {size}");
            assert_eq!(left.measured, expected.measured, "rank {rank} of {size}");
        }
    }
}

/// A state of one number of ranks is gone on from by another.
#[test]
fn states_go_on_with_other_ranks() {
    let expected = as_rank(&mut Alone, options(4, 2), None);
    let mut first = trainer(options(8, 1));
    for _ in 0..2 {
        first.advance(None).unwrap();
    }
    let state = first.state().unwrap();
    for left in among(3, &options(8, 1), Some(&state)) {
        assert_eq!(left.reports, expected.reports[2..]);
        assert!(left.tensors == expected.tensors);
    }
    let mut other = options(8, 1);
    other.unit = Some(512);
    let error = trainer(other).restore(&state).unwrap_err();
    assert_eq!(error.code(), "FILE");
    assert!(error.to_string().contains("unit"), "{error}");
}

/// Units that are no units are refused by name.
#[test]
fn other_units_are_refused() {
    for (unit, batch) in [(0, 8), (64, 8), (192, 6), (320, 5), (512, 12), (1024, 8)] {
        let model = TrainingModel::new(fresh(), &TrainingOptions::default()).unwrap();
        let given = TrainerOptions {
            unit: Some(unit),
            ..options(batch, 1)
        };
        let error = Trainer::new(model, data(9), given).unwrap_err();
        assert_eq!(error.code(), "OPTION", "{unit}");
        assert!(error.to_string().contains("unit"), "{error}");
    }
    let given = TrainerOptions {
        unit: None,
        ..options(8, 1)
    };
    assert_eq!(trainer(given).join(&Alone).unwrap_err().code(), "OPTION");
}
