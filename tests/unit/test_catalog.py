"""Catalog and manifest: JSON to dataclasses and back, member names. Broken ones are in fixtures/errors."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzf.container.catalog import (
    Catalog,
    MemberEntry,
    TensorEntry,
    dump_catalog,
    dump_manifest,
    parse_catalog,
    parse_manifest,
)
from qzf.container.names import check_names, name_fault
from qzf.errors import FormatError
from qzf.limits import MAX_CATALOG_VALUES, MAX_METADATA_DEPTH
from qzf.model import Extent, MemberSpec, PipelineSpec, TensorSpec

TENSOR = TensorEntry(
    "w", "Q4_K", (2, 256), 0, Extent(64, 288), 144, 1, 1, PipelineSpec("fields", "Q4_K", ("zstd",) * 6)
)
MEMBER = MemberEntry("a/b.gguf", "gguf", 400, "0" * 64, 0, 3, {"k": [1, -1.5, None, "\u6a21\U0001f600"]})
CATALOG = Catalog("test", 4096, "default", (MEMBER,), (TENSOR,))


def test_catalog_round_trip() -> None:
    assert parse_catalog(dump_catalog(CATALOG)) == CATALOG


def test_manifest_round_trip() -> None:
    spec = MemberSpec("a", "gguf", 9, (TensorSpec("w", "I8", (3,), Extent(2, 3), 3),), {"k": 2**64 - 1})
    assert parse_manifest(dump_manifest(spec)) == spec
    assert set(json.loads(dump_manifest(spec))) == {"name", "kind", "size", "metadata", "tensors"}


def test_unknown_keys_are_ignored() -> None:
    value = json.loads(dump_catalog(CATALOG)) | {"later": [{"x": {}}]}
    value["members"][0]["later"] = value["tensors"][0]["later"] = 1
    value["tensors"][0]["pipeline"]["later"] = None
    assert parse_catalog(json.dumps(value).encode()) == CATALOG


def test_schemes_are_optional() -> None:
    assert b"scheme" not in dump_catalog(CATALOG)
    named = CATALOG._replace(tensors=(TENSOR._replace(scheme="gptq-int4-g128"),))
    assert parse_catalog(dump_catalog(named)) == named
    spec = MemberSpec("a", "safetensors", 9, (TensorSpec("w", "I8", (3,), Extent(2, 3), 3, "int8-row"),))
    assert parse_manifest(dump_manifest(spec)) == spec


@pytest.mark.parametrize("other", [None, 1, 1.5, True, [], ["gptq"], {"gptq": 4}])
def test_a_scheme_that_is_no_text_counts_as_absent(other: object) -> None:
    value = json.loads(dump_catalog(CATALOG))
    value["tensors"][0]["scheme"] = other
    assert parse_catalog(json.dumps(value).encode()) == CATALOG


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b",
        "...a",
        ".hidden",
        "a b",
        "x" * 255,
        "\u6a21" * 85,
        "/".join(["x" * 255] * 16),
        "CON",
        "a..b",
    ],
)
def test_good_names(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "a\0",
        "a\n",
        "a\x7f",
        "C:a",
        "a:b",
        "a.",
        "a /b",
        "x" * 256,
        "\u6a21" * 86,
        "/".join(["x" * 255] * 16) + "/x",
        "\ud800",
    ],
)
def test_bad_names(name: str) -> None:
    assert name_fault(name)
    with pytest.raises(FormatError):
        check_names([name])


@pytest.mark.parametrize(
    "names",
    [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "b", "a/b"], ["a", "a-b", "a/b"], ["a/b", "a!", "a"]],
)
def test_names_that_clash(names: list[str]) -> None:
    with pytest.raises(FormatError):
        check_names(names)


PART = st.text(alphabet="ab!-", min_size=1, max_size=2)


@given(st.lists(st.lists(PART, min_size=1, max_size=3).map("/".join), max_size=6))
def test_names_clash_if_and_only_if_one_is_the_other_or_its_folder(names: list[str]) -> None:
    clash = any(
        i != j and (one == other or other.startswith(one + "/"))
        for i, one in enumerate(names)
        for j, other in enumerate(names)
    )
    if clash:
        with pytest.raises(FormatError):
            check_names(names)
    else:
        check_names(names)


def test_many_deep_names_cost_little() -> None:
    names = [f"{i}/" + "/".join("a" * 2000) for i in range(500)]
    tracemalloc.start()
    started = time.perf_counter()
    check_names(names)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - started < 5
    assert peak < 100e6


def test_metadata_depth() -> None:
    def nested(depth: int) -> bytes:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return dump_manifest(MemberSpec("a", "opaque", 0, (), {"k": value}))

    parse_manifest(nested(MAX_METADATA_DEPTH - 1))
    with pytest.raises(FormatError, match="nested"):
        parse_manifest(nested(MAX_METADATA_DEPTH + 1))
    with pytest.raises(FormatError, match="JSON"):
        parse_manifest(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}")


def test_number_of_values_is_bounded_before_parsing() -> None:
    bomb = b'{"x":[' + b"[]," * (MAX_CATALOG_VALUES // 2) + b"[]]}"
    tracemalloc.start()
    with pytest.raises(FormatError, match="above the limit"):
        parse_catalog(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize(("limit", "value"), [("MAX_CATALOG", 50), ("MAX_CATALOG_VALUES", 5)])
def test_limits_hold_for_writing_too(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(f"qzf.container.catalog.{limit}", value)
    with pytest.raises(FormatError, match="the catalog has"):
        dump_catalog(CATALOG)
    with pytest.raises(FormatError, match="the manifest has"):
        dump_manifest(MemberSpec("a", "gguf", 9, (TensorSpec("w", "I8", (3,), Extent(2, 3), 3),)))


@pytest.mark.parametrize(
    "text",
    [
        '{"a":"\\ud83d"}',
        '{"\\udc00":1}',
        '{"a":[{"b":"\\uDFFF"}]}',
        '{"a":18446744073709551616}',
        '{"a":-9223372036854775809}',
        '{"a":NaN}',
        '{"a":1e999999,"a":1}',
        '{"a":1e999}',
        '{"a":[-1.8E+308]}',
        '{"a":1.7976931348623159e308}',
        "\ufeff{}",
    ],
)
def test_json_that_nobody_reads_is_held_against_the_rules_too(text: str) -> None:
    whole = json.loads(dump_catalog(CATALOG))
    inner = text.replace("\ufeff", "")
    start = "\ufeff" if text.startswith("\ufeff") else ""
    data = start + json.dumps(whole)[:-1] + f', "later": {inner}}}'
    with pytest.raises(FormatError):
        parse_catalog(data.encode())


@pytest.mark.parametrize(
    "value",
    [
        '"\\ud83d\\ude00"',
        "18446744073709551615",
        "-9223372036854775808",
        "-0",
        "-1.7976931348623158e308",
        "1e-999",
    ],
)
def test_json_at_the_edges_is_valid(value: str) -> None:
    data = json.dumps(json.loads(dump_catalog(CATALOG)))[:-1] + f', "later": {value}}}'
    assert parse_catalog(data.encode()) == CATALOG


@pytest.mark.parametrize(
    "shape", [(), (0,), ((1 << 60) - 1, 0), (0, 1 << 30, (1 << 30) - 1), (1,) * 64, (0,) * 64]
)
def test_shapes_at_the_limits(shape: tuple[int, ...]) -> None:
    value = json.loads(dump_catalog(CATALOG))
    value["tensors"][0]["shape"] = shape
    assert parse_catalog(json.dumps(value).encode()).tensors[0].shape == shape


@pytest.mark.parametrize("shape", [(1 << 60,), (0, 1 << 62, 1 << 62), (1 << 60, 0), (1,) * 65, (0,) * 65])
def test_shapes_beyond_the_limits(shape: tuple[int, ...]) -> None:
    """A dimension of 0 makes a tensor empty, but array libraries multiply the others all the same."""
    value = json.loads(dump_catalog(CATALOG))
    value["tensors"][0]["shape"] = shape
    with pytest.raises(FormatError, match="a shape has more than 64 dimensions, or their product is 2"):
        parse_catalog(json.dumps(value).encode())
