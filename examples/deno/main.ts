// Writes what a model adds to a prompt, as it comes: deno task start "Returns the number of" 6
import { DiffLlama } from "npm:diffattn@^0.1.0/models";

const [prompt = "Returns the number of", count = "64"] = Deno.args;

const model = await DiffLlama.load("model");
const encoder = new TextEncoder();
for await (const { text } of model.generate(prompt, { maxNewTokens: Number(count) })) await Deno.stdout.write(encoder.encode(text));
model.dispose();
