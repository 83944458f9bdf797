// The shape that the quantization kernels work on.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

/// A dense row-major matrix. `group` consecutive columns of a row share a scale; a row has
/// ceil(cols / group) groups, the last of which may be shorter. Values per group are stored
/// [rows, ceil(cols / group)].
struct RowGroups {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group = 0;  ///< > 0; cols for one scale a row
};

}  // namespace blockptq::kernels
