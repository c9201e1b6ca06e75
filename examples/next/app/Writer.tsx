"use client";
// The component: writes what follows a prompt, by the route on the server or by the model in this browser, and ends it when it goes.
import { type FormEvent, useEffect, useRef, useState } from "react";
import { DiffLlama } from "diffattn/models";

/** Gives a text's pieces as they come. */
type Write = (prompt: string, maxNewTokens: number, signal: AbortSignal) => AsyncIterable<string>;

async function* onServer(...[prompt, maxNewTokens, signal]: Parameters<Write>) {
  const response = await fetch("/api/generate", { method: "POST", body: JSON.stringify({ prompt, maxNewTokens }), signal });
  if (!response.ok || !response.body) throw new Error(await response.text());
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value;
}

let loading: Promise<DiffLlama> | undefined;

async function* inBrowser(...[prompt, maxNewTokens, signal]: Parameters<Write>) {
  // Kept in the browser's Cache Storage: the next visit downloads nothing.
  loading ??= DiffLlama.load("/model/", { cache: "models" }).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  for await (const { text } of (await loading).generate(prompt, { maxNewTokens, signal })) yield text;
}

const places: Record<string, Write> = { "On the server": onServer, "In this browser": inBrowser };

export function Writer() {
  const [text, setText] = useState("");
  const [status, setStatus] = useState("Ready");
  const running = useRef<AbortController | null>(null);
  const stop = () => running.current?.abort();
  useEffect(() => () => running.current?.abort(), []);

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    const write = places[String(fields.get("place"))] ?? onServer;
    stop();
    const own = new AbortController();
    running.current = own;
    setText("");
    setStatus("Writing");
    let end = "Ready";
    try {
      for await (const piece of write(String(fields.get("prompt")), Number(fields.get("tokens")), own.signal))
        setText((before) => before + piece);
    } catch (error) {
      if (!own.signal.aborted) end = error instanceof Error ? error.message : String(error);
    }
    if (running.current === own) setStatus(end);
  }

  return (
    <>
      <form onSubmit={(event) => void submit(event)}>
        <label>
          Prompt <input name="prompt" defaultValue="Returns the number of" required />
        </label>
        <label>
          Tokens <input name="tokens" type="number" min={1} max={4096} defaultValue={6} required />
        </label>
        <select name="place" aria-label="Where it is computed">
          {Object.keys(places).map((place) => (
            <option key={place}>{place}</option>
          ))}
        </select>
        <button>Write</button>
        <button type="button" onClick={stop} disabled={status !== "Writing"}>
          Stop
        </button>
      </form>
      <p role="status">{status}</p>
      <pre>
        <output>{text}</output>
      </pre>
    </>
  );
}
