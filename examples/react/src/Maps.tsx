// A picture of the two attention maps of a head and their difference over the end of a text. Chooses layer and head by two fields.
import { useEffect, useState } from "react";
import type { AttentionMaps } from "diffattn";
import type { DiffLlama } from "diffattn/models";
import { drawMaps } from "diffattn/viz";

/** Maps grow with the square of it. */
const TOKENS = 48;

/** A field may hold anything. */
const within = (value: number, count: number) => Math.min(Math.max(Math.trunc(value) || 0, 0), count - 1);

/** One of `count` things, by its number. */
function Choice({ label, count, value, onChange }: { label: string; count: number; value: number; onChange: (value: number) => void }) {
  return (
    <label>
      {label}{" "}
      <input type="number" min={0} max={count - 1} value={value} onChange={({ target }) => onChange(within(target.valueAsNumber, count))} />
    </label>
  );
}

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
        <Choice label="Layer" count={layers} value={layer} onChange={setLayer} />
        <Choice label="Head" count={heads} value={head} onChange={setHead} />
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
