#include "models/rope_config.h"

#include <string>

#include "base/error.h"
#include "models/config_values.h"

namespace blockptq {
namespace {

double original_context(const JsonView& scaling, const JsonView& config) {
  return positive_or(scaling, "original_max_position_embeddings",
                     config.number_or("max_position_embeddings", 4096));
}

nn::YarnScaling parse_yarn(const JsonView& scaling, const JsonView& config) {
  // With one of them alone, published implementations differ.
  check(scaling.find("mscale").has_value() == scaling.find("mscale_all_dim").has_value(),
        "{}: expected mscale and mscale_all_dim, or neither", scaling.where());
  nn::YarnScaling yarn;
  yarn.factor = positive_or(scaling, "factor", 1);
  yarn.beta_fast = positive_or(scaling, "beta_fast", 32);
  yarn.beta_slow = positive_or(scaling, "beta_slow", 1);
  yarn.mscale = scaling.number_or("mscale", 1);
  yarn.mscale_all_dim = scaling.number_or("mscale_all_dim", 0);
  yarn.original_max_position_embeddings = original_context(scaling, config);
  if (scaling.find("attention_factor")) {
    yarn.attention_factor = positive_or(scaling, "attention_factor", 1);
  }
  yarn.truncate = scaling.boolean_or("truncate", true);
  return yarn;
}

nn::Llama3Scaling parse_llama3(const JsonView& scaling, const JsonView& config) {
  nn::Llama3Scaling llama3;
  llama3.factor = scaling.at("factor").number();
  check(llama3.factor >= 1, "{}: factor: expected a number >= 1, found {}", scaling.where(),
        llama3.factor);
  llama3.low_freq_factor = scaling.at("low_freq_factor").number();
  llama3.high_freq_factor = scaling.at("high_freq_factor").number();
  check(0 < llama3.low_freq_factor && llama3.low_freq_factor < llama3.high_freq_factor,
        "{}: expected 0 < low_freq_factor < high_freq_factor, found {} and {}", scaling.where(),
        llama3.low_freq_factor, llama3.high_freq_factor);
  llama3.original_max_position_embeddings = original_context(scaling, config);
  return llama3;
}

void expect_whole_heads(const JsonView& json) {
  const double factor = json.number_or("partial_rotary_factor", 1);
  check(factor == 1, "{}: partial_rotary_factor: expected 1, found {}", json.where(), factor);
}

}  // namespace

nn::RopeSpec parse_rope(const JsonView& config, int64_t dim) {
  const auto parameters = config.find("rope_parameters");
  const auto scaling = parameters ? parameters : config.find("rope_scaling");
  nn::RopeSpec rope;
  rope.dim = dim;
  rope.theta =
      positive_or(scaling && scaling->find("rope_theta") ? *scaling : config, "rope_theta", 10000);
  expect_whole_heads(config);
  if (!scaling) {
    return rope;
  }
  expect_whole_heads(*scaling);
  const std::string type = scaling->string_or("rope_type", scaling->string_or("type", "default"));
  check(type == "default" || type == "yarn" || type == "llama3",
        "{}: type: expected \"default\", \"yarn\" or \"llama3\", found \"{}\"", scaling->where(),
        type);
  if (type == "yarn") {
    rope.yarn = parse_yarn(*scaling, config);
  } else if (type == "llama3") {
    rope.llama3 = parse_llama3(*scaling, config);
  }
  return rope;
}

}  // namespace blockptq
