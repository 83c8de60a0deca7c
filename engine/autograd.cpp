#include "engine/autograd.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/recycle.h"

namespace hax {
namespace {

struct ThreadState {
  bool grad_enabled = true;
  std::uint64_t sequence = 0;
  std::shared_ptr<const std::string> scope = std::make_shared<const std::string>();
  std::vector<Watcher*> watchers;
};

ThreadState& state() {
  thread_local ThreadState current;
  return current;
}

std::string describe(const Node& node) {
  if (node.is_leaf) return fmt::format("leaf '{}'", node.name);
  return node.scope->empty() ? node.op : fmt::format("{} in {}", node.op, *node.scope);
}

// check(), with the node's place in front; nothing is formatted while all is well.
template <class... Args>
void check_node(bool ok, const Node& node, fmt::format_string<Args...> message, Args&&... args) {
  if (!ok) [[unlikely]]
    throw Error(describe(node) + fmt::format(message, std::forward<Args>(args)...));
}

std::shared_ptr<Node> make_node(const char* op, std::span<const Tensor> outputs,
                                std::span<const Var> inputs, Backward backward) {
  auto node = std::allocate_shared<Node>(Recycled<Node>());
  node->op = op;
  node->scope = state().scope;
  node->backward = std::move(backward);
  node->inputs.reserve(inputs.size());
  for (const Var& input : inputs) {
    // The edge keeps the producer alive, not the value: what no closure saved is freed with its
    // last Var.
    Node::Edge edge{input.node(), input.output_index(), input.first_element(), {}, DType::float32};
    if (input.defined()) {
      edge.shape = input.shape();
      edge.dtype = input.dtype();
    }
    // Later than every input, those that another thread recorded included.
    if (edge.node) state().sequence = std::max(state().sequence, edge.node->sequence);
    node->inputs.push_back(std::move(edge));
  }
  node->sequence = ++state().sequence;
  node->outputs.reserve(outputs.size());
  for (const Tensor& output : outputs) {
    node->outputs.push_back({output.shape(), output.dtype(), {}});
  }
  return node;
}

// Sums of leaves on CUDA that wait for each other, so that one launch does many. They hold memory
// meanwhile, so not for long.
class LeafSums {
 public:
  void add(Tensor to, const Tensor& from) {
    if (to.device().is_cpu()) return accumulate(to, from);
    bytes_ += from.bytes();
    waiting_.push_back({std::move(to), from});
    if (waiting_.size() >= 64 || bytes_ > kMostBytes) finish();
  }
  void finish() {
    accumulate_all(waiting_);
    waiting_.clear();
    bytes_ = 0;
  }

 private:
  static constexpr std::int64_t kMostBytes = std::int64_t{32} << 20;
  std::vector<Addition> waiting_;
  std::int64_t bytes_ = 0;
};

// Adds a gradient to what has arrived so far at an output, from the element `first` on where it is
// that of some rows. An op's output shares its first arrival and adds the next one in place only
// when nobody else holds the storage. A leaf owns its tensor, or was given it by the caller: it
// shares with nobody, and always adds in place.
void add_gradient(Node& node, int output, std::int64_t first, const Tensor& grad,
                  LeafSums& leaves) {
  Node::Output& to = node.outputs[static_cast<std::size_t>(output)];
  Tensor& slot = to.grad;
  if (first != Var::kWhole) {
    if (!slot.defined()) slot = Tensor::zeros(to.shape, to.dtype, grad.device());
    if (!node.is_leaf && !slot.unique()) slot = slot.clone();
    Tensor part = slot.flat(first, first + grad.numel());
    const Tensor numbers = grad.reshape(part.shape());
    if (node.is_leaf) return leaves.add(part, numbers);
    return accumulate(part, numbers);
  }
  if (!slot.defined()) {
    slot = node.is_leaf && !grad.unique() ? grad.clone() : grad;
    return;
  }
  if (node.is_leaf) return leaves.add(slot, grad);
  if (!slot.unique()) slot = slot.clone();
  accumulate(slot, grad);
}

void check_gradients(const Node& node, const Grads& dx) {
  check_node(dx.size() == node.inputs.size(), node,
             ": backward returned {} gradients for {} inputs", dx.size(), node.inputs.size());
  for (std::size_t i = 0; i < dx.size(); ++i) {
    if (!dx[i].defined()) continue;
    const Node::Edge& edge = node.inputs[i];
    check_node(dx[i].shape() == edge.shape && dx[i].dtype() == edge.dtype, node,
               ": the gradient of input {} is {} {}, the input is {} {}", i, name_of(dx[i].dtype()),
               dx[i].shape(), name_of(edge.dtype), edge.shape);
  }
}

// Every node that the root depends on, newest first: an op's consumers always come before it.
std::vector<std::shared_ptr<Node>> nodes_newest_first(const std::shared_ptr<Node>& root) {
  std::vector<std::shared_ptr<Node>> found{root};
  root->found = true;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Node& node = *found[i];  // stays where it is when `found` grows
    for (const Node::Edge& edge : node.inputs) {
      if (edge.node && !std::exchange(edge.node->found, true)) found.push_back(edge.node);
    }
  }
  for (const std::shared_ptr<Node>& node : found) node->found = false;
  std::ranges::stable_sort(found, std::greater{}, [](const auto& node) { return node->sequence; });
  return found;
}

void visit_leaf(Node& leaf) {
  const Tensor& grad = leaf.outputs.front().grad;
  if (!grad.defined()) return;  // every path here ended in an op that passed nothing on
  for (Watcher* watcher : state().watchers) watcher->on_leaf(leaf.name, grad);
}

void visit_op(Node& node, LeafSums& leaves) {
  std::vector<Tensor> dy;
  for (Node::Output& output : node.outputs) dy.push_back(std::exchange(output.grad, Tensor{}));
  if (std::ranges::none_of(dy, &Tensor::defined)) return;
  check_node(static_cast<bool>(node.backward), node,
             " has no gradient: detach its input, or take its result out of the loss");
  const Grads dx = node.backward(dy);
  check_gradients(node, dx);
  for (Watcher* watcher : state().watchers) {
    watcher->on_backward({node.op, *node.scope, &node}, dy, dx);
  }
  // What this op alone held must go before its gradients are added up: in place where possible.
  node.backward = nullptr;
  dy.clear();
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const Node::Edge& edge = node.inputs[i];
    if (edge.node && dx[i].defined()) {
      add_gradient(*edge.node, edge.output, edge.first, dx[i], leaves);
    }
  }
}

void release(Node& node) {
  for (Node::Output& output : node.outputs) output.grad = {};
  node.backward = nullptr;
  node.inputs.clear();
  node.spent = true;
}

}  // namespace

Node::~Node() {
  std::vector<std::shared_ptr<Node>> pending;
  const auto take_inputs = [&](Node& node) {
    for (Edge& edge : node.inputs) {
      if (edge.node) pending.push_back(std::move(edge.node));
    }
  };
  take_inputs(*this);
  while (!pending.empty()) {
    const std::shared_ptr<Node> node = std::move(pending.back());
    pending.pop_back();
    if (node.use_count() == 1) take_inputs(*node);
  }
}

Var Var::leaf(Tensor value, std::string name, Tensor grad) {
  check(value.defined(), "leaf '{}': its value is undefined", name);
  check(is_floating(value.dtype()), "leaf '{}': only floating-point tensors have gradients, not {}",
        name, name_of(value.dtype()));
  check(!grad.defined() || (grad.shape() == value.shape() && grad.dtype() == value.dtype() &&
                            grad.device() == value.device()),
        "leaf '{}': its gradient tensor has another shape, type or device than its value", name);
  Var var(std::move(value));
  var.node_ = std::make_shared<Node>();
  var.node_->name = std::move(name);
  var.node_->scope = state().scope;
  var.node_->is_leaf = true;
  var.node_->outputs.push_back({var.shape(), var.dtype(), std::move(grad)});
  return var;
}

Var Var::rows(std::int64_t begin, std::int64_t end) const {
  Var part = *this;
  part.value_ = value_.rows(begin, end);
  if (!node_ || part.shape() == shape()) return part;
  const std::int64_t row = size(0) == 0 ? 0 : value_.numel() / size(0);
  part.first_ = std::max<std::int64_t>(first_, 0) + begin * row;
  return part;
}

const Tensor& Var::grad() const {
  check(node_ && node_->is_leaf && first_ == kWhole, "grad(): only leaves keep their gradient");
  return node_->outputs.front().grad;
}

namespace {

// Tells the watchers, and makes a node if a gradient is wanted.
std::shared_ptr<Node> record_node(const char* op, std::span<const Tensor> outputs,
                                  std::span<const Var> inputs, Backward backward) {
  const bool wanted = state().grad_enabled && std::ranges::any_of(inputs, &Var::requires_grad);
  std::shared_ptr<Node> node;
  if (wanted) node = make_node(op, outputs, inputs, std::move(backward));
  for (Watcher* watcher : state().watchers) {
    watcher->on_forward({op, *state().scope, node.get()}, inputs, outputs);
  }
  return node;
}

}  // namespace

std::vector<Var> record_many(const char* op, std::vector<Tensor> outputs, std::vector<Var> inputs,
                             Backward backward) {
  const std::shared_ptr<Node> node = record_node(op, outputs, inputs, std::move(backward));
  std::vector<Var> results;
  for (Tensor& output : outputs) {
    Var var(std::move(output));
    var.node_ = node;
    var.output_ = static_cast<int>(results.size());
    results.push_back(std::move(var));
  }
  return results;
}

Var record_one(const char* op, Tensor y, std::span<const Var> inputs, Backward backward) {
  Var var(std::move(y));
  var.node_ = record_node(op, {&var.value_, 1}, inputs, std::move(backward));
  return var;
}

Var record_without_gradient(const char* op, Tensor y, std::initializer_list<Var> inputs) {
  return record_one(op, std::move(y), std::span(inputs.begin(), inputs.size()), nullptr);
}

void backward(const Var& loss, Tensor seed) {
  check(loss.requires_grad(), "backward: the loss does not depend on any leaf");
  if (!seed.defined()) {
    check(loss.value().numel() == 1, "backward: the loss has shape {}; give a seed gradient",
          loss.shape());
    seed = Tensor::full(loss.shape(), 1.0, loss.dtype(), loss.device());
  }
  check(seed.shape() == loss.shape() && seed.dtype() == loss.dtype() &&
            seed.device() == loss.device(),
        "backward: the seed is {} {} on {}, the loss is {} {} on {}", name_of(seed.dtype()),
        seed.shape(), name_of(seed.device()), name_of(loss.dtype()), loss.shape(),
        name_of(loss.device()));
  auto nodes = nodes_newest_first(loss.node());
  for (const std::shared_ptr<Node>& node : nodes) {
    check_node(!node->spent, *node,
               ": its graph was freed by an earlier backward(); run the forward again");
  }
  LeafSums leaves;
  add_gradient(*loss.node(), loss.output_index(), loss.first_element(),
               std::exchange(seed, Tensor{}), leaves);
  try {
    for (const std::shared_ptr<Node>& node : nodes) {
      if (node->is_leaf) {
        leaves.finish();  // leaves come last: they are older than every op
        visit_leaf(*node);
      } else {
        visit_op(*node, leaves);
        release(*node);
      }
    }
  } catch (...) {
    // Half-way gradients must not reach a later backward() that shares part of this graph.
    for (const std::shared_ptr<Node>& node : nodes) {
      if (!node->is_leaf) release(*node);
    }
    throw;
  }
}

NoGrad::NoGrad() : before_(std::exchange(state().grad_enabled, false)) {}
NoGrad::~NoGrad() { state().grad_enabled = before_; }
bool grad_enabled() { return state().grad_enabled; }

Scope::Scope(std::string_view name) : before_(state().scope) {
  state().scope = std::make_shared<const std::string>(
      before_->empty() ? std::string(name) : fmt::format("{}.{}", *before_, name));
}
Scope::~Scope() { state().scope = before_; }
const std::string& current_scope() { return *state().scope; }

Watch::Watch(Watcher& watcher) : watcher_(&watcher) { state().watchers.push_back(&watcher); }
Watch::~Watch() {
  std::vector<Watcher*>& watchers = state().watchers;
  // The newest of its kind: normally the last, but a Watch may also outlive a younger one.
  const auto newest = std::ranges::find(watchers.rbegin(), watchers.rend(), watcher_);
  if (newest != watchers.rend()) watchers.erase(std::next(newest).base());
}

}  // namespace hax
