// Scales of quantized weights: what all quantized formats check and convert alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/formats/format.h"

namespace blockptq {

/// The raw tensor "<module>.<suffix>" that must stand beside `tensor`; Error when it is missing.
RawTensor companion(const Claims& claims, const RawTensor& tensor, const std::string& name);

/// Error unless `scale` is F32, BF16 or F16 of exactly `expected` shape.
void check_scale_shape(const RawTensor& scale, const Shape& expected);

/// Rows [row_begin, row_end) of a matrix of scales, as fp32. Error naming the first one that is
/// not a finite number > 0.
std::vector<float> read_scales(const RawTensor& scale, int64_t row_begin, int64_t row_end);

/// Decodes `rows` rows of integer codes in words of `word_bits` (kernels/int_weights.h), with the
/// bits and groups of `tensor`. Without zero points all of them are 0.
void decode_int_rows(const StoredTensor& tensor, int64_t rows, int word_bits, const void* codes,
                     const std::vector<float>& scales, const std::vector<int8_t>& zero_points,
                     kernels::FloatType type, void* out);

/// The module that `name` is a tensor of: "a.b" for "a.b.weight" and suffix ".weight"; empty when
/// `name` does not end so.
std::string module_of(const std::string& name, std::string_view suffix);

}  // namespace blockptq
