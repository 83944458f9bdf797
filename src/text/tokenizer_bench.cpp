// Speed of encoding WikiText-2 (test) as one text: bytes_per_second.
//
// The reference is Hugging Face `tokenizers` on one thread.
#include <benchmark/benchmark.h>

#include <filesystem>

#include "text/corpus.h"
#include "text/tokenizer.h"

#ifndef BLOCKPTQ_SOURCE_DIR
#define BLOCKPTQ_SOURCE_DIR "."  // run from the root of the repository
#endif

namespace blockptq {
namespace {

void encode_wikitext(benchmark::State& state, const char* tokenizer_folder) {
  const std::filesystem::path root = BLOCKPTQ_SOURCE_DIR;
  const Tokenizer tokenizer = Tokenizer::load(root / tokenizer_folder);
  const Corpus corpus = read_corpus(root / "data/wikitext2_test.txt.gz");
  while (state.KeepRunning()) {
    benchmark::DoNotOptimize(tokenizer.encode(corpus.documents.front()));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) *
                          static_cast<int64_t>(corpus.documents.front().size()));
}

BENCHMARK_CAPTURE(encode_wikitext, deepseek, "models/tiny-v32-fp8")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_wikitext, qwen, "tests/fixtures/text/qwen")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace blockptq
