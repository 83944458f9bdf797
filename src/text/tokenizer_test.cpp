#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>

#include "base/file.h"
#include "base/test_models.h"
#include "text/byte_level.h"
#include "text/corpus.h"
#include "text/test_support.h"
#include "text/utf8.h"

namespace blockptq {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int32_t> ids_of(const Json& json) {
  return json.get<std::vector<int32_t>>();
}

/// A whole, small tokenizer.json: every byte is a piece (id = byte + 1), "ab" is 257 and "abb" 0.
Json small_tokenizer() {
  Json vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary[byte_level_char(static_cast<uint8_t>(byte))] = byte + 1;
  }
  vocabulary["ab"] = 257;
  vocabulary["abb"] = 0;
  const Json merges = Json::parse(R"([["a", "b"], ["ab", "b"]])");
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

Json added_token(int id, const std::string& content, const Json& options = Json::object()) {
  Json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  token.update(options);
  return token;
}

Tokenizer parse(const Json& json, const std::string& config = "") {
  return Tokenizer::parse(json.dump(), config, "dir/tokenizer.json");
}

// --- against Hugging Face ---

/// Cases with and without special tokens, as models that were made with their answers have them.
void expect_cases(const Tokenizer& tokenizer, const std::filesystem::path& path) {
  const Json cases = parse_json(read_file(path), "cases");
  EXPECT_EQ(cases.size(), 248U);
  for (const Json& test : cases) {
    const auto text = test["text"].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text), ids_of(test["ids"])) << test["text"];
    EXPECT_EQ(tokenizer.encode(text, false), ids_of(test["ids_no_special"])) << test["text"];
    EXPECT_EQ(tokenizer.decode(ids_of(test["ids_no_special"])), test["decoded"].get<std::string>());
  }
}

TEST(Tokenizer, GivesTheIdsOfHuggingFaceForDeepSeek) {
  const Tokenizer tokenizer = Tokenizer::load(deepseek_folder());
  expect_cases(tokenizer, text_fixture("deepseek/tokenizer_cases.json"));
  EXPECT_EQ(tokenizer.vocab_size(), 4096);
  EXPECT_EQ(tokenizer.bos_id(), 0);
}

TEST(Tokenizer, GivesTheIdsOfHuggingFaceForTheSmallQwen3Moe) {
  const auto folder = test_models() / "models/tiny-qwen3moe-bf16";
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << folder << " is not there: set BLOCKPTQ_TEST_MODELS";
  }
  expect_cases(Tokenizer::load(folder), folder / "reference/tokenizer_cases.json");
}

TEST(Tokenizer, GivesTheIdsOfHuggingFaceForQwen) {
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen"));
  const Json cases = parse_json(read_file(text_fixture("qwen/tokenizer_cases.json")), "cases");
  for (const Json& test : cases) {
    const auto ids = tokenizer.encode(test["text"].get<std::string>());
    EXPECT_EQ(ids, ids_of(test["ids"])) << test["text"].dump(-1, ' ', true);
    EXPECT_EQ(tokenizer.decode(ids), test["decoded"].get<std::string>());
  }
  EXPECT_EQ(tokenizer.bos_id(), std::nullopt);
}

struct HashedIds {
  int64_t count = 0;
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a

  void add(const std::vector<int32_t>& ids) {
    count += static_cast<int64_t>(ids.size());
    for (const int32_t id : ids) {
      for (int shift = 0; shift < 32; shift += 8) {
        hash = (hash ^ ((static_cast<uint32_t>(id) >> shift) & 0xFF)) * 0x100000001B3;
      }
    }
  }
};

/// The file of a text: in the repository, or among the models that stay outside of it.
std::filesystem::path find_text(const std::string& name) {
  const auto packed = std::filesystem::path(BLOCKPTQ_SOURCE_DIR) / "data" / (name + ".gz");
  return std::filesystem::exists(packed) ? packed : test_models() / "text" / name;
}

class WholeText : public testing::TestWithParam<const char*> {};

TEST_P(WholeText, HasTheIdsOfHuggingFace) {
  const std::filesystem::path path = find_text(GetParam());
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << path << " is not there: set BLOCKPTQ_TEST_MODELS";
  }
  const Corpus corpus = read_corpus(path);
  const Json rows = parse_json(read_file(text_fixture("corpus_ids.json")), "corpus_ids.json");
  for (const Json& row : rows) {
    if (row["text"] != GetParam()) {
      continue;
    }
    const bool deepseek = row["tokenizer"] == "deepseek";
    const Tokenizer tokenizer =
        Tokenizer::load(deepseek ? deepseek_folder() : text_fixture("qwen"));
    HashedIds ids;
    for (const std::string& document : corpus.documents) {
      ids.add(tokenizer.encode(document));
    }
    EXPECT_EQ(ids.count, row["count"].get<int64_t>()) << row["tokenizer"];
    EXPECT_EQ(fmt::format("{:016x}", ids.hash), row["fnv1a"].get<std::string>())
        << row["tokenizer"];
  }
}

INSTANTIATE_TEST_SUITE_P(Corpora, WholeText,
                         testing::Values("wikitext2_test.txt", "wikitext2_valid.txt",
                                         "calib.jsonl"),
                         [](const auto& text) {
                           const std::string name = text.param;
                           return name.substr(0, name.find('.'));
                         });

// --- properties ---

std::string random_text(std::mt19937& random) {
  std::string text;
  const size_t length = random() % 200;
  for (size_t i = 0; i < length; ++i) {
    char32_t code_point = 0;
    do {
      const unsigned kind = random() % 4;
      code_point = kind == 0   ? 0x20 + random() % 0x5F
                   : kind == 1 ? random() % 0x800
                   : kind == 2 ? random() % 0x10000
                               : random() % 0x110000;
    } while (code_point >= 0xD800 && code_point < 0xE000);
    append_utf8(text, code_point);
  }
  return text;
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  const Tokenizer tokenizer = Tokenizer::load(deepseek_folder());
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_text(random);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text);
  }
}

TEST(Tokenizer, LongWordsTakeNoQuadraticTime) {
  const Tokenizer tokenizer = Tokenizer::load(deepseek_folder());
  for (const char* unit : {"a", "ab", "\xC3\xA9", " "}) {
    std::string word;
    while (word.size() < 4'000'000) {
      word += unit;
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(word, false)), word);
  }
}

TEST(Tokenizer, LongRunsOfMarksTakeNoQuadraticTime) {
  std::string text = "a";
  for (int i = 0; i < 500'000; ++i) {
    text += "\u0301\u0316";  // classes 230 and 220: every one of them has to move
  }
  const Tokenizer tokenizer = Tokenizer::load(text_fixture("qwen"));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)).size(), text.size() - 1);  // a + U+0301 -> á
}

TEST(Tokenizer, ServesManyThreads) {
  const Tokenizer tokenizer = Tokenizer::load(deepseek_folder());
  const std::string text = "The quick brown fox, 12345 jumps over\n\nthe lazy dog. ";
  const auto expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> differences(4);
  threads.reserve(differences.size());
  for (int& different : differences) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        different += tokenizer.encode(text) == expected ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(differences, testing::Each(0));
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  const Tokenizer tokenizer = parse(small_tokenizer());
  EXPECT_ERROR(tokenizer.encode("ab\xC3"), HasSubstr("invalid UTF-8 at byte 2"));
  EXPECT_ERROR(tokenizer.encode("\xED\xA0\x80"), HasSubstr("invalid UTF-8 at byte 0"));
}

TEST(Tokenizer, DecodesBrokenBytesAndRefusesForeignIds) {
  const Tokenizer tokenizer = parse(small_tokenizer());
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{0xE4 + 1, 0xBA + 1, 'x' + 1}), "\uFFFDx");
  EXPECT_ERROR(tokenizer.decode(std::vector<int32_t>{258}), HasSubstr("token id 258"));
}

// --- what stands around a text ---

/// The fixture as the official DeepSeek checkpoints are: BOS only through tokenizer_config.json.
Json official_deepseek() {
  Json json = parse_json(read_file(deepseek_folder() / "tokenizer.json"), "tokenizer.json");
  json["post_processor"] = json["post_processor"]["processors"][0];
  return json;
}

TEST(Tokenizer, AddsBosOnceWhetherTemplateOrConfigAsks) {
  const std::string config = read_file(deepseek_folder() / "tokenizer_config.json");
  const std::string text = "Hello<｜end▁of▁sentence｜>";
  const auto expected = Tokenizer::load(deepseek_folder()).encode(text);
  const Tokenizer official = parse(official_deepseek(), config);
  EXPECT_EQ(official.encode(text), expected);
  EXPECT_EQ(official.bos_id(), 0);
  const Tokenizer without_config = parse(official_deepseek());
  EXPECT_EQ(without_config.encode(text), official.encode(text, false));
  EXPECT_EQ(without_config.bos_id(), std::nullopt);
}

TEST(Tokenizer, ConfigNamesItsSpecialTokens) {
  Json json = small_tokenizer();
  json["added_tokens"] = {added_token(258, "<s>"), added_token(259, "</s>")};
  const Tokenizer tokenizer =
      parse(json, R"({"add_bos_token": true, "add_eos_token": true, "bos_token": "<s>",)"
                  R"("eos_token": {"content": "</s>"}})");
  EXPECT_THAT(tokenizer.encode("ab"), ElementsAre(258, 257, 259));
  EXPECT_ERROR(parse(json, R"({"add_bos_token": true, "bos_token": "<x>"})"),
               HasSubstr("dir/tokenizer_config.json: bos_token: '<x>' is no token"));
  EXPECT_ERROR(parse(json, R"({"add_bos_token": true})"),
               HasSubstr("dir/tokenizer_config.json: key 'bos_token' is missing"));
  EXPECT_ERROR(parse(json, R"({"add_bos_token": "yes"})"),
               HasSubstr("add_bos_token: expected true or false"));
}

TEST(Tokenizer, TemplatesStackAndAreChecked) {
  Json json = small_tokenizer();
  const auto wrap = [](int before, int after) {
    const auto special = [](const char* id) { return Json{{"SpecialToken", {{"id", id}}}}; };
    return Json{{"type", "TemplateProcessing"},
                {"single", {special("x"), {{"Sequence", {{"id", "A"}}}}, special("y")}},
                {"special_tokens", {{"x", {{"ids", {before}}}}, {"y", {{"ids", {after}}}}}}};
  };
  json["post_processor"] = {{"type", "Sequence"}, {"processors", {wrap(1, 2), wrap(3, 4)}}};
  EXPECT_THAT(parse(json).encode("ab"), ElementsAre(3, 1, 257, 2, 4));
  json["post_processor"] = wrap(1, 999);
  EXPECT_ERROR(parse(json), HasSubstr("id 999 is no token"));
  json["post_processor"]["single"][1]["Sequence"]["id"] = "B";
  EXPECT_ERROR(parse(json), HasSubstr("expected the text 'A', found 'B'"));
  json["post_processor"] = {{"type", "BertProcessing"}};
  EXPECT_ERROR(parse(json), HasSubstr("post_processor: unsupported post-processor"));
}

// --- refusals ---

TEST(Tokenizer, RefusesIdsOutOfRangeOrTwice) {
  for (const Json& id : {Json(-1), Json(2147483648), Json(1.5), Json("7")}) {
    Json json = small_tokenizer();
    json["model"]["vocab"]["ab"] = id;
    EXPECT_ERROR(parse(json), HasSubstr("dir/tokenizer.json: model.vocab.ab: expected an integer"));
  }
  Json json = small_tokenizer();
  json["model"]["vocab"]["ab"] = 0;
  EXPECT_ERROR(parse(json), HasSubstr("dir/tokenizer.json: model.vocab: id 0 twice"));
  json = small_tokenizer();
  json["added_tokens"] = Json::array({added_token(300, "<s>")});
  EXPECT_ERROR(parse(json), HasSubstr("added_tokens[0].id: expected 258"));
  json["added_tokens"] = {added_token(258, "<s>"), added_token(258, "</s>")};
  EXPECT_ERROR(parse(json), HasSubstr("added_tokens[1].id: expected 259"));
  json["added_tokens"] = Json::array({added_token(2, "ab")});
  EXPECT_ERROR(parse(json), HasSubstr("added_tokens[0].id: expected 257"));
  json["added_tokens"] = {added_token(258, "<s>"), added_token(259, "<s>")};
  EXPECT_ERROR(parse(json), HasSubstr("added_tokens[1]: the added token '<s>' twice"));
}

TEST(Tokenizer, RefusesMergesThatNameMissingPieces) {
  const std::vector<std::pair<const char*, std::string>> cases = {
      {R"([["xx", "b"]])", "model.merges[0]: the merge names 'xxb'"},
      {R"([["a", "b"], ["xa", "b"]])", "model.merges[1]: the merge names 'xab'"},
      {R"([["a", "c"]])", "model.merges[0]: the merge names 'ac'"},
      {R"([["", "ab"]])", "model.merges[0]: the merge names ''"},
      {R"([["ab", ""]])", "model.merges[0]: the merge names ''"},
      {R"(["a b", "b c"])", "model.merges[1]: the merge names 'bc'"},
      {R"(["a b c"])", "model.merges[0]: expected two pieces"},
      {R"(["ab"])", "model.merges[0]: expected two pieces"},
      {R"([["a"]])", "model.merges[0]: expected a pair of pieces"},
      {R"([["a", "b"], "ab b"])", "model.merges[1]: expected a pair of pieces"},
      {R"([1])", "model.merges[0]: expected a string"},
      {R"([["a", "b"], ["a", "b"]])", "model.merges[1]: the merge of 'a' and 'b' twice"}};
  for (const auto& [merges, message] : cases) {
    Json json = small_tokenizer();
    json["model"]["merges"] = Json::parse(merges);
    EXPECT_ERROR(parse(json), HasSubstr("dir/tokenizer.json: " + message));
  }
}

TEST(Tokenizer, RefusesWhatWouldChangeTheIds) {
  const std::vector<std::pair<const char*, Json>> cases = {
      {"/model/type", "WordPiece"},
      {"/model/dropout", 0.1},
      {"/model/continuing_subword_prefix", "##"},
      {"/model/end_of_word_suffix", "</w>"},
      {"/normalizer", {{"type", "NFKC"}}},
      {"/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}}},
      {"/pre_tokenizer", {{"type", "Whitespace"}}},
      {"/decoder", {{"type", "Metaspace"}}},
      {"/truncation", {{"max_length", 5}}},
      {"/padding", {{"strategy", "BatchLongest"}}},
      {"/version", "2.0"}};
  for (const auto& [place, value] : cases) {
    Json json = small_tokenizer();
    json[Json::json_pointer(place)] = value;
    EXPECT_ERROR(parse(json), HasSubstr("expected")) << place;
  }
}

TEST(Tokenizer, RefusesWrongTypesAndMissingFiles) {
  for (const char* place : {"/model", "/model/vocab", "/model/merges", "/added_tokens",
                            "/pre_tokenizer", "/decoder", "/version"}) {
    Json json = small_tokenizer();
    json[Json::json_pointer(place)] = 7;
    EXPECT_ERROR(parse(json), HasSubstr("expected")) << place;
  }
  EXPECT_ERROR(Tokenizer::parse("[]", "", "t.json"), HasSubstr("t.json: expected an object"));
  EXPECT_ERROR(Tokenizer::parse("{", "", "t.json"), HasSubstr("t.json: not valid JSON"));
  EXPECT_ERROR(Tokenizer::load("/nowhere"),
               HasSubstr("/nowhere/tokenizer.json: the tokenizer is missing"));
}

// Options without effect are accepted where every byte has a piece, and refused where not.
TEST(Tokenizer, UnknownPiecesNeedAPieceForEveryByte) {
  Json json = small_tokenizer();
  json["model"]["unk_token"] = "a";
  json["model"]["byte_fallback"] = true;
  EXPECT_THAT(parse(json).encode("ab"), ElementsAre(257));
  json["model"]["vocab"].erase("!");
  EXPECT_ERROR(parse(json), HasSubstr("unk_token and byte_fallback are not supported"));
  json["model"].erase("unk_token");
  json["model"].erase("byte_fallback");
  EXPECT_ERROR(parse(json).encode("ab!"), HasSubstr("no piece for the byte 0x21"));
}

// --- the model ---

TEST(Tokenizer, OldFilesWriteMergesAsText) {
  Json json = small_tokenizer();
  json["model"]["merges"] = {"#version: 0.2", "a b", "ab b"};
  json["model"].erase("type");
  EXPECT_THAT(parse(json).encode("abb"), ElementsAre(0));
}

TEST(Tokenizer, IgnoreMergesLooksWholeWordsUpFirst) {
  Json json = small_tokenizer();
  json["model"]["merges"] = Json::array();
  EXPECT_THAT(parse(json).encode("abb"), ElementsAre('a' + 1, 'b' + 1, 'b' + 1));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(parse(json).encode("abb"), ElementsAre(0));
}

}  // namespace
}  // namespace blockptq
