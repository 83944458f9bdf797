// Fake quantization and its gradients on all of ATen's threads.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/bench_ratio.h"
#include "quant/composed.h"
#include "quant/straight_through.h"
#include "tensor/parallel.h"

namespace blockptq {
namespace {

constexpr int64_t kRows = 2048;
constexpr int64_t kCols = 7168;

/// A new tensor, as many bytes read and written as by fake quantization without change of type.
at::Tensor copy_of(const at::Tensor& from) {
  at::Tensor to = at::empty_like(from);
  const int64_t row_bytes = kCols * static_cast<int64_t>(from.element_size());
  const void* in = from.const_data_ptr();
  void* out = to.mutable_data_ptr();
  parallel_rows(kRows, kCols, [&](int64_t begin, int64_t end) {
    std::memcpy(at_element(out, begin, row_bytes), at_element(in, begin, row_bytes),
                static_cast<size_t>((end - begin) * row_bytes));
  });
  return to;
}

/// Tensors that lie in no cache when their turn comes.
class ColdTensors {
 public:
  explicit ColdTensors(at::ScalarType type) {
    for (int i = 0; i < 4; ++i) {
      tensors_.push_back(at::randn({kRows, kCols}).to(type));
    }
  }
  const at::Tensor& next() { return tensors_[index_++ % tensors_.size()]; }

 private:
  size_t index_ = 0;
  std::vector<at::Tensor> tensors_;
};

/// Bytes read and written per second, against those of memcpy.
void clamped_weight_forward(benchmark::State& state, at::ScalarType type) {
  ColdTensors tensors(type);
  const at::Tensor low_O = at::full({kRows}, 0.98F);
  const at::Tensor high_O = at::full({kRows}, 0.97F);
  kernels::measure_against(
      state, "memcpy", 2 * static_cast<int64_t>(tensors.next().nbytes()),
      [&] {
        at::Tensor out = fake_quantize_clamped_weight_st(tensors.next(), 8, low_O, high_O, type);
        benchmark::DoNotOptimize(out);
      },
      [&] {
        at::Tensor out = copy_of(tensors.next());
        benchmark::DoNotOptimize(out);
      });
}

void activation_forward(benchmark::State& state, at::ScalarType type) {
  ColdTensors tensors(type);
  const at::Tensor alpha = at::full({1}, 0.98F);
  kernels::measure_against(
      state, "composed", 2 * static_cast<int64_t>(tensors.next().nbytes()),
      [&] {
        at::Tensor out = fake_quantize_st(tensors.next(), 8, 0, alpha);
        benchmark::DoNotOptimize(out);
      },
      [&] {
        at::Tensor out = composed::fake_quantize(tensors.next(), 8, 0, alpha, type);
        benchmark::DoNotOptimize(out);
      });
}

/// Forward and backward.
void clamped_weight_training(benchmark::State& state, at::ScalarType type) {
  const at::Tensor w_OI = at::randn({kRows, kCols}).to(type);
  const at::Tensor grad_OI = at::randn({kRows, kCols}).to(at::kBFloat16);
  const at::Tensor low_O = at::full({kRows}, 0.98F).requires_grad_();
  const at::Tensor high_O = at::full({kRows}, 0.97F).requires_grad_();
  const auto step = [&](const auto& function) {
    function(w_OI, 8, low_O, high_O, at::kBFloat16).backward(grad_OI);
  };
  kernels::measure_against(
      state, "composed", 2 * static_cast<int64_t>(w_OI.nbytes() + grad_OI.nbytes()),
      [&] { step(fake_quantize_clamped_weight_st); },
      [&] { step(composed::fake_quantize_clamped_weight); });
}

void activation_training(benchmark::State& state, at::ScalarType type) {
  const at::Tensor x = at::randn({kRows, kCols}).to(type).requires_grad_();
  const at::Tensor grad = at::randn({kRows, kCols}).to(type);
  const at::Tensor alpha = at::full({1}, 0.98F).requires_grad_();
  const auto step = [&](const at::Tensor& y) {
    x.mutable_grad().reset();
    y.backward(grad);
  };
  kernels::measure_against(
      state, "composed", 5 * static_cast<int64_t>(x.nbytes()),
      [&] { step(fake_quantize_st(x, 8, 0, alpha)); },
      [&] { step(composed::fake_quantize(x, 8, 0, alpha, type)); });
}

const bool kRegistered = [] {
  struct Named {
    const char* name;
    void (*function)(benchmark::State&, at::ScalarType);
    int iterations;
  };
  for (const Named bench : {Named{"clamped_weight_forward", clamped_weight_forward, 31},
                            {"clamped_weight_training", clamped_weight_training, 5},
                            {"activation_forward", activation_forward, 7},
                            {"activation_training", activation_training, 5}}) {
    for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
      const std::string name =
          std::string("straight_through/") + bench.name + (type == at::kFloat ? "/f32" : "/bf16");
      benchmark::RegisterBenchmark(name.c_str(), bench.function, type)
          ->Iterations(bench.iterations)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq
