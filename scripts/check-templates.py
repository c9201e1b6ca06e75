"""What transformers makes of conversations: cases in JSON on standard input, texts (or why there is
none) in JSON on standard output. scripts/check-templates.mjs asks it."""

import json
import sys

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

given = json.load(sys.stdin)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), **given["tokens"])
results = []
for case in given["cases"]:
    variables = case.get("variables", {})
    try:
        text = tokenizer.apply_chat_template(
            case["messages"],
            chat_template=case["template"],
            add_generation_prompt=case.get("addGenerationPrompt", True),
            tokenize=False,
            **variables,
        )
        results.append({"text": text})
    except TemplateError as error:
        results.append({"error": str(error)})
json.dump(results, sys.stdout)
