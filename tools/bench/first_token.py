"""Load a model with llama.cpp and print the first token: ``first_token.py PATH``.

A path that ends in ``.qzf`` is loaded by ``qzf.llama_cpp``.
"""

from __future__ import annotations

import sys
from typing import Any

OPTIONS: dict[str, Any] = {"n_ctx": 64, "n_batch": 16, "n_threads": 2, "seed": 1, "verbose": False}


def main(path: str) -> int:
    """Print the most likely token after a fixed prompt."""
    if path.endswith(".qzf"):
        import qzf.llama_cpp

        model = qzf.llama_cpp.load(path, **OPTIONS)
    else:
        import llama_cpp

        model = llama_cpp.Llama(path, **OPTIONS)
    print(repr(model("The capital of France is", max_tokens=1, temperature=0)["choices"][0]["text"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
