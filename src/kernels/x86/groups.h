// The loops of kernels over the groups of a row.
#pragma once

#include <cstdint>

#include "kernels/row_groups.h"

namespace blockptq::kernels {

/// Calls visit(row, index, begin, count) for every group: its index among all groups, its first
/// element in the matrix, and how many it has.
template <typename Visit>
[[gnu::always_inline]] inline void for_each_group(const RowGroups& shape, const Visit& visit) {
  int64_t index = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; col += shape.group, ++index) {
      const int64_t left = shape.cols - col;
      visit(row, index, row * shape.cols + col, left < shape.group ? left : shape.group);
    }
  }
}

}  // namespace blockptq::kernels
