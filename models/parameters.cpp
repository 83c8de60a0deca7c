#include "models/parameters.h"

#include <algorithm>
#include <cmath>

namespace hax {
namespace {

constexpr std::int64_t kAlignElements = 16;  // 64 bytes of float32
constexpr int kMaxFlatBits = 40;             // 4 TiB of float32: a typing error in a configuration

// FNV-1a: names a parameter's random stream.
std::uint32_t hash_of(std::string_view name) {
  std::uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

void set_all(Tensor& tensor, auto value_of) {
  const Tensor values = [&] {
    Tensor t = Tensor::empty(tensor.shape(), DType::float64);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = value_of(i);
    return t;
  }();
  copy(tensor, values.to(tensor.dtype()));
}

void draw(Tensor& tensor, const Init& init, RandomKey key) {
  RandomStream stream(key);
  switch (init.kind) {
    case Init::Kind::constant:
      return fill(tensor, init.a);
    case Init::Kind::normal:
      return fill_normal(tensor, key, init.a);
    case Init::Kind::uniform:
      return fill_uniform(tensor, key, -init.a, init.a);
    case Init::Kind::log_counting: {
      const std::int64_t width = tensor.size(-1);
      return set_all(
          tensor, [&](std::int64_t i) { return std::log(1.0 + static_cast<double>(i % width)); });
    }
    case Init::Kind::inverse_softplus:
      return set_all(tensor, [&](std::int64_t) {
        const double low = std::log(init.a), high = std::log(init.b);
        const double dt = std::max(std::exp(low + (high - low) * stream.uniform()), init.c);
        return dt + std::log(-std::expm1(-dt));
      });
  }
}

}  // namespace

ParamId ParamTable::add(std::string name, Shape shape, Init init) {
  check(!names_.contains(name), "parameter '{}' is declared twice", name);
  // The bound is a multiple of the alignment: a count that fits, fits with its gap.
  constexpr std::int64_t kMax = std::int64_t{1} << kMaxFlatBits;
  const std::int64_t count = shape.numel();
  check(count <= kMax - flat_size_,
        "parameter '{}' of shape {} takes the model beyond 2^{} numbers; use smaller sizes", name,
        shape, kMaxFlatBits);
  names_.insert(name);
  specs_.push_back({std::move(name), shape, init, flat_size_});
  flat_size_ += (count + kAlignElements - 1) / kAlignElements * kAlignElements;
  return {static_cast<int>(specs_.size()) - 1};
}

std::int64_t ParamTable::count() const {
  std::int64_t sum = 0;
  for (const ParamSpec& spec : specs_) sum += spec.shape.numel();
  return sum;
}

Parameters::Parameters(const ParamTable& table, DType dtype, Device device)
    : specs_(table.specs()), flat_(Tensor::zeros({table.flat_size()}, dtype, device)) {}

Parameters Parameters::to(Device device) const {
  Parameters there = *this;
  there.flat_ = flat_.to(device);
  return there;
}

Tensor Parameters::view(std::size_t index) const {
  const ParamSpec& spec = specs_.at(index);
  return flat_.flat(spec.offset, spec.offset + spec.shape.numel()).reshape(spec.shape);
}

Tensor Parameters::find(std::string_view name) const {
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    if (specs_[i].name == name) return view(i);
  }
  return {};
}

void Parameters::initialize(std::uint64_t seed) {
  if (!device().is_cpu()) {
    Parameters drawn = to(kCpu);
    drawn.initialize(seed);
    return copy(flat_, drawn.flat());
  }
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    Tensor tensor = view(i);
    draw(tensor, specs_[i].init,
         {.seed = seed, .sequence = hash_of(specs_[i].name), .purpose = Purpose::init});
  }
}

Leaves::Leaves(const Parameters& values) : dtype_(values.flat().dtype()) {
  for (std::size_t i = 0; i < values.specs().size(); ++i) vars_.emplace_back(values.view(i));
}

Leaves::Leaves(const Parameters& values, const Parameters& gradients)
    : dtype_(values.flat().dtype()) {
  check(values.specs().size() == gradients.specs().size(),
        "gradients belong to another table of parameters");
  for (std::size_t i = 0; i < values.specs().size(); ++i) {
    vars_.push_back(Var::leaf(values.view(i), values.specs()[i].name, gradients.view(i)));
  }
}

}  // namespace hax
