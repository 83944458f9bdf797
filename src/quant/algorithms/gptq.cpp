#include "quant/algorithms/gptq.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "kernels/round_features.h"
#include "quant/algorithms/product.h"
#include "quant/algorithms/scale_search.h"
#include "quant/algorithms/slabs.h"
#include "tensor/parallel.h"

namespace blockptq {
namespace {

/// Rounds the features of R channels from last to first. Features are rows here, so that one
/// feature of all channels is contiguous.
class Sweep {
 public:
  /// matrix_II: L to round anew, H to descend: v_j = start_j + pending_j / M_jj, and what rounding
  /// takes away, d_j = start_j - s q_j, adds M_ji d_j to pending_i of all i < j. pending_IR is
  /// consumed. With M = L the sums are those of gptq.h from zero; with M = H they are when start is
  /// s q of the codes so far and pending H e. large_II: M as a factor of large products
  /// (product.h).
  Sweep(at::Tensor matrix_II, at::Tensor large_II, int bits, const at::Tensor& start_IR,
        const at::Tensor& pending_IR, const at::Tensor& scales_R)
      : matrix_II_(std::move(matrix_II)),
        large_II_(std::move(large_II)),
        diagonal_I_(matrix_II_.diagonal().to(at::kCPU).contiguous()),
        bits_(bits),
        start_IR_(start_IR.contiguous()),
        pending_IR_(pending_IR.contiguous()),
        scales_R_(scales_R.contiguous()),
        codes_IR_(at::empty_like(pending_IR_, at::kChar)),
        loss_R_(at::zeros_like(scales_R_)) {
    round(0, matrix_II_.size(0));
  }

  const at::Tensor& codes() const { return codes_IR_; }
  /// sum_j M_jj^2 (v_j - s q_j)^2.
  const at::Tensor& loss() const { return loss_R_; }

 private:
  static constexpr int64_t kLargeProduct = 128;  ///< features; below, converting costs too much

  void round(int64_t begin, int64_t end) {
    const bool cpu = pending_IR_.is_cpu();
    if (cpu && end - begin <= kernels::kRoundedFeatures) {
      round_features(begin, end);
      return;
    }
    if (end - begin == 1) {
      round_feature(begin);
      return;
    }
    const int64_t middle = begin + (end - begin) / 2;
    round(middle, end);
    const bool large = end - begin >= kLargeProduct;
    const at::Tensor& matrix_II = large ? large_II_ : matrix_II_;
    const at::Tensor coupling = matrix_II.slice(0, middle, end).slice(1, begin, middle).t();
    at::Tensor pending = pending_IR_.slice(0, begin, middle);
    const at::Tensor done = pending_IR_.slice(0, middle, end);
    if (coupling.scalar_type() == at::kFloat) {
      pending.addmm_(coupling, done);
    } else {
      pending.add_(product(coupling, done, coupling.scalar_type()));
    }
    round(begin, middle);
  }

  /// A few features, by the kernel.
  void round_features(int64_t begin, int64_t end) {
    const int64_t channels = pending_IR_.size(1);
    const kernels::FeatureRounding rounding{
        end - begin,
        bits_,
        matrix_II_.slice(0, begin).slice(1, begin).const_data_ptr<float>(),
        matrix_II_.stride(0),
        matrix_II_.stride(1),
        start_IR_.slice(0, begin).const_data_ptr<float>(),
        pending_IR_.slice(0, begin).mutable_data_ptr<float>(),
        codes_IR_.slice(0, begin).mutable_data_ptr<int8_t>(),
        channels,
        scales_R_.const_data_ptr<float>(),
        loss_R_.mutable_data_ptr<float>()};
    parallel_rows(channels, (end - begin) * (end - begin), [&](int64_t first, int64_t last) {
      kernels::round_features(rounding, first, last);
    });
  }

  /// One feature, elsewhere: the rounding of quant/grid.h.
  void round_feature(int64_t feature) {
    const double diagonal = diagonal_I_.const_data_ptr<float>()[feature];
    at::Tensor pending_R = pending_IR_.select(0, feature);
    const at::Tensor start_R = start_IR_.select(0, feature);
    const at::Tensor v_R = at::add(start_R, pending_R, 1 / diagonal);
    const at::Tensor q_R = at::div(v_R, scales_R_).round_().clamp_(q_min(bits_), q_max(bits_));
    codes_IR_.select(0, feature).copy_(q_R);
    const at::Tensor residual_R = at::addcmul(v_R, q_R, scales_R_, -1);
    loss_R_.addcmul_(residual_R, residual_R, diagonal * diagonal);
    at::addcmul_out(pending_R, start_R, q_R, scales_R_, -1);
  }

  at::Tensor matrix_II_;
  at::Tensor large_II_;
  at::Tensor diagonal_I_;
  int bits_;
  at::Tensor start_IR_;
  at::Tensor pending_IR_;  ///< of the features to come; d of those that are done
  at::Tensor scales_R_;
  at::Tensor codes_IR_;
  at::Tensor loss_R_;
};

/// 1, then to both sides in turn up to 1 +- range: of equal losses the first counts.
at::Tensor scale_factors(const GptqOptions& options, const at::TensorOptions& type) {
  const int64_t far = options.scales / 2;
  std::vector<float> factors;
  for (int64_t k = 0; k < options.scales; ++k) {
    const int64_t ring = (k + 1) / 2;
    const double step = static_cast<double>(ring) / static_cast<double>(std::max<int64_t>(far, 1));
    factors.push_back(static_cast<float>(1 + (k % 2 == 0 ? -1 : 1) * step * options.scale_range));
  }
  return at::tensor(factors).to(type.device());
}

/// The parts of x [I, ...] that belong to each factor.
std::vector<at::Tensor> split(const at::Tensor& x, at::ArrayRef<HessianFactor> factors,
                              int64_t dimension) {
  std::vector<int64_t> sizes;
  sizes.reserve(factors.size());
  for (const HessianFactor& factor : factors) {
    sizes.push_back(factor.order_I.size(0));
  }
  return x.split_with_sizes(sizes, dimension);
}

struct Rounded {
  at::Tensor codes_IR;
  at::Tensor scales_R;
};

/// Under every scale; per channel the one of the least loss. large_JJ: L of each group, as Sweep
/// wants it.
Rounded round_best(const at::Tensor& target_IR, int bits, const at::Tensor& scales_R,
                   at::ArrayRef<HessianFactor> factors, at::ArrayRef<at::Tensor> large_JJ,
                   const GptqOptions& options) {
  const at::Tensor factors_K = scale_factors(options, scales_R.options());
  const int64_t channels = target_IR.size(1);
  const int64_t tried = factors_K.size(0);
  const at::Tensor tried_KR = at::outer(factors_K, scales_R);
  const std::vector<at::Tensor> targets_JR = split(target_IR, factors, 0);
  std::vector<at::Tensor> codes_JKR;
  at::Tensor loss_KR = at::zeros_like(tried_KR);
  for (size_t g = 0; g < factors.size(); ++g) {
    const at::Tensor start = targets_JR[g].repeat({1, tried});
    const Sweep sweep(factors[g].lower_II, large_JJ[g], bits, start, at::zeros_like(start),
                      tried_KR.flatten());
    loss_KR += sweep.loss().view({tried, channels});
    codes_JKR.push_back(sweep.codes().view({-1, tried, channels}));
  }
  const at::Tensor best_1R = loss_KR.argmin(0).unsqueeze(0);
  for (at::Tensor& codes : codes_JKR) {
    codes = codes.gather(1, best_1R.unsqueeze(0).expand({codes.size(0), 1, channels})).squeeze(1);
  }
  return {at::cat(codes_JKR), tried_KR.gather(0, best_1R).squeeze(0)};
}

/// One sweep of coordinate descent from `codes_IR`, within one group. large_II: H, as Sweep wants
/// it.
at::Tensor descend(const at::Tensor& codes_IR, const at::Tensor& target_IR, int bits,
                   const at::Tensor& scales_R, const at::Tensor& hessian_II,
                   const at::Tensor& large_II) {
  const at::Tensor value_IR = codes_IR * scales_R;
  const at::Tensor gradient_IR = product(large_II, target_IR - value_IR, large_II.scalar_type());
  return Sweep(hessian_II, large_II, bits, value_IR, gradient_IR, scales_R).codes();
}

}  // namespace

QTensor gptq(const at::Tensor& target_OI, int bits, at::ArrayRef<HessianFactor> factors,
             const GptqOptions& options) {
  constexpr int64_t kStartSteps = 40;
  constexpr double kStartSmallest = 0.2;
  const c10::NoGradGuard no_grad;
  BPTQ_ASSERT(!factors.empty() && options.scales > 0);
  std::vector<at::Tensor> moments;
  for (const HessianFactor& factor : factors) {
    moments.push_back(factor.hessian_II.diagonal());
  }
  const at::Tensor scales_O =
      search_scales(target_OI, bits, at::cat(moments), kStartSteps, kStartSmallest);
  const at::Tensor codes_OI = at::empty(target_OI.sizes(), target_OI.options().dtype(at::kChar));
  std::vector<at::Tensor> large_JJ;
  for (const HessianFactor& factor : factors) {
    large_JJ.push_back(as_factor(factor.lower_II, options.products));
  }
  for_slabs(target_OI, options.scales, [&](const Slab& slab) {
    const at::Tensor target_IR = slab(target_OI).t().contiguous();
    const Rounded best = round_best(target_IR, bits, slab(scales_O), factors, large_JJ, options);
    slab(codes_OI).copy_(best.codes_IR.t());
    slab(scales_O).copy_(best.scales_R);
  });
  const std::vector<at::Tensor> targets_OJ = split(target_OI, factors, 1);
  const std::vector<at::Tensor> codes_OJ = split(codes_OI, factors, 1);
  for (size_t g = 0; g < factors.size(); ++g) {
    large_JJ[g] = as_factor(factors[g].hessian_II, options.products);
    for_slabs(targets_OJ[g], /*scales=*/1, [&](const Slab& slab) {
      const at::Tensor target_IR = slab(targets_OJ[g]).t().contiguous();
      at::Tensor codes_IR = slab(codes_OJ[g]).t();
      for (int64_t sweep = 0; sweep < options.sweeps; ++sweep) {
        codes_IR =
            descend(codes_IR, target_IR, bits, slab(scales_O), factors[g].hessian_II, large_JJ[g]);
      }
      slab(codes_OJ[g]).copy_(factors[g].from_order(codes_IR.t()));
    });
  }
  return {codes_OI, scales_O, bits};
}

std::vector<QTensor> gptq(at::ArrayRef<TargetWeight> weights, int bits, GroupedStatistics input,
                          const GptqOptions& options) {
  for (const TargetWeight& weight : weights) {
    check_weight(weight.value());
  }
  check_statistics(input, weights.front().features());
  std::vector<at::Tensor> cross_JJ;
  std::vector<HessianFactor> factors;
  for (InputStatistics& group : input) {
    const bool correct = options.correct && group.cross_II.defined();
    cross_JJ.push_back(correct ? as_factor(group.cross_II, options.products) : at::Tensor());
    group.cross_II.reset();
    factors.push_back(factor_hessian(std::move(group), options.factor));
  }
  std::vector<QTensor> quantized;
  for (const TargetWeight& weight : weights) {
    const at::Tensor& w_OI = weight.value();
    const QTensor whole{at::empty(w_OI.sizes(), w_OI.options().dtype(at::kChar)),
                        at::empty({w_OI.size(0)}, w_OI.options().dtype(at::kFloat)), bits};
    // Channels do not see each other: targets of a part of them at a time.
    for_slabs(w_OI, /*scales=*/1, [&](const Slab& slab) {
      const at::Tensor target_OI = slab(weight).clone();
      const std::vector<at::Tensor> targets_OJ = split(target_OI, factors, 1);
      for (size_t g = 0; g < factors.size(); ++g) {
        at::Tensor correction_OJ;
        if (cross_JJ[g].defined()) {
          correction_OJ = product(targets_OJ[g], cross_JJ[g], options.products);
        }
        targets_OJ[g].copy_(corrected_target(targets_OJ[g], std::move(correction_OJ), factors[g]));
      }
      const QTensor part = gptq(target_OI, bits, factors, options);
      slab(whole.codes_OI).copy_(part.codes_OI);
      slab(whole.scales_O).copy_(part.scales_O);
    });
    quantized.push_back(whole);
  }
  return quantized;
}

}  // namespace blockptq
