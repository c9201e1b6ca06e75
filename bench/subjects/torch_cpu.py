"""A subject: PyTorch on the CPU, float32, in inference mode.

Attention of a differential layer in four forms, each on contiguous tensors made beforehand with the two maps' q and k heads apart.
Not here: pairings other than one k head for each q head, windows and decode steps, for which no kernel of PyTorch's is meant.
"""

import base64
import math
import os
import platform
import time

from subject import serve

import numpy as np
import torch
import torch.nn.functional as F

LAMBDA = 0.35
EPS = 1e-5
GIB = 1 << 30


def fill(shape, t):
    """Tensor number `t` of the inputs."""
    x = np.arange(math.prod(shape), dtype=np.uint32)
    x += np.uint32(t * 0x9E3779B9 & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    values = (x >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return torch.from_numpy(values.reshape(shape))


def attention_inputs(case):
    q, k, v = (fill(case[name], t) for t, name in enumerate("qkv"))
    return [x[:, n::2].contiguous() for x in (q, k) for n in (0, 1)] + [v]


def sdpa_four(case):
    """Four calls, v split in two: every call's v is as wide as its q, as the fused kernel wants it."""
    q0, q1, k0, k1, v = attention_inputs(case)
    halves = [half.contiguous() for half in v.chunk(2, dim=-1)]
    causal = case["causal"]

    def call():
        parts = [
            F.scaled_dot_product_attention(q0, k0, half, is_causal=causal)
            - LAMBDA * F.scaled_dot_product_attention(q1, k1, half, is_causal=causal)
            for half in halves
        ]
        return torch.cat(parts, dim=-1)

    return call


def sdpa_two(case):
    """Two calls, v as it is; where it is wider than q, PyTorch falls back to plain matrices."""
    need_maps(case, 3)
    q0, q1, k0, k1, v = attention_inputs(case)
    causal = case["causal"]

    def call():
        first = F.scaled_dot_product_attention(q0, k0, v, is_causal=causal)
        return first - LAMBDA * F.scaled_dot_product_attention(q1, k1, v, is_causal=causal)

    return call


def need_maps(case, count):
    """A machine without memory for `count` score maps of all heads would end the process, or others."""
    needed = count * case["q"][0] * case["q"][1] // 2 * case["q"][2] * case["k"][2] * 4
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if needed > 0.8 * there:
        raise MemoryError(f"its score maps need about {needed / GIB:.0f} GiB, this machine has {there / GIB:.0f} GiB")


def mask_of(case):
    rows, columns = case["q"][2], case["k"][2]
    return torch.full((rows, columns), -math.inf if case["causal"] else 0.0).triu(1 + columns - rows)


def heads_of(case):
    """Head by head, so that the matrices of one head are reused by the next: as fast at 512 tokens, four times so at 4096."""
    need_maps(case, 4 / case["out"][1])
    return list(zip(*(x.flatten(0, 1).unbind() for x in attention_inputs(case))))


def plain(case):
    """Both maps as matrices, scaled and masked by the product itself, their difference in place, and one product with v."""
    heads, mask, scale = heads_of(case), mask_of(case), case["q"][3] ** -0.5

    def difference(q0, q1, k0, k1, v):
        first = torch.softmax(torch.addmm(mask, q0, k0.T, alpha=scale), dim=-1)
        second = torch.softmax(torch.addmm(mask, q1, k1.T, alpha=scale), dim=-1)
        return first.sub_(second, alpha=LAMBDA) @ v

    return lambda: torch.stack([difference(*head) for head in heads]).view(case["out"])


def compiled(case):
    """The same written down plainly: the compiler joins scale, mask and softmax itself."""
    heads, mask, scale = heads_of(case), mask_of(case), case["q"][3] ** -0.5

    @torch.compile(dynamic=False, fullgraph=True)
    def difference(q0, q1, k0, k1, v):
        first = torch.softmax(q0 @ k0.T * scale + mask, dim=-1)
        second = torch.softmax(q1 @ k1.T * scale + mask, dim=-1)
        return (first - LAMBDA * second) @ v

    return lambda: torch.stack([difference(*head) for head in heads]).view(case["out"])


def group_norm(case):
    x, channels = fill(case["x"], 0), case["x"][1:2]
    weight, bias = fill(channels, 1), fill(channels, 2)
    return lambda: F.group_norm(x, case["groups"], weight, bias, EPS)


def rms_norm(case):
    x, width = fill(case["x"], 0), case["x"][-1:]
    weight = fill(width, 1)
    return lambda: F.rms_norm(x, width, weight, EPS)


def compiled_of(form):
    return lambda case: torch.compile(form(case), dynamic=False)


VARIANTS = {
    "attention": {"sdpa-four": sdpa_four, "sdpa-two": sdpa_two, "plain": plain, "compiled": compiled},
    "group_norm": {"group-norm": group_norm, "compiled": compiled_of(group_norm)},
    "rms_norm": {"rms-norm": rms_norm, "compiled": compiled_of(rms_norm)},
}


def variants_of(case):
    if case["op"] == "attention" and (case["pairing"] != "interleaved" or case["q"][1] != case["k"][1] or "window" in case):
        return {}
    return VARIANTS.get(case["op"], {})


class Subject:
    def __init__(self):
        self.call = self.result = None

    def info(self, _):
        version = torch.__version__
        notes = [
            f"CPU capability {torch.backends.cpu.get_cpu_capability()}",
            "the two maps' q and k heads are given apart; making these inputs is not timed",
        ]
        return {"name": "PyTorch CPU", "version": version, "runtime": f"Python {platform.python_version()}", "notes": notes}

    def variants(self, request):
        return {"variants": list(variants_of(request["case"]))}

    def load(self, request):
        self.call = self.result = None
        torch.set_num_threads(request.get("threads", 1))
        call = variants_of(request["case"])[request["variant"]](request["case"])
        # Twice: the allocator still grows in the second.
        for _ in range(2):
            self.result = call()
        self.call = call
        return {}

    def run(self, _):
        if self.call is None:
            raise RuntimeError("nothing is loaded")
        once = self.spent(1)
        # A call shorter than a millisecond is only the warm-up: then as many as fill 5 ms are timed together.
        return {"seconds": once if once >= 1e-3 else self.spent(min(10_000, math.ceil(5e-3 / max(once, 5e-7))))}

    def spent(self, times):
        start = time.perf_counter()
        for _ in range(times):
            self.result = self.call()
        return (time.perf_counter() - start) / times

    def answer(self, request):
        values = self.result.contiguous().reshape(-1)[torch.tensor(request["at"], dtype=torch.int64)].numpy()
        return {"values": base64.b64encode(values.astype("<f4").tobytes()).decode()}


serve(Subject())
