//! Vision transformers.

use crate::common::{Folder, Output, Request, bits, ok, refusal};
use diffattn::{Run, Tensor};
use diffattn_door::Door;
use diffattn_nn::{DiffViT, DiffViTConfig, DiffViTOptions, Image};

fn direct(folder: &Folder) -> DiffViT {
    let config = ok(DiffViTConfig::from_json(&folder.text("config.json")));
    folder.with_weights(|weights| ok(DiffViT::new(&config, weights)))
}

/// Images of two sizes, with and without opacity.
fn images() -> Vec<([usize; 3], Vec<u8>)> {
    [[80, 70, 3], [64, 200, 4]]
        .into_iter()
        .map(|shape| {
            let len = shape.iter().product::<usize>();
            (shape, (0..len).map(|at| (at * 7919 % 251) as u8).collect())
        })
        .collect()
}

fn with_images(model: f64, images: &[([usize; 3], Vec<u8>)]) -> Request {
    let request = Request::default().n(&[model, 1.0, images.len() as f64]);
    images.iter().fold(request, |request, (shape, data)| {
        request.raw(4, shape, data)
    })
}

#[test]
fn images_and_pixels_give_the_bits_of_a_direct_call() {
    let folder = Folder::fixture("diff_vit");
    let door = Door::new();
    let model = folder.load(&door);
    let direct = direct(&folder);
    let images = images();
    let mut pixels = Vec::new();
    for (shape, data) in &images {
        let &[height, width, _] = shape;
        pixels.extend(ok(direct.preprocess(&Image {
            data,
            width,
            height,
        })));
    }
    let shape = [2, 3, 64, 64];
    let tensor = || Tensor::f32(&pixels, &shape);
    for is_deterministic in [false, true] {
        let flag = f64::from(u8::from(is_deterministic));
        let options = DiffViTOptions {
            run: Run::default().with_deterministic(is_deterministic),
        };
        let sources = [
            with_images(model, &images),
            Request::default().n(&[model, 0.0]).f32(&shape, &pixels),
        ];
        let logits = ok(direct.forward(tensor(), &options));
        let maps = ok(direct.maps(tensor(), 2, &options));
        let classes = ok(direct.classify(tensor(), 4, &options));
        for source in sources {
            let got = ok(source.clone().n(&[flag]).run(&door, 88));
            assert_eq!(got[0].spec.shape, [2, 10]);
            assert_eq!(bits(got[0].f32()), bits(&logits));
            let got = ok(source.clone().n(&[2.0, flag]).run(&door, 89));
            let names: Vec<&str> = got.iter().map(|out| out.spec.name.as_ref()).collect();
            assert_eq!(names, ["map1", "map2", "diff"]);
            let expected = maps.terms.iter().chain([&maps.diff]);
            for (expected, got) in expected.zip(&got) {
                assert_eq!(got.spec.shape, maps.shape);
                assert_eq!(bits(got.f32()), bits(expected));
            }
            let got: Vec<Output> = ok(source.n(&[4.0, flag]).run(&door, 90));
            assert_eq!(got[0].spec.shape, [2, 4]);
            let expected = classes.iter().flatten();
            let told = got[0].i32().iter().zip(got[1].f32());
            assert_eq!(got[1].spec.shape, [2, 4]);
            for (expected, (&class, &probability)) in expected.zip(told) {
                assert_eq!(expected.id, class as usize);
                assert_eq!(
                    (expected.probability as f32).to_bits(),
                    probability.to_bits()
                );
            }
        }
    }
}

#[test]
fn a_batch_of_none_is_none() {
    let folder = Folder::fixture("diff_vit");
    let door = Door::new();
    let model = folder.load(&door);
    for source in [
        with_images(model, &[]),
        Request::default()
            .n(&[model, 0.0])
            .f32(&[0, 3, 64, 64], &[]),
    ] {
        assert!(
            ok(source.clone().n(&[0.0]).run(&door, 88))[0]
                .f32()
                .is_empty()
        );
        assert_eq!(ok(source.clone().n(&[1.0, 0.0]).run(&door, 89)).len(), 3);
        assert!(ok(source.n(&[1.0, 0.0]).run(&door, 90))[0].i32().is_empty());
    }
}

#[test]
fn wrong_requests_are_refused() {
    let folder = Folder::fixture("diff_vit");
    let door = Door::new();
    let model = folder.load(&door);
    let forward = |source: Request| refusal(source.n(&[0.0]).run(&door, 88));
    let image = |shape: [usize; 3]| with_images(model, &[(shape, vec![0; shape.iter().product()])]);
    for shape in [[8, 8, 2], [8, 8, 5], [0, 8, 3], [8, 0, 4]] {
        let (code, sentence) = forward(image(shape));
        assert_eq!(code, "SHAPE");
        assert_eq!(
            sentence,
            format!(
                "image: expected [height, width, 3 or 4], of a row and a column or more, got {shape:?}"
            )
        );
    }
    let flat = Request::default()
        .n(&[model, 1.0, 1.0])
        .raw(4, &[12], &[0; 12]);
    assert_eq!(forward(flat).0, "SHAPE");
    let floats = Request::default().n(&[model, 1.0, 1.0]);
    assert_eq!(forward(floats.f32(&[2, 2, 3], &[0.0; 12])).0, "DTYPE");
    let pixels = Request::default().n(&[model, 0.0]);
    assert_eq!(
        forward(pixels.f32(&[1, 3, 64, 63], &vec![0.0; 3 * 64 * 63])),
        (
            "SHAPE",
            "pixels: expected shape [B, 3, 64, 64], got [1, 3, 64, 63]".into()
        )
    );
    let good = image([4, 4, 3]);
    assert_eq!(
        refusal(good.clone().n(&[3.0, 0.0]).run(&door, 89)),
        ("OPTION", "layer: expected 0 to 2, got 3".into())
    );
    for top in [0.0, 11.0] {
        assert_eq!(
            refusal(good.clone().n(&[top, 0.0]).run(&door, 90)),
            ("OPTION", format!("top: expected 1 to 10, got {top}"))
        );
    }
    let llama = Folder::fixture("diffllama_gqa").load(&door);
    assert_eq!(
        forward(with_images(llama, &[])),
        ("DTYPE", "model: expected a DiffViT, got a DiffLlama".into())
    );
}

/// However far it came.
#[test]
fn cancelled_jobs_are_dropped() {
    let folder = Folder::fixture("diff_vit");
    let door = Door::new();
    let model = folder.load(&door);
    let request = with_images(model, &images()).n(&[3.0, 0.0]);
    let mut steps = 0;
    while ok(request.run_for(&door, 90, steps)).is_none() {
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
}
