//! The state of a recurrent layer for one text, and the marks that it can be taken back to: every
//! 256 tokens, and the last few. Knows nothing of what it stands for.

use diffattn::{Error, try_copied, try_zeroed};

/// Tokens between two marks of a recurrent state, from a text's beginning.
pub(crate) const MARK: usize = 256;

/// Tokens that a text with recurrent states can be taken back by at little cost; farther back, it
/// is computed from its beginning.
pub(crate) const MARKED: usize = 4 * MARK;

/// Tokens by which a text can always be taken back at no cost: steps that a caller has under way
/// when it ends the text.
pub(crate) const TAKEN_BACK: usize = 2;

/// The state of a recurrent layer, which stands for all tokens before.
#[derive(Debug)]
pub(crate) struct Recurrent {
    /// The convolution's last inputs.
    pub(crate) window: Vec<f32>,
    /// As the scan has it.
    pub(crate) scan: Vec<f32>,
    /// Of how many tokens they are; `None` while a pass is at work on them.
    tokens: Option<usize>,
    /// Of how many tokens they were before that pass.
    begun: usize,
    /// Where it can be taken back to, if it ever is: by their lengths.
    marks: Option<Vec<Mark>>,
}

/// A recurrent state as it was.
#[derive(Debug)]
struct Mark {
    tokens: usize,
    window: Vec<f32>,
    scan: Vec<f32>,
}

impl Recurrent {
    /// A state of so many values, all zeros; `is_kept`: whether it may be taken back.
    pub(crate) fn new([window, scan]: [usize; 2], is_kept: bool) -> Result<Self, Error> {
        Ok(Self {
            window: try_zeroed(window)?,
            scan: try_zeroed(scan)?,
            tokens: Some(0),
            begun: 0,
            marks: is_kept.then(Vec::new),
        })
    }

    /// How many values the window and the scan have.
    pub(crate) fn lens(&self) -> [usize; 2] {
        [self.window.len(), self.scan.len()]
    }

    /// Copies window and scan out.
    pub(crate) fn export(&self) -> Result<[Vec<f32>; 2], Error> {
        Ok([try_copied(&self.window)?, try_copied(&self.scan)?])
    }

    /// Takes a window and a scan of these sizes in, of so many tokens.
    pub(crate) fn import(&mut self, [window, scan]: [&[f32]; 2], tokens: usize) {
        self.window.copy_from_slice(window);
        self.scan.copy_from_slice(scan);
        self.tokens = Some(tokens);
    }

    /// The lengths that it can be taken back to, the longest last.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let marks = self.marks.iter().flatten().map(|mark| mark.tokens);
        std::iter::once(0).chain(marks).chain(self.tokens)
    }

    /// Takes it back to one of [`Recurrent::lengths`].
    pub(crate) fn rewind(&mut self, length: usize) {
        if self.tokens != Some(length) {
            let marks = self.marks.iter().flatten();
            let mark = marks.into_iter().find(|mark| mark.tokens == length);
            match mark {
                Some(mark) => {
                    self.window.copy_from_slice(&mark.window);
                    self.scan.copy_from_slice(&mark.scan);
                }
                // (The beginning, the only other place that it can be at.)
                None => {
                    self.window.fill(0.0);
                    self.scan.fill(0.0);
                }
            }
            self.tokens = Some(length);
        }
        if let Some(marks) = &mut self.marks {
            marks.retain(|mark| mark.tokens < length);
        }
    }

    /// Bytes of memory, marks included.
    pub(crate) fn bytes(&self) -> usize {
        let marks = self.marks.iter().flatten();
        let marks = marks.map(|mark| mark.window.capacity() + mark.scan.capacity());
        let values = self.window.capacity() + self.scan.capacity() + marks.sum::<usize>();
        values * size_of::<f32>()
    }

    /// A pass begins to work on it: marks where it is.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        let Some(tokens) = self.tokens.take() else {
            return Ok(());
        };
        self.begun = tokens;
        if let Some(mark) = mark_at(&mut self.marks, tokens) {
            mark.window = try_copied(&self.window)?;
            mark.scan = try_copied(&self.scan)?;
        }
        Ok(())
    }

    /// The window is of so many tokens now.
    pub(crate) fn mark_window(&mut self, tokens: usize) -> Result<(), Error> {
        if tokens.is_multiple_of(MARK)
            && let Some(mark) = mark_at(&mut self.marks, tokens)
        {
            mark.window = try_copied(&self.window)?;
        }
        Ok(())
    }

    /// The scan's state is of so many tokens now.
    pub(crate) fn mark_scan(&mut self, tokens: usize) -> Result<(), Error> {
        if tokens.is_multiple_of(MARK)
            && let Some(mark) = mark_at(&mut self.marks, tokens)
        {
            mark.scan = try_copied(&self.scan)?;
        }
        Ok(())
    }

    /// It is of `tokens` tokens now; forgets marks that are of no use any more.
    pub(crate) fn end(&mut self, tokens: usize) {
        self.tokens = Some(tokens);
        let begun = self.begun;
        if let Some(marks) = &mut self.marks {
            marks.retain(|mark| {
                let back = tokens.saturating_sub(mark.tokens);
                let is_regular = mark.tokens.is_multiple_of(MARK) && back <= MARKED;
                is_regular || back <= TAKEN_BACK || mark.tokens == begun
            });
        }
    }
}

/// The mark at a length, which is made where there is none; none where none are kept, or where it
/// is the beginning.
fn mark_at(marks: &mut Option<Vec<Mark>>, tokens: usize) -> Option<&mut Mark> {
    let marks = marks.as_mut().filter(|_| tokens > 0)?;
    if marks.last().is_none_or(|mark| mark.tokens < tokens) {
        marks.push(Mark {
            tokens,
            window: Vec::new(),
            scan: Vec::new(),
        });
    }
    marks.iter_mut().rfind(|mark| mark.tokens == tokens)
}
