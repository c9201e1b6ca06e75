// Which files beside weights belong to a model whatever its weights become. Reads none.

/** What lies beside weights and stays right for them. */
export const COMPANIONS = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
];
