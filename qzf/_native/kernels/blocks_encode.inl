// The rest of the kernels of blocks.h that only the encoder uses, included like blocks.inl and after two
// functions of the instruction set's own:
//
//   uint32_t equal32(const uint8_t* codes, uint8_t code)   bit e says whether codes[e] is that code
//   uint32_t odd16(const uint8_t* codes)                   bit e is the lowest bit of codes[e]

void split_low(unsigned bits, size_t elements, size_t lanes, uint8_t* codes, uint8_t* low) noexcept {
  if (bits == 4) {
    for (size_t lane = 0; lane < lanes; ++lane, codes += 32, low += 16) {
      const Bytes16 first = load(codes), second = load(codes + 16);
      store(low, (first & 15) | second << 4);
      store(codes, first >> 4);
      store(codes + 16, second >> 4);
    }
    return;
  }
  for (size_t i = 0; i < lanes * elements; i += 16, low += 2) {
    store16(low, static_cast<uint16_t>(odd16(codes + i)));
    store(codes + i, load(codes + i) >> 1);
  }
}

// --- extrema ------------------------------------------------------------------------------------------------

template <Extrema kKind>
bool take_extrema_of(const ExtremeCodes& want, const uint16_t* numbers, size_t n, uint8_t* codes,
                     uint16_t* places) {
  for (size_t lane = 0; lane < n; ++lane, codes += 32) {
    const bool zero = (numbers[lane] & 0x7fff) == 0;
    const uint64_t usual = equal32(codes, want.first[zero]);
    const uint64_t other = kKind == Extrema::kOne ? 0 : equal32(codes, want.second[zero]);
    const uint64_t found = kKind == Extrema::kSigned ? usual | other << 32 : usual;
    if (found == 0) return false;
    const unsigned any = static_cast<unsigned>(__builtin_ctzll(found)), place = any & 31;
    codes[place] = codes[31];
    places[lane] = static_cast<uint16_t>(any);
    if (kKind == Extrema::kSigned) codes[31] = byte(place & 15);
    if (kKind != Extrema::kTwo) continue;
    const uint64_t left = ((other & ~(uint64_t{1} << place)) | other >> 31 << place) & 0x7fffffff;  // codes as now
    if (left == 0) return false;
    const unsigned second = static_cast<unsigned>(__builtin_ctzll(left));
    codes[second] = codes[30];
    places[lane] = static_cast<uint16_t>(place | second << 5);
  }
  return true;
}

bool take_extrema(const ExtremeCodes& want, const uint16_t* numbers, size_t n, uint8_t* codes,
                  uint16_t* places) noexcept {
  switch (want.kind) {
    case Extrema::kOne: return take_extrema_of<Extrema::kOne>(want, numbers, n, codes, places);
    case Extrema::kTwo: return take_extrema_of<Extrema::kTwo>(want, numbers, n, codes, places);
    default: return take_extrema_of<Extrema::kSigned>(want, numbers, n, codes, places);
  }
}

// --- statistics ---------------------------------------------------------------------------------------------

template <size_t kElements>
void add_deviations(const uint8_t* codes, const uint16_t* centers, size_t rows, size_t row, uint32_t* __restrict sums) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t lane = 0; lane < row; ++lane, codes += kElements) {
      const int center = *centers++;
      uint32_t* to = sums + lane * kElements;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 1  // else the loop of 16 becomes statements before it could become vectors
#endif
      for (size_t e = 0; e < kElements; ++e) {
        const int from = 16 * codes[e] - center;
        to[e] += static_cast<uint32_t>(from < 0 ? -from : from);
      }
    }
  }
}

void deviations(const uint8_t* codes, size_t elements, const uint16_t* centers, size_t rows, size_t row,
                uint32_t* sums) noexcept {
  if (elements == 16) {
    add_deviations<16>(codes, centers, rows, row, sums);
  } else {
    add_deviations<32>(codes, centers, rows, row, sums);
  }
}
