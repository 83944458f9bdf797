#include "cli/version.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include "kernels/dispatch.h"

namespace blockptq::cli {
namespace {

std::string cuda_text() {
#ifdef BLOCKPTQ_CUDA
  const auto devices = at::hasCUDA() ? at::getNumGPUs() : 0;
  return fmt::format("built in, {} devices seen", devices);
#else
  return "not built in";
#endif
}

}  // namespace

std::string version_text() {
  return fmt::format(
      "blockptq {}\ncompiler  {}\ntorch     {}\nCPU       {} threads, kernels {}\nCUDA      {}",
      BLOCKPTQ_VERSION, __VERSION__, TORCH_VERSION, at::get_num_threads(),
      kernels::isa_name(kernels::active_isa()), cuda_text());
}

Json environment_json(const ComputeOptions& compute) {
  return {{"device", compute.device},         {"dtype", compute.dtype},
          {"threads", at::get_num_threads()}, {"kernels", kernels::isa_name(kernels::active_isa())},
          {"torch", TORCH_VERSION},           {"compiler", __VERSION__}};
}

}  // namespace blockptq::cli
