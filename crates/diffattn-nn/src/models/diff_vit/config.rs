//! timm's `config.json` of a DIFF vision transformer, read and checked. Reads text, no file; knows
//! nothing of weights.

use crate::config::{described, wrong_family};
use crate::image::Interpolation;
use crate::image::Preprocessing;
use diffattn::Error;
use diffattn_files::json_object;
use diffattn_files::vision::BlockForm;
use serde_json::{Map, Value, json};

/// Which of timm's DIFF vision transformers a model is. They differ in how a block is built; their
/// sizes are those of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffViTArchitecture {
    /// `vit_dwee_patch16_reg1_gap_256`: attention, then the MLP.
    Wee,
    /// `vit_dlittle_patch16_reg1_gap_256`: the same, larger.
    Little,
    /// `vit_dpwee_patch16_reg1_gap_256`: attention and the MLP beside each other, on one norm and
    /// between shared projections.
    ParallelWee,
}

impl DiffViTArchitecture {
    /// Every architecture.
    pub const ALL: [Self; 3] = [Self::Wee, Self::Little, Self::ParallelWee];

    /// timm's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wee => "vit_dwee_patch16_reg1_gap_256",
            Self::Little => "vit_dlittle_patch16_reg1_gap_256",
            Self::ParallelWee => "vit_dpwee_patch16_reg1_gap_256",
        }
    }

    /// How its blocks are built.
    pub(crate) fn form(self) -> BlockForm {
        match self {
            Self::Wee | Self::Little => BlockForm::Plain,
            Self::ParallelWee => BlockForm::Parallel,
        }
    }
}

/// What a [`crate::DiffViT`] is made of: what a checkpoint's `config.json` says. Sizes that it
/// leaves out (`None`) are those of the weights; with those that it gives the weights must agree.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffViTConfig {
    /// How its blocks are built.
    pub architecture: DiffViTArchitecture,
    /// Rows and columns of the images that it takes, in pixels. Where the weights have position
    /// embeddings for another grid of patches, these are resampled, as timm does it.
    pub img_size: Option<usize>,
    /// Rows and columns of a patch, in pixels.
    pub patch_size: Option<usize>,
    /// Classes; 0 for a model without a head, whose result are features. A head that a checkpoint
    /// holds all the same is then left aside, as timm does it.
    pub num_classes: Option<usize>,
    /// Channels of the images. Only of 3 (colours) and 1 (luminance) are there 8-bit images; of
    /// others, pixels alone.
    pub in_chans: Option<usize>,
    /// Whether pixels may have any number of whole patches: position embeddings are then resampled
    /// for them. False by default. (8-bit images are resized to `img_size` all the same.)
    pub dynamic_img_size: bool,
    /// Channels of a token.
    pub embed_dim: Option<usize>,
    /// Blocks.
    pub depth: Option<usize>,
    /// H, the differential heads of a block.
    pub num_heads: Option<usize>,
    /// Channels within the MLP, as a multiple of `embed_dim`, rounded down.
    pub mlp_ratio: Option<f64>,
    /// Register tokens.
    pub reg_tokens: Option<usize>,
    /// What images go through.
    pub preprocessing: Preprocessing,
}

/// Keys of `model_args` that are sizes.
const SIZES: [&str; 9] = [
    "img_size",
    "in_chans",
    "patch_size",
    "num_classes",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "reg_tokens",
];

/// Keys of `model_args` whose values follow from the weights, or only matter in training.
const FREE: [&str; 13] = [
    "init_values",
    "qkv_bias",
    "proj_bias",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
    "drop_block_rate",
    "dual_lambda",
];

impl DiffViTConfig {
    /// The architecture with timm's preprocessing for it, everything else as the weights have it.
    #[must_use]
    pub fn new(architecture: DiffViTArchitecture) -> Self {
        Self {
            architecture,
            img_size: None,
            patch_size: None,
            num_classes: None,
            in_chans: None,
            dynamic_img_size: false,
            embed_dim: None,
            depth: None,
            num_heads: None,
            mlp_ratio: None,
            reg_tokens: None,
            preprocessing: Preprocessing::default(),
        }
    }

    /// Reads the text of a `config.json` as timm writes it: `architecture`, `num_classes`,
    /// `model_args`, and in `pretrained_cfg` (or beside, as old files have it) `input_size`,
    /// `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`. Sizes among the `model_args` and
    /// `dynamic_img_size` may also stand beside them. What else there is has no say.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the key, as `config.KEY`: no JSON,
    /// another architecture, a value that does not fit, or one that asks for a part that these
    /// models do not have.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let root = json_object("config", text)?;
        let root = Table {
            path: "config".to_owned(),
            entries: &root,
        };
        let names = DiffViTArchitecture::ALL.map(DiffViTArchitecture::name);
        let architecture = root.value("architecture").and_then(Value::as_str);
        let architecture = DiffViTArchitecture::ALL
            .into_iter()
            .find(|known| Some(known.name()) == architecture)
            .ok_or_else(|| {
                let expected = format!("one of {}", names.join(", "));
                wrong_family(root.entries, "architecture", expected)
            })?;
        let args = root.table("model_args")?;
        if let Some(args) = &args {
            check_args(args)?;
        }
        let tables: Vec<&Table<'_>> = args.iter().chain([&root]).collect();
        let size = |key: &str, least: usize| -> Result<Option<usize>, Error> {
            let found = tables.iter().find(|table| table.value(key).is_some());
            found.map_or(Ok(None), |table| table.size(key, least).map(Some))
        };
        let pretrained = root.table("pretrained_cfg")?;
        let pretrained = pretrained.as_ref().unwrap_or(&root);
        let img_size = match size("img_size", 1)? {
            Some(size) => Some(size),
            None => pretrained.input_size()?,
        };
        let num_classes = match size("num_classes", 0)? {
            Some(classes) => Some(classes),
            None => pretrained
                .value("num_classes")
                .map(|_| pretrained.size("num_classes", 0))
                .transpose()?,
        };
        let in_chans = size("in_chans", 1)?;
        let dynamic_img_size = match tables
            .iter()
            .find(|table| table.value("dynamic_img_size").is_some())
        {
            None => false,
            Some(table) => table.flag("dynamic_img_size")?,
        };
        let mlp_ratio = match tables
            .iter()
            .find(|table| table.value("mlp_ratio").is_some())
        {
            None => None,
            Some(table) => Some(table.number("mlp_ratio", "a positive number", |x| x > 0.0)?),
        };
        Ok(Self {
            architecture,
            img_size,
            patch_size: size("patch_size", 1)?,
            num_classes,
            in_chans,
            dynamic_img_size,
            embed_dim: size("embed_dim", 1)?,
            depth: size("depth", 1)?,
            num_heads: size("num_heads", 1)?,
            mlp_ratio,
            reg_tokens: size("reg_tokens", 0)?,
            preprocessing: pretrained.preprocessing(in_chans)?,
        })
    }
}

impl DiffViTConfig {
    /// The entries that have a default.
    pub(crate) fn known(&self) -> Value {
        json!({
            "architecture": self.architecture.name(),
            "img_size": self.img_size,
            "patch_size": self.patch_size,
            "num_classes": self.num_classes,
            "in_chans": self.in_chans,
            "dynamic_img_size": self.dynamic_img_size,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "reg_tokens": self.reg_tokens,
            "crop_pct": self.preprocessing.crop_pct,
            "interpolation": self.preprocessing.interpolation.name(),
            "mean": self.preprocessing.mean,
            "std": self.preprocessing.std,
        })
    }
}

/// Refuses what these models do not have, and what nobody knows.
fn check_args(args: &Table<'_>) -> Result<(), Error> {
    for (key, value) in args.entries {
        let (key, null) = (key.as_str(), value.is_null());
        let expected = match key {
            _ if SIZES.contains(&key) || FREE.contains(&key) => continue,
            "dynamic_img_size" if value.is_boolean() => continue,
            "dynamic_img_size" => "true or false",
            "dynamic_img_pad" if value != false => {
                "false: pixels are whole patches, which who gives them may pad"
            }
            "global_pool" if value == "avg" => continue,
            "global_pool" => "\"avg\", the only pooling here",
            "attn_layer" if null || value == "diff" => continue,
            "attn_layer" => "\"diff\", differential attention",
            "pos_embed" if value == "learn" => continue,
            "pos_embed" => "\"learn\", the only position embedding here",
            "no_embed_class" | "final_norm" if value == true => continue,
            "no_embed_class" | "final_norm" => "true, as these architectures have it",
            "fc_norm" if null || value == true => continue,
            "fc_norm" => "true or null, as these architectures have it",
            "class_token"
            | "pre_norm"
            | "qk_norm"
            | "scale_attn_norm"
            | "scale_mlp_norm"
            | "pool_include_prefix"
            | "dynamic_img_pad"
                if value == false =>
            {
                continue;
            }
            "class_token"
            | "pre_norm"
            | "qk_norm"
            | "scale_attn_norm"
            | "scale_mlp_norm"
            | "pool_include_prefix" => "false, as these architectures have it",
            "act_layer" | "norm_layer" | "embed_norm_layer" if null => continue,
            "act_layer" | "norm_layer" | "embed_norm_layer" => "null, timm's default",
            _ => "no such key: it may change the numbers",
        };
        return Err(args.wrong(key, expected));
    }
    Ok(())
}

/// A JSON object and where it stands.
struct Table<'v> {
    path: String,
    entries: &'v Map<String, Value>,
}

impl<'v> Table<'v> {
    fn of(path: String, value: Option<&'v Value>) -> Result<Option<Self>, Error> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(entries)) => Ok(Some(Self { path, entries })),
            Some(other) => Err(Error::file(path, "an object", described(Some(other)))),
        }
    }

    /// The value, unless it is null.
    fn value(&self, key: &str) -> Option<&'v Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    fn table(&self, key: &str) -> Result<Option<Table<'v>>, Error> {
        Self::of(format!("{}.{key}", self.path), self.value(key))
    }

    fn wrong(&self, key: &str, expected: impl std::fmt::Display) -> Error {
        Error::file(
            format_args!("{}.{key}", self.path),
            expected,
            described(self.entries.get(key)),
        )
    }

    /// A whole number; one for both sides where there is one for each.
    fn size(&self, key: &str, least: usize) -> Result<usize, Error> {
        let whole = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        let size = match self.value(key) {
            Some(Value::Array(sides)) => match sides.as_slice() {
                [rows, columns] if rows == columns => whole(rows),
                _ => return Err(self.wrong(key, "one size, or the same one twice")),
            },
            Some(value) => whole(value),
            None => None,
        };
        size.filter(|&size| size >= least)
            .ok_or_else(|| self.wrong(key, format_args!("a whole number of at least {least}")))
    }

    fn number(&self, key: &str, expected: &str, fits: impl Fn(f64) -> bool) -> Result<f64, Error> {
        self.value(key)
            .and_then(Value::as_f64)
            .filter(|&x| fits(x))
            .ok_or_else(|| self.wrong(key, expected))
    }

    fn flag(&self, key: &str) -> Result<bool, Error> {
        self.value(key)
            .and_then(Value::as_bool)
            .ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// S of `input_size`: `[C, S, S]`. (Its C is that of the checkpoint that training began with;
    /// the weights have their own.)
    fn input_size(&self) -> Result<Option<usize>, Error> {
        let key = "input_size";
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let size = match value.as_array().map(Vec::as_slice) {
            Some([channels, rows, columns])
                if channels.as_u64().is_some_and(|channels| channels > 0) && rows == columns =>
            {
                rows.as_u64().and_then(|size| usize::try_from(size).ok())
            }
            _ => None,
        };
        size.filter(|&size| size > 0)
            .map(Some)
            .ok_or_else(|| self.wrong(key, "[C, S, S]: the channels of a square image"))
    }

    fn preprocessing(&self, in_chans: Option<usize>) -> Result<Preprocessing, Error> {
        let mut preprocessing = Preprocessing::default();
        if self.value("crop_pct").is_some() {
            preprocessing.crop_pct =
                self.number("crop_pct", "a number above 0, 1 at most", |x| {
                    x > 0.0 && x <= 1.0
                })?;
        }
        if let Some(mode) = self.value("crop_mode")
            && mode != "center"
        {
            return Err(self.wrong("crop_mode", "\"center\", the only one here"));
        }
        if let Some(name) = self.value("interpolation") {
            let filter = name.as_str().and_then(Interpolation::named);
            preprocessing.interpolation =
                filter.ok_or_else(|| self.wrong("interpolation", "\"bicubic\" or \"bilinear\""))?;
        }
        // Of other channels no 8-bit image is taken, so nothing is normalised.
        if in_chans.is_some_and(|channels| ![1, 3].contains(&channels)) {
            return Ok(preprocessing);
        }
        if self.value("mean").is_some() {
            preprocessing.mean = self.colours("mean", "three numbers", f32::is_finite)?;
        }
        if self.value("std").is_some() {
            preprocessing.std = self.colours("std", "three positive numbers", |x| {
                x > 0.0 && x.is_finite()
            })?;
        }
        Ok(preprocessing)
    }

    /// One number for each colour; a single one is for all.
    fn colours(
        &self,
        key: &str,
        expected: &str,
        fits: impl Fn(f32) -> bool,
    ) -> Result<[f32; 3], Error> {
        let numbers: Option<Vec<f32>> = self
            .value(key)
            .and_then(Value::as_array)
            .and_then(|list| list.iter().map(|x| x.as_f64().map(|x| x as f32)).collect());
        numbers
            .and_then(|numbers| match *numbers.as_slice() {
                [one] => Some([one; 3]),
                [red, green, blue] => Some([red, green, blue]),
                _ => None,
            })
            .filter(|numbers| numbers.iter().all(|&x| fits(x)))
            .ok_or_else(|| self.wrong(key, expected))
    }
}
