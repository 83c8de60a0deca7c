#include "engine/autograd.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

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

std::shared_ptr<Node> make_node(const char* op, std::span<const Tensor> outputs,
                                std::span<const Var> inputs, Backward backward) {
  auto node = std::make_shared<Node>();
  node->op = op;
  node->scope = state().scope;
  node->sequence = ++state().sequence;
  node->backward = std::move(backward);
  node->inputs.reserve(inputs.size());
  for (const Var& input : inputs) {
    // The edge keeps the producer alive, not the value: what no closure saved is freed with its
    // last Var.
    Node::Edge edge{input.node(), input.output_index(), {}, DType::float32};
    if (input.defined()) {
      edge.shape = input.shape();
      edge.dtype = input.dtype();
    }
    node->inputs.push_back(std::move(edge));
  }
  for (const Tensor& output : outputs) {
    node->outputs.push_back({output.shape(), output.dtype(), {}});
  }
  return node;
}

// Adds a gradient to what has arrived so far. The first arrival is shared, not copied; the second
// one adds in place only when nobody else holds the storage.
void add_gradient(Tensor& slot, const Tensor& grad) {
  if (!slot.defined()) {
    slot = grad;
    return;
  }
  if (!slot.unique()) slot = slot.clone();
  accumulate(slot, grad);
}

void check_gradients(const Node& node, const Grads& dx) {
  check(dx.size() == node.inputs.size(), "{}: backward returned {} gradients for {} inputs",
        describe(node), dx.size(), node.inputs.size());
  for (std::size_t i = 0; i < dx.size(); ++i) {
    if (!dx[i].defined()) continue;
    const Node::Edge& edge = node.inputs[i];
    check(dx[i].shape() == edge.shape && dx[i].dtype() == edge.dtype,
          "{}: the gradient of input {} is {} {}, the input is {} {}", describe(node), i,
          name_of(dx[i].dtype()), to_string(dx[i].shape()), name_of(edge.dtype),
          to_string(edge.shape));
  }
}

// Every node that the root depends on, newest first: an op's consumers always come before it.
std::vector<std::shared_ptr<Node>> nodes_newest_first(const std::shared_ptr<Node>& root) {
  std::vector<std::shared_ptr<Node>> found{root};
  std::unordered_set<const Node*> seen{root.get()};
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::shared_ptr<Node> node = found[i];
    for (const Node::Edge& edge : node->inputs) {
      if (edge.node && seen.insert(edge.node.get()).second) found.push_back(edge.node);
    }
  }
  std::ranges::sort(found, std::greater{}, [](const auto& node) { return node->sequence; });
  return found;
}

void visit(Node& node) {
  if (node.is_leaf) {
    for (Watcher* watcher : state().watchers) {
      watcher->on_leaf(node.name, node.outputs.front().grad);
    }
    return;
  }
  check(!node.spent,
        "backward through {}: its graph was freed by an earlier backward(); run the forward again",
        describe(node));
  std::vector<Tensor> dy;
  for (Node::Output& output : node.outputs) dy.push_back(std::exchange(output.grad, Tensor{}));
  if (std::ranges::any_of(dy, &Tensor::defined)) {
    check(static_cast<bool>(node.backward),
          "{} has no gradient: detach its input, or take its result out of the loss",
          describe(node));
    const Grads dx = node.backward(dy);
    check_gradients(node, dx);
    for (Watcher* watcher : state().watchers) {
      watcher->on_backward({node.op, *node.scope, &node}, dy, dx);
    }
    dy.clear();
    for (std::size_t i = 0; i < dx.size(); ++i) {
      const Node::Edge& edge = node.inputs[i];
      if (!edge.node || !dx[i].defined()) continue;
      Node::Output& target = edge.node->outputs[static_cast<std::size_t>(edge.output)];
      if (edge.node->is_leaf && target.grad.defined()) {
        accumulate(target.grad, dx[i]);  // a leaf's tensor may be the caller's: always in place
      } else if (edge.node->is_leaf) {
        target.grad = dx[i].clone();
      } else {
        add_gradient(target.grad, dx[i]);
      }
    }
  }
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
  check(is_floating(value.dtype()), "leaf '{}': only floating-point tensors have gradients, not {}",
        name, name_of(value.dtype()));
  check(!grad.defined() || (grad.shape() == value.shape() && grad.dtype() == value.dtype()),
        "leaf '{}': its gradient tensor has another shape or type than its value", name);
  Var var(std::move(value));
  var.node_ = std::make_shared<Node>();
  var.node_->name = std::move(name);
  var.node_->scope = state().scope;
  var.node_->is_leaf = true;
  var.node_->outputs.push_back({var.shape(), var.dtype(), std::move(grad)});
  return var;
}

const Tensor& Var::grad() const {
  check(node_ && node_->is_leaf, "grad(): only leaves keep their gradient");
  return node_->outputs.front().grad;
}

std::vector<Var> record_many(const char* op, std::vector<Tensor> outputs, std::vector<Var> inputs,
                             Backward backward) {
  const bool wanted = state().grad_enabled && std::ranges::any_of(inputs, &Var::requires_grad);
  std::shared_ptr<Node> node;
  if (wanted) node = make_node(op, outputs, inputs, std::move(backward));
  for (Watcher* watcher : state().watchers) {
    watcher->on_forward({op, *state().scope, node.get()}, inputs, outputs);
  }
  std::vector<Var> results;
  for (Tensor& output : outputs) {
    Var var(std::move(output));
    var.node_ = node;
    var.output_ = static_cast<int>(results.size());
    results.push_back(std::move(var));
  }
  return results;
}

Var record(const char* op, Tensor y, std::vector<Var> inputs,
           std::function<Grads(const Tensor& dy)> backward) {
  return record_many(op, {std::move(y)}, std::move(inputs),
                     [run = std::move(backward)](std::span<const Tensor> dy) { return run(dy[0]); })
      .front();
}

Var record_without_gradient(const char* op, Tensor y, std::vector<Var> inputs) {
  return record_many(op, {std::move(y)}, std::move(inputs), nullptr).front();
}

void backward(const Var& loss, Tensor seed) {
  check(loss.requires_grad(), "backward: the loss does not depend on any leaf");
  if (!seed.defined()) {
    check(loss.value().numel() == 1, "backward: the loss has shape {}; give a seed gradient",
          to_string(loss.shape()));
    seed = Tensor::full(loss.shape(), 1.0, loss.dtype(), loss.device());
  }
  check(seed.shape() == loss.shape() && seed.dtype() == loss.dtype(),
        "backward: the seed has another shape or type than the loss");
  Node::Output& root = loss.node()->outputs[static_cast<std::size_t>(loss.output_index())];
  add_gradient(root.grad, seed);
  auto nodes = nodes_newest_first(loss.node());
  for (std::shared_ptr<Node>& node : nodes) {
    visit(*node);
    node.reset();
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

Watch::Watch(Watcher& watcher) { state().watchers.push_back(&watcher); }
Watch::~Watch() { state().watchers.pop_back(); }

}  // namespace hax
