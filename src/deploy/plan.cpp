#include "deploy/plan.h"

#include <fmt/format.h>

#include <map>
#include <set>
#include <string_view>

#include "base/error.h"

namespace blockptq {
namespace {

std::string part_of(const ModelTensor& tensor) {
  switch (tensor.unit) {
    case Unit::embedding:
      return "embedding";
    case Unit::head:
      return "head";
    default:
      return fmt::format("block {}", tensor.block);
  }
}

bool is_cached_in_int8(const Recipe& recipe) {
  for (const char* point : {"kv_latent", "indexer_query", "indexer_key"}) {
    if (recipe.cache(point).bits == 8) {
      return true;
    }
  }
  return false;
}

/// The model's tensors, then those of the folder that the model does not know.
class Planner {
 public:
  Planner(const Checkpoint& source, const OutputFormat& format, int64_t max_shard_bytes)
      : source_(source), max_shard_bytes_(max_shard_bytes) {
    plan_.format = &format;
  }

  void choose_schemes(const Model& model, const Recipe& recipe, const SiteFactors& clips) {
    plan_.untied_head = model.spec().head == Head::untied;
    plan_.scheme.int8_cache = is_cached_in_int8(recipe);
    plan_.scheme.cache_group = recipe.cache("kv_latent").group;
    for (const auto& [name, factor] : clips) {
      plan_.scheme.clips.emplace(name, factor.item<float>());
    }
    for (const ModelTensor& tensor : model.tensors()) {
      OutputTensor output{tensor.name, tensor.role, tensor.shape, tensor.block};
      if (tensor.shape.size() == 2) {
        const LinearScheme scheme = recipe.linear(tensor.role, tensor.name);
        output.weight_bits = scheme.weight_bits;
        output.activation_bits = scheme.activation_bits;
      }
      places_.push_back({part_of(tensor), tensor.source()});
      plan_.scheme.tensors.push_back(output);
    }
    plan_.clips_left_out = plan_.format->check_scheme(plan_.scheme);
  }

  void add_tensors() {
    std::multimap<std::string, ConstantTensor> constants;
    for (ConstantTensor& constant : plan_.format->constants(plan_.scheme)) {
      constants.emplace(constant.after, std::move(constant));
    }
    std::set<std::string_view> known;
    for (size_t i = 0; i < plan_.scheme.tensors.size(); ++i) {
      const OutputTensor& tensor = plan_.scheme.tensors[i];
      known.insert(tensor.name);
      add(tensor, places_[i].part, places_[i].source);
      const auto [begin, end] = constants.equal_range(tensor.name);
      for (auto constant = begin; constant != end; ++constant) {
        add_constant(std::move(constant->second), places_[i].part);
      }
    }
    for (const StoredTensor& stored : source_.tensors()) {
      if (!stored.auxiliary && !known.contains(stored.name)) {
        add({stored.name, "other", stored.shape}, "other", stored.name);
      }
    }
  }

  OutputPlan finish() {
    for (size_t i = 0; i < plan_.shards.size(); ++i) {
      PlannedShard& shard = plan_.shards[i];
      shard.name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, plan_.shards.size());
      shard.nbytes = safetensors_file_size(plan_.specs(shard), shard_metadata());
      plan_.file_bytes += shard.nbytes;
    }
    return std::move(plan_);
  }

 private:
  /// Where a tensor comes from, and where it goes.
  struct Place {
    std::string part;
    std::string source;
  };

  void add(const OutputTensor& tensor, const std::string& part, const std::string& source) {
    PlannedTensor planned;
    planned.tensor = tensor;
    planned.source = &source_.at(source);
    if (tensor.quantized()) {
      planned.specs = plan_.format->weight_specs(tensor);
    } else {
      planned.specs = {{tensor.name, planned.source->float_dtype(), tensor.shape}};
    }
    place(std::move(planned), part);
  }

  void add_constant(ConstantTensor constant, const std::string& part) {
    PlannedTensor planned;
    planned.tensor = {constant.spec.name, "constant", constant.spec.shape};
    planned.specs = {std::move(constant.spec)};
    planned.constant = std::move(constant.bytes);
    place(std::move(planned), part);
  }

  /// Puts the tensor behind the others; it opens a shard where its part begins or the last shard
  /// has no room.
  void place(PlannedTensor planned, const std::string& part) {
    int64_t nbytes = 0;
    for (const TensorSpec& spec : planned.specs) {
      nbytes += tensor_nbytes(spec);
    }
    if (plan_.shards.empty() || plan_.shards.back().part != part ||
        plan_.shards.back().nbytes + nbytes > max_shard_bytes_) {
      PlannedShard shard;
      shard.part = part;
      shard.begin = plan_.tensors.size();
      plan_.shards.push_back(shard);
    }
    plan_.tensors.push_back(std::move(planned));
    plan_.shards.back().nbytes += nbytes;
    plan_.shards.back().end = plan_.tensors.size();
    plan_.tensor_bytes += nbytes;
  }

  const Checkpoint& source_;
  int64_t max_shard_bytes_;
  std::vector<Place> places_;  ///< of scheme.tensors
  OutputPlan plan_;
};

OutputPlan make_plan(const Checkpoint& source, const Model& model, const Recipe& recipe,
                     const OutputFormat& format, const SiteFactors& clips,
                     int64_t max_shard_bytes) {
  Planner planner(source, format, max_shard_bytes);
  planner.choose_schemes(model, recipe, clips);
  planner.add_tensors();
  return planner.finish();
}

}  // namespace

std::vector<TensorSpec> OutputPlan::specs(const PlannedShard& shard) const {
  std::vector<TensorSpec> specs;
  for (size_t i = shard.begin; i < shard.end; ++i) {
    specs.insert(specs.end(), tensors[i].specs.begin(), tensors[i].specs.end());
  }
  return specs;
}

Metadata shard_metadata() {
  return {{"format", "pt"}};
}

OutputPlan plan_output(const Checkpoint& source, const Model& model, const Recipe& recipe,
                       const OutputFormat& format, const SiteFactors& clips,
                       int64_t max_shard_bytes) {
  for (const StoredTensor& stored : source.tensors()) {
    check(
        !stored.auxiliary,
        "{}: the source is a deployed checkpoint already; without a --quant_type its integers are "
        "written as they are",
        stored.where());
  }
  return make_plan(source, model, recipe, format, clips, max_shard_bytes);
}

OutputPlan plan_conversion(const Checkpoint& source, const Model& model, const Recipe& recipe,
                           const OutputFormat& format, const SiteFactors& clips,
                           int64_t max_shard_bytes) {
  OutputPlan plan = make_plan(source, model, recipe, format, clips, max_shard_bytes);
  for (const PlannedTensor& planned : plan.tensors) {
    if (planned.source != nullptr) {
      const StoredTensor& stored = *planned.source;
      const int bits = stored.bits == 0 ? kFloatBits : stored.bits;
      check(bits == planned.tensor.weight_bits && (stored.row_codes || bits == kFloatBits),
            "{}: expected {} bits, as the folder's recipe says, found {}", stored.where(),
            planned.tensor.weight_bits, bits);
    }
  }
  return plan;
}

}  // namespace blockptq
