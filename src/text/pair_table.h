// The merges of a BPE model: (left id, right id) -> rank and joined id, made for fast look-up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace blockptq {

struct Merge {
  uint32_t rank = kNone;  // lower merges first; kNone: these two do not merge
  int32_t id = -1;        // of the joined piece

  static constexpr uint32_t kNone = UINT32_MAX;
};

/// A hash table with open addressing, at most half full.
class PairTable {
 public:
  /// Makes room for `count` pairs and forgets what was there.
  void reset(size_t count);

  /// Adds a pair of ids >= 0; false when it is there already.
  bool insert(int32_t left, int32_t right, Merge merge);

  /// The merge of a pair; its rank is Merge::kNone when there is none.
  Merge find(int32_t left, int32_t right) const {
    return slots_[slot_of(key_of(left, right))].merge;
  }

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;

  static uint64_t key_of(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
           static_cast<uint32_t>(right);
  }

  /// The slot that holds `key`, or the empty one where it would go.
  size_t slot_of(uint64_t key) const {
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;  // 2^64 / golden ratio
    size_t slot = ((key ^ (key >> 32)) * kGolden) >> shift_;
    while (slots_[slot].key != key && slots_[slot].key != kEmpty) {
      slot = (slot + 1) & (slots_.size() - 1);
    }
    return slot;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  int shift_ = 63;  // 64 - log2(slots)
};

}  // namespace blockptq
