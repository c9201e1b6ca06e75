//! Models that timm makes of the same architectures by an option: without a head, of other
//! channels, of any whole patches. Against the plain float64 pass, and Pillow's and the position
//! embeddings' own definitions.

use crate::common::{
    Sizes, assert_near, bits, borrowed, case_config, forward, ok, refusal, spread, values,
};
use crate::image::pass;
use diffattn::Tensor;
use diffattn_nn::{
    DiffViT, DiffViTArchitecture, DiffViTConfig, DiffViTOptions, Image, Interpolation,
};

fn small() -> Sizes {
    Sizes::small(DiffViTArchitecture::Wee)
}

fn of(config: &DiffViTConfig, sizes: &Sizes) -> DiffViT {
    ok(DiffViT::new(config, &borrowed(&sizes.weights())))
}

#[test]
fn without_a_head_there_are_features() {
    let options = DiffViTOptions::default();
    for architecture in DiffViTArchitecture::ALL {
        let sizes = Sizes {
            classes: 0,
            ..Sizes::small(architecture)
        };
        let (shape, images) = sizes.images(2);
        let pixels = || Tensor::f32(&images, &shape);
        let stored = sizes.weights();
        let passed = forward(&stored, sizes.is_parallel(), sizes.heads, (&shape, &images));
        let mut all = Vec::new();
        // What the config says: nothing; no classes; no classes, beside a head that is there all
        // the same.
        for (num_classes, classes) in [(None, 0), (Some(0), 0), (Some(0), 7)] {
            let config = DiffViTConfig {
                num_classes,
                ..DiffViTConfig::new(architecture)
            };
            let model = of(&config, &Sizes { classes, ..sizes });
            assert_eq!((model.num_classes(), model.outputs()), (0, sizes.embed_dim));
            assert_eq!(model.config().num_classes, Some(0));
            let job = ok(model.forward_job(pixels(), &options));
            assert_eq!(job.output_shape(), [2, sizes.embed_dim]);
            all.push(bits(&ok(model.forward(pixels(), &options))));
            assert_eq!(
                refusal(model.classify(pixels(), 1, &options)),
                (
                    "UNAVAILABLE",
                    "model: expected one with a head (head.weight) to tell classes by, got one without, whose \
                     forward gives features"
                        .to_owned()
                )
            );
        }
        let features: Vec<f32> = all[0].iter().map(|&bits| f32::from_bits(bits)).collect();
        assert_near(
            "features",
            &passed.logits,
            &features,
            2e-5 * spread(&passed.logits),
        );
        assert!(all.iter().all(|other| *other == all[0]));
        // A claim that no weight bears out is none of these.
        let config = DiffViTConfig {
            num_classes: Some(7),
            ..DiffViTConfig::new(architecture)
        };
        let (code, sentence) = refusal(DiffViT::new(&config, &borrowed(&stored)));
        assert_eq!(code, "FILE");
        assert!(sentence.starts_with("weights.head.weight: "), "{sentence}");
    }
    let config = case_config().replace("\"num_classes\": 10", "\"num_classes\": 0");
    assert_eq!(ok(DiffViTConfig::from_json(&config)).num_classes, Some(0));
}

#[test]
fn channels_are_those_of_the_weights() {
    let options = DiffViTOptions::default();
    for channels in [1, 2, 3, 4, 13] {
        let sizes = Sizes {
            channels,
            ..small()
        };
        let config = DiffViTConfig {
            in_chans: Some(channels),
            ..DiffViTConfig::new(sizes.architecture)
        };
        let model = of(&config, &sizes);
        assert_eq!(model.in_chans(), channels);
        let (shape, images) = sizes.images(2);
        let passed = forward(&sizes.weights(), false, sizes.heads, (&shape, &images));
        let logits = ok(model.forward(Tensor::f32(&images, &shape), &options));
        assert_near(
            "logits",
            &passed.logits,
            &logits,
            2e-5 * spread(&passed.logits),
        );
        let other = [2, channels + 1, 20, 20];
        let (_, more) = sizes.pixels(&other);
        assert_eq!(
            refusal(model.forward(Tensor::f32(&more, &other), &options)).1,
            format!("pixels: expected shape [B, {channels}, 20, 20], got {other:?}")
        );
        let image = Image {
            data: &[0; 12],
            width: 2,
            height: 2,
        };
        if [1, 3].contains(&channels) {
            assert_eq!(ok(model.preprocess(&image)).len(), channels * 400);
        } else {
            assert_eq!(
                refusal(model.preprocess(&image)),
                (
                    "DTYPE",
                    format!(
                        "image: expected a tensor [B, {channels}, H, W], as the model takes {channels} channels, got an \
                         image, which has colours"
                    )
                )
            );
        }
    }
    let config = DiffViTConfig {
        in_chans: Some(3),
        ..DiffViTConfig::new(small().architecture)
    };
    let grey = Sizes {
        channels: 1,
        ..small()
    };
    let (_, sentence) = refusal(DiffViT::new(&config, &borrowed(&grey.weights())));
    assert_eq!(
        sentence,
        "config.in_chans: expected 1, as weights.patch_embed.proj.weight has it, got 3"
    );
}

#[test]
fn means_of_one_channel() {
    let config = |entries: &str| {
        DiffViTConfig::from_json(&format!(
            r#"{{"architecture": "vit_dwee_patch16_reg1_gap_256", {entries}}}"#
        ))
    };
    for (mean, expected) in [("[0.25]", 0.25), ("[0.25, 0.25, 0.25]", 0.25)] {
        let entries = format!(
            r#""model_args": {{"in_chans": 1}}, "mean": {mean}, "input_size": [1, 20, 20]"#
        );
        let config = ok(config(&entries));
        assert_eq!(
            (config.in_chans, config.preprocessing.mean, config.img_size),
            (Some(1), [expected; 3], Some(20))
        );
    }
    // Of channels that no image has, nothing is normalised.
    let many = ok(config(
        r#""in_chans": 4, "mean": [0.1, 0.2, 0.3, 0.4], "std": [1, 1, 1, 1]"#,
    ));
    assert_eq!(many.preprocessing.mean, [0.5; 3]);
    let unequal = ok(config(r#""mean": [0.1, 0.2, 0.3]"#));
    let sizes = Sizes {
        channels: 1,
        ..small()
    };
    assert_eq!(
        refusal(DiffViT::new(&unequal, &borrowed(&sizes.weights()))),
        (
            "FILE",
            "config.mean: expected one number, as images of one channel have it, got [0.1, 0.2, 0.3]".to_owned()
        )
    );
}

#[test]
fn any_whole_patches() {
    let (sizes, options) = (small(), DiffViTOptions::default());
    // Of the config's own size the embeddings are resampled once as it is loaded, then for the
    // pixels: as timm does it.
    for img_size in [None, Some(28)] {
        let config = DiffViTConfig {
            dynamic_img_size: true,
            img_size,
            ..DiffViTConfig::new(sizes.architecture)
        };
        let model = of(&config, &sizes);
        let fixed = of(
            &DiffViTConfig {
                dynamic_img_size: false,
                ..config.clone()
            },
            &sizes,
        );
        let own = model.img_size() / sizes.patch;
        for grid in [[own, own], [3, 8], [9, 2], [1, 1], [own, 6]] {
            let shape = [2, 3, grid[0] * sizes.patch, grid[1] * sizes.patch];
            let (shape, pixels) = sizes.pixels(&shape);
            let tensor = || Tensor::f32(&pixels, &shape);
            let logits = ok(model.forward(tensor(), &options));
            if grid == [own, own] {
                assert_eq!(bits(&logits), bits(&ok(fixed.forward(tensor(), &options))));
            }
            let mut stored = sizes.weights();
            let width = sizes.embed_dim;
            for (from, to) in [([5, 5], [own, own]), ([own, own], grid)] {
                if let Some((shape, data)) = stored.get_mut("pos_embed").filter(|_| from != to) {
                    let wide: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
                    let across = pass(&wide, from[1], to[1], width, Interpolation::Bicubic);
                    let whole = pass(
                        &across,
                        from[0],
                        to[0],
                        to[1] * width,
                        Interpolation::Bicubic,
                    );
                    *data = whole.iter().map(|&x| x as f32).collect();
                    *shape = vec![1, to[0] * to[1], width];
                }
            }
            let passed = forward(&stored, false, sizes.heads, (&shape, &pixels));
            let name = format!("{grid:?}");
            assert_near(
                &name,
                &passed.logits,
                &logits,
                2e-5 * spread(&passed.logits),
            );
            let maps = ok(model.maps(tensor(), 1, &options));
            let tokens = 1 + grid[0] * grid[1];
            assert_eq!(maps.shape, [2, 3, tokens, tokens]);
            assert_near(&name, &passed.maps[1].diff.data, &maps.diff, 3e-6);
        }
        for shape in [[1, 3, 8, 6], [1, 3, 0, 8], [1, 1, 8, 8]] {
            let pixels = values(1, shape.iter().product(), 1.0);
            let (code, sentence) = refusal(model.forward(Tensor::f32(&pixels, &shape), &options));
            assert_eq!(code, "SHAPE");
            assert_eq!(
                sentence,
                format!(
                    "pixels: expected shape [B, 3, H, W], H and W multiples of the patch size 4, got {shape:?}"
                )
            );
        }
        // Images are still made as large as the config says.
        let image = Image {
            data: &[7; 30],
            width: 2,
            height: 5,
        };
        let size = model.img_size();
        assert_eq!(ok(model.preprocess(&image)).len(), 3 * size * size);
        // Of no images, sides cost nothing, however long they are.
        let vast = [0, 3, 1 << 40, 1 << 20];
        assert!(ok(model.forward(Tensor::f32(&[], &vast), &options)).is_empty());
        let more = [0, 3, 1 << 60, 1 << 60];
        assert_eq!(
            refusal(model.forward(Tensor::f32(&[], &more), &options)).0,
            "SHAPE"
        );
    }
}
