#include "checkpoint/dtype.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace blockptq {
namespace {

struct Row {
  Dtype dtype;
  std::string_view name;
  int64_t size;
};

// In the order of the enum.
constexpr std::array<Row, 15> kTable{{{Dtype::boolean, "BOOL", 1},
                                      {Dtype::u8, "U8", 1},
                                      {Dtype::i8, "I8", 1},
                                      {Dtype::f8_e4m3, "F8_E4M3", 1},
                                      {Dtype::f8_e5m2, "F8_E5M2", 1},
                                      {Dtype::u16, "U16", 2},
                                      {Dtype::i16, "I16", 2},
                                      {Dtype::f16, "F16", 2},
                                      {Dtype::bf16, "BF16", 2},
                                      {Dtype::u32, "U32", 4},
                                      {Dtype::i32, "I32", 4},
                                      {Dtype::f32, "F32", 4},
                                      {Dtype::u64, "U64", 8},
                                      {Dtype::i64, "I64", 8},
                                      {Dtype::f64, "F64", 8}}};

const Row& row(Dtype dtype) {
  const auto index = static_cast<size_t>(dtype);
  BPTQ_ASSERT(index < kTable.size() && kTable[index].dtype == dtype);
  return kTable[index];
}

}  // namespace

std::string_view dtype_name(Dtype dtype) {
  return row(dtype).name;
}

std::optional<Dtype> parse_dtype(std::string_view name) {
  const auto* found =
      std::find_if(kTable.begin(), kTable.end(), [&](const Row& r) { return r.name == name; });
  return found == kTable.end() ? std::nullopt : std::optional(found->dtype);
}

int64_t dtype_size(Dtype dtype) {
  return row(dtype).size;
}

std::optional<kernels::FloatType> float_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return kernels::FloatType::f32;
    case Dtype::bf16:
      return kernels::FloatType::bf16;
    case Dtype::f16:
      return kernels::FloatType::f16;
    default:
      return std::nullopt;
  }
}

}  // namespace blockptq
