// Choice of the instruction set at run time.
//
// A kernel has one public function (kernels/x.h), a scalar version that is its specification
// (kernels/reference/x_reference.cpp) and faster versions in files named by instruction set
// (kernels/x86/x_avx2.cpp, x_avx512.cpp). The public function picks the best level that the CPU
// has, the build carries and BLOCKPTQ_ISA (scalar, avx2, avx512) allows.
#pragma once

#include <string_view>

namespace blockptq::kernels {

enum class Isa { scalar, avx2, avx512 };

/// The level in force: the CPU's best, lowered by BLOCKPTQ_ISA or set_isa.
Isa active_isa();
/// The best level of this CPU.
Isa best_isa();
/// Lowers the level for tests and benchmarks; a level above best_isa() is clamped to it.
void set_isa(Isa isa);
std::string_view isa_name(Isa isa);

/// The function of the active level; a level without its own version passes the next lower one.
template <typename Function>
Function* choose(Function* scalar, Function* avx2, Function* avx512) {
  switch (active_isa()) {
    case Isa::avx512:
      return avx512;
    case Isa::avx2:
      return avx2;
    case Isa::scalar:
      break;
  }
  return scalar;
}

}  // namespace blockptq::kernels

/// The function that carries out `kernel` at the active level.
#if defined(__x86_64__)
#define BLOCKPTQ_CHOOSE(kernel) \
  ::blockptq::kernels::choose(kernel##_reference, kernel##_avx2, kernel##_avx512)
#else
#define BLOCKPTQ_CHOOSE(kernel) kernel##_reference
#endif
