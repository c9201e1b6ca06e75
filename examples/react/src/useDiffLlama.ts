// The hook: a model that is loaded once for all components that name it, and a text that it writes for this one. The text ends when the
// component goes. Draws nothing.
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { DiffLlama, type GenerateOptions } from "diffattn/models";

/** What is known of a model: how much of it is there (0 to 1), then itself, or why it could not be loaded. */
interface Loaded {
  readonly model: DiffLlama | null;
  readonly progress: number;
  readonly error: Error | null;
}

const asError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)));

/** A model of an address, loaded when the first component asks and kept as long as the page: it is large, and components come and go. */
class Source {
  private state: Loaded = { model: null, progress: 0, error: null };
  private readonly listeners = new Set<() => void>();
  private isLoading = false;
  private readonly address: string;

  constructor(address: string) {
    this.address = address;
  }

  readonly get = (): Loaded => this.state;

  // React calls it in the browser alone, so nothing is loaded where pages are rendered on a server.
  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    if (!this.state.model && !this.isLoading) void this.load();
    return () => this.listeners.delete(listener);
  };

  private async load(): Promise<void> {
    this.isLoading = true;
    this.set({ error: null });
    try {
      // Kept in the browser's Cache Storage: the next visit downloads nothing.
      const options = {
        cache: "models",
        onProgress: ({ done, total }: { done: number; total: number }) => this.set({ progress: done / total }),
      };
      this.set({ model: await DiffLlama.load(this.address, options) });
    } catch (error) {
      // The next component that comes tries again.
      this.set({ error: asError(error) });
    }
    this.isLoading = false;
  }

  private set(change: Partial<Loaded>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}

const sources = new Map<string, Source>();

function sourceOf(address: string): Source {
  let source = sources.get(address);
  if (!source) sources.set(address, (source = new Source(address)));
  return source;
}

/** A model by the address of its folder, and what it writes. */
export function useDiffLlama(address: string) {
  const source = sourceOf(address);
  const { model, progress, error: loadError } = useSyncExternalStore(source.subscribe, source.get, source.get);
  const [text, setText] = useState("");
  const [isWriting, setIsWriting] = useState(false);
  const [error, setError] = useState<Error | null>(null);
  const running = useRef<AbortController | null>(null);

  /** Ends the text that is being written; what there is of it stays. */
  const stop = useCallback(() => running.current?.abort(), []);
  useEffect(() => stop, [stop, model]);

  /** Writes what follows a prompt, in place of what was written before. */
  const write = useCallback(
    async (prompt: string, options: Omit<GenerateOptions, "signal"> = {}) => {
      if (!model) return;
      stop();
      const own = new AbortController();
      running.current = own;
      setText("");
      setError(null);
      setIsWriting(true);
      try {
        for await (const token of model.generate(prompt, { ...options, signal: own.signal })) setText((before) => before + token.text);
      } catch (thrown) {
        if (!own.signal.aborted) setError(asError(thrown));
      }
      if (running.current === own) setIsWriting(false);
    },
    [model, stop],
  );

  return { model, progress, text, isWriting, error: loadError ?? error, write, stop };
}
