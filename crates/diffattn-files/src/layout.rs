//! How the heads of a layer lie in the rows of its projections, and which row of one layout is
//! which of another. Whole heads move, so a moved head computes the same bits; nothing is added or
//! rounded here. Moves no data itself.
//!
//! What makes an output head is the plan that [`diffattn::Pairing::heads`] gives. Two layouts are
//! the same layer when every output head finds the same q, k and v heads in both: the one mechanism
//! below, whatever the layouts are called.

use diffattn::{Error, HeadPlan, KvRepeat, Pairing};

/// How the heads of one layer lie in its projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Which heads are partners.
    pub pairing: Pairing,
    /// Only with [`Pairing::Interleaved`].
    pub kv_repeat: Option<KvRepeat>,
    /// Signal heads per noise head, only with [`Pairing::Grouped`] and [`Pairing::Shared`].
    pub ratio: Option<usize>,
    /// H, output heads.
    pub heads: usize,
    /// `num_kv_heads`: G, with [`Pairing::Halves`] flat k heads; `None` shares no k and v.
    pub groups: Option<usize>,
    /// d, channels of a head of q and k.
    pub head_dim: usize,
    /// Channels of an output head: 2d in V1, d in V2.
    pub head_width: usize,
}

/// Rows that the projections of one layout take from those of another: row `i` is row `rows[i]` of
/// the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowMaps {
    pub(crate) q: Vec<usize>,
    pub(crate) k: Vec<usize>,
    pub(crate) v: Vec<usize>,
}

/// Heads of q and k, and parts of v, that a layout takes from another.
struct HeadMaps {
    q: Vec<usize>,
    k: Vec<usize>,
    v: Vec<usize>,
}

impl HeadLayout {
    /// Flat heads of q, k and v.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when the counts do not fit.
    pub fn head_counts(&self) -> Result<[usize; 3], Error> {
        self.pairing
            .head_counts(self.heads, self.groups, self.ratio.unwrap_or(1))
            .ok_or_else(|| Error::shape("num_heads", "a number that ratio divides", self.heads))
    }

    /// The heads that make each output head.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for counts that break a rule of the
    /// pairing.
    pub fn plan(&self) -> Result<Vec<HeadPlan>, Error> {
        self.pairing
            .heads(self.head_counts()?, self.kv_repeat, self.ratio)
    }

    /// The smallest layout of that pairing that is the same layer: k and v shared by as many heads
    /// as they can be, repeated where the pairing has no other place for them.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `pairing` and the reason when
    /// there is none; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) when this layout breaks a rule itself.
    pub fn to_pairing(
        &self,
        pairing: Pairing,
        kv_repeat: Option<KvRepeat>,
        ratio: Option<usize>,
    ) -> Result<Self, Error> {
        let from = self.plan()?;
        let shared_by = match pairing {
            Pairing::Interleaved => self.heads,
            Pairing::Halves => 2 * self.heads,
            Pairing::Grouped | Pairing::Shared => self.heads / ratio.unwrap_or(1).max(1),
        };
        let mut refusal = None;
        for groups in (1..=shared_by.max(1)).filter(|&groups| shared_by.is_multiple_of(groups)) {
            let to = Self {
                pairing,
                kv_repeat,
                ratio,
                groups: Some(groups),
                ..*self
            };
            match self.head_maps(&from, &to) {
                Ok(_) => return Ok(to),
                Err(error) => refusal = Some(error),
            }
        }
        // That of the largest, where the least is shared.
        Err(refusal.unwrap_or_else(|| Error::shape("num_heads", "1 or more", self.heads)))
    }

    /// Parts into which each output head's v is cut: with halves two v heads make it, else one.
    fn value_parts(&self, to: &Self) -> Result<usize, Error> {
        if self.pairing != Pairing::Halves && to.pairing != Pairing::Halves {
            return Ok(1);
        }
        if self.head_width.is_multiple_of(2) {
            Ok(2)
        } else {
            Err(Error::shape(
                "head_width",
                "an even number, as halves cut it in two",
                self.head_width,
            ))
        }
    }

    fn head_maps(&self, from: &[HeadPlan], to: &Self) -> Result<HeadMaps, Error> {
        let plan = to.plan()?;
        let parts = self.value_parts(to)?;
        let [q, k, v] = to.head_counts()?;
        let values = plan.first().map_or(1, |head| head.v.len()).max(1);
        // v heads as parts of equal width: part p of v head j is j · (parts / heads per output
        // head) + p.
        let cut = |heads: &[usize]| -> Vec<usize> {
            let each = parts / heads.len().clamp(1, parts);
            heads
                .iter()
                .flat_map(|head| (0..each).map(move |part| head * each + part))
                .collect()
        };
        let refuse = |reason: String| {
            Error::option(
                "pairing",
                format_args!("one in which {} heads have a place", self.pairing.name()),
                format_args!("{:?}: {reason}", to.pairing.name()),
            )
        };
        let mut maps = HeadMaps {
            q: vec![usize::MAX; q],
            k: vec![usize::MAX; k],
            v: vec![usize::MAX; v * (parts / values.min(parts))],
        };
        for (head, (of, wanted)) in plan.iter().zip(from).enumerate() {
            let lists = [
                ("q head", &mut maps.q, of.q.clone(), wanted.q.clone()),
                ("k head", &mut maps.k, of.k.clone(), wanted.k.clone()),
                ("part of v", &mut maps.v, cut(&of.v), cut(&wanted.v)),
            ];
            for (what, map, of, wanted) in lists {
                for (&place, &source) in of.iter().zip(&wanted) {
                    match map.get_mut(place) {
                        Some(at) if *at == usize::MAX || *at == source => *at = source,
                        Some(at) => {
                            return Err(refuse(format!(
                                "its {what} {place} would be {what} {at} and, for output head {head}, {source}"
                            )));
                        }
                        None => {
                            return Err(Error::internal(format!("a plan names {what} {place}")));
                        }
                    }
                }
            }
        }
        match [&maps.q, &maps.k, &maps.v]
            .iter()
            .any(|map| map.contains(&usize::MAX))
        {
            true => Err(Error::internal("a plan leaves a head unused")),
            false => Ok(maps),
        }
    }

    /// The rows that `to`, the same layer, takes. `turn` gives the channel of a q or k head at each
    /// place; empty keeps them.
    pub(crate) fn row_maps(&self, to: &Self, turn: &[usize]) -> Result<RowMaps, Error> {
        let maps = self.head_maps(&self.plan()?, to)?;
        let parts = self.value_parts(to)?;
        let rows = |heads: &[usize], width: usize, turn: &[usize]| -> Vec<usize> {
            let row = |head: usize, at: usize| head * width + turn.get(at).copied().unwrap_or(at);
            heads
                .iter()
                .flat_map(|&head| (0..width).map(move |at| row(head, at)))
                .collect()
        };
        Ok(RowMaps {
            q: rows(&maps.q, self.head_dim, turn),
            k: rows(&maps.k, self.head_dim, turn),
            v: rows(&maps.v, self.head_width / parts, &[]),
        })
    }
}

/// The channel of a head at each place, from one rope convention to the other: pair i lies at (2i,
/// 2i + 1) interleaved, at (i, i + d/2) half-split, and turns at the same speed in both.
pub(crate) fn turned(head_dim: usize, to_interleaved: bool) -> Vec<usize> {
    let half = head_dim / 2;
    (0..head_dim)
        .map(|at| match to_interleaved {
            true => at / 2 + at % 2 * half,
            false => 2 * (at % half.max(1)) + at / half.max(1),
        })
        .collect()
}
