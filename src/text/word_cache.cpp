#include "text/word_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace blockptq {
namespace {

constexpr size_t kMaxEntries = size_t{1} << 14;
constexpr size_t kTextBytesPerEntry = 16;  // a few hundred bytes of text need no megabyte of cache

}  // namespace

WordCache::WordCache(size_t text_bytes)
    : entries_(std::bit_ceil(std::clamp<size_t>(text_bytes / kTextBytesPerEntry, 2, kMaxEntries))) {
}

WordCache::Key WordCache::key_of(std::string_view word) {
  Key key;
  std::memcpy(key.words.data(), word.data(), word.size());
  key.size = static_cast<uint8_t>(word.size());
  return key;
}

size_t WordCache::slot_of(const Key& key) const {
  uint64_t hash = key.size;
  for (const uint64_t word : key.words) {
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 32;
  }
  return hash & (entries_.size() - 1);
}

std::span<const int32_t> WordCache::find(const Key& key) const {
  const Entry& entry = entries_[slot_of(key)];
  if (entry.size != key.size || entry.words != key.words) {
    return {};
  }
  return {entry.ids.data(), entry.count};
}

void WordCache::store(const Key& key, std::span<const int32_t> ids) {
  if (ids.size() > kMaxIds) {
    return;
  }
  Entry& entry = entries_[slot_of(key)];
  entry.words = key.words;
  entry.size = key.size;
  entry.count = static_cast<uint8_t>(ids.size());
  std::copy(ids.begin(), ids.end(), entry.ids.begin());
}

}  // namespace blockptq
