// What the parts of the binding share: views of Python's buffers, and checks that raise ValueError.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.h"
#include "span.h"

namespace qzf {

namespace nb = nanobind;

// A contiguous view of a Python object's bytes, held as long as this lives. The buffer protocol itself and
// not nb::ndarray, as any element type will do.
class Buffer {
 public:
  enum class Access { kRead, kWrite };

  Buffer(nb::handle object, Access access) {
    const int flags = access == Access::kWrite ? PyBUF_WRITABLE : PyBUF_SIMPLE;
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) return;
    nb::python_error error;
    if (!error.matches(PyExc_BufferError)) throw error;
    nb::raise_from(error, PyExc_ValueError, "buffers must be contiguous, and writable for output");
  }
  Buffer(Buffer&& other) noexcept : view_(other.view_) { other.view_.obj = nullptr; }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() { PyBuffer_Release(&view_); }  // does nothing where obj is null

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len); }

  bool overlaps(const Buffer& other) const {
    const std::less<const std::uint8_t*> before;  // defined for unrelated pointers too
    return size() != 0 && other.size() != 0 && before(data(), other.data() + other.size()) &&
           before(other.data(), data() + size());
  }

 private:
  Py_buffer view_;
};

inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// The instruction set called `name`, or the active one.
inline const Isa& chosen_isa(const std::optional<std::string>& name) {
  return name ? isa(*name) : active_isa();
}

void bind_dequant(nb::module_& m);
void bind_making(nb::module_& m);
void bind_quant(nb::module_& m);
void bind_strings(nb::module_& m);
void bind_values(nb::module_& m);

inline Span span(const Buffer& buffer) { return {buffer.data(), buffer.size()}; }

inline nb::bytes to_bytes(const Span& data) {
  return nb::bytes(reinterpret_cast<const char*>(data.data), data.size);
}
inline nb::bytes to_bytes(const std::vector<std::uint8_t>& data) {
  return to_bytes({data.data(), data.size()});
}

}  // namespace qzf
