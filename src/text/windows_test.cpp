#include "text/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;

constexpr int64_t kVocab = 4096;

class WindowsTest : public testing::Test {
 protected:
  static Corpus corpus(std::vector<std::string> documents) {
    return {"docs.jsonl", TextFormat::jsonl, std::move(documents), ""};
  }
  /// The ids of all documents, one after another.
  std::vector<int32_t> all_ids(const Corpus& documents) const {
    std::vector<int32_t> ids;
    for (const std::string& document : documents.documents) {
      const auto more = tokenizer_.encode(document);
      ids.insert(ids.end(), more.begin(), more.end());
    }
    return ids;
  }

  const Tokenizer tokenizer_ = Tokenizer::load(deepseek_folder());
  const Corpus corpus_ = corpus({"The first document, of a few words.", "", "And the second one.",
                                 "A third, longer than the ones before it, to be dropped."});
};

TEST_F(WindowsTest, EvaluationCutsAllTokensAndDropsTheRest) {
  const auto ids = all_ids(corpus_);
  for (const int64_t length : {1, 2, 7, 16}) {
    const TokenWindows windows = evaluation_windows(corpus_, tokenizer_, kVocab, length);
    EXPECT_EQ(windows.total_tokens, static_cast<int64_t>(ids.size()));
    ASSERT_EQ(windows.count(), static_cast<int64_t>(ids.size()) / length);
    for (int64_t i = 0; i < windows.count(); ++i) {
      const auto window = windows.window(i);
      EXPECT_TRUE(std::equal(window.begin(), window.end(), ids.begin() + i * length));
      EXPECT_EQ(static_cast<int64_t>(window.size()), length);
    }
  }
}

TEST_F(WindowsTest, StopsWhenTheWindowsAreFull) {
  const int64_t first = static_cast<int64_t>(tokenizer_.encode(corpus_.documents[0]).size());
  const TokenWindows windows = evaluation_windows(corpus_, tokenizer_, kVocab, 4, 2);
  EXPECT_EQ(windows.count(), 2);
  EXPECT_EQ(windows.total_tokens, first);
  EXPECT_EQ(calibration_windows(corpus_, tokenizer_, kVocab, 4, 2).ids, windows.ids);
}

TEST_F(WindowsTest, EveryDocumentBeginsWithBos) {
  const TokenWindows windows =
      calibration_windows(corpus({"a", "b", "a"}), tokenizer_, kVocab, 2, 3);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(windows.window(i)[0], tokenizer_.bos_id());
  }
}

TEST_F(WindowsTest, RefusesTooFewTokens) {
  const Corpus small = corpus({"a", "b"});
  EXPECT_ERROR(evaluation_windows(small, tokenizer_, kVocab, 5),
               HasSubstr("docs.jsonl: 4 tokens, expected at least one sequence of 5"));
  EXPECT_ERROR(calibration_windows(small, tokenizer_, kVocab, 2, 3),
               HasSubstr("docs.jsonl: 4 tokens make 2 sequences of 2, expected 3"));
}

TEST_F(WindowsTest, RefusesTokensThatTheModelLacks) {
  EXPECT_ERROR(evaluation_windows(corpus({"x", "<think>"}), tokenizer_, 4092, 1),
               HasSubstr("docs.jsonl: document 2 has token id 4092, expected ids below"));
}

TEST_F(WindowsTest, RefusesSizesThatAreNone) {
  EXPECT_ERROR(evaluation_windows(corpus_, tokenizer_, kVocab, 0), HasSubstr("seq_len"));
  EXPECT_ERROR(evaluation_windows(corpus_, tokenizer_, kVocab, 1, 0), HasSubstr("found 0"));
  EXPECT_ERROR(calibration_windows(corpus_, tokenizer_, kVocab, 1, -1), HasSubstr("nsamples"));
}

TEST(TokenWindows, AnEmptyOneHasNoWindows) {
  EXPECT_EQ(TokenWindows().count(), 0);
}

}  // namespace
}  // namespace blockptq
