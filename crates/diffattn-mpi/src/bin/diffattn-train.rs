//! The program: trains as one of the ranks that `mpirun` started, or alone. What it does is the
//! library's ([`diffattn_mpi::train`]).

use clap::Parser;
use diffattn_mpi::{Arguments, Ending, Failure, train};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

/// The code that a shell expects of what a signal ended.
const SIGNALLED: u8 = 128;

fn tell(sentence: &str) {
    // (Nothing is left to do where even this fails.)
    let _ = writeln!(stderr(), "diffattn-train: {sentence}");
}

fn ended(ending: Result<Ending, Failure>, is_first: bool) -> ExitCode {
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Stopped(signal)) => {
            ExitCode::from(SIGNALLED + u8::try_from(signal).unwrap_or(0))
        }
        Ok(Ending::Diverged(sentence)) => {
            if is_first {
                tell(&sentence);
            }
            ExitCode::FAILURE
        }
        Err(failure) => {
            tell(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "mpi")]
fn main() -> ExitCode {
    use diffattn_nn::training::Ranks;

    let arguments = Arguments::parse();
    let mut ranks = match diffattn_mpi::wire::MpiRanks::start() {
        Ok(ranks) => ranks,
        Err(error) => return ended(Err(error.into()), true),
    };
    let (rank, size) = (ranks.rank(), ranks.size());
    let ending = train(&arguments, &mut ranks, &mut stdout());
    if let (Err(failure), 2..) = (&ending, size) {
        // The others wait for messages of this one, and do not hear of it otherwise.
        tell(&format!("rank {rank}: {failure}"));
        ranks.abort(1);
    }
    ended(ending, rank == 0)
}

#[cfg(not(feature = "mpi"))]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut alone = diffattn_nn::training::Alone;
    ended(train(&arguments, &mut alone, &mut stdout()), true)
}
