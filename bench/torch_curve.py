"""Trains transformers' DiffLlama by PyTorch as torch-curve.mjs says, and prints of each step what it was told: `{"loss", "lr", "gradNorm"}`.

    torch_curve.py MODEL TOKENS OPTIONS      a folder, a file of tokens, JSON

Order of the windows, the schedule and which weights decay are written down here again, from their descriptions: a Feistel network over the number
of a window, a line up and half a cosine down, tensors of two axes. Not here: documents within windows, measuring, checkpoints.
"""

import json
import math
import struct
import sys

import numpy as np
import torch
import transformers

MASK = (1 << 64) - 1


def mixed(x):
    """The finaliser of splitmix64."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def window_of(index, count, seed, epoch):
    """Where number `index` of `count` goes: four rounds over the least even number of bits, again until it lies below count."""
    half = max(1, -(-(count - 1).bit_length() // 2))
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for number in range(4):
            key = (seed + mixed(epoch ^ (number << 56))) & MASK
            left, right = right, left ^ (mixed(right ^ key) & low)
        index = left << half | right
        if index < count:
            return index


def read_tokens(path):
    with open(path, "rb") as file:
        magic, version, width, _, tokens, _ = struct.unpack("<4sIIIQQ", file.read(32))
        assert magic == b"DATK" and version == 1, "a file of tokens"
        return np.frombuffer(file.read(width * tokens), dtype={2: "<u2", 4: "<u4"}[width]).astype(np.int64)


def rate(options, step):
    warmup, steps = options["warmup"], options["steps"]
    if step <= warmup:
        return options["lr"] * step / max(warmup, 1)
    share = min((step - warmup) / max(steps - warmup, 1), 1.0)
    left = 0.5 * (1.0 + math.cos(math.pi * share))
    return options["lr"] * (options["final"] + (1.0 - options["final"]) * left)


transformers.utils.logging.disable_progress_bar()


def main(place, tokens, options):
    ids = read_tokens(tokens)
    context, batch = options["context"], options["batch"]
    windows = len(ids) // context
    model = transformers.DiffLlamaForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="sdpa").train()
    parameters = list(model.parameters())
    groups = [
        {"params": [one for one in parameters if one.dim() >= 2], "weight_decay": options["weightDecay"]},
        {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=tuple(options["betas"]), eps=options["eps"], fused=True)
    for step in range(1, options["steps"] + 1):
        rows = []
        for number in range((step - 1) * batch, step * batch):
            window = window_of(number % windows, windows, options["seed"], number // windows)
            rows.append(ids[window * context : (window + 1) * context])
        inputs = torch.from_numpy(np.stack(rows))
        loss = model(inputs, labels=inputs, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, options["maxGradNorm"])
        for group in optimizer.param_groups:
            group["lr"] = rate(options, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(json.dumps({"loss": loss.item(), "lr": rate(options, step), "gradNorm": norm.item()}), flush=True)


main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
