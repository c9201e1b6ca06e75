//! Heads that mix in attention over differences along the sequence: which they are, and the plan of
//! the one call that computes both, how differences stand beside what they are of, and the mixing.

use super::heads::Heads;
use super::options::SequenceFusion;
use diffattn::{
    Error, HeadPlan, Layout, Run, SequenceDifferenceOptions, Tensor, sequence_difference,
};
#[cfg(feature = "training")]
use diffattn::{sequence_difference_backward, try_zeroed};

/// The highest difference along the sequence, as the operator has it.
const MAX_ORDER: usize = 64;

/// Heads that mix in attention over differences. In the one attention call of such a layer, q, k
/// and v have the differences of the heads that take part behind the plain ones, and the plan has
/// an output head for each of them.
#[derive(Debug, Clone)]
pub(crate) struct Fusion {
    pub(crate) order: usize,
    /// How many output heads take part.
    pub(crate) heads: usize,
    pub(crate) fusion: f64,
    /// The plain heads of which there are differences, in this order.
    pub(crate) q: Vec<usize>,
    pub(crate) k: Vec<usize>,
    pub(crate) v: Vec<usize>,
    /// The plain output heads, then those of the differences.
    pub(crate) plan: Vec<HeadPlan>,
}

impl Fusion {
    /// `None` when the share is so small that no head takes part.
    pub(crate) fn new(sequence: SequenceFusion, heads: &Heads) -> Result<Option<Self>, Error> {
        let SequenceFusion {
            order,
            share,
            fusion,
        } = sequence;
        if !(1..=MAX_ORDER).contains(&order) {
            return Err(Error::option(
                "sequence.order",
                format_args!("1 to {MAX_ORDER}"),
                order,
            ));
        }
        for (name, value) in [("sequence.share", share), ("sequence.fusion", fusion)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::option(name, "a number from 0 to 1", value));
            }
        }
        let count = libm::floor(share * heads.dimensions.heads as f64 + 0.5) as usize;
        let mixing = &heads.plan[..count.min(heads.plan.len())];
        if mixing.is_empty() {
            return Ok(None);
        }
        let used = |list: fn(&HeadPlan) -> &Vec<usize>| {
            let mut used: Vec<usize> = mixing
                .iter()
                .flat_map(|head| list(head).iter().copied())
                .collect();
            used.sort_unstable();
            used.dedup();
            used
        };
        let (q, k, v) = (
            used(|head| &head.q),
            used(|head| &head.k),
            used(|head| &head.v),
        );
        let place = |used: &[usize], plain: usize, list: &[usize]| -> Vec<usize> {
            list.iter()
                .filter_map(|head| used.binary_search(head).ok())
                .map(|place| plain + place)
                .collect()
        };
        let differences = mixing.iter().map(|head| HeadPlan {
            q: place(&q, heads.q, &head.q),
            k: place(&k, heads.k, &head.k),
            v: place(&v, heads.v, &head.v),
            coefficients: head.coefficients.clone(),
        });
        let plan = heads.plan.iter().cloned().chain(differences).collect();
        Ok(Some(Self {
            order,
            heads: mixing.len(),
            fusion,
            q,
            k,
            v,
            plan,
        }))
    }

    pub(crate) fn of_q(&self, width: usize) -> Differences<'_> {
        self.of(&self.q, width)
    }

    pub(crate) fn of_k(&self, width: usize) -> Differences<'_> {
        self.of(&self.k, width)
    }

    pub(crate) fn of_v(&self, width: usize) -> Differences<'_> {
        self.of(&self.v, width)
    }

    fn of<'f>(&self, taken: &'f [usize], width: usize) -> Differences<'f> {
        Differences {
            order: self.order,
            width,
            taken,
        }
    }

    /// `(1 − fusion) · plain + fusion · differences` for the heads that take part: rows of
    /// `[plain heads, those of differences]`, of which `mixing` values each take part, to rows of
    /// `width`.
    pub(crate) fn mix(&self, attended: &[f32], [width, mixing]: [usize; 2], mixed: &mut [f32]) {
        let (keep, add) = ((1.0 - self.fusion) as f32, self.fusion as f32);
        let rows = attended.chunks_exact(width + mixing);
        for (to, from) in mixed.chunks_exact_mut(width).zip(rows) {
            let (plain, differences) = from.split_at(width);
            to[mixing..].copy_from_slice(&plain[mixing..]);
            for (to, (plain, difference)) in to.iter_mut().zip(plain.iter().zip(differences)) {
                *to = keep * plain + add * difference;
            }
        }
    }

    /// The gradient of what is mixed, for that of the mix.
    #[cfg(feature = "training")]
    pub(crate) fn unmix(&self, d_mixed: &[f32], [width, mixing]: [usize; 2], d: &mut [f32]) {
        let (keep, add) = ((1.0 - self.fusion) as f32, self.fusion as f32);
        let rows = d.chunks_exact_mut(width + mixing);
        for (from, to) in d_mixed.chunks_exact(width).zip(rows) {
            let (plain, differences) = to.split_at_mut(width);
            plain[mixing..].copy_from_slice(&from[mixing..]);
            for (from, (plain, difference)) in from.iter().zip(plain.iter_mut().zip(differences)) {
                (*plain, *difference) = (keep * from, add * from);
            }
        }
    }
}

/// Heads of rows, and the differences of some of them along the sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Differences<'f> {
    order: usize,
    /// Of a head.
    width: usize,
    taken: &'f [usize],
}

impl Differences<'_> {
    /// Values that a row has besides those of the heads.
    pub(crate) fn more(&self) -> usize {
        self.taken.len() * self.width
    }

    fn options(&self, run: Run) -> SequenceDifferenceOptions {
        SequenceDifferenceOptions {
            order: self.order,
            layout: Layout::Bshd,
            run,
        }
    }

    /// `[texts, tokens − back, heads + taken, width]`: the heads `[texts, tokens, heads, width]`
    /// past the first `back` tokens, then the differences of those taken.
    pub(crate) fn spread(
        &self,
        plain: &[f32],
        [texts, tokens]: [usize; 2],
        back: usize,
        both: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let &Self { width, taken, .. } = self;
        let channels = plain.len() / (texts * tokens).max(1);
        let shape = [texts, tokens, channels / width, width];
        let differences = sequence_difference(Tensor::f32(plain, &shape), &self.options(run))?;
        let rows = (0..texts).flat_map(|text| (text * tokens + back)..(text + 1) * tokens);
        let to = both.chunks_exact_mut((channels + self.more()).max(1));
        for (row, to) in rows.zip(to) {
            let from = row * channels;
            to[..channels].copy_from_slice(&plain[from..from + channels]);
            for (&head, to) in taken.iter().zip(to[channels..].chunks_exact_mut(width)) {
                to.copy_from_slice(&differences[from + head * width..][..width]);
            }
        }
        Ok(())
    }

    /// The gradient of the heads `[texts, tokens, heads, width]`, for that of what
    /// [`Differences::spread`] makes of all of their tokens.
    #[cfg(feature = "training")]
    pub(crate) fn join(
        &self,
        both: &[f32],
        [texts, tokens]: [usize; 2],
        plain: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let &Self { width, taken, .. } = self;
        let channels = plain.len() / (texts * tokens).max(1);
        let mut of_differences = try_zeroed(plain.len())?;
        let rows = both.chunks_exact((channels + self.more()).max(1));
        let to = plain.chunks_exact_mut(channels.max(1));
        let to = to.zip(of_differences.chunks_exact_mut(channels.max(1)));
        for (from, (plain, differences)) in rows.zip(to) {
            let (of_heads, of_taken) = from.split_at(channels);
            plain.copy_from_slice(of_heads);
            for (&head, from) in taken.iter().zip(of_taken.chunks_exact(width)) {
                differences[head * width..][..width].copy_from_slice(from);
            }
        }
        let shape = [texts, tokens, channels / width, width];
        let differences = Tensor::f32(&of_differences, &shape);
        let through = sequence_difference_backward(differences, &self.options(run))?;
        plain.iter_mut().zip(through).for_each(|(to, of)| *to += of);
        Ok(())
    }
}
