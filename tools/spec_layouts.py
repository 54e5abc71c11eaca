"""Generate the table of layouts in ``spec/qzf-format.md`` (section 4.3) from ``qzf/transforms/layouts.py``.

Usage: ``python tools/spec_layouts.py`` writes the table between its markers; ``--check`` compares instead and
fails if they differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # run as a script: make `qzf` importable
    sys.path.insert(0, str(ROOT))

from qzf.transforms.layouts import BY_ID, Codes, Copy, MaskCodes, Planes, Step  # noqa: E402

SPEC = ROOT / "spec" / "qzf-format.md"
BEGIN, END = "<!-- layouts:begin -->\n", "<!-- layouts:end -->\n"


def notation(step: Step) -> str:
    """A step as section 4.3 writes it."""
    match step:
        case Copy(offset, width):
            return f"copy({offset}, {width})"
        case Planes(size, rotate):
            return f"rplanes({size})" if rotate else f"planes({size})"
        case Codes(lanes, low_bits, high_bits, planes):
            return f"codes({lanes}, {low_bits}, {high_bits}, {', '.join(map(str, planes))})"
        case MaskCodes(lanes, low_bits, planes):
            return f"maskcodes({lanes}, {low_bits}, {', '.join(map(str, planes))})"


def table() -> str:
    """The Markdown table of all layouts, by wire id."""
    rows = ["| id | name | block | steps |", "|---|---|---|---|"]
    rows += [
        f"| {wire_id} | `{layout.name}` | {layout.block} | {', '.join(map(notation, layout.steps))} |"
        for wire_id, layout in sorted(BY_ID.items())
    ]
    return "\n".join(rows) + "\n"


def updated(text: str) -> str:
    """The specification's ``text`` with the table brought up to date."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{SPEC.name} lacks the markers of the layouts table")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args(arguments)
    old = SPEC.read_text(encoding="utf-8")
    new = updated(old)
    if options.check:
        if new != old:
            print("the layouts table is out of date: run python tools/spec_layouts.py", file=sys.stderr)
        return int(new != old)
    SPEC.write_text(new, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
