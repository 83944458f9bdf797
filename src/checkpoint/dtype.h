// Element types of the safetensors format.
//
// Source: the `Dtype` enum of the safetensors library, without the types below one byte and the
// complex ones, which no checkpoint in scope has.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/types.h"

namespace blockptq {

enum class Dtype : uint8_t {
  boolean,
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64,
};

/// "BF16" and so on, as safetensors headers spell it.
std::string_view dtype_name(Dtype dtype);
/// The type of that name; nothing when it is unknown.
std::optional<Dtype> parse_dtype(std::string_view name);
/// Bytes of one element.
int64_t dtype_size(Dtype dtype);
/// The kernels' name of F32, BF16 and F16; nothing for every other type.
std::optional<kernels::FloatType> float_type(Dtype dtype);

}  // namespace blockptq
