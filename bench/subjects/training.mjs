// Steps of training as runs of the benchmark, through the package's public door: forward, backward,
// clipping and AdamW over one batch of the model's own ids, of all weights or of adapters. The
// learning rate is 0, so that every step does all of its work and has the answer of the first.

/** Ids that are only many; the Python subject has the same. */
const idsOf = ({ rows, length }, vocabulary, hash) => Int32Array.from({ length: rows * length }, (_, i) => hash(i) % vocabulary);

/** A trainer whose every step reads the same windows. */
export async function openTrainer({ case: test }, { training, place, vocabulary, hash }) {
  const { rows, length, adapter, recompute, load } = test;
  return training.Trainer.create({
    model: place,
    load: { tokenizer: null, dtype: "float32", ...load },
    data: { ids: idsOf(test, vocabulary, hash) },
    dataset: { context: length, documents: "join", eval: 0 },
    steps: 1e9,
    batch: rows,
    optimizer: { lr: 0 },
    ...(adapter && { adapter }),
    ...(recompute && { recompute }),
  });
}

/** A step: its loss, the norm of its gradients, and the seconds that it took. */
export async function step(trainer) {
  const start = performance.now();
  const { loss, gradNorm } = await trainer.advance();
  return { result: Float32Array.of(loss, gradNorm), seconds: (performance.now() - start) / 1000 };
}
