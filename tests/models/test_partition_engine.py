"""The planner's verdicts against real loads: vLLM starts what is legal and refuses what is not."""

import os
import subprocess
import sys

import pytest

from harness.assets import patches_dir
from harness.models.checkpoint import resolve_model
from harness.models.partition import PARTITION_VARIABLE, as_value, plan_partition
from harness.source.pin import load_pins, locate_vllm
from harness.source.series import load_series
from harness.source.tree import build_tree

pytestmark = pytest.mark.engine

# What vLLM says of a KV source on another rank, and of a rank without a layer.
NO_SOURCE, NO_LAYER = "is not a valid Attention layer in the model", "group_size must be greater"
LOAD = """
import sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    model = LLM(
        sys.argv[1], dtype="float32", max_model_len=128, max_num_seqs=4, enforce_eager=True,
        max_num_batched_tokens=256, pipeline_parallel_size=int(sys.argv[2]),
    )
    model.generate(["Question: one?\\nAnswer:"], SamplingParams(max_tokens=2))
    print("LOADED", flush=True)
"""


@pytest.fixture(scope="module")
def fixed_tree(tmp_path_factory):
    """Build the variant that runs Gemma4 at PP > 1."""
    installed = locate_vllm(load_pins(patches_dir()).get("0.20.2"))
    variants = {v.name: v for v in load_series(patches_dir() / "gemma4-pp").variants()}
    return build_tree(installed, variants["fixed"], tmp_path_factory.mktemp("trees")).path


@pytest.mark.parametrize(
    ("model", "pp", "split", "refusal"),
    [
        ("ple", 2, (1, 9), None),
        ("ple", 2, (8, 2), NO_SOURCE),
        ("ple", 4, None, None),
        ("ple", 4, (2, 3, 3, 2), NO_SOURCE),
        ("dense", 2, (8, 0), NO_LAYER),
    ],
)
def test_vllm_loads_exactly_the_legal_splits(model, pp, split, refusal, fixed_tree, tmp_path):
    """A plan without illegal_reason loads and answers, another is refused at load."""
    source = resolve_model(model)
    plan = plan_partition(source.config, pp, split)
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    cores = sorted(os.sched_getaffinity(0))
    environment = os.environ | {
        "PYTHONPATH": str(fixed_tree),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(str(cores[r % len(cores)]) for r in range(pp)),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_PLUGINS": "",
        "TORCHDYNAMO_DISABLE": "1",
        PARTITION_VARIABLE: as_value(plan.layers_per_rank),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(source.path), str(pp)],
        env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert (plan.illegal_reason is None) is (refusal is None)
    if refusal is None:
        assert "LOADED" in printed, printed[-3000:]
    else:
        assert "LOADED" not in printed
        assert refusal in printed, printed[-3000:]
