"""Names that the controller and the code inside vLLM's processes share. Imports nothing of ours."""

from collections.abc import Iterable

# Names the folder that the running capture writes to. Unset: the plugin is inert.
CAPTURE_DIR_VARIABLE = "PP_HARNESS_CAPTURE_DIR"
# Set to leave the tracer out of a capture: the control run that shows that tracing changes nothing.
TRACE_VARIABLE = "PP_HARNESS_TRACE"
# Names the device of each rank, as an index into CUDA_VISIBLE_DEVICES: `0,0` puts two on the first.
SHARE_VARIABLE = "PP_HARNESS_RANK_DEVICES"
# Set where weights are drawn in the engine: the cell's model is a config without a checkpoint.
WEIGHTS_VARIABLE = "PP_HARNESS_WEIGHTS"
# The load format of such a model, as vLLM knows it.
LOAD_FORMAT = "pp_harness_random"
# The mark that the capture puts on its own requests (SamplingParams.extra_args).
REQUEST_MARK = "pp_harness"
# In a setting of vLLM's engine: the checkpoint of the cell.
ITSELF = "@model"
# Before the name of a change whose steps only show how far it moves the logits (hooks/changes.py).
SENSITIVITY = "sensitivity:"
# Before the name of a change of the self-test (seeded/).
SELFTEST = "selftest:"

# The known perturbations: `none`, with which the others are compared, `weight:KIND`, `adapter` and
# `key:BOUNDARY:KEY`. The engine runs each once (run_probes.py), its ranks apply them
# (hooks/perturb.py), and the controller asks that each has moved the logits (capture/record.py).
UNPERTURBED = "none"
WEIGHT, ADAPTER, KEY = "weight", "adapter", "key"

# Files of a capture: the answers to the questions, and those of PP=1 asked again.
ANSWERS, SECOND_ANSWERS = "gsm8k.jsonl", "gsm8k.again.jsonl"


def weight_name(kind: str) -> str:
    """Name the perturbation of one kind of weight."""
    return f"{WEIGHT}:{kind}"


def key_name(boundary: int, key: str) -> str:
    """Name the perturbation of a key at the boundary behind stage `boundary`."""
    return f"{KEY}:{boundary}:{key}"


def key_names(declared: Iterable[Iterable[str]]) -> list[str]:
    """Name the perturbations of the keys that each stage after the first declares."""
    return [key_name(boundary, key) for boundary, keys in enumerate(declared) for key in keys]
