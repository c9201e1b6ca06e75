//! What is between latents and audio in either direction: spans of tokens through the blocks, group
//! by group, after half of them moved by half a span. To the pass a span is a text.

use super::config::SameSConfig;
use super::model::Block;
use crate::pass::{After, Keys, Memory, Outputs, Pass, Plan, Settings, Text};
use diffattn::{Error, Pace, Run, checked_len, try_zeroed};
use std::ops::Range;

/// Spans that go through half of the blocks together: bounds the memory of a pass, and is work
/// enough for many threads.
const GROUP: usize = 32;

/// Spans that tokens are made of per unit of work.
const EMBEDDED: usize = 4;

/// The blocks of a direction, and what goes through them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) config: &'a SameSConfig,
    pub(super) blocks: &'a [Block],
    pub(super) batch: usize,
    /// T, latents of each piece of audio: whole spans.
    pub(super) latents: usize,
    pub(super) run: Run,
    /// What errors call the inputs.
    pub(super) argument: &'static str,
}

impl<'a> Body<'a> {
    /// Spans of a piece of audio before they move; there is one more afterwards.
    fn spans(&self) -> usize {
        self.latents / self.config.chunk_latents()
    }

    /// How many spans go through each half of the blocks.
    fn totals(&self) -> [usize; 2] {
        let spans = self.spans();
        match self.batch * spans {
            0 => [0; 2],
            all => [all, all + self.batch],
        }
    }

    /// Whether the memory of it can be counted.
    pub(super) fn check(&self) -> Result<(), Error> {
        let rows = (self.spans().checked_add(1))
            .and_then(|spans| spans.checked_mul(self.config.span()))
            .unwrap_or(usize::MAX);
        checked_len(self.argument, &[self.batch, rows, self.config.dim, 4]).map(drop)
    }

    /// Where the tokens of a latent begin in what [`Body::pass`] gives, in rows.
    pub(super) fn row(&self, latent: usize) -> usize {
        let (piece, at) = (latent / self.latents, latent % self.latents);
        let span = self.config.span();
        piece * (self.spans() + 1) * span + span / 2 + at * self.config.latent_tokens()
    }

    /// So many spans through a half of the blocks.
    fn plan(&self, half: usize, spans: usize) -> Plan<'a> {
        let (first, second) = self.blocks.split_at(self.blocks.len() / 2);
        let blocks = [first, second][half];
        let text = Text {
            length: self.config.span(),
            start: 0,
            again: 0,
        };
        Plan {
            layers: blocks.iter().map(Block::layer).collect(),
            texts: vec![text; spans],
            chunk: usize::MAX,
            keys: Keys::Whole { append: None },
            after: After::All,
            map_layers: Vec::new(),
        }
    }

    /// Units of [`Body::pass`].
    pub(super) fn units(&self) -> usize {
        let mut units = 0;
        for (half, total) in self.totals().into_iter().enumerate() {
            let (groups, rest) = (total / GROUP, total % GROUP);
            for (count, spans) in [(groups, GROUP), (1, rest)] {
                if count * spans == 0 {
                    continue;
                }
                let embedded = [spans.div_ceil(EMBEDDED), 0][half];
                units += count * (embedded + self.plan(half, spans).units());
            }
        }
        units
    }

    /// Takes spans through a half of the blocks: `make` fills their rows first.
    async fn group(
        &self,
        half: usize,
        spans: usize,
        pace: &Pace,
        make: impl AsyncFnOnce(&mut [f32]) -> Result<(), Error>,
    ) -> Result<Vec<f32>, Error> {
        let settings = Settings {
            run: self.run,
            window: None,
            argument: self.argument,
            mask: None,
        };
        let mut pass = Pass::new(self.plan(half, spans), settings, self.config.dim)?;
        make(&mut pass.x).await?;
        for layer in 0..pass.plan.layers.len() {
            let mut outputs = Outputs::default();
            pass.layer(layer, Memory::Rows, &mut outputs, pace).await?;
        }
        Ok(pass.x)
    }

    /// All tokens through all blocks, `[B, rows, dim]`; of the rows, those of a latent begin at
    /// [`Body::row`]. `embed` makes the tokens of some latents, counted through all pieces of
    /// audio.
    pub(super) async fn pass(
        &self,
        embed: impl Fn(Range<usize>, &mut [f32]) -> Result<(), Error>,
        pace: &Pace,
    ) -> Result<Vec<f32>, Error> {
        let [first, second] = self.totals();
        let per = self.config.chunk_latents();
        let span = self.config.span() * self.config.dim;
        let mut x = try_zeroed(checked_len(self.argument, &[second, span])?)?;
        for spans in groups(first) {
            let made = async |x: &mut [f32]| {
                let embedded = |some: Range<usize>| {
                    let latents = (spans.start + some.start) * per..(spans.start + some.end) * per;
                    embed(latents, &mut x[some.start * span..some.end * span])
                };
                pace.rows(0..spans.len(), EMBEDDED, embedded).await
            };
            let rows = self.group(0, spans.len(), pace, made).await?;
            for (index, rows) in spans.zip(rows.chunks_exact(span)) {
                let at = self.row(index * per) * self.config.dim;
                x[at..at + span].copy_from_slice(rows);
            }
        }
        let half = span / 2;
        for piece in x.chunks_exact_mut((self.spans() + 1) * span) {
            let end = piece.len();
            piece.copy_within(half..span, 0);
            piece.copy_within(end - span..end - half, end - half);
        }
        for spans in groups(second) {
            let rows = &mut x[spans.start * span..spans.end * span];
            let given = async |x: &mut [f32]| {
                x.copy_from_slice(rows);
                Ok(())
            };
            let made = self.group(1, spans.len(), pace, given).await?;
            rows.copy_from_slice(&made);
        }
        Ok(x)
    }
}

/// Spans in groups.
fn groups(total: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..total).step_by(GROUP);
    starts.map(move |first| first..(first + GROUP).min(total))
}
