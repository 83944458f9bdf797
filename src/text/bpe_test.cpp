#include "text/bpe.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace blockptq {
namespace {

constexpr size_t kPieces = 300;

/// A model over the letters a to d with random merges, so that overlaps and ties abound.
Json random_model(std::mt19937& random) {
  std::vector<std::string> pieces = {"a", "b", "c", "d"};
  Json vocabulary;
  for (const std::string& piece : pieces) {
    vocabulary[piece] = vocabulary.size();
  }
  Json merges = Json::array();
  while (pieces.size() < kPieces) {
    const std::string left = pieces[random() % pieces.size()];
    const std::string right = pieces[random() % pieces.size()];
    if (left.size() + right.size() > 12 || vocabulary.contains(left + right)) {
      continue;
    }
    vocabulary[left + right] = pieces.size();
    pieces.push_back(left + right);
    merges.push_back({left, right});
  }
  return {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}};
}

/// The definition: join the pair of lowest rank, the leftmost of equals, until there is none.
std::vector<int32_t> encode_by_definition(const Json& model, const std::string& word) {
  std::vector<std::string> pieces;
  for (const char c : word) {
    pieces.emplace_back(1, c);
  }
  const Json& merges = model["merges"];
  for (size_t rank = 0; rank < merges.size();) {
    const auto left = merges[rank][0].get<std::string>();
    const auto right = merges[rank][1].get<std::string>();
    bool joined = false;
    for (size_t i = 0; i + 1 < pieces.size() && !joined; ++i) {
      if (pieces[i] == left && pieces[i + 1] == right) {
        pieces[i] += right;
        pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        joined = true;
      }
    }
    rank = joined ? 0 : rank + 1;  // the join may have made a pair of lower rank
  }
  std::vector<int32_t> ids;
  ids.reserve(pieces.size());
  for (const std::string& piece : pieces) {
    ids.push_back(model["vocab"][piece].get<int32_t>());
  }
  return ids;
}

TEST(Bpe, ShortAndLongWordsFollowTheDefinition) {
  std::mt19937 random(11);
  for (int round = 0; round < 5; ++round) {
    const Json model = random_model(random);
    const Bpe bpe = Bpe::parse(JsonView(model, "t.json", "model"));
    WordCache cache(1000);
    for (const size_t length : {1, 2, 3, 7, 8, 23, 24, 25, 47, 48, 49, 50, 64, 100}) {
      std::string word(length, ' ');
      for (char& c : word) {
        c = static_cast<char>('a' + random() % 4);
      }
      const auto expected = encode_by_definition(model, word);
      for (int repeat = 0; repeat < 2; ++repeat) {  // the second time from the cache
        std::vector<int32_t> ids = {-7};
        bpe.encode_word(word, cache, ids);
        EXPECT_EQ(std::vector<int32_t>(ids.begin() + 1, ids.end()), expected) << word;
      }
    }
  }
}

TEST(WordCache, TellsWordsApart) {
  WordCache cache(0);  // as few slots as there can be: words push one another out
  const auto store = [&](std::string_view word, int32_t id) {
    const std::array<int32_t, 1> ids = {id};
    cache.store(WordCache::key_of(word), ids);
  };
  const auto find = [&](std::string_view word) {
    const auto ids = cache.find(WordCache::key_of(word));
    return ids.empty() ? -1 : ids.front();
  };
  EXPECT_EQ(find("a"), -1);
  store("a", 1);
  EXPECT_EQ(find("a"), 1);
  EXPECT_EQ(find(std::string_view("a\0", 2)), -1);
  for (int32_t i = 0; i < 50; ++i) {
    const std::string word = "word" + std::to_string(i);
    store(word, i);
    EXPECT_EQ(find(word), i);
  }
  const std::vector<int32_t> many(WordCache::kMaxIds + 1, 3);
  cache.store(WordCache::key_of("many"), many);
  EXPECT_EQ(find("many"), -1);
}

}  // namespace
}  // namespace blockptq
