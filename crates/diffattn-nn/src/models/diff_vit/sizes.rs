//! The sizes of a DIFF vision transformer: those of its weights, with which the config must agree.
//! Checks nothing but that.

use super::block::Sizes;
use super::config::DiffViTConfig;
use crate::image::Preprocessing;
use diffattn::{Error, checked_len, format_shape};
use diffattn_files::Entries;
use diffattn_files::vision::{
    self, BlockForm, HEAD_WEIGHT, PATCHES, POSITIONS, REGISTERS, TokenSizes,
};

/// How many times as large as the stored one, to a side, a resampled grid of position embeddings
/// may be: more is a wrong number rather than an image.
const LARGEST_GROWTH: usize = 16;

/// What the weights that make tokens are of: checked against the config.
pub(super) fn tokens(entries: &Entries<'_>, config: &DiffViTConfig) -> Result<TokenSizes, Error> {
    let expected = "[embed_dim, in_chans, patch_size, patch_size]";
    let [embed_dim, in_chans, patch_size, columns] = entries.shape(PATCHES, expected)?;
    if columns != patch_size {
        return Err(Error::file(
            format_args!("weights.{PATCHES}"),
            format_args!("a tensor of shape {expected}"),
            format_shape(&[embed_dim, in_chans, patch_size, columns]),
        ));
    }
    agree("in_chans", config.in_chans, in_chans, PATCHES)?;
    one_spread(config, in_chans)?;
    agree("embed_dim", config.embed_dim, embed_dim, PATCHES)?;
    agree("patch_size", config.patch_size, patch_size, PATCHES)?;
    let [_, positions, _] = entries.shape(POSITIONS, "[1, patches, embed_dim]")?;
    let mut reg_tokens = 0;
    if entries.has(REGISTERS) {
        [_, reg_tokens, _] = entries.shape(REGISTERS, "[1, reg_tokens, embed_dim]")?;
    }
    Ok(TokenSizes {
        embed_dim,
        in_chans,
        patch_size,
        positions,
        reg_tokens,
    })
}

/// Of one channel, there is one mean and one spread.
fn one_spread(config: &DiffViTConfig, in_chans: usize) -> Result<(), Error> {
    let Preprocessing { mean, std, .. } = config.preprocessing;
    for (key, numbers) in [("mean", mean), ("std", std)] {
        if in_chans == 1 && numbers != [numbers[0]; 3] {
            return Err(Error::file(
                format_args!("config.{key}"),
                "one number, as images of one channel have it",
                format_args!("{numbers:?}"),
            ));
        }
    }
    Ok(())
}

/// A size that the config gives must be the weights'.
pub(super) fn agree(
    key: &str,
    given: Option<usize>,
    stored: usize,
    name: &str,
) -> Result<(), Error> {
    match given {
        Some(given) if given != stored => Err(Error::file(
            format_args!("config.{key}"),
            format_args!("{stored}, as weights.{name} has it"),
            given,
        )),
        _ => Ok(()),
    }
}

/// S, and the sides of the grids of patches: that of the weights, and that of the images, which
/// others are resampled to.
pub(super) fn grid(
    config: &DiffViTConfig,
    tokens: &TokenSizes,
) -> Result<(usize, [usize; 2]), Error> {
    let &TokenSizes {
        embed_dim,
        patch_size,
        positions: count,
        ..
    } = tokens;
    let side = count.isqrt();
    if side * side != count {
        return Err(Error::file(
            format_args!("weights.{POSITIONS}"),
            "embeddings of a square grid of patches",
            format_shape(&[1, count, embed_dim]),
        ));
    }
    let img_size = match config.img_size {
        Some(size) => size,
        None => checked_len("weights.pos_embed", &[side, patch_size])?,
    };
    let grid = img_size / patch_size;
    let largest = side.saturating_mul(LARGEST_GROWTH);
    if grid == 0 || grid > largest || !img_size.is_multiple_of(patch_size) {
        return Err(Error::file(
            "config.img_size",
            format_args!(
                "a multiple of the patch size {patch_size}, {LARGEST_GROWTH} times that of the weights ({}) at most",
                side.saturating_mul(patch_size)
            ),
            img_size,
        ));
    }
    Ok((img_size, [side, grid]))
}

/// Heads and channels of the MLP, from the first block.
pub(super) fn blocks(
    entries: &Entries<'_>,
    config: &DiffViTConfig,
    embed_dim: usize,
) -> Result<Sizes, Error> {
    let form = config.architecture.form();
    let (norm, into) = (&form.first_head_norm(), &form.first_map());
    let [head_width] = entries.shape(norm, "[2 · head_dim]")?;
    if !head_width.is_multiple_of(2) || !embed_dim.is_multiple_of(head_width) {
        return Err(Error::file(
            format_args!("weights.{norm}"),
            format_args!("an even length that divides embed_dim {embed_dim}"),
            head_width,
        ));
    }
    let num_heads = embed_dim / head_width;
    agree("num_heads", config.num_heads, num_heads, norm)?;
    let [outputs, _] = entries.shape(into, "[outputs, embed_dim]")?;
    let qkv = checked_len("weights", &[3, embed_dim])?;
    let attention = match form {
        BlockForm::Plain => 0,
        BlockForm::Parallel => qkv,
    };
    let hidden = outputs.checked_sub(attention).filter(|&hidden| hidden > 0);
    let hidden = hidden.ok_or_else(|| {
        Error::file(
            format_args!("weights.{into}"),
            format_args!("more than 3 · {embed_dim} rows"),
            outputs,
        )
    })?;
    if let Some(ratio) = config.mlp_ratio
        && (embed_dim as f64 * ratio) as usize != hidden
    {
        return Err(Error::file(
            "config.mlp_ratio",
            format_args!("{hidden} / {embed_dim}, as weights.{into} has it"),
            ratio,
        ));
    }
    Ok(Sizes {
        embed_dim,
        num_heads,
        hidden,
    })
}

/// How many blocks there are: one more than the highest number in a name `blocks.NUMBER.…`.
pub(super) fn depth(entries: &Entries<'_>) -> usize {
    let number = |name: &str| vision::block_of(name)?.checked_add(1);
    entries.names().filter_map(number).max().unwrap_or(0)
}

/// Classes; 0 where there is no head, or where the config wants none. (A head that a checkpoint
/// holds all the same is left aside, as timm does it: told as unused.)
pub(super) fn classes(entries: &Entries<'_>, config: &DiffViTConfig) -> Result<usize, Error> {
    match config.num_classes {
        Some(0) => Ok(0),
        None if !entries.has(HEAD_WEIGHT) => Ok(0),
        given => {
            let [classes, _] = entries.shape(HEAD_WEIGHT, "[num_classes, embed_dim]")?;
            agree("num_classes", given, classes, HEAD_WEIGHT)?;
            Ok(classes)
        }
    }
}
