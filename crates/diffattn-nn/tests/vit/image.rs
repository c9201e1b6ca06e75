//! Preprocessing against Pillow's bytes and plain float64, and position embeddings at another size.

use crate::common::{Sizes, assert_near, borrowed, forward, ok, refusal, spread};
use Interpolation::{Bicubic, Bilinear};
use diffattn::Tensor;
use diffattn_nn::{
    DiffViT, DiffViTArchitecture, DiffViTConfig, DiffViTOptions, Image, Interpolation,
    Preprocessing,
};

/// Noise with many blacks and whites, so that the filter's overshoot is cut off.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match (state >> 56) as u8 {
            0..80 => 0,
            177.. => 255,
            value => value,
        }
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Columns, rows, channels, size, crop_pct, interpolation.
type ImageCase = (usize, usize, usize, usize, f64, Interpolation);

/// And the hash of the RGB bytes that Pillow 13.0.0 makes: `convert("RGB")`, `resize` with the
/// shorter side ⌊size / crop_pct⌋, `crop` as torchvision's CenterCrop has it.
const PILLOW: [(ImageCase, u64); 10] = [
    ((97, 64, 3, 32, 0.95, Bicubic), 0x01d6_24b4_3b50_c00c),
    ((64, 97, 3, 32, 0.95, Bicubic), 0xa8bb_63cc_877a_f403),
    ((40, 30, 3, 64, 0.9, Bicubic), 0x8fbf_4f01_cfa6_00a0),
    ((333, 201, 4, 48, 0.875, Bicubic), 0x8c59_e4d3_9f05_016c),
    ((67, 67, 3, 64, 0.95, Bicubic), 0x18a3_d1c7_6fba_26ea),
    ((64, 64, 3, 64, 1.0, Bicubic), 0x492f_ee6c_6542_ff0e),
    ((1, 1, 3, 16, 1.0, Bicubic), 0x9fa9_e040_e0ee_df25),
    ((500, 3, 3, 16, 0.95, Bicubic), 0x6692_8311_a7c5_a84e),
    ((97, 64, 3, 32, 0.95, Bilinear), 0x8be8_1f41_ba17_3461),
    ((33, 50, 4, 64, 1.0, Bilinear), 0x569a_9a11_9041_4fc7),
];

/// A case through `Preprocessing` with nothing subtracted: `[3, size, size]`, and its image.
fn run(case: ImageCase) -> (Vec<f32>, Vec<u8>) {
    let (width, height, channels, size, crop_pct, interpolation) = case;
    let data = noise(width * height * channels, (width * 1000 + height) as u64);
    let preprocessing = Preprocessing {
        crop_pct,
        interpolation,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let image = Image {
        data: &data,
        width,
        height,
    };
    (ok(preprocessing.pixels(&image, size)), data)
}

#[test]
fn resized_bytes_are_pillows() {
    for (case, expected) in PILLOW {
        let (pixels, _) = run(case);
        let plane = pixels.len() / 3;
        let bytes: Vec<u8> = (0..pixels.len())
            .map(|index| (pixels[index % 3 * plane + index / 3] * 255.0).round() as u8)
            .collect();
        assert_eq!(hash(&bytes), expected, "{case:?}: {:?}", &bytes[..6]);
    }
}

/// And of the bytes of luminance that it makes: `convert("L")`, then as above.
const PILLOW_GREY: [(ImageCase, u64); 4] = [
    ((97, 64, 3, 32, 0.95, Bicubic), 0x4a42_8f16_a8ef_42dc),
    ((333, 201, 4, 48, 0.875, Bicubic), 0x8224_b7b3_faff_8b4f),
    ((33, 50, 4, 64, 1.0, Bilinear), 0xc7fa_233b_b46e_fad8),
    ((64, 64, 3, 64, 1.0, Bicubic), 0x099d_d071_5306_8e86),
];

#[test]
fn luminance_is_pillows() {
    for (case, expected) in PILLOW_GREY {
        let (width, height, channels, size, crop_pct, interpolation) = case;
        let data = noise(width * height * channels, (width * 1000 + height) as u64);
        let preprocessing = Preprocessing {
            crop_pct,
            interpolation,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        let image = Image {
            data: &data,
            width,
            height,
        };
        let pixels = ok(preprocessing.luminance(&image, size));
        assert_eq!(pixels.len(), size * size);
        let bytes: Vec<u8> = pixels.iter().map(|x| (x * 255.0).round() as u8).collect();
        assert_eq!(hash(&bytes), expected, "{case:?}: {:?}", &bytes[..6]);
        // The first mean and spread are those of the one channel.
        let preprocessing = Preprocessing {
            mean: [0.25, 7.0, 7.0],
            std: [0.5, 7.0, 7.0],
            ..preprocessing
        };
        let normalised = ok(preprocessing.luminance(&image, size));
        let expected = pixels.iter().map(|x| (x - 0.25) / 0.5);
        assert!(
            normalised
                .iter()
                .zip(expected)
                .all(|(got, expected)| *got == expected)
        );
    }
}

/// One pass of a widened filter along an axis, in float64: `[outer, from, inner]` to
/// `[outer, to, inner]`.
pub(crate) fn pass(
    x: &[f64],
    from: usize,
    to: usize,
    inner: usize,
    kind: Interpolation,
) -> Vec<f64> {
    let filter = |x: f64| {
        let x = x.abs();
        match kind {
            Bilinear => (1.0 - x).max(0.0),
            Bicubic if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
            Bicubic if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
            Bicubic => 0.0,
        }
    };
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let mut y = Vec::new();
    for block in x.chunks(from * inner) {
        for out in 0..to {
            let centre = (out as f64 + 0.5) * scale - 0.5;
            let weights: Vec<f64> = (0..from)
                .map(|at| filter((at as f64 - centre) / wide))
                .collect();
            let sum: f64 = weights.iter().sum();
            for channel in 0..inner {
                let values = weights.iter().enumerate();
                y.push(
                    values
                        .map(|(at, w)| w * block[at * inner + channel])
                        .sum::<f64>()
                        / sum,
                );
            }
        }
    }
    y
}

#[test]
fn preprocessing_is_near_plain_float64() {
    for (case, _) in PILLOW {
        let (width, height, channels, size, crop_pct, kind) = case;
        let (pixels, data) = run(case);
        let shorter = (size as f64 / crop_pct).floor() as usize;
        let (columns, rows) = if width <= height {
            (shorter, shorter * height / width)
        } else {
            (shorter * width / height, shorter)
        };
        let wide: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
        let clip =
            |x: Vec<f64>| -> Vec<f64> { x.into_iter().map(|x| x.clamp(0.0, 255.0)).collect() };
        let across = clip(pass(&wide, width, columns, channels, kind));
        let whole = clip(pass(&across, height, rows, columns * channels, kind));
        // Half of the rest, ties to even.
        let first = |side: usize| ((side - size) as f64 / 2.0).round_ties_even() as usize;
        for colour in 0..3 {
            for row in 0..size {
                for column in 0..size {
                    let at = (first(rows) + row) * columns + first(columns) + column;
                    let got = pixels[(colour * size + row) * size + column] * 255.0;
                    let error = (f64::from(got) - whole[at * channels + colour]).abs();
                    // Half a level lost by each pass, the first one's spread by the second.
                    assert!(error < 1.3, "{case:?} {row} {column}: {error} levels");
                }
            }
        }
    }
}

#[test]
fn colours_are_normalised() {
    let data: Vec<u8> = (0..=255)
        .flat_map(|value| [value, 255 - value, 7])
        .collect();
    let image = Image {
        data: &data,
        width: 16,
        height: 16,
    };
    let preprocessing = Preprocessing {
        crop_pct: 1.0,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        ..Preprocessing::default()
    };
    let pixels = ok(preprocessing.pixels(&image, 16));
    for (index, pixel) in data.chunks(3).enumerate() {
        for colour in 0..3 {
            let (mean, std) = (preprocessing.mean[colour], preprocessing.std[colour]);
            let expected = (f32::from(pixel[colour]) / 255.0 - mean) / std;
            assert_eq!(pixels[colour * 256 + index].to_bits(), expected.to_bits());
        }
    }
}

#[test]
fn wrong_images_are_refused() {
    let preprocessing = Preprocessing::default();
    let refused = |data: &[u8], width, height, size| {
        let image = Image {
            data,
            width,
            height,
        };
        let (code, sentence) = refusal(preprocessing.pixels(&image, size));
        assert_eq!(code, "SHAPE");
        sentence
    };
    assert_eq!(
        refused(&[0; 11], 2, 2, 8),
        "image: expected 12 (RGB) or 16 (RGBA) bytes for 2 rows and 2 columns, got 11"
    );
    assert_eq!(
        refused(&[], 0, 2, 8),
        "image: expected 1 row and 1 column or more, got 2 rows and 0 columns"
    );
    assert_eq!(
        refused(&[0; 12], 2, 2, 0),
        "size: expected 1 or more, got 0"
    );
    assert_eq!(
        refused(&[0; 12], usize::MAX, usize::MAX, 8)
            .split(',')
            .next(),
        Some("image: expected a shape whose element count fits this machine")
    );
    let image = Image {
        data: &[0; 12],
        width: 2,
        height: 2,
    };
    assert_eq!(
        refusal(preprocessing.apply(&image, 2, &mut [0.0; 11])).1,
        "out: expected 12 elements for shape [3, 2, 2], got 11"
    );
    let strange = Preprocessing {
        crop_pct: 2.0,
        ..preprocessing
    };
    assert_eq!(
        refusal(strange.pixels(&image, 2)),
        (
            "OPTION",
            "config.preprocessing.crop_pct: expected a number above 0, 1 at most, got 2".to_owned()
        )
    );
}

#[test]
fn position_embeddings_are_resampled_for_another_size() {
    let sizes = Sizes::small(DiffViTArchitecture::Wee);
    let stored = sizes.weights();
    for grid in [3, 4, 8, 11] {
        let config = DiffViTConfig {
            img_size: Some(grid * sizes.patch),
            ..DiffViTConfig::new(sizes.architecture)
        };
        let model = ok(DiffViT::new(&config, &borrowed(&stored)));
        assert_eq!(model.tokens(), 1 + grid * grid);
        let mut resampled = stored.clone();
        let positions: Vec<f64> = stored["pos_embed"]
            .1
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        let across = pass(&positions, 5, grid, sizes.embed_dim, Bicubic);
        let whole = pass(&across, 5, grid, grid * sizes.embed_dim, Bicubic);
        let whole = whole.iter().map(|&x| x as f32).collect();
        let shape = vec![1, grid * grid, sizes.embed_dim];
        resampled.insert("pos_embed".to_owned(), (shape, whole));
        let (shape, images) = Sizes { grid, ..sizes }.images(2);
        let passed = forward(&resampled, false, sizes.heads, (&shape, &images));
        let pixels = Tensor::f32(&images, &shape);
        let logits = ok(model.forward(pixels, &DiffViTOptions::default()));
        assert_near(
            "resampled",
            &passed.logits,
            &logits,
            2e-5 * spread(&passed.logits),
        );
    }
}

#[test]
fn an_image_becomes_classes() {
    let sizes = Sizes::small(DiffViTArchitecture::Little);
    let config = DiffViTConfig::new(sizes.architecture);
    let model = ok(DiffViT::new(&config, &borrowed(&sizes.weights())));
    let data = noise(50 * 40 * 4, 3);
    let image = Image {
        data: &data,
        width: 50,
        height: 40,
    };
    let pixels = ok(model.preprocess(&image));
    let size = model.img_size();
    let pixels = Tensor::f32(&pixels, &[1, 3, size, size]);
    let top = ok(model.classify(pixels, sizes.classes, &DiffViTOptions::default()));
    let sum: f64 = top[0].iter().map(|score| score.probability).sum();
    assert!((sum - 1.0).abs() < 1e-12);
    assert!(
        top[0]
            .windows(2)
            .all(|pair| pair[0].probability >= pair[1].probability)
    );
}
