// Reverse-mode automatic differentiation. Read this file and autograd.cpp top to bottom: it is all
// there is.
//
// A Var is a Tensor plus the place in the graph that produced it. An op computes its result with
// plain Tensors and then calls record() with a closure that turns d loss / d output into d loss / d
// inputs. backward() walks the recorded nodes from the newest to the oldest and adds up what
// arrives at the leaves.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tensor.h"

namespace hax {

/// Gradients for the inputs of one node, in their order. An undefined Tensor means "zero": the
/// input is not differentiable, or nothing reaches it.
using Grads = std::vector<Tensor>;
/// Receives d loss / d output for each output (undefined where the loss does not depend on it).
using Backward = std::function<Grads(std::span<const Tensor> dy)>;

struct Node;

/// A value in a computation. Copying shares.
class Var {
 public:
  Var() = default;
  /// A constant: no gradient flows into it.
  Var(Tensor value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  /// A leaf whose gradient is wanted. With `grad` given, backward() adds into that tensor (the
  /// caller zeroes it).
  static Var leaf(Tensor value, std::string name = {}, Tensor grad = {});

  bool defined() const { return value_.defined(); }
  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t size(int axis) const { return value_.size(axis); }
  DType dtype() const { return value_.dtype(); }
  Device device() const { return value_.device(); }
  /// True when backward() would send a gradient here.
  bool requires_grad() const { return node_ != nullptr; }
  /// The gradient gathered so far by a leaf; undefined before backward(). Throws Error for anything
  /// but a leaf.
  const Tensor& grad() const;
  /// The same value as a constant.
  Var detach() const { return Var(value_); }
  /// Entries begin..end of the first axis, as Tensor::rows(). No op: the value is shared, and
  /// gradients are added into these rows of what arrives where this Var comes from. So a weight is
  /// used part by part without a copy of it. Throws Error when there are no such rows.
  Var rows(std::int64_t begin, std::int64_t end) const;

  const std::shared_ptr<Node>& node() const { return node_; }
  int output_index() const { return output_; }
  /// The element of that output where this Var begins; kWhole unless it came from rows().
  std::int64_t first_element() const { return first_; }
  static constexpr std::int64_t kWhole = -1;

 private:
  friend std::vector<Var> record_many(const char*, std::vector<Tensor>, std::vector<Var>, Backward);
  friend Var record_one(const char*, Tensor, std::span<const Var>, Backward);

  Tensor value_;
  std::shared_ptr<Node> node_;
  int output_ = 0;
  std::int64_t first_ = kWhole;
};

/// One recorded op, or a leaf (no inputs, no closure).
struct Node {
  Node() = default;
  ~Node();  // takes long chains apart without recursion
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  struct Edge {
    std::shared_ptr<Node> node;  // null: no gradient wanted
    int output = 0;
    std::int64_t first = Var::kWhole;  // element of the output where the input begins
    Shape shape;
    DType dtype = DType::float32;
  };
  struct Output {
    Shape shape;
    DType dtype = DType::float32;
    Tensor grad;
  };

  const char* op = "leaf";
  std::string name;                          // leaves: the parameter's name
  std::shared_ptr<const std::string> scope;  // "backbone.layers.0.mixer"
  std::uint64_t sequence = 0;                // larger than that of every input's node
  std::vector<Edge> inputs;
  std::vector<Output> outputs;
  Backward backward;
  bool is_leaf = false;
  bool spent = false;  // backward() has freed it
  bool found = false;  // by the search that is under way
};

/// Attaches the gradient of an op to its result. `backward` is called at most once, with a defined
/// dy, and returns one entry an input. Nothing is recorded when no input wants a gradient or under
/// NoGrad.
template <class F>  // Grads(const Tensor& dy)
Var record(const char* op, Tensor y, std::initializer_list<Var> inputs, F backward);
template <class F>
Var record(const char* op, Tensor y, const std::vector<Var>& inputs, F backward);
/// The same for several outputs; some dy may be undefined.
std::vector<Var> record_many(const char* op, std::vector<Tensor> outputs, std::vector<Var> inputs,
                             Backward backward);
/// The result of an op without a gradient: backward() through it throws instead of dropping the
/// gradient.
Var record_without_gradient(const char* op, Tensor y, std::initializer_list<Var> inputs);
/// What both are made of: record_many() for one output, without its vectors.
Var record_one(const char* op, Tensor y, std::span<const Var> inputs, Backward backward);

/// Adds d loss / d leaf into every leaf that `loss` depends on, freeing the graph on the way.
/// `seed` is the gradient of the final result (1 for a scalar). Throws Error when `loss` has no
/// graph, when the graph was freed by an earlier call, when an op without a gradient is met, or
/// when an op returns a gradient of the wrong count, shape or type. When an op throws, leaves may
/// hold part of the sum, and the graph is freed all the same.
void backward(const Var& loss, Tensor seed = {});

/// While alive, ops of this thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};
bool grad_enabled();

/// While alive, `name` is appended to the scope of what this thread records: "layers.0" inside
/// "backbone" is "backbone.layers.0".
class Scope {
 public:
  explicit Scope(std::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  std::shared_ptr<const std::string> before_;
};
const std::string& current_scope();

/// What a watcher is shown. `node` is null when nothing was recorded.
struct OpEvent {
  const char* op;
  const std::string& scope;
  const Node* node;
};

/// Sees every op of the thread that installs it: the inspector, the search for the first NaN,
/// timers.
class Watcher {
 public:
  virtual ~Watcher() = default;
  /// After an op ran.
  virtual void on_forward(const OpEvent&, std::span<const Var> /*inputs*/,
                          std::span<const Tensor> /*outputs*/) {}
  /// After an op's backward ran: gradients of its outputs and what it returned for its inputs.
  virtual void on_backward(const OpEvent&, std::span<const Tensor> /*dy*/,
                           std::span<const Tensor> /*dx*/) {}
  /// Once for each leaf that the loss depends on, at the end, with what it has gathered so far.
  virtual void on_leaf(const std::string& /*name*/, const Tensor& /*grad*/) {}
};

/// Installs a watcher in this thread while alive; watchers stack.
class Watch {
 public:
  explicit Watch(Watcher& watcher);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Watcher* watcher_;
};

template <class F>
Var record(const char* op, Tensor y, std::initializer_list<Var> inputs, F backward) {
  return record_one(op, std::move(y), std::span(inputs.begin(), inputs.size()),
                    [run = std::move(backward)](std::span<const Tensor> dy) { return run(dy[0]); });
}

template <class F>
Var record(const char* op, Tensor y, const std::vector<Var>& inputs, F backward) {
  return record_one(op, std::move(y), inputs,
                    [run = std::move(backward)](std::span<const Tensor> dy) { return run(dy[0]); });
}

}  // namespace hax
