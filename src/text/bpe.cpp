#include "text/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "text/byte_level.h"

namespace blockptq {
namespace {

constexpr size_t kShortWord = 48;  // bytes; up to here a scan beats a heap
constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();

/// Refuses what would give other ids than plain byte-level BPE.
void check_options(const JsonView& model) {
  const std::string type = model.string_or("type", "BPE");
  check(type == "BPE", "{}: unsupported model, expected BPE, found '{}'", model.where(), type);
  check(model.number_or("dropout", 0) == 0, "{}: dropout is not supported, expected null or 0",
        model.where());
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const std::string value = model.string_or(affix, "");
    check(value.empty(), "{}: {} is not supported, expected null, found '{}'", model.where(), affix,
          value);
  }
}

/// A merge, written as ["a", "b"] or, in older files, as "a b".
std::pair<std::string, std::string> parse_merge(const JsonView& merges, size_t index,
                                                bool as_pair) {
  const Json& entry = merges.raw()[index];
  // Views build paths, which take longer than all else here: only an error asks for one.
  if (as_pair) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_string()) {
      fail("{}: expected a pair of pieces", merges.at(index).where());
    }
    return {entry[0].get_ref<const std::string&>(), entry[1].get_ref<const std::string&>()};
  }
  const std::string& text =
      entry.is_string() ? entry.get_ref<const std::string&>() : merges.at(index).string();
  const size_t space = text.find(' ');
  check(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
        "{}[{}]: expected two pieces with a space between them, found '{}'", merges.where(), index,
        text);
  return {text.substr(0, space), text.substr(space + 1)};
}

bool is_version_line(const Json& entry) {
  return entry.is_string() && entry.get_ref<const std::string&>().starts_with("#version");
}

/// Keeps the pairs in a heap and the pieces in a linked list: n log n for words of any length.
class LongWord {
 public:
  LongWord(const PairTable& merges, const std::vector<int32_t>& ids) : merges_(merges) {
    const auto count = static_cast<uint32_t>(ids.size());
    pieces_.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      pieces_.push_back({ids[i], i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1});
    }
    for (uint32_t i = 0; i < count; ++i) {
      offer(i);
    }
  }

  void merge() {
    while (!candidates_.empty()) {
      const uint64_t candidate = candidates_.top();
      candidates_.pop();
      const auto left = static_cast<uint32_t>(candidate);
      // Another rank there: one of the two has been joined with another piece since.
      if (const Merge merge = merge_at(left); merge.rank == candidate >> 32) {
        join(left, merge.id);
      }
    }
  }

  void append_to(std::vector<int32_t>& ids) const {
    for (uint32_t i = 0; i != kEnd; i = pieces_[i].next) {
      ids.push_back(pieces_[i].id);
    }
  }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  struct Piece {
    int32_t id;
    uint32_t previous;
    uint32_t next;  // kEnd also for a piece that was joined to the one on its left
  };

  Merge merge_at(uint32_t left) const {
    const uint32_t right = pieces_[left].next;
    return right == kEnd ? Merge{} : merges_.find(pieces_[left].id, pieces_[right].id);
  }

  void offer(uint32_t left) {
    if (const Merge merge = merge_at(left); merge.rank != Merge::kNone) {
      candidates_.push((uint64_t{merge.rank} << 32) | left);
    }
  }

  void join(uint32_t left, int32_t id) {
    const uint32_t right = pieces_[left].next;
    pieces_[left].id = id;
    pieces_[left].next = std::exchange(pieces_[right].next, kEnd);
    if (const uint32_t next = pieces_[left].next; next != kEnd) {
      pieces_[next].previous = left;
      offer(left);
    }
    if (const uint32_t previous = pieces_[left].previous; previous != kEnd) {
      offer(previous);
    }
  }

  const PairTable& merges_;
  std::vector<Piece> pieces_;
  // Rank in the upper half, place of the left piece in the lower: the lowest rank, then the
  // leftmost.
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> candidates_;
};

}  // namespace

Bpe Bpe::parse(const JsonView& model) {
  check_options(model);
  Bpe bpe;
  bpe.origin_ = model.where();
  bpe.read_vocabulary(model.at("vocab"));
  bpe.read_merges(model.at("merges"));
  bpe.read_bytes(model);
  if (model.boolean_or("ignore_merges", false)) {
    bpe.read_words();
  }
  return bpe;
}

void Bpe::read_vocabulary(const JsonView& json) {
  json.expect_object();
  vocabulary_.reserve(json.size());
  std::unordered_set<int32_t> seen;
  seen.reserve(json.size());
  for (const auto& [piece, value] : json.raw().items()) {
    // A view of every entry would build its path; only an error needs one.
    if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{kMaxId}) {
      json.at(piece).integer(0, kMaxId);
    }
    const auto id = value.get<int32_t>();
    check(seen.insert(id).second, "{}: id {} twice, the second time for '{}'", json.where(), id,
          piece);
    vocabulary_.emplace(piece, id);
  }
}

void Bpe::read_merges(const JsonView& json) {
  json.expect_array();
  check(json.size() < Merge::kNone, "{}: {} merges are too many", json.where(), json.size());
  merges_.reset(json.size());
  const bool as_pairs = json.size() > 0 && json.raw().front().is_array();
  uint32_t rank = 0;
  for (size_t i = 0; i < json.size(); ++i) {
    if (!as_pairs && is_version_line(json.raw()[i])) {
      continue;  // the first line of merges.txt, carried along
    }
    const auto [left, right] = parse_merge(json, i, as_pairs);
    const Merge merge = {rank++, piece_id(left + right, json, i)};
    check(merges_.insert(piece_id(left, json, i), piece_id(right, json, i), merge),
          "{}[{}]: the merge of '{}' and '{}' twice", json.where(), i, left, right);
  }
}

int32_t Bpe::piece_id(const std::string& piece, const JsonView& merges, size_t index) const {
  const auto found = vocabulary_.find(piece);
  check(found != vocabulary_.end(), "{}[{}]: the merge names '{}', which is not in the vocabulary",
        merges.where(), index, piece);
  return found->second;
}

void Bpe::read_bytes(const JsonView& model) {
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const auto found = vocabulary_.find(byte_level_char(static_cast<uint8_t>(byte)));
    byte_ids_[byte] = found == vocabulary_.end() ? -1 : found->second;
  }
  // With a piece for every byte nothing is ever unknown, and these have no effect.
  const bool complete =
      std::none_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id < 0; });
  check(complete || (!model.find("unk_token") && !model.boolean_or("byte_fallback", false)),
        "{}: unk_token and byte_fallback are not supported where the vocabulary lacks bytes",
        model.where());
}

void Bpe::read_words() {
  words_.reserve(vocabulary_.size());
  for (const auto& [piece, id] : vocabulary_) {
    if (auto bytes = byte_level_bytes(piece)) {
      words_.emplace(std::move(*bytes), id);
    }
  }
}

int32_t Bpe::byte_id(char byte) const {
  const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
  check(id >= 0, "{}: the vocabulary has no piece for the byte 0x{:02x}, which the text has",
        origin_, static_cast<uint8_t>(byte));
  return id;
}

void Bpe::encode_word(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const {
  if (word.size() > WordCache::kMaxWord) {
    return merge_word(word, ids);
  }
  const WordCache::Key key = WordCache::key_of(word);
  const auto cached = cache.find(key);
  if (!cached.empty()) {
    ids.insert(ids.end(), cached.begin(), cached.end());
    return;
  }
  const size_t begin = ids.size();
  merge_word(word, ids);
  cache.store(key, std::span(ids).subspan(begin));
}

void Bpe::merge_word(std::string_view word, std::vector<int32_t>& ids) const {
  if (!words_.empty()) {
    if (const auto whole = words_.find(std::string(word)); whole != words_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  if (word.size() <= kShortWord) {
    merge_short(word, ids);
  } else {
    merge_long(word, ids);
  }
}

/// Finds the pair to join by scanning all of them: quadratic, and fastest for what words are.
void Bpe::merge_short(std::string_view word, std::vector<int32_t>& ids) const {
  std::array<int32_t, kShortWord> pieces{};
  std::array<Merge, kShortWord> merges{};  // merges[i]: of pieces i and i + 1
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) {
    pieces[i] = byte_id(word[i]);
    if (i > 0) {
      merges[i - 1] = merges_.find(pieces[i - 1], pieces[i]);
    }
  }
  while (count > 1) {
    const auto best =
        std::min_element(merges.begin(), merges.begin() + count - 1,
                         [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
    if (best->rank == Merge::kNone) {
      break;
    }
    const size_t at = best - merges.begin();
    pieces[at] = best->id;
    --count;
    std::copy(pieces.begin() + at + 2, pieces.begin() + count + 1, pieces.begin() + at + 1);
    std::copy(merges.begin() + at + 1, merges.begin() + count, merges.begin() + at);
    if (at > 0) {
      merges[at - 1] = merges_.find(pieces[at - 1], pieces[at]);
    }
    if (at + 1 < count) {
      merges[at] = merges_.find(pieces[at], pieces[at + 1]);
    }
  }
  ids.insert(ids.end(), pieces.begin(), pieces.begin() + count);
}

void Bpe::merge_long(std::string_view word, std::vector<int32_t>& ids) const {
  check(word.size() < std::numeric_limits<uint32_t>::max(), "{}: a word of {} bytes is too long",
        origin_, word.size());
  std::vector<int32_t> pieces(word.size());
  std::transform(word.begin(), word.end(), pieces.begin(), [&](char c) { return byte_id(c); });
  LongWord long_word(merges_, pieces);
  long_word.merge();
  long_word.append_to(ids);
}

}  // namespace blockptq
