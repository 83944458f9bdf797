#include "kernels/dispatch.h"

#include <algorithm>
#include <cstdlib>

namespace blockptq::kernels {
namespace {

Isa detect() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return Isa::avx512;
  }
  // Every CPU with AVX2 and FMA has F16C, which clang 14 cannot ask for.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return Isa::avx2;
  }
#endif
  return Isa::scalar;
}

Isa from_environment() {
  const char* text = std::getenv("BLOCKPTQ_ISA");
  if (text != nullptr) {
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
      if (isa_name(isa) == text) {
        return std::min(isa, best_isa());
      }
    }
  }
  return best_isa();
}

Isa& active() {
  static Isa isa = from_environment();
  return isa;
}

}  // namespace

Isa best_isa() {
  static const Isa kBest = detect();
  return kBest;
}

Isa active_isa() {
  return active();
}

void set_isa(Isa isa) {
  active() = std::min(isa, best_isa());
}

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace blockptq::kernels
