// Observes what enters every linear while another Exec does the work.
#pragma once

#include <map>
#include <string>

#include "exec/exec.h"

namespace blockptq {

class RecordExec final : public Exec {
 public:
  /// `inner` must outlive this.
  explicit RecordExec(const Exec& inner) : inner_(inner) {}

  Activation input(const Site& site, const at::Tensor& x_TI) const override;
  at::Tensor linear(const Weight& weight, const Activation& x_TI) const override;
  at::Tensor point(const Site& site, const at::Tensor& x) const override;

  /// The last input of each linear since the last call of clear(), by the name of its weight.
  const std::map<std::string, at::Tensor, std::less<>>& inputs() const { return inputs_; }
  void clear() { inputs_.clear(); }

 private:
  const Exec& inner_;
  mutable std::map<std::string, at::Tensor, std::less<>> inputs_;
};

}  // namespace blockptq
