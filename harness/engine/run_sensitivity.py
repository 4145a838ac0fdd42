"""The short probes that show what the logits of a running engine answer to.

At PP=1 one weight of each kind is disturbed, at PP=N each key at each boundary; each costs one
short prefill and one decode step.
"""

from pathlib import Path
from typing import Any

from .hooks.perturb import UNPERTURBED, key_names
from .json_lines import read_lines
from .manifest import Request
from .names import SENSITIVITY
from .probes import sensitivity_request
from .run_probes import send


def run_sensitivity(llm: Any, request: Request, folder: Path) -> None:
    """Run the probe unperturbed, then once for each perturbation; the hooks write the effects."""
    probe = sensitivity_request(request.vocab_size, request.max_model_len)
    if request.pp == 1:
        names = [f"weight:{kind}" for kind in _event(folder / "rank0.jsonl", "weights")["kinds"]]
    else:
        declared = _event(folder / f"rank{request.tp}.jsonl", "declared")
        names = key_names(declared["keys"], request.pp)
    for name in (UNPERTURBED, *names):
        send(llm, (probe,), change=SENSITIVITY + name)


def _event(file: Path, kind: str) -> dict[str, Any]:
    for event in read_lines(file):
        if event["kind"] == kind:
            return event
    raise LookupError(f"{file.name} holds no event {kind!r}")
