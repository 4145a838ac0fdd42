#!/usr/bin/env bash
# A record of a GPU host: sweeps in order, the most telling first, over one store of captures.
#
#   tools/gpu/record.sh FOLDER SECONDS STEP...     (without a step: the list of steps)
#
# Each step writes FOLDER/STEP/ (report.json, report.md, report.html, log.txt). A step that would
# begin after SECONDS is left out and named; one that runs on for long stops its engines in time to
# judge what the others gave. Environment: DEVICE (cuda), STORE, PYTHON (python3), MORE (options for all);
# SERIES, the series gemma4-pp with the patch of empty-tile/ behind it: whether that alone makes the
# kernels of 0.20.2 invariant; for real checkpoints WEIGHTS, the folder with smollm2-135m and
# gemma3-270m (docs/models.md; REAL names others), and GSM8K, the questions: test.jsonl with
# train.jsonl beside it; for images DEEPSTACK, the folder that `python -m tools.deepstack` writes,
# and QUANTISED, one that `python -m tools.quantise` writes;
# for the census CENSUS, the folder configs/ that
# `pp-harness census --pin 0.33.0 --plan` writes.
set -uo pipefail

real=${REAL:-${WEIGHTS:-WEIGHTS}/smollm2-135m,${WEIGHTS:-WEIGHTS}/gemma3-270m}
recipes=async,aborts,fp8,kv-fp8,kv-offload,logprobs,lora,prefix-cache,sharded-state,spec-ngram,spec-draft,structured,transformers
# Architectures of 0.33.0 that need kernels of a GPU: state-space, linear and sparse attention, experts.
census=$(printf ",shape:${CENSUS:-CENSUS}/%s.json" FalconMambaForCausalLM FalconH1ForCausalLM \
  NemotronHForCausalLM Qwen3NextForCausalLM JambaForCausalLM GraniteMoeHybridForCausalLM \
  OlmoHybridForCausalLM Lfm2ForCausalLM KimiLinearForCausalLM MambaForCausalLM \
  NemotronHPuzzleForCausalLM DeepseekV32ForCausalLM GlmMoeDsaForCausalLM BeamForCausalLM \
  FlintForCausalLM HYV4ForCausalLM LagunaForCausalLM LongcatFlashForCausalLM \
  LongcatFlashNgramForCausalLM MiniMaxM2ForCausalLM Qwen4ExpForCausalLM Step5ForCausalLM)
declare -A steps=(
  [parity]="--pp 2 --pp-variant merged,fixed --pp-model ple,dense,moe --pp-gsm8k-limit 64"
  [mm]="--pp 2 --pp-variant merged,fixed --pp-model mm --pp-gsm8k-limit 64"
  [short]="--pp 2 --pp-variant fixed --pp-model ple,shape:E4B --pp-profile both"
  [base]="--pp 2 --pp-variant base --pp-model ple,moe --pp-gsm8k-limit 64"
  [stress]="--pp 2 --pp-variant fixed --pp-model ple,dense --pp-profile stress"
  [invariant]="--pp 2 --pp-variant fixed --pp-model ple,dense,moe --pp-profile stress --pp-kernels both"
  [invariant-E4B]="--pp 2 --pp-variant fixed --pp-model shape:E4B --pp-profile stress --pp-kernels both"
  [invariant-large]="--pp 4 --pp-variant fixed --pp-model shape:E4B,shape:26B-A4B,shape:31B --pp-profile stress --pp-kernels invariant"
  [empty-tile]="--pp 2 --pp-series SERIES --pp-variant fixed,empty-tile --pp-model ple,dense --pp-profile stress --pp-kernels invariant"
  [compiled]="--pp 2 --pp-variant merged,fixed --pp-model ple --pp-mode compiled --pp-gsm8k-limit 64"
  [compiled-invariant]="--pp 2 --pp-variant fixed --pp-model ple,dense --pp-mode compiled --pp-kernels invariant --pp-gsm8k-limit 64"
  [v2]="--pp 2 --pp-variant merged,fixed --pp-model ple --pp-runner v2 --pp-gsm8k-limit 64"
  [pin26]="--pp 2 --pp-variant base,fixed --pp-model ple,dense,moe --pp-pin 0.26.0 --pp-gsm8k-limit 64"
  [pin26-v1]="--pp 2 --pp-variant base,fixed --pp-model ple --pp-pin 0.26.0 --pp-runner v1 --pp-gsm8k-limit 64"
  [pin26-stress]="--pp 2 --pp-variant fixed --pp-model ple,dense --pp-pin 0.26.0 --pp-profile stress"
  [pin26-v1-stress]="--pp 2 --pp-variant fixed --pp-model ple,dense --pp-pin 0.26.0 --pp-runner v1 --pp-profile stress"
  [pin26-shapes]="--pp 2 --pp-variant fixed --pp-model shape:E2B,shape:E4B --pp-pin 0.26.0 --pp-profile stress"
  [pin33]="--pp 2 --pp-variant base,fixed --pp-model ple,dense,moe --pp-pin 0.33.0 --pp-gsm8k-limit 64"
  [pin33-pp4]="--pp 4 --pp-variant base,fixed --pp-model ple,dense,moe --pp-pin 0.33.0 --pp-gsm8k-limit 64"
  [pin33-v1]="--pp 2 --pp-variant base,fixed --pp-model ple --pp-pin 0.33.0 --pp-runner v1 --pp-gsm8k-limit 64"
  [pin33-stress]="--pp 2 --pp-variant fixed --pp-model ple,dense --pp-pin 0.33.0 --pp-profile stress"
  [pin33-E4B]="--pp 2 --pp-variant base,fixed --pp-model shape:E4B --pp-pin 0.33.0 --pp-profile stress"
  [pin33-compiled]="--pp 2 --pp-variant fixed --pp-model ple --pp-pin 0.33.0 --pp-mode compiled --pp-gsm8k-limit 64"
  [E4B]="--pp 2 --pp-variant merged,fixed --pp-model shape:E4B"
  [E4B-stress]="--pp 2 --pp-variant fixed --pp-model shape:E4B --pp-profile stress"
  [E4B-float32]="--pp 2 --pp-variant fixed --pp-model shape:E4B --pp-profile stress --pp-dtype float32"
  [E2B-default]="--pp 2 --pp-variant fixed --pp-model shape:E2B --pp-partition 18,17"
  [E2B-legal]="--pp 2 --pp-variant fixed --pp-model shape:E2B"
  [E2B-stress]="--pp 2 --pp-variant fixed --pp-model shape:E2B --pp-profile stress"
  [large]="--pp 2 --pp-variant fixed --pp-model shape:26B-A4B,shape:31B"
  [large-stress]="--pp 2 --pp-variant fixed --pp-model shape:26B-A4B,shape:31B --pp-profile stress"
  [real]="--pp 2 --pp-variant base --pp-model $real --pp-gsm8k ${GSM8K:-GSM8K}"
  [real-stress]="--pp 2 --pp-variant base --pp-model $real --pp-gsm8k ${GSM8K:-GSM8K} --pp-profile stress --pp-kernels invariant"
  [real-pp4]="--pp 4 --pp-variant base --pp-model $real --pp-gsm8k ${GSM8K:-GSM8K}"
  [real-stress-pp4]="--pp 4 --pp-variant base --pp-model $real --pp-gsm8k ${GSM8K:-GSM8K} --pp-profile stress --pp-kernels invariant"
  [recipes]="--pp 2 --pp-variant fixed --pp-model dense --pp-recipe $recipes --pp-gsm8k-limit 64"
  [recipes-stress]="--pp 2 --pp-variant fixed --pp-model dense --pp-recipe $recipes --pp-profile stress --pp-gsm8k-limit 64"
  [quantised]="--pp 4 --pp-variant fixed --pp-model ${QUANTISED:-QUANTISED} --pp-recipe quantised --pp-gsm8k-limit 64"
  [images]="--pp 2 --pp-variant base,fixed --pp-model mm,shape:${DEEPSTACK:-DEEPSTACK} --pp-recipe images --pp-gsm8k-limit 64"
  [census]="--pp 2 --pp-variant base --pp-pin 0.33.0 --pp-model ${census#,} -k not(accuracy)"
  [ray]="--pp 4 --pp-variant base,fixed --pp-model ple,dense --pp-executor ray --pp-gsm8k-limit 64"
  [pp4]="--pp 4 --pp-variant merged,fixed --pp-model ple,dense,moe --pp-gsm8k-limit 64"
  [large-pp4]="--pp 4 --pp-variant fixed --pp-model shape:E4B,shape:26B-A4B,shape:31B"
)
if [ $# -lt 3 ]; then
  for name in "${!steps[@]}"; do echo "$name: ${steps[$name]}"; done | sort
  exit 2
fi
folder=$1 limit=$2
shift 2
python=${PYTHON:-python3} device=${DEVICE:-cuda} store=${STORE:-$folder/store}
series=$folder/gemma4-pp-empty-tile
mkdir -p "$series"
cp "$(dirname "$0")"/../../patches/gemma4-pp/* "$(dirname "$0")"/empty-tile/* "$series"
(cd "$(dirname "$0")/empty-tile" && ls) >>"$series/series"
{
  nvidia-smi --query-gpu=index,name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit \
    --format=csv 2>&1
  nvidia-smi topo -m 2>&1
  uname -sr
  "$python" --version
} >"$folder/host.txt"
for step in "$@"; do
  left=$((limit - SECONDS))
  if ((left < 20)); then
    echo "== $step: left out, no time" | tee -a "$folder/steps.txt"
    continue
  fi
  began=$SECONDS
  mkdir -p "$folder/$step"
  # shellcheck disable=SC2086 # options, not one word
  timeout --signal INT --kill-after 30 "$left" "$python" -m pytest -p no:cacheprovider \
    "$("$python" -m harness suites)" --pp-device "$device" --pp-store "$store" \
    --pp-time-limit "$((left * 4 / 5))" \
    --pp-report "$folder/$step" ${steps[$step]/SERIES/$series} ${MORE:-} >"$folder/$step/log.txt" 2>&1
  echo "== $step: status $? after $((SECONDS - began)) s: ${steps[$step]} ${MORE:-}" |
    tee -a "$folder/steps.txt"
done
