// A picture of the two attention maps of a head and their difference over the end of a text. Chooses layer and head by two fields.
import { useEffect, useState } from "react";
import type { AttentionMaps } from "diffattn";
import type { DiffLlama } from "diffattn/models";
import { drawMaps } from "diffattn/viz";

/** Maps grow with the square of it. */
const TOKENS = 48;

/** A field may hold anything. */
const within = (value: number, count: number) => Math.min(Math.max(Math.trunc(value) || 0, 0), count - 1);

interface Shown {
  readonly maps: AttentionMaps;
  readonly tokens: readonly string[];
}

export function Maps({ model, text }: { model: DiffLlama; text: string }) {
  const [layer, setLayer] = useState(0);
  const [head, setHead] = useState(0);
  const [shown, setShown] = useState<Shown | null>(null);
  const [error, setError] = useState("");

  useEffect(() => {
    // Of a text or layer that is no longer asked for.
    const gone = new AbortController();
    async function compute() {
      const ids = model.encode(text).slice(-TOKENS);
      const maps = await model.maps(ids, layer, { signal: gone.signal });
      setShown({ maps, tokens: ids.map((id) => model.decode([id])) });
      setError("");
    }
    compute().catch((thrown: unknown) => !gone.signal.aborted && setError(thrown instanceof Error ? thrown.message : String(thrown)));
    return () => gone.abort();
  }, [model, text, layer]);

  const layers = Number(model.config.num_hidden_layers);
  const heads = shown?.maps.diff.shape[1] ?? 1;
  return (
    <figure>
      <figcaption>
        <label>
          Layer{" "}
          <input
            type="number"
            min={0}
            max={layers - 1}
            value={layer}
            onChange={({ target }) => setLayer(within(target.valueAsNumber, layers))}
          />
        </label>
        <label>
          Head{" "}
          <input
            type="number"
            min={0}
            max={heads - 1}
            value={head}
            onChange={({ target }) => setHead(within(target.valueAsNumber, heads))}
          />
        </label>
      </figcaption>
      {error && <p role="alert">{error}</p>}
      {/* drawMaps escapes what tokens hold: its text is markup that is safe to show. */}
      {shown && (
        <div
          dangerouslySetInnerHTML={{ __html: drawMaps(shown.maps, { head, tokens: shown.tokens, title: `Layer ${layer}, head ${head}` }) }}
        />
      )}
    </figure>
  );
}
