// The table of formats: a new format is one file and one row here.
#include <array>

#include "checkpoint/formats/format.h"

namespace blockptq {

const Format& ascend_format();
const Format& fp8_block_format();
const Format& int_quantized_format();
const Format& pack_quantized_format();
const Format& plain_format();

std::span<const Format* const> all_formats() {
  static const std::array<const Format*, 5> kFormats{
      &fp8_block_format(),
      &ascend_format(),  // of its I8 weights those that int_quantized cannot read
      &int_quantized_format(), &pack_quantized_format(),
      &plain_format(),  // takes what the others left
  };
  return kFormats;
}

}  // namespace blockptq
