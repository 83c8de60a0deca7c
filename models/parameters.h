// The parameters of a model: a table of names, shapes and initial distributions, and their values
// in one flat buffer.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/autograd.h"
#include "engine/random.h"

namespace hax {

/// How a parameter starts (REFERENCE section 2).
struct Init {
  enum class Kind {
    constant,          ///< a
    normal,            ///< N(0, a^2)
    uniform,           ///< U(-a, a)
    log_counting,      ///< log(1), log(2), ... along the last axis: A_log
    inverse_softplus,  ///< softplus^-1 of a log-uniform draw in [a, b], at least c: the bias of dt
  };
  Kind kind = Kind::constant;
  double a = 0, b = 0, c = 0;

  static Init constant(double value) { return {Kind::constant, value}; }
  static Init normal(double deviation) { return {Kind::normal, deviation}; }
  static Init uniform(double bound) { return {Kind::uniform, bound}; }
  static Init log_counting() { return {Kind::log_counting}; }
  static Init inverse_softplus(double low, double high, double floor) {
    return {Kind::inverse_softplus, low, high, floor};
  }
};

/// Handle of a parameter; a default-constructed one stands for "there is none" (an absent bias).
struct ParamId {
  int index = -1;
  bool exists() const { return index >= 0; }
};

struct ParamSpec {
  std::string name;
  Shape shape;
  Init init;
  std::int64_t offset = 0;  ///< into the flat buffer, in elements
};

/// What parameters a model has, in a fixed order.
class ParamTable {
 public:
  /// Throws Error when the name is taken or the flat buffer would exceed 2^40 numbers.
  ParamId add(std::string name, Shape shape, Init init);
  const std::vector<ParamSpec>& specs() const { return specs_; }
  /// Numbers in all parameters together.
  std::int64_t count() const;
  /// Length of the flat buffer: every parameter starts on a 64-byte boundary, gaps hold zeros.
  std::int64_t flat_size() const { return flat_size_; }

 private:
  std::vector<ParamSpec> specs_;
  std::unordered_set<std::string> names_;
  std::int64_t flat_size_ = 0;
};

/// Values (or gradients, or moments) of all parameters of a table, as views of one flat tensor.
class Parameters {
 public:
  explicit Parameters(const ParamTable& table, DType dtype = DType::float32, Device device = kCpu);

  const std::vector<ParamSpec>& specs() const { return specs_; }
  Tensor view(std::size_t index) const;
  /// The parameter called `name`, undefined when there is none.
  Tensor find(std::string_view name) const;
  Tensor& flat() { return flat_; }
  const Tensor& flat() const { return flat_; }
  Device device() const { return flat_.device(); }
  /// The same parameters on another device; shares the numbers when they are there already.
  Parameters to(Device device) const;
  /// Draws the initial values; a parameter's draw depends on the seed and its name only, so that
  /// equal parts of different architectures start equal. Drawn on the CPU, so equal on all devices.
  void initialize(std::uint64_t seed);

 private:
  std::vector<ParamSpec> specs_;
  Tensor flat_;
};

/// The parameters as leaves of one graph. Each thread or shard has its own leaves on the same
/// values.
class Leaves {
 public:
  /// Constants: nothing is recorded.
  explicit Leaves(const Parameters& values);
  /// Leaves that add their gradients into `gradients` (same table).
  Leaves(const Parameters& values, const Parameters& gradients);
  /// One variable for each parameter of a table, in its order: what a gradient check moves.
  explicit Leaves(std::vector<Var> vars) : vars_(std::move(vars)), dtype_(vars_.at(0).dtype()) {}

  /// An undefined Var for a parameter that does not exist.
  const Var& operator[](ParamId id) const {
    return id.exists() ? vars_[static_cast<std::size_t>(id.index)] : none_;
  }
  DType dtype() const { return dtype_; }
  Device device() const { return vars_.at(0).device(); }

 private:
  std::vector<Var> vars_;
  Var none_;
  DType dtype_;
};

}  // namespace hax
