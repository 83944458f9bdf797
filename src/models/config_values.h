// What families read from config.json in the same way. Every error names file and key, what was
// expected and what was found.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "models/model.h"

namespace blockptq {

/// No dimension of a model is larger.
constexpr int64_t kMaxSize = int64_t{1} << 30;

/// A dimension: an integer from 1 to kMaxSize; `size_or` takes `fallback` where the key is missing.
int64_t size(const JsonView& json, std::string_view key);
int64_t size_or(const JsonView& json, std::string_view key, int64_t fallback);

double positive_or(const JsonView& json, std::string_view key, double fallback);

/// Error if `key` is there with another value: one that no graph implements.
void expect(const JsonView& json, std::string_view key, std::string_view value);
void expect_false(const JsonView& json, std::string_view key);

/// model_type, sizes, kind of output head and epsilon, under the keys that all families share.
ModelSpec parse_model_spec(const JsonView& json);

}  // namespace blockptq
