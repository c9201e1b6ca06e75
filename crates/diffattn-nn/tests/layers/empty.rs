//! Layers over nothing: work and memory in proportion to the elements, whatever the other extents
//! are.

use crate::common::{ok, zoo};
use diffattn::{DataMut, KvCache, Tensor};
use diffattn_nn::ForwardOptions;
use std::time::{Duration, Instant};

#[test]
fn sequences_without_tokens_cost_nothing() {
    let options = ForwardOptions::default();
    for case in zoo() {
        let (layer, width) = (&case.layer, case.embed_dim);
        for (batch, length) in [(1 << 40, 0), (0, 1 << 40)] {
            let mut best = Duration::MAX;
            // (The fastest of three: other programs run beside tests.)
            for _ in 0..3 {
                let start = Instant::now();
                let x = || Tensor::f32(&[], &[batch, length, width]);
                let job = ok(layer.forward_job(x(), None, &options));
                assert_eq!(job.output_shape(), [batch, length, width]);
                let job = ok(job.into_work(DataMut::F32(&mut [])));
                assert_eq!(job.done(), job.total());
                drop(job);
                assert!(ok(layer.forward(x(), None, &options)).is_empty());
                let maps = ok(layer.maps(x(), &options));
                assert_eq!(maps.shape, [batch, layer.num_heads(), length, length]);
                assert!(maps.diff.is_empty());
                best = best.min(start.elapsed());
            }
            assert!(best < Duration::from_millis(100), "{}: {best:?}", case.name);
        }
        let mut cache = ok(KvCache::new(layer.cache_options(1 << 8, 0)));
        let x = Tensor::f32(&[], &[1 << 8, 0, width]);
        assert!(ok(layer.forward(x, Some(&mut cache), &options)).is_empty());
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
