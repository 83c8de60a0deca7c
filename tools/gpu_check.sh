#!/usr/bin/env bash
# All that a GPU is wanted for, in one command: builds for the present GPU, runs the tests, compute-sanitizer, the
# comparison with the CPU, fixtures, benchmarks and two training runs, and writes a dated report. See docs/cuda.md.
set -uo pipefail

stages=(build tests sanitizer parity verify bench train)
usage() {
  cat <<END
usage: tools/gpu_check.sh [options]
  --skip STAGE[,STAGE..]  leave stages out; they are: ${stages[*]}
  --build-dir DIR         use the hax and hax_tests there instead of building
  --fixtures DIR          fixtures for hax verify (default: ../shared/goldens and tests/fixtures, as far as they exist)
  --report FILE           where the report goes (default: docs/results/gpu-check-DATE.md)
  --quick                 small benchmarks and 20 tiny training steps, to try the script itself
Every stage has a time limit, so that all take less than 8 minutes with 16 cores. A stage that fails does not stop those after
it. Exit status: 0 when all that ran succeeded, 1 when something failed, 2 when the arguments are wrong.
END
}

fail_usage() {
  echo "gpu_check: $1 (see tools/gpu_check.sh --help)" >&2
  exit 2
}

skip=, build_dir='' report='' quick=0 fixtures=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --quick) quick=1 && shift && continue ;;
    --skip | --build-dir | --fixtures | --report) (($# >= 2)) || fail_usage "$1 expects a value" ;;
    *) fail_usage "unknown argument '$1'" ;;
  esac
  case $1 in
    --skip) skip+=$2, ;;
    --build-dir) build_dir=$2 ;;
    --fixtures) fixtures=("$2") ;;
    --report) report=$2 ;;
  esac
  shift 2
done
IFS=, read -ra skipped <<<"${skip#,}"
for name in "${skipped[@]}"; do
  [[ " ${stages[*]} " == *" $name "* ]] || fail_usage "unknown stage '$name', expected one of ${stages[*]}"
done
[[ -z $build_dir || -x $build_dir/hax ]] || fail_usage "--build-dir $build_dir: there is no hax"
((${#fixtures[@]} == 0)) || [[ -d ${fixtures[0]} ]] || fail_usage "--fixtures ${fixtures[0]}: no such folder"

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
[[ -z $build_dir ]] || skip+=build,
date=$(date -u +%Y-%m-%d)
report=${report:-docs/results/gpu-check-$date.md}
logs=build/gpu_check
rm -rf "$logs"
mkdir -p "$logs" "$(dirname "$report")"
build=${build_dir:-build/gpu}
status=0
((${#fixtures[@]})) || for folder in ../shared/goldens tests/fixtures; do
  [[ ! -d $folder ]] || fixtures+=("$folder")
done

ask_gpu() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1; }
gpu=$(ask_gpu name)
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
{
  echo "# ${gpu:-No NVIDIA GPU (the emulation, or none)}, $date"
  echo
  echo "Written by \`tools/gpu_check.sh\`. Commit $commit; driver $(ask_gpu driver_version || true); $(nproc) cores;" \
    "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/CUDA \1/p')."
} >"$report"

say() { echo "$@" | tee -a "$report"; }
wanted() { [[ $skip != *,$1,* ]]; }
# stage NAME TITLE: begins a section; false when it is to be left out.
stage() {
  printf '\n## %s\n\n' "$2" >>"$report"
  echo "== $2"
  wanted "$1" && return 0
  say "Left out."
  return 1
}
failed() {
  status=1
  say "**Failed:** $1"
}
quote() { (echo '```' && cat && echo '```') >>"$report"; }
seconds_since() { echo "$((SECONDS - $1)) s"; }

start=$SECONDS
if stage build 'Build'; then
  begin=$SECONDS
  capability=$(ask_gpu compute_cap)
  if [[ -z $capability ]]; then
    failed 'there is no GPU to build for: nvidia-smi names none (use --build-dir, or --skip build)'
  elif cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DHAX_NATIVE=ON -DHAX_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="${capability/./}" >"$logs/build.log" 2>&1 &&
    timeout 270 cmake --build "$build" -j "$(nproc)" >>"$logs/build.log" 2>&1; then
    say "For compute capability $capability: $(seconds_since "$begin")."
  else
    failed "the build (its log ends: $(tail -n 1 "$logs/build.log"))"
  fi
fi
hax=$build/hax tests=$build/hax_tests
if [[ ! -x $hax || ! -x $tests ]]; then
  failed "there is no $hax and $tests to go on with"
  exit 1
fi

if stage tests 'Tests'; then
  begin=$SECONDS
  count=$("$tests" --count | sed -n 's/.*current filters: *\([0-9]*\).*/\1/p')
  shards=$(($(nproc) < 12 ? $(nproc) : 12))
  each=$(((${count:-600} + shards - 1) / shards))
  for ((shard = 0; shard < shards; ++shard)); do
    OMP_NUM_THREADS=2 timeout 120 "$tests" --first=$((shard * each + 1)) --last=$(((shard + 1) * each)) \
      >"$logs/tests.$shard.log" 2>&1 &
  done
  wait
  numbers=$(sed -n 's/.*test cases: *\([0-9]*\) *| *\([0-9]*\) passed *| *\([0-9]*\) failed.*/\1 \2 \3/p' "$logs"/tests.*.log |
    awk '{ all += $1; passed += $2; failed += $3; ++shards } END { print all + 0, passed + 0, failed + 0, shards + 0 }')
  read -r all passed broken ended <<<"$numbers"
  say "$passed of $all test cases passed in $(seconds_since "$begin"), in $shards processes."
  ((ended == shards)) || failed "$((shards - ended)) of the processes did not end by themselves"
  if ((broken > 0 || all == 0)); then
    failed "$broken test cases"
    grep -h -B1 -A6 'ERROR:' "$logs"/tests.*.log | head -n 40 | quote
  fi
fi

if stage sanitizer 'compute-sanitizer'; then
  if ! command -v compute-sanitizer >/dev/null || [[ -z $gpu ]]; then
    say 'Left out: there is no compute-sanitizer or no GPU.'
  else
    say 'Over the op tests; racecheck, which is slow, over those of the scans, attention and selectors.'
    all_ops='* on CUDA*'
    few_ops='selective_scan on CUDA: tokens*,sparse_attention on CUDA*,lsh_keys on CUDA*,unite on CUDA*,ranking_loss on CUDA*,ssd on CUDA*'
    for tool in memcheck racecheck initcheck synccheck; do
      cases=$all_ops
      [[ $tool != racecheck ]] || cases=$few_ops
      timeout 60 compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 "$tests" -tc="$cases" \
        -tce='*bench*,*step*,*run on*,*fixtures*,*AdamW*,*every op*' >"$logs/$tool.log" 2>&1
      echo $? >"$logs/$tool.status" &
    done
    wait
    for tool in memcheck racecheck initcheck synccheck; do
      summary=$(grep 'SUMMARY' "$logs/$tool.log" | tail -n 1 | sed 's/^=* *//')
      cases=$(sed -n 's/.*test cases: *\([0-9]*\) *|.*/\1/p' "$logs/$tool.log")
      case $(cat "$logs/$tool.status") in
        0) say "- $tool: ${summary:-no summary}, ${cases:-0} test cases" ;;
        124) say "- $tool: did not end within 60 s; no error until then: $(grep -c '========= .*Error\|========= Invalid' "$logs/$tool.log") reports" ;;
        *) failed "$tool: ${summary:-$(tail -n 1 "$logs/$tool.log")}" ;;
      esac
    done
  fi
fi

if stage parity 'Every op beside the CPU, float32'; then
  timeout 60 "$hax" gradcheck --device cuda >"$logs/parity.log" 2>&1 || failed 'an op differs from the CPU'
  say "$(tail -n 1 "$logs/parity.log")"
  { grep '^op ' "$logs/parity.log" && grep -v '^op ' "$logs/parity.log" | grep 'e[-+][0-9][0-9] ' | sort -k1,1 -s; } | quote
fi

if stage verify 'Fixtures'; then
  for folder in "${fixtures[@]}"; do
    timeout 60 "$hax" verify "$folder"/*.safetensors --device cuda >"$logs/verify.log" 2>&1 || failed "fixtures of $folder"
    say "$folder: $(tail -n 1 "$logs/verify.log")"
  done
  ((${#fixtures[@]})) || say 'Left out: there are no fixtures.'
fi

if stage bench 'Benchmarks'; then
  flags=()
  ((quick == 0)) || flags=(--quick --bsz 2)
  timeout 110 "$hax" bench --device cuda "${flags[@]}" >"$logs/bench.log" 2>&1 || failed 'hax bench --device cuda'
  quote <"$logs/bench.log"
fi

if stage train 'Training'; then
  steps=2000 setting="the paper's setting" flags=()
  ((quick == 0)) || steps=20 setting='a tiny setting' flags=(--bsz 2 --contexts 2:3 --keys 2:3 --valid_samples 4 --test_samples 4)
  say "$steps steps at $setting (seed 0), beside the CPU's curves (\`tools/compare_curves\`)."
  for arch in mamba mamba2; do
    run=$logs/run_$arch
    if ! timeout 60 "$hax" train --device cuda --base_arch "$arch" --sparse_arch sign_bin_lsh+key_selection --step "$steps" \
      --log_step 10 --valid_step "$steps" --save_dir "$run" "${flags[@]}" >"$logs/train_$arch.log" 2>&1; then
      failed "training of $arch: $(tail -n 1 "$logs/train_$arch.log")"
      continue
    fi
    took=$(sed -n 's/.*"seconds": \([0-9]*\.[0-9]\{1,2\}\).*/\1/p' "$run/costs.json" | tail -n 1)
    say "- $arch + HAX: $took s, $(grep '^test:' "$logs/train_$arch.log")"
    curves=docs/results/curves/$arch-hax.csv
    if ((quick)); then
      continue
    elif [[ ! -f $curves ]]; then
      say "  (no $curves to compare with)"
    elif ! band=$(tools/compare_curves "$run/metrics.jsonl" "$curves" 2>&1); then
      failed "loss curve of $arch: $band"
    else
      say "  $band"
    fi
  done
fi

printf '\nAll of it: %s.\n' "$(seconds_since "$start")" >>"$report"
echo "== report: $report; logs: $logs"
exit "$status"
