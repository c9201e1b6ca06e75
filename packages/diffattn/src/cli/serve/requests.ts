// What is asked for: the bodies of /v1/completions, /v1/chat/completions, /v1/embeddings and
// /tokenize, each made what the model is asked.

import { ApiError, invalid, notDone } from "./api-error.js";
import { chatForm, completionForm, type Form } from "./answers.js";
import type { Engine } from "./engine.js";
import { Fields } from "./fields.js";
import { sampling, streaming, type Streaming } from "./sampling.js";
import { messagesOf, textsOf } from "./texts.js";
import type { BatchGenerateOptions, ChatMessage } from "../../models/types.js";

/** Most probable tokens of each. */
const MOST_PROBABLE = 20;
/** New tokens of a completion that says nothing, as OpenAI's interface has it. */
const COMPLETION_TOKENS = 16;

/** What is to be written. */
export interface Asked extends Streaming {
  readonly prompt: readonly ChatMessage[] | readonly (readonly number[])[];
  readonly options: BatchGenerateOptions;
  readonly form: Form;
  /** How many texts it makes, and each prompt. */
  readonly texts: number;
  readonly perPrompt: number;
}

/** Fields that tell who asks, or how this is to be kept or priced: nothing here depends on them. */
const IGNORED = [
  "user",
  "safety_identifier",
  "metadata",
  "service_tier",
  "prompt_cache_key",
  "parallel_tool_calls",
  "prompt_cache_retention",
];

export function completion(json: unknown, engine: Engine): Asked {
  const fields = new Fields(json);
  engine.check(fields.text("model"));
  const given = textsOf("prompt", fields.any("prompt"));
  const stream = streaming(fields);
  const most = fields.integer("max_tokens", 1);
  const logprobs = fields.integer("logprobs", 0, MOST_PROBABLE);
  const options = sampling(fields, engine.most);
  fields.refuse("echo");
  fields.refuse("suffix", (x) => x === "");
  fields.refuse("best_of", (x) => x === 1 || x === options.n);
  fields.ignore(...IGNORED);
  fields.end();
  const prompt = given.map((one) => (typeof one === "string" ? engine.model.encode(one) : one));
  const longest = Math.max(...prompt.map(({ length }) => length));
  if (prompt.some(({ length }) => length === 0)) throw invalid("prompt", "expected a text of one token or more");
  const perPrompt = options.n ?? 1;
  const maxNewTokens = engine.room(longest, most, COMPLETION_TOKENS, "prompt");
  const form = completionForm(engine.model, logprobs);
  return { ...stream, prompt, options: { ...options, maxNewTokens, logprobs }, form, texts: prompt.length * perPrompt, perPrompt };
}

export async function chat(json: unknown, engine: Engine): Promise<Asked> {
  const fields = new Fields(json);
  engine.check(fields.text("model"));
  const prompt = messagesOf(fields.list("messages"));
  const stream = streaming(fields);
  const most = fields.integer("max_completion_tokens", 1) ?? fields.integer("max_tokens", 1);
  const isTold = fields.flag("logprobs");
  const best = fields.integer("top_logprobs", 0, MOST_PROBABLE);
  if (best !== undefined && !isTold) throw invalid("top_logprobs", "only with logprobs");
  const options = sampling(fields, engine.most);
  refuseOfChat(fields);
  fields.ignore("max_tokens", ...IGNORED);
  fields.end();
  if (!engine.model.tokenizer) throw new ApiError(400, "the model has no tokenizer: it completes token ids alone", "messages");
  if (engine.model.chatTemplate === undefined)
    throw new ApiError(400, "the model has no chat template: /v1/completions continues a text with it", "messages", "no_chat_template");
  // (Rendered twice, which costs little beside an answer: here for its length.)
  const text = await engine.model.applyChatTemplate(prompt);
  const tokens = engine.model.encode(text, { addSpecialTokens: false }).length;
  const maxNewTokens = engine.room(tokens, most, undefined, "messages");
  const logprobs = isTold ? (best ?? 0) : undefined;
  const perPrompt = options.n ?? 1;
  return {
    ...stream,
    prompt,
    options: { ...options, maxNewTokens, logprobs },
    form: chatForm(engine.model, logprobs),
    texts: perPrompt,
    perPrompt,
  };
}

/** What chat has elsewhere, and not here. */
function refuseOfChat(fields: Fields): void {
  fields.refuse("tools");
  fields.refuse("tool_choice", (x) => x === "none" || x === "auto");
  fields.refuse("functions");
  fields.refuse("function_call", (x) => x === "none" || x === "auto");
  fields.refuse("audio");
  fields.refuse("modalities", (x) => Array.isArray(x) && x.length === 1 && x[0] === "text");
  fields.refuse("prediction");
  fields.refuse("web_search_options");
  fields.refuse("reasoning_effort");
  fields.refuse("verbosity");
  fields.refuse("store");
  const format = fields.record("response_format");
  if (format && format["type"] !== "text") throw notDone("response_format", "formats other than text are not done by this server");
}

/** Texts that become vectors. */
export interface AskedVectors {
  readonly inputs: readonly (readonly number[])[];
  readonly isBase64: boolean;
}

export function embeddings(json: unknown, engine: Engine): AskedVectors {
  const fields = new Fields(json);
  engine.check(fields.text("model"));
  const given = textsOf("input", fields.any("input"));
  const format = fields.text("encoding_format") ?? "float";
  if (format !== "float" && format !== "base64") throw invalid("encoding_format", 'expected "float" or "base64"');
  fields.refuse("dimensions", (x) => x === engine.model.config["hidden_size"]);
  fields.ignore(...IGNORED);
  fields.end();
  const inputs = given.map((one) => (typeof one === "string" ? engine.model.encode(one) : one));
  for (const { length } of inputs) {
    if (length === 0) throw invalid("input", "expected texts of one token or more");
    if (length > engine.context)
      throw new ApiError(
        400,
        `input: a text has ${length} tokens, and the model reads ${engine.context}`,
        "input",
        "context_length_exceeded",
      );
  }
  return { inputs, isBase64: format === "base64" };
}

export function tokenize(json: unknown, engine: Engine): number[] {
  const fields = new Fields(json);
  engine.check(fields.text("model"));
  const content = fields.text("content");
  const addSpecialTokens = fields.flag("add_special");
  fields.end();
  if (content === undefined) throw invalid("content", "expected a text");
  return engine.model.encode(content, { addSpecialTokens });
}
