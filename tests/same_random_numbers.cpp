// Every case of torch_tests draws the same random numbers, whatever ran before it.
#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace {

class Seed : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& /*info*/) override { at::manual_seed(0); }
};

[[maybe_unused]] const bool seeded = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new Seed);
  return true;
}();

}  // namespace
