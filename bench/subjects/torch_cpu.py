"""A subject: PyTorch on the CPU, float32, in inference mode.

Attention of a differential layer in four forms, each on contiguous tensors made beforehand with the two maps' q and k heads apart.
Of gradients only the backward pass is timed, over what one forward pass kept: maps, or what a fused kernel or a norm needs of them.
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
import torch._functorch.config
import torch.nn.functional as F

# A backward pass runs many times over one forward pass, whose tensors must not be given away by the first.
torch._functorch.config.donated_buffer = False

LAMBDA = 0.35
EPS = 1e-5
# The number of the tensor that is the gradient of a result.
DY = 3
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
    both = halves(v)
    causal = case["causal"]

    def call():
        parts = [
            F.scaled_dot_product_attention(q0, k0, half, is_causal=causal)
            - LAMBDA * F.scaled_dot_product_attention(q1, k1, half, is_causal=causal)
            for half in both
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


def norm_inputs(case):
    """x as PyTorch has it, channels second wherever they lie in memory, weight and bias."""
    x = fill(case["x"], 0)
    x = x.movedim(-1, 1) if case.get("layout") == "nhwc" else x
    return [x] + [fill(x.shape[1:2], t) for t in (1, 2)]


def group_form(case):
    groups, silu = case["groups"], case.get("activation") == "silu"

    def form(x, weight, bias):
        y = F.group_norm(x, groups, weight, bias, EPS)
        return F.silu(y) if silu else y

    return form


def group_norm(case):
    form, inputs = group_form(case), norm_inputs(case)
    return lambda: form(*inputs)


def rms_form(case):
    return lambda x, weight: F.rms_norm(x, case["x"][-1:], weight, EPS)


def rms_inputs(case):
    return [fill(case["x"], 0), fill(case["x"][-1:], 1)]


def rms_norm(case):
    form, inputs = rms_form(case), rms_inputs(case)
    return lambda: form(*inputs)


def compiled_of(form):
    return lambda case: torch.compile(form(case), dynamic=False)


def backward(form, inputs, dy, named):
    """The backward pass of a form for the gradient of its result, or of each of its results: `named` makes results by name of the inputs'."""
    with torch.inference_mode(False), torch.enable_grad():
        # What was made in inference mode has no gradients.
        leaves = [x.clone().requires_grad_() for x in inputs]
        dy = [x.clone() for x in dy] if isinstance(dy, (list, tuple)) else dy.clone()
        y = form(*leaves)

    def call():
        with torch.inference_mode(False):
            return named(torch.autograd.grad(y, leaves, dy, retain_graph=True))

    return call


def group_norm_backward(compiles):
    def of(case):
        inputs, dy, last = norm_inputs(case), fill(case["x"], DY), case.get("layout") == "nhwc"

        def named(gradients):
            dx, dweight, dbias = gradients
            return {"dx": dx.movedim(1, -1) if last else dx, "dweight": dweight, "dbias": dbias}

        form = group_form(case)
        return backward(torch.compile(form, dynamic=False) if compiles else form, inputs, dy.movedim(-1, 1) if last else dy, named)

    return of


def rms_norm_backward(compiles):
    def of(case):
        form = rms_form(case)
        form = torch.compile(form, dynamic=False) if compiles else form
        return backward(form, rms_inputs(case), fill(case["x"], DY), lambda gradients: dict(zip(("dx", "dweight"), gradients)))

    return of


def interleaved(first, second):
    """The two maps' heads back in turn."""
    return torch.stack([first, second], dim=2).flatten(1, 2)


def attention_named(gradients):
    dq0, dq1, dk0, dk1, *dv = gradients
    return {"dq": interleaved(dq0, dq1), "dk": interleaved(dk0, dk1), "dv": torch.cat(dv, dim=-1)}


def later(named):
    """Results that are put together only where they are asked for: no part of a pass."""
    return lambda gradients: lambda: named(gradients)


def attention_backward(form_of):
    return lambda case: backward(form_of(case), attention_inputs(case), fill(case["out"], DY), later(attention_named))


def halves(x):
    return [half.contiguous() for half in x.chunk(2, dim=-1)]


def sdpa_four_backward(case):
    """v, the result and its gradient in halves, made beforehand."""
    causal = case["causal"]
    *maps, v = attention_inputs(case)

    def form(q0, q1, k0, k1, *parts):
        return [
            F.scaled_dot_product_attention(q0, k0, part, is_causal=causal)
            - LAMBDA * F.scaled_dot_product_attention(q1, k1, part, is_causal=causal)
            for part in parts
        ]

    return backward(form, maps + halves(v), halves(fill(case["out"], DY)), later(attention_named))


def sdpa_two_form(case):
    need_maps(case, 6)
    causal = case["causal"]

    def form(q0, q1, k0, k1, v):
        first = F.scaled_dot_product_attention(q0, k0, v, is_causal=causal)
        return first - LAMBDA * F.scaled_dot_product_attention(q1, k1, v, is_causal=causal)

    return form


def by_heads(case, difference):
    """Head by head; a pass keeps the maps of all of them."""
    need_maps(case, 6)

    def form(*inputs):
        heads = zip(*(x.flatten(0, 1).unbind() for x in inputs))
        return torch.stack([difference(*head) for head in heads]).view(case["out"])

    return form


def plain_form(case):
    mask, scale = mask_of(case).clone(), case["q"][3] ** -0.5

    def difference(q0, q1, k0, k1, v):
        first = torch.softmax(torch.addmm(mask, q0, k0.T, alpha=scale), dim=-1)
        second = torch.softmax(torch.addmm(mask, q1, k1.T, alpha=scale), dim=-1)
        return torch.sub(first, second, alpha=LAMBDA) @ v

    return by_heads(case, difference)


def compiled_form(case):
    mask, scale = mask_of(case).clone(), case["q"][3] ** -0.5

    @torch.compile(dynamic=False, fullgraph=True)
    def difference(q0, q1, k0, k1, v):
        first = torch.softmax(q0 @ k0.T * scale + mask, dim=-1)
        second = torch.softmax(q1 @ k1.T * scale + mask, dim=-1)
        return (first - LAMBDA * second) @ v

    return by_heads(case, difference)


VARIANTS = {
    "attention": {"sdpa-four": sdpa_four, "sdpa-two": sdpa_two, "plain": plain, "compiled": compiled},
    "group_norm": {"group-norm": group_norm, "compiled": compiled_of(group_norm)},
    "rms_norm": {"rms-norm": rms_norm, "compiled": compiled_of(rms_norm)},
    "attention_backward": {
        "sdpa-four": sdpa_four_backward,
        "sdpa-two": attention_backward(sdpa_two_form),
        "plain": attention_backward(plain_form),
        "compiled": attention_backward(compiled_form),
    },
    "group_norm_backward": {"group-norm": group_norm_backward(False), "compiled": group_norm_backward(True)},
    "rms_norm_backward": {"rms-norm": rms_norm_backward(False), "compiled": rms_norm_backward(True)},
}


def variants_of(case):
    if case["op"].startswith("attention") and (case["pairing"] != "interleaved" or case["q"][1] != case["k"][1] or "window" in case):
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
        result = self.result() if callable(self.result) else self.result
        result = result[request["of"]] if "of" in request else result
        values = result.contiguous().reshape(-1)[torch.tensor(request["at"], dtype=torch.int64)].numpy()
        return {"values": base64.b64encode(values.astype("<f4").tobytes()).decode()}


serve(Subject())
