"""Every bound on untrusted input, each with its reason. All sizes are in bytes."""

from __future__ import annotations

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# --- containers -----------------------------------------------------------------------------------

#: Decoded bytes of one chunk. A reader holds a few chunks a thread, so this bounds its memory.
MAX_CHUNK: Final = 64 * MIB
#: Smallest chunk size that can be asked for: below it the per-chunk overhead (136 bytes) shows.
MIN_CHUNK: Final = 4 * KIB
#: What a chunk aims for: large enough for entropy tables, small enough to live in a core's L2 cache.
DEFAULT_CHUNK: Final = 512 * KIB
#: Whole index, stored. 2 GiB serve 29 million chunks: 15 TB of weights at the default chunk size.
MAX_INDEX: Final = 2048 * MIB
#: Catalog or manifest JSON once decompressed; the 277,000 tensors of a sharded mixture-of-experts checkpoint
#: in GPTQ take 87 MB.
MAX_CATALOG: Final = 256 * MIB
#: Values in that JSON, by its commas, colons and brackets: each may take some 60 bytes in memory, a gigabyte
#: for all, and a few KiB of zstd could otherwise ask for more. The same tensors take 9.48 million.
MAX_CATALOG_VALUES: Final = 1 << 24
#: Nesting of metadata, which other languages parse by recursion.
MAX_METADATA_DEPTH: Final = 64
#: One shared table, stored or decoded.
MAX_TABLE: Final = 16 * MIB
#: All shared tables of a container: a reader keeps those it has loaded.
MAX_TABLES: Final = 256 * MIB
#: Shared tables whose models a reader keeps, of up to 2 MiB each: 256 MiB. A member has about one a type, and
#: one for each tensor with classes of columns.
MAX_MODELS_KEPT: Final = 128
#: Streams in one chunk, and shared tables or reference chunks that one chunk may name.
MAX_STREAMS: Final = 64
#: A member's size: the format's offsets are below 2**63.
MAX_MEMBER: Final = (1 << 63) - 1
#: Dimensions of a tensor: twice as many as numpy and torch make arrays of.
MAX_DIMS: Final = 64
#: Product of a tensor's dimensions, zeros left out: with elements of 8 bytes a size below 2**63, also where a
#: zero makes the tensor empty, for array libraries multiply the others.
MAX_ELEMENTS: Final = (1 << 60) - 1
#: Member path: what Linux accepts for a path and for one of its components.
MAX_PATH: Final = 4096
MAX_PATH_COMPONENT: Final = 255
#: Bytes that a reader asks for first when it opens a container: trailer and, mostly, the whole index.
TAIL_READ: Final = 64 * KIB

# --- GGUF -----------------------------------------------------------------------------------------

#: Key-value pairs and tensors; the largest known files have hundreds of pairs, thousands of tensors.
GGUF_MAX_KV: Final = 1 << 20
GGUF_MAX_TENSORS: Final = 1 << 20
#: Names: llama.cpp allows 64 bytes for a tensor's and 65,535 for a key's name.
GGUF_MAX_NAME: Final = 65535
#: Dimensions of a tensor (GGML_MAX_DIMS).
GGUF_MAX_DIMS: Final = 4
#: general.alignment: a power of two not above this; real files use 32.
GGUF_MAX_ALIGNMENT: Final = 1 << 20
#: Nesting of arrays in arrays, which real files do not use.
GGUF_MAX_NESTING: Final = 4
#: Elements of all arrays of arrays in a header, each of which costs a Python call.
GGUF_MAX_NESTED: Final = 1 << 20
#: Strings in all metadata arrays of a header: a sparse file of terabytes costs its author nothing, walking
#: it would. The largest vocabularies have 2**18 tokens and about as many merges.
GGUF_MAX_STRINGS: Final = 1 << 26
#: Shortest array of a header that is coded by what it holds: less would not pay for chunks of its own.
GGUF_MIN_ARRAY: Final = 4 * KIB
#: Least distance of places in an array of strings where it may be cut, and most such places in a header, each
#: of which takes some 40 bytes in memory. The largest vocabularies have some 10 MiB.
GGUF_STOP: Final = 4 * KIB
GGUF_MAX_STOPS: Final = 1 << 18
#: Bytes of all keys and tensor names of a header, which are held in memory.
GGUF_MAX_NAMES: Final = 64 * MIB

# --- safetensors ----------------------------------------------------------------------------------

#: Header JSON, from the safetensors specification.
SAFETENSORS_MAX_HEADER: Final = 100_000_000
#: Dimensions of a tensor: numpy's bound is 64, and no model comes near.
SAFETENSORS_MAX_DIMS: Final = 64
#: JSON values in a header, by its count of ``{``, ``[`` and ``,``: parsing takes some 60 bytes for each. A
#: tensor needs about 8; models have up to some 100,000 tensors, and far fewer in one file.
SAFETENSORS_MAX_VALUES: Final = 1 << 22

# --- metadata -------------------------------------------------------------------------------------

#: Longest metadata string and array kept in the catalog; longer ones stay in the member's header.
METADATA_MAX_STRING: Final = 4 * KIB
METADATA_MAX_ARRAY: Final = 64
#: Bytes of metadata values kept in the catalog for one member.
METADATA_MAX_TOTAL: Final = MIB
#: Bytes of metadata values in one file when all of them are read; real files have up to some 20 MiB. As
#: Python objects they take up to ten times as much.
METADATA_MAX_FULL: Final = 64 * MIB

# --- sets of files --------------------------------------------------------------------------------

#: Parts of a split model: gguf-split names them with five digits.
MAX_PARTS: Final = 99_999
#: A safetensors index (model.safetensors.index.json); those of the largest models have about 10 MiB.
MAX_SHARD_INDEX: Final = 256 * MIB
#: A configuration beside a checkpoint (config.json), which is read for its quantization only: those that list
#: every module come to some 100 KiB. What is larger is passed over.
MAX_QUANT_CONFIG: Final = 4 * MIB
#: JSON values in it, as for a safetensors header.
MAX_QUANT_CONFIG_VALUES: Final = 1 << 18
#: Pairs of bits and group size in it, each of which is tried on every weight; real files have one to three.
MAX_QUANT_CONFIG_GROUPS: Final = 16
