#include "models/rope_config.h"

#include <string>

#include "base/error.h"

namespace blockptq {
namespace {

double positive(const JsonView& json, std::string_view key, double fallback) {
  const double value = json.number_or(key, fallback);
  check(value > 0, "{}: {}: expected a positive number, found {}", json.where(), key, value);
  return value;
}

nn::YarnScaling parse_yarn(const JsonView& scaling, const JsonView& config) {
  nn::YarnScaling yarn;
  yarn.factor = positive(scaling, "factor", 1);
  yarn.beta_fast = positive(scaling, "beta_fast", 32);
  yarn.beta_slow = positive(scaling, "beta_slow", 1);
  yarn.mscale = scaling.number_or("mscale", 1);
  yarn.mscale_all_dim = scaling.number_or("mscale_all_dim", 0);
  yarn.original_max_position_embeddings =
      positive(scaling, "original_max_position_embeddings",
               config.number_or("max_position_embeddings", 4096));
  return yarn;
}

}  // namespace

nn::RopeSpec parse_rope(const JsonView& config, int64_t dim) {
  const auto parameters = config.find("rope_parameters");
  const auto scaling = parameters ? parameters : config.find("rope_scaling");
  nn::RopeSpec rope;
  rope.dim = dim;
  rope.theta = positive(parameters ? *parameters : config, "rope_theta", 10000);
  if (!scaling) {
    return rope;
  }
  const std::string type = scaling->string_or("rope_type", scaling->string_or("type", "default"));
  check(type == "default" || type == "yarn",
        "{}: type: expected \"default\" or \"yarn\", found \"{}\"", scaling->where(), type);
  if (type == "yarn") {
    rope.yarn = parse_yarn(*scaling, config);
  }
  return rope;
}

}  // namespace blockptq
