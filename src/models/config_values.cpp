#include "models/config_values.h"

#include "base/error.h"

namespace blockptq {

int64_t size(const JsonView& json, std::string_view key) {
  return json.at(key).integer(1, kMaxSize);
}

int64_t size_or(const JsonView& json, std::string_view key, int64_t fallback) {
  return json.integer_or(key, fallback, 1, kMaxSize);
}

double positive_or(const JsonView& json, std::string_view key, double fallback) {
  const double value = json.number_or(key, fallback);
  check(value > 0, "{}: {}: expected a positive number, found {}", json.where(), key, value);
  return value;
}

void expect(const JsonView& json, std::string_view key, std::string_view value) {
  const auto found = json.find(key);
  check(!found || found->string() == value, "{}: expected \"{}\", found \"{}\"",
        found ? found->where() : "", value, found ? found->raw().get<std::string>() : "");
}

void expect_false(const JsonView& json, std::string_view key) {
  check(!json.boolean_or(key, false), "{}: {}: expected false, found true", json.where(), key);
}

ModelSpec parse_model_spec(const JsonView& json) {
  ModelSpec model;
  model.model_type = json.at("model_type").string();
  model.hidden_size = size(json, "hidden_size");
  model.vocab_size = size(json, "vocab_size");
  model.blocks = json.at("num_hidden_layers").integer(1, 100'000);
  model.head = json.boolean_or("tie_word_embeddings", false) ? Head::tied : Head::own;
  model.rms_norm_eps = positive_or(json, "rms_norm_eps", 1e-6);
  return model;
}

}  // namespace blockptq
