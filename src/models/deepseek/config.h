// config.json of the DeepSeek-V3 family, resolved and checked.
#pragma once

#include <cstdint>
#include <optional>

#include "base/json.h"
#include "models/model.h"
#include "nn/attention_mla.h"
#include "nn/indexer.h"
#include "nn/router.h"

namespace blockptq::deepseek {

struct Config {
  ModelSpec model;
  int64_t q_lora_rank = 0;
  nn::MlaSpec attention;
  std::optional<nn::IndexerSpec> indexer;  ///< V3.2
  int64_t intermediate_size = 0;
  int64_t moe_intermediate_size = 0;
  int64_t routed_experts = 0;
  int64_t shared_experts = 0;
  int64_t first_moe_block = 0;
  int64_t moe_block_step = 1;
  nn::GroupLimitedRouter::Spec router;

  bool is_moe(int64_t block) const;
};

/// Error naming the key, what was expected and what was found.
Config parse_config(const JsonView& json);

}  // namespace blockptq::deepseek
