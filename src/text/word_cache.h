// Short words and their ids, so that words which come again in a text are merged once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace blockptq {

/// A direct-mapped cache of one cache line a word: a new word takes the place of whichever has its
/// slot. Bounded (1 MiB at most), for one thread.
class WordCache {
 public:
  /// A cache fit for a text of `text_bytes` bytes.
  explicit WordCache(size_t text_bytes);

  static constexpr size_t kMaxWord = 24;  // bytes
  static constexpr size_t kMaxIds = 9;

  /// A word as it is compared and hashed: zero-padded, with its length beside it.
  struct Key {
    std::array<uint64_t, kMaxWord / sizeof(uint64_t)> words{};
    uint8_t size = 0;
    bool operator==(const Key&) const = default;
  };
  /// `word` has 1 to kMaxWord bytes.
  static Key key_of(std::string_view word);

  /// The ids of the word, valid until the next store; empty when it is not there.
  std::span<const int32_t> find(const Key& key) const;
  /// Keeps 1 to kMaxIds ids; more are not kept.
  void store(const Key& key, std::span<const int32_t> ids);

 private:
  struct alignas(64) Entry {
    std::array<uint64_t, kMaxWord / sizeof(uint64_t)> words{};
    std::array<int32_t, kMaxIds> ids{};
    uint8_t size = 0;
    uint8_t count = 0;
  };

  size_t slot_of(const Key& key) const;

  std::vector<Entry> entries_;
};

}  // namespace blockptq
