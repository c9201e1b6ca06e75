"""A subject: Hugging Face transformers on PyTorch's CPU kernels: decoding, and prompts at once, in inference mode; steps of training, with PEFT's adapters, too.

Decoding is the loop that `generate` runs, without what else it does for each token: one token, the cache of the ones before, the highest
logit. A step of training is forward, backward, clipping and AdamW (PyTorch's fused one, its fastest) over one batch, at a learning rate of 0:
all of its work, and the answer of the first. Reading the checkpoint is not timed.
"""

import base64
import os
import platform
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from subject import serve  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def hashed(count, vocabulary):
    """Ids of a prompt that is only long: those of bench/subjects/model.mjs."""
    x = np.arange(count, dtype=np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return (x % np.uint32(vocabulary)).astype(np.int64).tolist()


def adapted(model, place):
    """The model with the adapter that lies there, which alone moves, in the model's type."""
    import peft

    return peft.PeftModel.from_pretrained(model, place, is_trainable=True).to(model.dtype)


class Subject:
    def __init__(self):
        self.model = self.case = self.result = self.key = None

    def info(self, _):
        notes = [f"PyTorch {torch.__version__}", "float32 variants hold bfloat16 weights as float32"]
        return {"name": "transformers", "version": transformers.__version__, "runtime": f"Python {platform.python_version()}", "notes": notes}

    def variants(self, request):
        if request["case"]["op"] not in ("model_decode", "model_prefill", "model_train"):
            return {"variants": []}
        if request["case"]["op"] == "model_train":
            return {"variants": ["float32-eager", "float32-sdpa"]}
        dtypes = ["float32", "bfloat16"] if request["case"]["dtype"] == "BF16" else ["float32"]
        return {"variants": [f"{dtype}-{attention}" for dtype in dtypes for attention in ("eager", "sdpa")]}

    def load(self, request):
        case = request["case"]
        training = case["op"] == "model_train"
        torch.set_num_threads(request.get("threads", 1))
        dtype, attention = request["variant"].split("-")
        key = (request["place"], dtype, attention, training, bool(case.get("adapter")))
        if self.key != key:
            self.model = self.optimizer = None
            # (Weights that were made in inference mode have no gradients.)
            with torch.inference_mode(not training):
                self.model = transformers.AutoModelForCausalLM.from_pretrained(
                    request["place"], dtype=DTYPES[dtype], attn_implementation=attention
                ).eval()
                if case.get("adapter"):
                    self.model = adapted(self.model, os.path.join(request["place"], "adapter"))
            self.key = key
        self.case = case
        if training:
            self.prepare_training()
        self.run(request)
        return {}

    def prepare_training(self):
        with torch.inference_mode(False):
            self.model.train()
            moving = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self.optimizer = torch.optim.AdamW(moving, lr=0.0, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
            rows, length = self.case["rows"], self.case["length"]
            self.batch = torch.tensor(hashed(rows * length, self.model.config.vocab_size)).view(rows, length)

    def prompt(self):
        prompt = self.case["prompt"]
        return torch.tensor([hashed(prompt, self.model.config.vocab_size) if isinstance(prompt, int) else prompt])

    def run(self, _):
        runs = {"model_decode": self.decode, "model_prefill": self.prefill, "model_train": self.step}
        return {"seconds": runs[self.case["op"]]()}

    def step(self):
        with torch.inference_mode(False), torch.enable_grad():
            start = time.perf_counter()
            loss = self.model(self.batch, labels=self.batch, use_cache=False).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - start
            self.result = [loss.item(), norm.item()]
        return seconds

    def decode(self):
        ids, cache, made = self.prompt(), None, []
        start = None
        for _ in range(self.case["tokens"]):
            output = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            ids = output.logits[:, -1:].argmax(-1)
            made.append(ids.item())
            start = start or time.perf_counter()
        seconds = (time.perf_counter() - start) / (len(made) - 1)
        self.result = made
        return seconds

    def prefill(self):
        ids = self.prompt()
        start = time.perf_counter()
        output = self.model(ids, use_cache=True, logits_to_keep=1)
        seconds = time.perf_counter() - start
        self.result = output.logits[0, -1].float()
        return seconds

    def answer(self, request):
        values = np.asarray(self.result, dtype="<f4")[request["at"]]
        return {"values": base64.b64encode(values.tobytes()).decode()}


serve(Subject())
