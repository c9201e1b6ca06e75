//! Several ranks that train together, here threads: the same bits as one rank alone, whatever their
//! number, the batch and the accumulation.

use crate::common::{CONFIG, tokens};
use diffattn_mpi::ThreadRanks;
use diffattn_nn::checkpoint::TokenFile;
use diffattn_nn::training::{
    Alone, DataOptions, Measured, Ranks, Schedule, StateTensor, StepReport, Trainer,
    TrainerOptions, TrainerState, TrainingData, TrainingModel, TrainingOptions,
};
use diffattn_nn::{DiffLlama, DiffLlamaConfig};

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

fn trainer(options: TrainerOptions) -> Trainer<TrainingData<Vec<u8>>> {
    let config = DiffLlamaConfig::of_config(CONFIG).unwrap();
    let model = DiffLlama::fresh(&config, 5).unwrap();
    let model = TrainingModel::new(model, &TrainingOptions::default()).unwrap();
    let file = TokenFile::open("ids.tokens", tokens()).unwrap();
    let data = DataOptions {
        context: 64,
        seed: 9,
        ..DataOptions::default()
    };
    Trainer::new(model, TrainingData::new(file, data).unwrap(), options).unwrap()
}

/// What training left: reports, the loss that is measured, the state's tensors in order.
#[derive(Debug, PartialEq)]
struct Left {
    reports: Vec<StepReport>,
    measured: Option<Measured>,
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
        let ranks: Vec<_> = ThreadRanks::all(size)
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
