#include "models/families.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/checkpoint.h"
#include "models/deepseek/deepseek.h"
#include "models/gqa/gqa.h"

namespace blockptq {
namespace {

struct Family {
  std::string_view model_type;
  std::unique_ptr<Model> (*make)(const JsonView& config);
};

constexpr std::array kFamilies{
    Family{"deepseek_v32", &make_deepseek}, Family{"deepseek_v3", &make_deepseek},
    Family{"kimi_k2", &make_deepseek},      Family{"qwen3_moe", &make_qwen3_moe},
    Family{"qwen3", &make_qwen3},           Family{"llama", &make_llama},
};

std::string known_families() {
  std::string names;
  for (const Family& family : kFamilies) {
    names += (names.empty() ? "" : ", ") + std::string(family.model_type);
  }
  return names;
}

bool is_mtp(const ModelTensor& spec, const Model& model) {
  return spec.block >= model.spec().blocks;
}

bool carries_mtp(const Checkpoint& checkpoint, const Model& model) {
  const auto specs = model.tensors();
  return std::any_of(specs.begin(), specs.end(), [&](const ModelTensor& spec) {
    return is_mtp(spec, model) && checkpoint.find(spec.name) != nullptr;
  });
}

void check_tensor(const Checkpoint& checkpoint, const ModelTensor& spec) {
  const StoredTensor* stored = checkpoint.find(spec.name);
  check(stored != nullptr, "{}: tensor '{}' is missing: expected {} of shape {}",
        checkpoint.path().string(), spec.name, spec.role, shape_text(spec.shape));
  check(
      std::equal(spec.shape.begin(), spec.shape.end(), stored->shape.begin(), stored->shape.end()),
      "{}: tensor '{}': expected shape {} (from config.json), found {}", checkpoint.path().string(),
      spec.name, shape_text(spec.shape), shape_text(stored->shape));
}

void warn_unknown(const Checkpoint& checkpoint, const std::set<std::string_view>& known) {
  int64_t unknown = 0;
  std::string first;
  for (const StoredTensor& stored : checkpoint.tensors()) {
    if (!stored.auxiliary && !known.contains(stored.name)) {
      first = unknown++ == 0 ? stored.name : first;
    }
  }
  if (unknown > 0) {
    log(LogLevel::warning, "{}: {} tensors are no part of the model and are not used, e.g. '{}'",
        checkpoint.path().string(), unknown, first);
  }
}

}  // namespace

std::unique_ptr<Model> make_model(const JsonView& config) {
  const std::string& type = config.at("model_type").string();
  const auto* family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                    [&](const Family& row) { return row.model_type == type; });
  check(family != kFamilies.end(), "{}: unknown model_type '{}', expected one of: {}",
        config.where(), type, known_families());
  return family->make(config);
}

std::unique_ptr<Model> open_model(const Checkpoint& checkpoint) {
  auto model = make_model(checkpoint.config_view());
  if (model->spec().mtp_layers > 0 && !carries_mtp(checkpoint, *model)) {
    log(LogLevel::warning, "{}: config.json declares {} MTP layer(s), the checkpoint has none",
        checkpoint.path().string(), model->spec().mtp_layers);
    model->drop_mtp();
  }
  const auto specs = model->tensors();
  std::set<std::string_view> known;
  for (const ModelTensor& spec : specs) {
    check_tensor(checkpoint, spec);
    known.insert(spec.name);
  }
  warn_unknown(checkpoint, known);
  return model;
}

}  // namespace blockptq
