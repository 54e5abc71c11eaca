"""The tables of ``spec/qzf-format.md`` say what the code does: structs, ids, layouts and limits."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sys
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qzf import limits
from qzf.errors import QzfError
from qzf.format import ids, structs, tables, wire
from qzf.transforms import fields, layouts, modeled
from qzf.transforms.modeled import SCHEMAS, SharedTable
from qzf.transforms.quant_table import QuantTable
from qzf.transforms.values_table import FORMS, Symbols, make_table
from tools import spec_layouts

SPEC = Path(__file__).resolve().parents[2] / "spec"
TEXT = (SPEC / "qzf-format.md").read_text(encoding="utf-8")
DECODER, MODELS = SPEC / "reference_decoder.py", SPEC / "reference_models.py"

Row = dict[str, str]


def _load_decoder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qzf_reference_decoder", DECODER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


REFERENCE = _load_decoder()


def _section(number: str) -> str:
    """The text under the heading that starts with ``number``, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(number)}\b[^\n]*$(.*?)(?=^#)", TEXT + "\n# end", re.M | re.S)
    assert found is not None, f"no section {number}"
    return found[1]


def _tables(number: str) -> list[list[Row]]:
    """All Markdown tables of a section, or of a page (its path): rows as {column: text without backticks}."""
    found = []
    text = (SPEC / number).read_text(encoding="utf-8") if number.endswith(".md") else _section(number)
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        head, _, *rows = [
            [cell.strip(" `") for cell in line.strip("|").split("|")] for line in block.splitlines()
        ]
        assert all(len(row) == len(head) for row in rows), f"ragged table in section {number}"
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def _table(number: str, *columns: str) -> list[Row]:
    """The only table of a section that starts with these columns."""
    found = [table for table in _tables(number) if tuple(table[0])[: len(columns)] == columns]
    assert len(found) == 1, f"{len(found)} tables in section {number} start with {columns}"
    return found[0]


Field = tuple[int, int, str]


def _spec_fields(rows: list[Row]) -> list[Field]:
    return [(int(row["offset"]), int(row["size"]), row["field"]) for row in rows]


def _struct_fields(struct: Any) -> list[Field]:
    found, at = [], 0
    for member in struct.subcons:
        found.append((at, member.sizeof(), member.name))
        at += member.sizeof()
    return found


def _dtype_fields(dtype: np.dtype[Any]) -> list[Field]:
    assert dtype.fields is not None and dtype.names is not None
    return [(dtype.fields[name][1], dtype.fields[name][0].itemsize, name) for name in dtype.names]


def _index_tables() -> list[list[Row]]:
    """Section 2.3: index head, chunk entry, section entry."""
    head, chunk, section = [table for table in _tables("2.3") if "offset" in table[0]]
    return [head, chunk, section]


# Structures


@pytest.mark.parametrize(
    ("rows", "struct"),
    [
        pytest.param(_table("2.1", "offset"), structs.HEADER, id="header"),
        pytest.param(_table("2.2", "offset"), structs.RECORD_HEADER, id="record"),
        pytest.param(_index_tables()[0], structs.INDEX_HEAD, id="index head"),
        pytest.param(_table("2.4", "offset"), structs.TRAILER, id="trailer"),
    ],
)
def test_struct_is_as_specified(rows: list[Row], struct: Any) -> None:
    assert _spec_fields(rows) == _struct_fields(struct)


def test_what_is_packed_and_parsed_is_what_is_declared() -> None:
    """The structures twice: as declared for construct, and as ``wire`` has them."""
    header = wire.Header(0x01020304, (1, 0x0506), 0)
    index = wire.IndexHead(1, 2 << 32, 3 << 32, 4 << 32, 5 << 24, (1, 0x0506), 0)
    trailer = wire.Trailer(1 << 40, 2 << 40, 3 << 40, bytes(range(32)))
    packed: list[tuple[Any, bytes, Any, Any]] = [
        (header, wire.pack_header(header), structs.HEADER, wire.parse_header),
        (index, wire.pack_index_head(index), structs.INDEX_HEAD, wire.parse_index_head),
        (trailer, wire.pack_trailer(trailer), structs.TRAILER, wire.parse_trailer),
    ]
    for value, data, struct, parse in packed:
        fields, expected = struct.parse(data), value._asdict()
        if "version" in expected:
            expected["version_major"], expected["version_minor"] = expected.pop("version")
        assert {name: fields[name] for name in expected} == expected
        assert parse(struct.build(fields)) == parse(data) == value
    record = wire.RecordHeader(
        1, 2, 3 << 8, 4 << 24, 5 << 24, 6 << 56, 7 << 56, 8 << 24, 9 << 24, 1 << 63, 2 << 62
    )
    declared = structs.RECORD_HEADER.parse(wire.pack_record_header(record))
    assert {name: declared[name] for name in record._fields} == record._asdict()
    assert wire.parse_record_header(structs.RECORD_HEADER.build(declared)) == record


def test_chunk_and_section_tables_are_as_specified() -> None:
    _, chunk, section = _index_tables()
    assert _spec_fields(chunk) == _dtype_fields(tables.CHUNKS.dtype)
    assert _spec_fields(section) == _dtype_fields(tables.SECTIONS.dtype)


def test_sizes_of_the_index_parts() -> None:
    parts = {row["part"]: row["size"] for row in _table("2.3", "part")}
    assert parts["index head"] == str(ids.INDEX_HEAD_SIZE)
    assert parts["chunk table"] == f"{tables.CHUNKS.size} x `chunk_count"
    assert parts["section table"] == f"{tables.SECTIONS.size} x `section_count"


def test_sizes_in_the_layout_of_the_file() -> None:
    outline = re.findall(r"^    (header|trailer) +(\d+) bytes", _section("2"), re.M)
    assert outline == [("header", str(ids.HEADER_SIZE)), ("trailer", str(ids.TRAILER_SIZE))]
    assert structs.HEADER.sizeof() == ids.HEADER_SIZE
    assert structs.RECORD_HEADER.sizeof() == ids.RECORD_HEADER_SIZE
    assert structs.INDEX_HEAD.sizeof() == ids.INDEX_HEAD_SIZE
    assert structs.TRAILER.sizeof() == ids.TRAILER_SIZE


@pytest.mark.parametrize(
    ("section", "column", "magic"),
    [
        ("2.1", "value", ids.FILE_MAGIC),
        ("2.2", "chunk", ids.RECORD_MAGIC),
        ("2.4", "value", ids.END_MAGIC),
    ],
)
def test_magic_is_as_specified(section: str, column: str, magic: bytes) -> None:
    (row,) = [row for row in _table(section, "offset") if row["field"] == "magic"]
    written = re.match(r"`?((?:[0-9A-F]{2} ?)+)", row[column])
    assert written is not None and bytes.fromhex(written[1]) == magic


# Ids


def test_record_kinds() -> None:
    (row,) = [row for row in _table("2.2", "offset") if row["field"] == "kind"]
    assert {kind.name.lower(): str(kind.value) for kind in ids.Kind} == {
        column: value for column, value in row.items() if column not in ("offset", "size", "field")
    }
    optional = re.search(r"Kinds (\d+) to 255 are \*optional", _section("2.2"))
    assert optional is not None and int(optional[1]) == ids.OPTIONAL_KIND


@pytest.mark.parametrize(("section", "enum"), [("4.1", ids.Transform), ("5", ids.Codec)])
def test_ids_are_as_specified(section: str, enum: type[IntEnum]) -> None:
    rows = _table(section, "id", "name")
    assert {int(row["id"]): row["name"] for row in rows} == {item.value: item.name.lower() for item in enum}


def test_what_has_no_decoded_size() -> None:
    rows = {row["field"]: row for row in _table("2.2", "offset")}
    assert (rows["decoded_size"]["index"], rows["decoded_xxh3"]["index"]) == ("reserved", "= `stored_xxh3")
    section = {row["field"]: row["value"] for row in _index_tables()[2]}
    assert section["decoded_size"].endswith("reserved in optional sections")
    assert section["decoded_xxh3"].endswith("= `stored_xxh3` in optional sections")
    size = (1 << 32) * tables.CHUNKS.size >> 30
    assert f"an index of 2^32 chunks has {size} GiB" in " ".join(_section("2.2").split())


def test_each_codec_has_its_page() -> None:
    listed = {}
    for row in _table("5", "id", "name"):
        page = f"codecs/{int(row['id']):02}-{row['name']}.md"
        assert row["page"] == f"[{page}]({page})"
        listed[SPEC / page] = f"# Codec {row['id']}: {row['name']}"
    assert set(listed) == set((SPEC / "codecs").glob("*.md"))
    for path, title in listed.items():
        assert path.read_text(encoding="utf-8").splitlines()[0] == title


def test_no_tensor_and_no_table() -> None:
    assert f"`{ids.NO_TENSOR:08X}`" in _section("2.2")
    (row,) = [row for row in _table("4.2", "offset") if row["field"] == "table"]
    assert f"or {ids.NO_TABLE} for none" in row["value"]


def test_version() -> None:
    major, minor = ids.VERSION
    assert f"Format version **{major}.{minor}**" in TEXT
    assert f"\n- {major}.{minor}: " in _section("Changes")
    values = {row["field"]: row["value"] for row in _table("2.1", "offset")}
    assert (values["version_major"], values["version_minor"]) == (str(major), str(minor))


# Layouts


def test_layouts_table_is_up_to_date() -> None:
    assert spec_layouts.updated(TEXT) == TEXT


def test_layouts_are_as_specified() -> None:
    found = {int(row["id"]): (row["name"], int(row["block"]), row["steps"]) for row in _table("4.3", "id")}
    assert found == {
        wire_id: (layout.name, layout.block, ", ".join(map(spec_layouts.notation, layout.steps)))
        for wire_id, layout in layouts.BY_ID.items()
    }


def test_reference_decoder_has_the_same_layouts() -> None:
    """The decoder reads the table of the text; the widths of its streams show that it reads it right."""
    assert {
        wire_id: (layout.name, layout.block, [len(stream) for stream in layout.streams])
        for wire_id, layout in REFERENCE.LAYOUTS.items()
    } == {
        wire_id: (layout.name, layout.block, list(layout.widths)) for wire_id, layout in layouts.BY_ID.items()
    }


@pytest.mark.parametrize("layout", layouts.BY_ID.values(), ids=lambda layout: layout.name)
def test_reference_decoder_joins_what_the_transform_splits(layout: layouts.Layout) -> None:
    data = random.Random(layout.wire_id).randbytes(5 * layout.block)
    streams = [bytes(stream) for stream in fields.split(layout, data)]
    assert REFERENCE.join(REFERENCE.LAYOUTS[layout.wire_id], len(data), streams) == data


# Models


def test_types_of_quant_are_as_specified() -> None:
    columns = (
        "block",
        "codes",
        "elements",
        "bits",
        "low",
        "numbers",
        "scales",
        "minima",
        "extrema",
        "alphabet",
    )
    rows = _table("4.4", "name", "block")
    assert [(row["name"], *(int(row[column]) for column in columns)) for row in rows] == [
        tuple(schema) for schema in SCHEMAS.values()
    ]
    assert set(SCHEMAS) <= set(layouts.BY_NAME)
    assert all(layouts.BY_NAME[name].block == schema.size for name, schema in SCHEMAS.items())
    kinds = {row["logarithm"] for row in rows}
    assert {row["logarithm"] for row in _table("4.4", "logarithm")} == kinds


def test_reference_decoder_has_the_same_types() -> None:
    assert [tuple(kind)[:11] for kind in REFERENCE.models.TYPES.values()] == [
        tuple(schema) for schema in SCHEMAS.values()
    ]


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_bit_of_a_block_has_its_place(name: str) -> None:
    """It is that of a number, or put there by exactly one step; and each bit of a code goes somewhere."""
    kind = REFERENCE.models.TYPES[name]
    seen = [8 * byte + bit for at in kind.number_places for byte in (at, at + 1) for bit in range(8)]
    places = [*kind.scale_places, *kind.minimum_places, *kind.code_places]
    seen += [8 * byte + shift + bit for _, _, width, byte, shift in places for bit in range(width)]
    assert sorted(seen) == list(range(8 * kind.block))
    of_codes = [(item, low + bit) for item, low, width, _, _ in kind.code_places for bit in range(width)]
    assert sorted(of_codes) == [(code, bit) for code in range(kind.codes) for bit in range(kind.bits)]
    for count, items in ((kind.scales, kind.scale_places), (kind.minima, kind.minimum_places)):
        assert {item for item, *_ in items} == set(range(count))


def test_streams_of_models_are_as_specified() -> None:
    rows = _table("4.4", "stream")
    streams = [(int(ids.Codec[row["codec"].upper()]), int(row["table"])) for row in rows]
    assert streams == modeled._QUANT_STREAMS
    rows = _table("4.5", "stream")
    assert len(rows) == modeled._VALUES_STREAMS
    assert [row["codec"].replace("`", "") for row in rows] == [
        "rans" if row["stream"] == "symbols" else "raw or zstd" for row in rows
    ]


def test_forms_of_values_are_as_specified() -> None:
    rows = {int(row["form"]): row for row in _table("4.5", "form")}
    widths = {name: layouts.BY_NAME[name].block for name in modeled._VALUES_WIDTH}
    assert widths == modeled._VALUES_WIDTH == REFERENCE.models.VALUES_WIDTH
    for form in FORMS.values():
        row = rows[form.wire_id]
        assert (int(row["bits of a key"]), widths[row["layout"]]) == (form.key_bits, form.width)
        assert layouts.BY_NAME[row["layout"]].wire_id == form.layout
        assert int(row["raw bits"]) == 8 * form.width - form.key_bits
        assert REFERENCE.models.ValuesTable.FORMS[form.wire_id] == (form.width, form.key_bits)
    assert {form.wire_id for form in FORMS.values()} == set(rows)


def _quant_table(keys: int = 1, classes: int = 1, contexts: int = 1) -> bytes:
    """For Q4_0, with even frequencies."""
    table = QuantTable.plan(SCHEMAS["Q4_0"], False, b"\1\0\2\0", b"", classes)
    table.residual_keys, table.ratio_keys = bytes(64), bytes([keys - 1]) * 128
    table.contexts = contexts
    return table.dump()


def _values_table(contexts: int = 1, symbols: Symbols | None = None) -> bytes:
    form = FORMS["I8"]
    content = make_table(form, symbols or Symbols(0, 256, ()), b"\1\0" * 256, 1)
    return content[:6] + bytes([contexts]) + content[7:8] + content[8:] * contexts


def test_size_of_the_quant_table_is_as_specified() -> None:
    rows = _table("tables/01-quant.md", "offset")
    at = 0
    for row in rows:
        if not row["offset"]:
            break
        assert int(row["offset"]) == at
        at += int(row["size"]) if row["size"].isdigit() else 0
    assert [row["size"] for row in rows[-4:]] == ["2 x V0", "2 x V1", "512 x X", "A x K x C"]
    assert len(_quant_table(keys=3, classes=2, contexts=4)) == at + 512 * 4 + 16 * 3 * 2


def _accepted(make: Any) -> bool:
    try:
        make()
    except QzfError:
        return False
    return True


def test_limits_of_models() -> None:
    """As the pages and section 6 say, and as both decoders hold to."""
    text = " ".join(_section("6").split())
    keys, classes, contexts, values_contexts, sorted_ = (
        int(count.replace(",", ""))
        for pattern in (
            r"at most (\d+) keys, (\d+) column classes and (\d+) contexts",
            r"(\d+) contexts in one of kind 2",
            r"([\d,]+) keys times columns",
        )
        for count in re.findall(pattern, text)[0:1]
        for count in (count if isinstance(count, tuple) else (count,))
    )
    models = REFERENCE.models
    assert (keys, classes, contexts) == (models.MAX_KEYS, models.MAX_COLUMN_CLASSES, models.MAX_CONTEXTS)
    assert (values_contexts, sorted_) == (models.MAX_VALUES_CONTEXTS, models.MAX_SORTED)
    fields_ = {row["field"]: row["value"] for row in _table("tables/01-quant.md", "offset")}
    assert fields_["keys"] == f"K, 1 to {keys}"
    assert fields_["column_classes"] == f"C, 1 to {classes}"
    assert fields_["contexts"] == f"X, 1 to {contexts}"
    fields_ = {row["field"]: row["value"] for row in _table("tables/02-values.md", "offset")}
    assert fields_["contexts"] == f"X, 1 to {values_contexts}"
    assert f"at most {sorted_:,}" in (SPEC / "tables" / "03-columns.md").read_text(encoding="utf-8")

    for content, good in (
        (_quant_table(keys=keys), True),
        (_quant_table(contexts=contexts), True),
        (_quant_table(contexts=contexts + 1), False),
        (_quant_table(classes=classes), True),
        (_quant_table(classes=classes + 1), False),
    ):
        assert _accepted(lambda content=content: SharedTable(content).quant("Q4_0")) == good
    for contexts_ in (values_contexts, values_contexts + 1):
        content = _values_table(contexts_)
        good = contexts_ <= values_contexts
        assert _accepted(lambda content=content: SharedTable(content).values()) == good


# Limits

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def test_limits_on_sizes() -> None:
    text = " ".join(_section("6").split())
    found = re.findall(r"(\w+(?: or \w+)?) above (\d+) (\w+)", text)
    assert {what: int(count) * _UNITS[unit] for what, count, unit in found} == {
        "index": limits.MAX_INDEX,
        "catalog or manifest": limits.MAX_CATALOG,
        "table": limits.MAX_TABLE,
        "tables": limits.MAX_TABLES,
        "chunk": limits.MAX_CHUNK,
    }


def test_limits_on_counts() -> None:
    text = " ".join(_section("6").split())
    assert f"more than {limits.MAX_STREAMS} streams or tables" in text
    assert f"more than {limits.MAX_CATALOG_VALUES:,} of the characters `,`, `:`, `[` and `{{`" in text
    prelude = {row["field"]: row["value"] for row in _table("4.2", "size")}
    assert prelude["stream_count"] == f"S, 1 to {limits.MAX_STREAMS}"
    assert prelude["table_count"] == f"T, 0 to {limits.MAX_STREAMS}"


def test_limits_in_other_sections() -> None:
    assert f"must be 1 to {limits.MAX_CHUNK:,} ({limits.MAX_CHUNK >> 20} MiB)" in _section("4")
    table, manifest = limits.MAX_TABLE >> 20, limits.MAX_CATALOG >> 20
    records = " ".join(_section("4.1").split())
    assert f"1 to {table} MiB for a table and 1 to {manifest} MiB for a manifest" in records
    assert f"must not be above {limits.MAX_TABLES >> 20} MiB" in records
    assert f"within more than {limits.MAX_METADATA_DEPTH} objects and arrays" in _section("3.3")
    assert f"at most {limits.MAX_PATH} bytes" in _section("3.1")
    assert f"1 to {limits.MAX_PATH_COMPONENT} bytes" in _section("3.1")
    assert f"string above {limits.METADATA_MAX_STRING >> 10} KiB" in _section("3.3")
    assert f"array above {limits.METADATA_MAX_ARRAY} items" in _section("3.3")
    assert f"the last {limits.TAIL_READ >> 10} KiB" in _section("2")


def test_reference_decoder_has_the_same_limits() -> None:
    assert REFERENCE.MAX_INDEX == limits.MAX_INDEX
    assert REFERENCE.MAX_JSON == limits.MAX_CATALOG
    assert REFERENCE.MAX_JSON_MARKS == limits.MAX_CATALOG_VALUES
    assert REFERENCE.MAX_TABLE == limits.MAX_TABLE
    assert REFERENCE.MAX_TABLES == limits.MAX_TABLES
    assert REFERENCE.MAX_CHUNK == limits.MAX_CHUNK
    assert REFERENCE.MAX_STREAMS == limits.MAX_STREAMS


def test_reference_decoder_limits_nesting() -> None:
    value: Any = 1
    for _ in range(limits.MAX_METADATA_DEPTH):
        value = [value]
    REFERENCE.check_nesting(value)
    with pytest.raises(REFERENCE.Invalid, match="nested deeper"):
        REFERENCE.check_nesting({"a": value})


# The reference decoder is on its own


@pytest.mark.parametrize(
    ("path", "expected"),
    [(DECODER, {"xxhash", "zstandard", "reference_models"}), (MODELS, set())],
    ids=["decoder", "models"],
)
def test_reference_decoder_imports_nothing_of_qzf(path: Path, expected: set[str]) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                imported |= {name.name.partition(".")[0] for name in names}
            case ast.ImportFrom(module=module, level=level):
                assert level == 0, "a relative import"
                imported.add((module or "").partition(".")[0])
            case ast.Name(id="__import__" | "importlib" | "eval" | "exec"):
                raise AssertionError(f"line {node.lineno}: {node.id} could import anything")
    assert imported - sys.stdlib_module_names == expected
