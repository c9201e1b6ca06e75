//! [`Ranks`] over a communicator of MPI. What is sent is copied, so that gradients may change while
//! it is on its way; what is expected is posted, so that it may arrive while they are computed.
//! Starts no process: `mpirun` does.

use diffattn::Error;
use diffattn_nn::training::{Message, Ranks};
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::request::{Request, StaticScope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Source};
use mpi::{Count, Threading};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

/// Floats that MPI reads or writes until their request is complete.
struct Pending {
    request: Request<'static, [f32], StaticScope>,
    values: NonNull<[f32]>,
}

impl Pending {
    /// Gives `values` to MPI, which `begin` is called with.
    fn new(
        values: Vec<f32>,
        begin: impl FnOnce(&'static mut [f32]) -> Request<'static, [f32], StaticScope>,
    ) -> Self {
        let values = NonNull::from(Box::leak(values.into_boxed_slice()));
        // SAFETY: the box was leaked above, and `wait` alone makes one of it again, once the
        // request that has this reference is complete.
        let request = begin(unsafe { &mut *values.as_ptr() });
        Self { request, values }
    }

    fn wait(self) -> Vec<f32> {
        self.request.wait_without_status();
        // SAFETY: `new` leaked this box, the request that borrowed it is complete, and `self` ends
        // here.
        unsafe { Box::from_raw(self.values.as_ptr()) }.into_vec()
    }

    /// Whether it is complete; its memory is given back then.
    fn test(self) -> Option<Self> {
        let Self { request, values } = self;
        match request.test() {
            Ok(_) => {
                // SAFETY: as in `wait`.
                drop(unsafe { Box::from_raw(values.as_ptr()) });
                None
            }
            Err(request) => Some(Self { request, values }),
        }
    }
}

/// The processes that `mpirun` started.
pub struct MpiRanks {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    sent: VecDeque<Pending>,
    expected: HashMap<Message, VecDeque<Pending>>,
    /// Last: MPI ends when it is dropped.
    _universe: Universe,
}

// SAFETY: MPI is told that several threads may call it, one at a time (`Threading::Serialized`);
// `&mut self`, or `&self` of one owner, sees to that.
unsafe impl Send for MpiRanks {}

impl fmt::Debug for MpiRanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MpiRanks")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A number of MPI's, of which 31 bits count.
fn count(len: usize) -> Result<Count, Error> {
    Count::try_from(len).map_err(|_| Error::option("ranks", "messages that 31 bits count", len))
}

impl MpiRanks {
    /// Starts MPI, as one of its processes. Once in a process.
    ///
    /// # Errors
    /// [`Error::internal`] where MPI was started before, or knows no threads.
    pub fn start() -> Result<Self, Error> {
        let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Serialized)
        else {
            return Err(Error::internal("MPI was started before"));
        };
        if threading < Threading::Serialized {
            return Err(Error::internal("an MPI that several threads may not call"));
        }
        let world = universe.world();
        let number = |of: i32| usize::try_from(of).unwrap_or(0);
        Ok(Self {
            rank: number(world.rank()),
            size: number(world.size()),
            world,
            sent: VecDeque::new(),
            expected: HashMap::new(),
            _universe: universe,
        })
    }

    /// Ends the processes of all ranks.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }

    /// The sum of what all ranks have, in whatever order MPI adds it: what an ordered sum is
    /// measured beside.
    pub fn all_reduce(&self, values: &[f32], sums: &mut [f32]) {
        self.world
            .all_reduce_into(values, sums, mpi::collective::SystemOperation::sum());
    }

    /// Makes one array of what each rank has of it. Counts and places are those of `parts`.
    fn gather_into<T: mpi::traits::Equivalence + Copy>(
        &self,
        values: &mut [T],
        parts: &[Range<usize>],
    ) -> Result<(), Error> {
        let own = parts.get(self.rank).cloned().unwrap_or_default();
        let own = values[own].to_vec();
        let counts = parts
            .iter()
            .map(|part| count(part.len()))
            .collect::<Result<Vec<_>, _>>()?;
        let places = parts
            .iter()
            .map(|part| count(part.start))
            .collect::<Result<Vec<_>, _>>()?;
        let mut all = PartitionMut::new(values, counts, places);
        self.world.all_gather_varcount_into(&own[..], &mut all);
        Ok(())
    }
}

impl Drop for MpiRanks {
    fn drop(&mut self) {
        for pending in self.sent.drain(..) {
            pending.wait();
        }
        // What nobody sends any more: a request that is dropped would end the process.
        for pending in self.expected.drain().flat_map(|(_, pending)| pending) {
            std::mem::forget(pending.request);
        }
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn expect(&mut self, message: Message, len: usize) -> Result<(), Error> {
        let from = self.world.process_at_rank(count(message.from)?);
        let tag = count(message.tag as usize)?;
        let values = diffattn::try_zeroed(len)?;
        let pending = Pending::new(values, |values| {
            from.immediate_receive_into_with_tag(StaticScope, values, tag)
        });
        self.expected.entry(message).or_default().push_back(pending);
        Ok(())
    }

    fn send(&mut self, message: Message, values: &[f32]) -> Result<(), Error> {
        let to = self.world.process_at_rank(count(message.to)?);
        let tag = count(message.tag as usize)?;
        self.sent.push_back(Pending::new(values.to_vec(), |values| {
            to.immediate_send_with_tag(StaticScope, &*values, tag)
        }));
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Result<Vec<f32>, Error> {
        let pending = self
            .expected
            .get_mut(&message)
            .and_then(VecDeque::pop_front);
        let pending = pending.ok_or_else(|| Error::internal("a message that nobody expects"))?;
        Ok(pending.wait())
    }

    fn progress(&mut self) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.sent);
        self.sent = pending.into_iter().filter_map(Pending::test).collect();
        Ok(())
    }

    fn gather(&mut self, values: &mut [f32], parts: &[Range<usize>]) -> Result<(), Error> {
        if self.size == 1 {
            return Ok(());
        }
        // (MPI counts places from the first of them, so that arrays may be larger than it can.)
        let first = parts.iter().map(|part| part.start).min().unwrap_or(0);
        let end = parts.iter().map(|part| part.end).max().unwrap_or(0);
        let parts: Vec<_> = parts
            .iter()
            .map(|part| part.start - first..part.end - first)
            .collect();
        self.gather_into(&mut values[first..end], &parts)
    }

    fn gather_numbers(&mut self, own: &[f64], counts: &[usize]) -> Result<Vec<f64>, Error> {
        let mut end = 0;
        let parts: Vec<_> = counts
            .iter()
            .map(|count| {
                end += count;
                end - count..end
            })
            .collect();
        let mut all = vec![0.0; end];
        let place = parts.get(self.rank).cloned().unwrap_or_default();
        if place.len() != own.len() {
            return Err(Error::internal(
                "a rank that tells another number of numbers",
            ));
        }
        all[place].copy_from_slice(own);
        self.gather_into(&mut all, &parts)?;
        Ok(all)
    }
}
