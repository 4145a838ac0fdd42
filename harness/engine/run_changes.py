"""The probe set and some questions once more, under each of a list of changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .manifest import Request
from .names import REQUEST_MARK
from .probes import requested_probes
from .run_probes import run_probe


def run_changes(llm: Any, lm: Any, request: Request, folder: Path) -> None:
    """Run the probes and the questions under each change of the request, one change by one.

    What the hooks record carries the change's name; what was asked goes to
    `probes.<change>.jsonl`, answers to `gsm8k.<change>.jsonl`.
    """
    from .questions import run_gsm8k

    probes = requested_probes(request)
    for change in request.changes:
        llm.reset_prefix_cache()  # of what was computed without the change
        with (folder / f"probes.{change}.jsonl").open("w", encoding="utf-8") as file:
            for probe in probes:
                run_probe(llm, probe, file, change)
        if lm is not None and request.gsm8k is not None and request.ask_under_changes:
            with _marked(llm, change):
                run_gsm8k(lm, request.gsm8k, folder / f"gsm8k.{change}.jsonl")


@contextmanager
def _marked(llm: Any, change: str) -> Iterator[None]:
    """Mark every request that `llm` is given with a change."""
    generate = llm.generate

    def marked(prompts: Any, sampling_params: Any, **options: Any) -> Any:
        for params in sampling_params:
            params.extra_args = {REQUEST_MARK: {"change": change}}
        return generate(prompts, sampling_params=sampling_params, **options)

    llm.generate = marked
    try:
        yield
    finally:
        del llm.generate
