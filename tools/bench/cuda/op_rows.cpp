#include "tools/bench/cuda/op_rows.h"

#include "tools/bench/cuda/measure.h"
#include "tools/bench/inputs.h"
#include "tools/bench/memory_use.h"

namespace hax::bench {
namespace {

std::vector<Var> variables(const OpInstance& op) {
  std::vector<Var> vars;
  for (const Tensor& input : op.inputs) {
    vars.push_back(op.differentiable ? Var::leaf(input) : Var(input));
  }
  return vars;
}

// What both directions of an op have in common.
class OpRows {
 public:
  OpRows(Bench& bench, const OpCase& op_case, const OpSetting& setting,
         std::optional<double> target_share)
      : bench_(bench),
        name_(op_case.name),
        target_share_(target_share),
        op_(op_case.make(setting)) {}

  void measure_both() {
    Var y;
    const DeviceWork run_forward = [&] { y = op_.run(variables(op_)); };
    run_forward();
    if (!op_.differentiable) {
      const WorkTimes times = time_work(effort(), run_forward, {});
      return add("", times, &Passes::forward, op_.forward, run_forward, {});
    }
    const Tensor dy = random_tensor(y.shape(), 50, 1, y.device());
    const DeviceWork run_backward = [&] { backward(y, dy); };
    const WorkTimes times = time_work(effort(), run_forward, run_backward);
    add(": forward", times, &Passes::forward, op_.forward, run_forward, {});
    // An op may have nothing to do there: add() passes dy on.
    if (op_.backward.numbers == 0) return;
    const DeviceWork both = [&] {
      run_forward();
      run_backward();
    };
    add(": backward", times, &Passes::backward, op_.backward, both, run_forward);
  }

 private:
  Effort effort() const { return bench_.effort(.2, 5); }

  // Of what `work` does beyond `before`.
  void add(const char* direction, const WorkTimes& times, Timing Passes::*pass, const Work& counted,
           const DeviceWork& work, const DeviceWork& before) {
    Row row{.name = name_ + direction};
    row.label = std::string_view(direction) == ": backward" ? "  backward" : name_;
    const Limits& limits = bench_.one;
    row.launched_s = (times.launched.*pass).median;
    row.time((times.replayed.value_or(times.launched)).*pass);
    if (!times.replayed) row.note = "no graph of it: " + times.why_not;
    row.per_token(op_.rows).over(op_floor_seconds(counted, limits));
    row.counted(work_bytes(counted), counted.products + counted.other, limits.memory_bytes,
                limits.arithmetic.products);
    row.target_share = target_share_;
    row.launches = launches_of(work) - (before ? launches_of(before) : 0);
    const MemoryWatch memory(kCuda);
    work();
    row.bytes = memory.read().pool_bytes;
    bench_.report.add(row);
  }

  Bench& bench_;
  std::string name_;
  std::optional<double> target_share_;
  OpInstance op_;
};

}  // namespace

void add_op_rows(Bench& bench, const OpCase& op_case, const OpSetting& setting,
                 std::optional<double> target_share) {
  row_or_reason(bench, op_case.name,
                [&] { OpRows(bench, op_case, setting, target_share).measure_both(); });
  release_cached_memory(kCuda);
}

}  // namespace hax::bench
