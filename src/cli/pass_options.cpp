#include "cli/pass_options.h"

#include "cli/options.h"

namespace blockptq::cli {

void add_pass_options(CLI::App& app, PassSettings& settings) {
  app.add_flag("--dense_attention", settings.dense_attention,
               "ignore the indexer: every query sees all earlier keys");
  app.add_flag("--mtp", settings.mtp, "the MTP layer too, behind the last block");
  app.add_option("--begin,--start_block_idx", settings.begin, "first block")
      ->check(within(0, kMaxBlocks))
      ->capture_default_str();
  app.add_option("--end,--end_block_idx", settings.end,
                 "one past the last block; MTP layers count after it (default: all)")
      ->check(within(0, kMaxBlocks));
  app.add_flag("--restart", settings.restart,
               "throw earlier work in --output_dir away instead of continuing");
}

}  // namespace blockptq::cli
