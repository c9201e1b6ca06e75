"""What the subjects in Python share: replies line by line, and memory that is kept. To be imported before anything that prints or allocates.
Knows no library that is measured but PyTorch's inference mode.
"""

import ctypes
import json
import os
import platform
import sys

# Replies go to the real standard output; what a library prints goes to standard error.
replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

# Memory that is given back must be cleared by the kernel at every call: kept, plain matrices are up to three times as fast.
# PyTorch's tuning guide asks for another allocator to the same end; glibc can do it too.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
    ctypes.CDLL(None).mallopt(M_MMAP_MAX, 0)
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)

import torch  # noqa: E402


def serve(subject):
    """Answers requests until standard input ends."""
    handlers = {"info": subject.info, "variants": subject.variants, "load": subject.load, "run": subject.run, "answer": subject.answer}
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            if request.get("do") not in handlers:
                raise ValueError(f"no answer to {request.get('do')!r}")
            with torch.inference_mode():
                reply = handlers[request["do"]](request)
        except Exception as error:  # whatever goes wrong is the reply
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        replies.write(json.dumps(reply) + "\n")
