//! The thread that works off one environment's asynchronous calls, in order of arrival. Touches no
//! JavaScript value.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use diffattn_door::{Block, Call, Error, OutputSpec, Pacer, Turn, contain, threads};

/// Bytes that a call may use until it is settled.
pub(crate) enum Memory {
    /// A copy of ours.
    Own(Block),
    /// Of `createBuffer`, kept alive whatever JavaScript does with its buffer.
    Held {
        /// What owns the bytes.
        _owner: Arc<Block>,
        /// The first of them.
        start: *mut u8,
        /// How many there are.
        len: usize,
    },
    /// In an ArrayBuffer that only the open call can reach.
    Kept {
        /// The first byte.
        start: *mut u8,
        /// How many there are.
        len: usize,
    },
}

// SAFETY: `Own` owns. The bytes of `Kept` are reached by no one but the call, and those of `Held`
// stay allocated; that JavaScript leaves them alone while a call is open is what `createBuffer`
// asks of it.
unsafe impl Send for Memory {}

impl Memory {
    fn parts(&mut self) -> (*mut u8, usize) {
        match self {
            Self::Own(block) => (block.as_mut_ptr(), block.len()),
            Self::Held { start, len, .. } | Self::Kept { start, len } => (*start, *len),
        }
    }

    /// # Safety
    /// `self` outlives `'a` where it is, and no one writes these bytes.
    unsafe fn bytes<'a>(&mut self) -> &'a [u8] {
        let (start, len) = self.parts();
        if len == 0 {
            return &[];
        }
        // SAFETY: each variant keeps `len` bytes alive; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// # Safety
    /// `self` outlives `'a` where it is, and no one else uses these bytes.
    unsafe fn bytes_mut<'a>(&mut self) -> &'a mut [u8] {
        let (start, len) = self.parts();
        if len == 0 {
            return &mut [];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

/// Where an output is computed.
pub(crate) enum Place {
    /// Where it belongs.
    There(Memory),
    /// In memory of ours, to be copied: into as many bytes, where that is known already.
    Copied(Option<usize>),
}

/// How far a call is: shared by the thread that cancels it and the one that runs it.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

impl Progress {
    /// Cancels; whether the call had not begun, and so never will.
    pub(crate) fn cancel(&self) -> bool {
        self.0.swap(CANCELLED, Ordering::AcqRel) == WAITING
    }

    fn begin(&self) -> bool {
        self.0
            .compare_exchange(WAITING, RUNNING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) == CANCELLED
    }
}

/// A call on its way to the runner. Its turn is dropped last: its job is gone by then.
pub(crate) struct Ticket {
    pub(crate) id: u32,
    pub(crate) call: Call,
    pub(crate) operands: Vec<Memory>,
    /// Where the outputs go; those that are not named are to be copied.
    pub(crate) outputs: Vec<Place>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) reports: bool,
    pub(crate) turn: Turn,
}

/// An output with its content, where that does not lie in the caller's memory already.
pub(crate) type Output = (OutputSpec, Option<Block>);

/// What the runner sends to the thread of the environment.
pub(crate) enum Message {
    Progress {
        id: u32,
        done: usize,
        total: usize,
    },
    Settled {
        id: u32,
        result: Result<Vec<Output>, Error>,
    },
}

/// Messages on their way, with a bell that wakes the environment's thread.
pub(crate) struct Mailbox {
    messages: Mutex<VecDeque<Message>>,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    pub(crate) fn new(ring: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            messages: Mutex::default(),
            ring: Box::new(ring),
        }
    }

    fn post(&self, message: Message) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(message);
        (self.ring)();
    }

    pub(crate) fn take(&self) -> Option<Message> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// The thread. Dropping it waits for the slice in progress; cancel the open calls first.
pub(crate) struct Runner {
    queue: Option<mpsc::Sender<Ticket>>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    pub(crate) fn start(mailbox: Arc<Mailbox>) -> io::Result<Self> {
        let (queue, tickets) = mpsc::channel::<Ticket>();
        let thread = Builder::new()
            .name("diffattn-runner".into())
            .spawn(move || {
                for ticket in tickets {
                    let id = ticket.id;
                    if let Some(result) = run(ticket, &mailbox) {
                        mailbox.post(Message::Settled { id, result });
                    }
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Queues a call.
    pub(crate) fn send(&self, ticket: Ticket) -> Result<(), Error> {
        let sent = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.send(ticket).is_ok());
        if sent {
            Ok(())
        } else {
            Err(Error::internal("the runner has ended"))
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // Its panics are contained; were one not, the calls would be settled by whoever drops
            // them.
            let _ = thread.join();
        }
    }
}

/// Runs a call to its end; `None` when it was cancelled before it began (whoever cancelled has
/// settled it). All that the call used is given back before this returns.
fn run(mut ticket: Ticket, mailbox: &Mailbox) -> Option<Result<Vec<Output>, Error>> {
    if !ticket.progress.begin() {
        return None;
    }
    let result = contain(|| work(&mut ticket, mailbox));
    let Ticket {
        call,
        operands,
        outputs,
        turn,
        ..
    } = ticket;
    drop((call, operands, outputs));
    drop(turn);
    Some(result)
}

fn work(ticket: &mut Ticket, mailbox: &Mailbox) -> Result<Vec<Output>, Error> {
    let Ticket {
        id,
        call,
        operands,
        outputs,
        progress,
        reports,
        ..
    } = ticket;
    // SAFETY: the operands stay in the ticket, untouched, until the job below is dropped.
    let operands: Vec<&[u8]> = operands
        .iter_mut()
        .map(|memory| unsafe { memory.bytes() })
        .collect();
    let mut job = call.prepare(&operands)?;
    let specs = job.outputs().to_vec();
    outputs.resize_with(specs.len(), || Place::Copied(None));
    let is_copied: Vec<bool> = outputs
        .iter()
        .map(|place| matches!(place, Place::Copied(_)))
        .collect();
    let mut targets = Vec::with_capacity(specs.len());
    for (place, spec) in outputs.iter_mut().zip(&specs) {
        if let Place::Copied(into) = place {
            into.map_or(Ok(()), |bytes| spec.check_bytes(bytes))?;
            *place = Place::There(Memory::Own(Block::new(spec.bytes)?));
        }
        if let Place::There(memory) = place {
            // SAFETY: the outputs stay in the ticket until the job is dropped, and overlap nothing
            // (checked at the door).
            targets.push(unsafe { memory.bytes_mut() });
        }
    }
    job.bind(targets)?;

    let mut pacer = Pacer::new(threads());
    let mut milliseconds = 0.0;
    while !job.is_complete() {
        if progress.is_cancelled() {
            return Err(Error::aborted());
        }
        let start = Instant::now();
        job.step(pacer.next_slice(job.done(), milliseconds))?;
        milliseconds = start.elapsed().as_secs_f64() * 1e3;
        if *reports {
            mailbox.post(Message::Progress {
                id: *id,
                done: job.done(),
                total: job.total(),
            });
        }
    }
    drop(job);
    let contents = outputs
        .drain(..)
        .zip(is_copied)
        .map(|(place, is_copied)| match place {
            Place::There(Memory::Own(block)) if is_copied => Some(block),
            _ => None,
        });
    Ok(specs.into_iter().zip(contents).collect())
}
