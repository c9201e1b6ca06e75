// The component: a prompt, what the model makes of it, and the attention maps of a head over both.
import { type FormEvent, useState } from "react";
import { Maps } from "./Maps.tsx";
import { useDiffLlama } from "./useDiffLlama.ts";

export function Writer({ source }: { source: string }) {
  const { model, progress, text, isWriting, error, write, stop } = useDiffLlama(source);
  const [prompt, setPrompt] = useState("Returns the number of");
  const [tokens, setTokens] = useState(6);
  // Of which prompt the text is: the field may say something else by now.
  const [asked, setAsked] = useState("");

  function submit(event: FormEvent) {
    event.preventDefault();
    setAsked(prompt);
    void write(prompt, { maxNewTokens: tokens });
  }

  return (
    <section aria-busy={isWriting}>
      <form onSubmit={submit}>
        <label>
          Prompt <input value={prompt} onChange={({ target }) => setPrompt(target.value)} required />
        </label>
        <label>
          Tokens{" "}
          <input type="number" min={1} max={4096} value={tokens} onChange={({ target }) => setTokens(target.valueAsNumber)} required />
        </label>
        <button disabled={!model}>Write</button>
        <button type="button" onClick={stop} disabled={!isWriting}>
          Stop
        </button>
      </form>
      <p role="status">{error ? error.message : model ? (isWriting ? "Writing" : "Ready") : `Loading: ${Math.round(100 * progress)} %`}</p>
      <pre>
        {asked}
        <output>{text}</output>
      </pre>
      {model && text && !isWriting && <Maps model={model} text={asked + text} />}
    </section>
  );
}
