// Random models of every type and form, and chunks that they can express, or nearly so. For chunks_test
// alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "quant/schema.h"
#include "tables.h"
#include "values/model.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) { return static_cast<std::size_t>(random() % n); }

Bytes noise(Random& random, std::size_t size, std::size_t limit = 256) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(below(random, limit));
  return bytes;
}

void append16(Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value));
  out.push_back(static_cast<std::uint8_t>(value >> 8));
}

// Frequencies of `size` symbols that add up to `total`, each below it: of all of the first `symbols`, which
// are two or more, or with `sparse` of some of them.
std::vector<unsigned> random_frequencies(Random& random, std::size_t size, std::size_t symbols,
                                         unsigned total, bool sparse) {
  std::vector<std::size_t> live(symbols);
  std::iota(live.begin(), live.end(), std::size_t{0});
  std::shuffle(live.begin(), live.end(), random);
  if (sparse) live.resize(2 + below(random, symbols - 1));
  std::vector<unsigned> frequencies(size);
  for (const std::size_t symbol : live) frequencies[symbol] = 1;
  const std::size_t skew = 1 + below(random, 3);
  const unsigned most = static_cast<unsigned>(1 + below(random, total));
  for (unsigned left = total - static_cast<unsigned>(live.size()); left > 0;) {
    std::size_t i = live.size();
    for (std::size_t k = 0; k < skew; ++k) i = below(random, i) + 1;
    unsigned& frequency = frequencies[live[i - 1]];
    const unsigned some =
        std::min({left, static_cast<unsigned>(1 + below(random, most)), total - 1 - frequency});
    frequency += some;
    left -= some;
  }
  return frequencies;
}

// --- quant -----------------------------------------------------------------------------------------------

struct Quant {
  const qzf::QuantSchema* schema;
  Bytes table, columns, blocks;
  std::size_t n, row_blocks;
  bool by_column, suits;
  std::vector<std::uint16_t> known[2];  // some of the values that each number's ranks reach
};

void append_map(Random& random, Bytes& table, std::size_t size, std::size_t limit) {
  const Bytes map = below(random, 3) ? noise(random, size, limit)
                                     : Bytes(size, static_cast<std::uint8_t>(below(random, limit)));
  table.insert(table.end(), map.begin(), map.end());
}

// A table by the rules of spec/tables/01-quant.md. Where `suits` stays true it can express any numbers,
// scales, minima and codes.
Bytes random_quant_table(Random& random, Quant& q, bool extrema, std::size_t keys, std::size_t classes) {
  static const std::size_t lists[] = {0, 0, 1, 20, 256, 700};
  const std::size_t contexts = below(random, 4) ? 1 + below(random, 5) : 1 + below(random, 64);
  const std::size_t ratios = 1 + below(random, keys), alphabet = q.schema->alphabet();
  std::size_t shifts[2], counts[2], bases[2];
  for (std::size_t k = 0; k < 2; ++k) {
    shifts[k] = below(random, 9);
    counts[k] = std::min(lists[below(random, std::size(lists))], std::size_t{256} << shifts[k]);
    bases[k] = counts[k] ? 0 : below(random, 65537 - (std::size_t{256} << shifts[k]));
  }
  Bytes table = {1, extrema, static_cast<std::uint8_t>(shifts[0]), static_cast<std::uint8_t>(shifts[1])};
  append16(table, bases[0]);
  append16(table, bases[1]);
  append16(table, keys);
  for (const std::size_t each : {classes, contexts, below(random, contexts), std::size_t{0}}) {
    table.push_back(static_cast<std::uint8_t>(each));
  }
  append16(table, counts[0]);
  append16(table, counts[1]);
  append_map(random, table, 128, ratios);
  append_map(random, table, 64, keys + 1 - ratios);
  append_map(random, table, 256, contexts);
  append_map(random, table, 128, contexts);
  for (std::size_t k = 0; k < 2; ++k) {
    for (std::size_t i = 0; i < counts[k]; ++i) {
      q.known[k].push_back(static_cast<std::uint16_t>(random()));
      append16(table, q.known[k].back());
    }
    for (std::size_t i = 0; counts[k] == 0 && i < 50; ++i) {
      q.known[k].push_back(
          static_cast<std::uint16_t>(bases[k] + below(random, std::size_t{256} << shifts[k])));
    }
  }
  for (std::size_t c = 0; c < contexts; ++c) {
    const bool sparse = below(random, 12) == 0;
    q.suits &= !sparse;
    for (const unsigned f : random_frequencies(random, 256, 256, qzf::kRansSlots, sparse)) append16(table, f);
  }
  const std::size_t codes = std::size_t{1} << (q.schema->bits - q.schema->low);
  for (std::size_t t = 0; t < keys * classes; ++t) {
    const bool sparse = below(random, 2000) == 0;
    q.suits &= !sparse;
    for (const unsigned f : random_frequencies(random, alphabet, codes, 256, sparse)) {
      table.push_back(static_cast<std::uint8_t>(f));
    }
  }
  return table;
}

// Where the fp16 fields are in a block.
std::size_t number_at(const qzf::QuantSchema& schema, std::size_t k) {
  switch (schema.shape.type) {
    case qzf::Block::kQ2K: return 80 + 2 * k;
    case qzf::Block::kQ3K: return 108;
    case qzf::Block::kQ6K: return 208;
    case qzf::Block::kTQ2_0: return 64;
    default: return 2 * k;
  }
}

// Sets one of the 32 codes of a block of a type that has extrema.
void set_code(const qzf::QuantSchema& schema, std::uint8_t* block, std::size_t e, unsigned code) {
  if (schema.bits == 8) {
    block[2 + e] = static_cast<std::uint8_t>(code ^ 0x80);
    return;
  }
  std::uint8_t* mask = block + 2 * schema.numbers;
  std::uint8_t& pair = mask[(schema.bits == 5 ? 4 : 0) + e % 16];
  pair = static_cast<std::uint8_t>(e < 16 ? (pair & 0xf0u) | (code & 15u) : (pair & 15u) | (code & 15u) << 4);
  if (schema.bits == 5)
    mask[e / 8] = static_cast<std::uint8_t>((mask[e / 8] & ~(1u << e % 8)) | code >> 4 << e % 8);
}

void set_extrema(Random& random, const qzf::QuantSchema& schema, std::uint8_t* block, bool zero) {
  const std::size_t first = below(random, 32), second = (first + 1 + below(random, 31)) % 32;
  const unsigned top = (1u << schema.bits) - 1, neutral = 1u << (schema.bits - 1);
  if (zero) {  // mostly the same everywhere, as quantizers leave it
    const bool all = below(random, 4) != 0;
    const unsigned code = schema.extrema == 2 ? 0 : neutral;
    for (std::size_t e = 0; e < 32; ++e) {
      if (all || e == first || e == second) set_code(schema, block, e, code);
    }
    return;
  }
  if (schema.bits == 8) return set_code(schema, block, first, below(random, 2) ? top : 1);
  set_code(schema, block, first, 0);
  if (schema.extrema == 2) set_code(schema, block, second, top);
}

Bytes random_blocks(Random& random, Quant& q, bool extrema) {
  const qzf::QuantSchema& schema = *q.schema;
  Bytes blocks = noise(random, q.n * schema.shape.size);
  const bool forget = below(random, 10) == 0;
  if (extrema) q.suits &= !forget;
  for (std::size_t i = 0; i < q.n; ++i) {
    std::uint8_t* block = blocks.data() + i * schema.shape.size;
    for (std::size_t k = 0; k < schema.numbers; ++k) {
      const std::size_t kind =
          below(random, 8);  // of 8 one is zero, one any pattern, the others are in the table
      const std::uint16_t listed = q.known[k][below(random, q.known[k].size())];
      const std::uint16_t value = kind == 0   ? static_cast<std::uint16_t>(below(random, 2) << 15)
                                  : kind == 1 ? static_cast<std::uint16_t>(random())
                                              : listed;
      block[number_at(schema, k)] = static_cast<std::uint8_t>(value);
      block[number_at(schema, k) + 1] = static_cast<std::uint8_t>(value >> 8);
    }
    if (schema.extrema == 0 || (forget && below(random, 8) == 0)) continue;
    set_extrema(random, schema, block, block[0] == 0 && (block[1] & 0x7f) == 0);
  }
  return blocks;
}

Quant random_quant(Random& random, const qzf::QuantSchema& schema) {
  static const std::size_t most_blocks[] = {6, 30, 200}, most_keys[] = {1, 2, 12, 12, 256};
  Quant q{};
  q.schema = &schema;
  q.suits = true;
  q.n = 1 + below(random, most_blocks[below(random, 3)]);
  do q.row_blocks = 1 + below(random, q.n);
  while (q.n % q.row_blocks != 0);
  q.by_column = below(random, 2) == 1;
  const bool extrema = schema.extrema != 0 && below(random, 2) == 1;
  const std::size_t keys = 1 + below(random, most_keys[below(random, std::size(most_keys))]);
  const std::size_t classes = q.by_column ? 2 + below(random, 15) : 1;
  q.table = random_quant_table(random, q, extrema, keys, classes);
  q.blocks = random_blocks(random, q, extrema);
  if (q.by_column) q.columns = noise(random, q.row_blocks * schema.shape.codes, classes);
  if (below(random, 20) == 0) {  // columns that do not fit
    q.by_column = true;
    q.columns.resize(below(random, q.columns.size() + 1));
    q.suits = false;
  }
  return q;
}

// --- values ----------------------------------------------------------------------------------------------

struct Values {
  qzf::Form form;
  Bytes table, numbers;
  std::size_t n, segment;
  bool suits;
};

Bytes random_values_table(Random& random, qzf::Form form, unsigned& key0, std::size_t& plain, bool& escape) {
  const unsigned key_bits = qzf::form_sizes(form).key_bits;
  const std::size_t contexts = 1 + below(random, 16);
  std::size_t coarse = below(random, 4) ? below(random, 60) : 0;
  key0 = static_cast<unsigned>(below(random, std::size_t{1} << key_bits));
  plain = below(random, 8) ? below(random, 257 - coarse) : 256 - coarse;
  escape = coarse > 0 && below(random, 4) != 0;
  if (plain + coarse < 2) plain = 2;
  Bytes table = {2, static_cast<std::uint8_t>(form)};
  append16(table, key0);
  append16(table, plain);
  table.push_back(static_cast<std::uint8_t>(contexts));
  table.push_back(static_cast<std::uint8_t>(coarse));
  const std::size_t at = below(random, coarse + 1);  // of the escape
  for (std::size_t i = 0; i < coarse; ++i) {
    const std::size_t bits = escape && i == at % coarse ? key_bits : below(random, key_bits);
    append16(table, below(random, (std::size_t{1} << key_bits) - (std::size_t{1} << bits) + 1));
    table.push_back(static_cast<std::uint8_t>(bits));
  }
  for (std::size_t c = 0; c < contexts; ++c) {
    std::vector<unsigned> frequencies =
        random_frequencies(random, 256, plain + coarse, qzf::kRansSlots, below(random, 2) == 0);
    if (escape && frequencies[plain + at % coarse] == 0) {
      std::swap(frequencies[plain + at % coarse], *std::max_element(frequencies.begin(), frequencies.end()));
    }
    for (const unsigned f : frequencies) append16(table, f);
  }
  return table;
}

// A number from its key and raw bits, as kernels/numbers.h has it.
void append_number(Bytes& out, qzf::Form form, std::uint32_t key, std::uint32_t raw) {
  const qzf::FormSizes sizes = qzf::form_sizes(form);
  const std::size_t bits = 8 * sizes.width;
  std::uint32_t number = key;
  if (form != qzf::Form::kByte) {
    const std::uint32_t turned =
        key << (bits - sizes.key_bits) | (raw & ((1u << (bits - sizes.key_bits)) - 1));
    number = turned >> 1 | turned << (bits - 1);
  }
  for (std::size_t b = 0; b < sizes.width; ++b) out.push_back(static_cast<std::uint8_t>(number >> 8 * b));
}

Values random_values(Random& random, qzf::Form form) {
  static const std::size_t most[] = {5, 63, 300, 3000};
  Values v{};
  v.form = form;
  unsigned key0;
  std::size_t plain;
  bool escape;
  v.table = random_values_table(random, form, key0, plain, escape);
  v.n = 1 + below(random, most[below(random, 4)]);
  v.segment = 32 * (1 + below(random, below(random, 2) ? 4 : 2047));
  v.suits = escape;
  const unsigned key_mask = (1u << qzf::form_sizes(form).key_bits) - 1;
  const std::size_t rare = 1 + below(random, 50);
  for (std::size_t i = 0; i < v.n; ++i) {
    const std::size_t key = plain != 0 && below(random, rare) ? key0 + below(random, plain) : random();
    append_number(v.numbers, form, static_cast<std::uint32_t>(key) & key_mask,
                  static_cast<std::uint32_t>(random()));
  }
  v.numbers = Bytes(v.numbers);  // of exact size
  return v;
}

}  // namespace
