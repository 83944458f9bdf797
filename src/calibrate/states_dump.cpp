#include "calibrate/states_dump.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "calibrate/extract.h"
#include "eval/evaluate.h"
#include "run/tensor_file.h"

namespace blockptq {

StatesDump::StatesDump(std::filesystem::path folder, const Checkpoint& checkpoint,
                       at::ScalarType type, bool dense_attention, std::optional<int64_t> sequences)
    : folder_(std::move(folder)), type_(type) {
  const std::filesystem::path path = folder_ / "run.json";
  check(std::filesystem::exists(path), "--data_dir {}: expected what `extract` wrote, found none",
        folder_.string());
  const Json run = parse_json(read_file(path), path.string());
  const JsonView view(run, path.string());
  const auto expect = [&](const char* key, const std::string& wanted) {
    const std::string found = view.at(key).string();
    check(found == wanted, "{}: {}: expected {}, found {}", path.string(), key, wanted, found);
  };
  expect("command", "extract");
  expect("model", checkpoint.fingerprint());
  expect("dtype", dtype_name(type));
  expect("attention", attention_name(dense_attention));
  extracted_ = view.at("windows").integer();
  seq_len_ = view.at("seq_len").integer();
  fingerprint_ = view.at("text").string();
  sequences_ = sequences.value_or(extracted_);
  check(sequences_ <= extracted_, "--nsamples {}: {} holds {} sequences", sequences_,
        folder_.string(), extracted_);
}

bool StatesDump::has_inputs(int64_t block) const {
  return std::filesystem::exists(block_inputs_path(folder_, block));
}

at::Tensor StatesDump::inputs(int64_t block, int64_t hidden) const {
  const std::filesystem::path path = block_inputs_path(folder_, block);
  check(has_inputs(block), "{}: not there; extract the inputs of block {} first", path.string(),
        block);
  const NamedTensors tensors = read_tensors(path);
  const auto states = tensors.find("states");
  const std::vector<int64_t> shape{extracted_, seq_len_, hidden};
  check(states != tensors.end() && states->second.sizes() == shape &&
            states->second.scalar_type() == type_,
        "{}: expected states {} of the run that run.json describes", path.string(),
        shape_text(shape));
  return states->second.slice(0, 0, sequences_).contiguous();
}

}  // namespace blockptq
