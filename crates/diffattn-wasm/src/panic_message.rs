//! A panic ends the instance. Its message stays in memory that JavaScript can still read. Allocates
//! nothing.

use std::cell::UnsafeCell;
use std::fmt::Write;
use std::panic::{PanicHookInfo, set_hook};

/// Bytes of text: the sentence of any panic of ours.
const CAPACITY: usize = 1020;

#[repr(C)]
struct Message {
    len: u32,
    text: [u8; CAPACITY],
}

struct Place(UnsafeCell<Message>);

// SAFETY: written only by a panic. Two threads that panic at once may mix their texts, which are
// bytes either way; both end.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(Message {
    len: 0,
    text: [0; CAPACITY],
}));

/// Where the message lies: its length as u32, then its bytes.
pub(crate) fn address() -> usize {
    PLACE.0.get().expose_provenance()
}

/// From now on panics leave their message.
pub(crate) fn install() {
    set_hook(Box::new(record));
}

struct Writer<'a>(&'a mut Message);

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let start = self.0.len as usize;
        let mut len = text.len().min(CAPACITY - start);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        if let (Some(to), Some(from)) = (
            self.0.text.get_mut(start..start + len),
            text.as_bytes().get(..len),
        ) {
            to.copy_from_slice(from);
            self.0.len += len as u32;
        }
        Ok(())
    }
}

fn record(info: &PanicHookInfo<'_>) {
    // SAFETY: no one else holds a reference: JavaScript reads only once the instance has ended.
    let message = unsafe { &mut *PLACE.0.get() };
    if message.len > 0 {
        return; // a panic on top of the one that ended the instance
    }
    // Writing into an array cannot fail.
    let _ = match info.payload_as_str() {
        Some(text) => write!(Writer(message), "{text}"),
        None => write!(Writer(message), "a panic without a message"),
    };
}
