// config.json of Llama, Qwen3 and Qwen3-MoE, resolved and checked.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "models/model.h"
#include "nn/attention_gqa.h"
#include "nn/router.h"

namespace blockptq::gqa {

struct Config {
  ModelSpec model;
  nn::GqaSpec attention;
  bool qk_norms = false;
  int64_t intermediate_size = 0;

  // Of Qwen3-MoE; no routed experts in the others.
  int64_t routed_experts = 0;
  int64_t moe_intermediate_size = 0;
  int64_t sparse_step = 1;            ///< every sparse_step-th block is a MoE block, ...
  std::vector<int64_t> dense_blocks;  ///< ... unless it is one of these
  nn::SoftmaxRouter::Spec router;

  bool is_moe(int64_t block) const;
};

/// Keys and defaults as in transformers. Error naming the key, what was expected and what was
/// found.
Config parse_llama(const JsonView& json);
Config parse_qwen3(const JsonView& json);
Config parse_qwen3_moe(const JsonView& json);

}  // namespace blockptq::gqa
