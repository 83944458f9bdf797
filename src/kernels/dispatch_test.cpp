#include "kernels/dispatch.h"

#include <gtest/gtest.h>

namespace blockptq::kernels {
namespace {

TEST(Dispatch, LevelIsClampedToTheCpu) {
  const Isa before = active_isa();
  EXPECT_LE(before, best_isa());
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_isa(isa);
    EXPECT_EQ(active_isa(), isa <= best_isa() ? isa : best_isa()) << isa_name(isa);
  }
  set_isa(before);
}

TEST(Dispatch, ChoosesTheFunctionOfTheLevel) {
  const Isa before = active_isa();
  const auto chosen = [] {
    return choose(
        +[] { return Isa::scalar; }, +[] { return Isa::avx2; }, +[] { return Isa::avx512; })();
  };
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    set_isa(isa);
    EXPECT_EQ(chosen(), active_isa());
  }
  set_isa(before);
}

}  // namespace
}  // namespace blockptq::kernels
