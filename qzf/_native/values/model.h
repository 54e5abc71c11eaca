// The shared table of kind "values": how plain numbers of one type are modelled (spec/tables/02-values.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tables.h"

namespace qzf {

// How a number falls into key and raw bits (kernels/numbers.h).
enum class Form : std::uint8_t { kByte, k2n, k2b, k4 };

struct FormSizes {
  std::size_t width;  // bytes of a number
  unsigned key_bits;
  // Bytes of the raw bits of n numbers, those in `words` apart.
  static std::size_t low(Form form, std::size_t n);
  static std::size_t words(Form form, std::size_t n) { return form == Form::k4 ? 2 * n : 0; }
};
FormSizes form_sizes(Form form);

class ValuesModel {
 public:
  // Throws std::invalid_argument for a table that breaks the rules. `table` is not kept.
  ValuesModel(const std::uint8_t* table, std::size_t size);

  // A symbol that stands for 2^bits keys from base on.
  struct Coarse {
    std::uint16_t base;
    std::uint8_t bits;
  };

  Form form;
  std::uint16_t key0 = 0;      // key of symbol 0
  unsigned plain = 0;          // symbols below this are key0, key0 + 1 ...
  std::vector<Coarse> coarse;  // those from `plain` on
  unsigned contexts = 1;
  std::vector<std::uint32_t> rans;  // decoding tables

  unsigned key_mask() const { return (1u << form_sizes(form).key_bits) - 1; }

  // Tables for encoding, made at the first call; not safe against a second first call.
  void prepare_encoding();
  std::vector<RansCode> codes;
  std::vector<std::uint8_t> symbols;  // by key: the symbol that stands for fewest keys
  std::vector<std::uint16_t> costs;   // by symbol, then by context: 1/16 bits; kContextsPadded a symbol
  std::vector<std::uint8_t> special;  // by context, then by symbol: no frequency, or stands for several keys
  std::vector<std::uint8_t> known;    // by key: whether there is such a symbol
  bool complete = false;              // there is one for every key
  int escape = -1;                    // the symbol that stands for all keys

  static constexpr std::size_t kContextsPadded = 16;
  static constexpr std::uint16_t kMostCost = 16 * 30;  // of any symbol: 128 of them fit 16 bits

 private:
  std::vector<std::uint16_t> frequencies_;
};

}  // namespace qzf
