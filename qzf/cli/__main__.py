"""``python -m qzf.cli``, for where the ``qzf`` script is not on the path."""

from __future__ import annotations

from qzf.cli import main

if __name__ == "__main__":
    main()
