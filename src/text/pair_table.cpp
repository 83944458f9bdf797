#include "text/pair_table.h"

#include <bit>

#include "base/error.h"

namespace blockptq {

void PairTable::reset(size_t count) {
  const size_t slots = std::bit_ceil(2 * count + 2);
  slots_.assign(slots, Slot{});
  shift_ = 64 - std::countr_zero(slots);
}

bool PairTable::insert(int32_t left, int32_t right, Merge merge) {
  BPTQ_ASSERT(left >= 0 && right >= 0);
  const uint64_t key = key_of(left, right);
  Slot& slot = slots_[slot_of(key)];
  if (slot.key == key) {
    return false;
  }
  slot = {key, merge};
  return true;
}

}  // namespace blockptq
