"""The first exception of each rank, in `failure.<R>.json`. Standard library only."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

_ENGINE = "/harness/engine/"
# Its tensors raise on purpose, in the model's place, what vLLM's own would raise.
_IN_THE_MODELS_PLACE = "hooks/tensors.py"


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """An exception that a rank raised: when (seconds since the epoch), in which phase, and where.

    `place` is the innermost file:line of vLLM; `ours` says that our own code raised it.
    """

    rank: int
    phase: str
    time: float
    error: str
    place: str
    traceback: str
    ours: bool


def is_ours(traceback: str) -> bool:
    """Whether an exception came out of our own code and so says nothing about the model."""
    innermost = traceback.rsplit('File "', 1)[-1].split('"')[0]
    return _ENGINE in innermost and not innermost.endswith(_IN_THE_MODELS_PLACE)


def first_failure(folder: Path) -> RankFailure | None:
    """Read the exception that came first; None if no rank left one that can be read."""
    failures = [failure for path in folder.glob("failure.*.json") if (failure := _read(path))]
    return min(failures, key=lambda failure: failure.time, default=None)


def _read(path: Path) -> RankFailure | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.setdefault("ours", is_ours(content["traceback"]))
        return RankFailure(**{entry.name: content[entry.name] for entry in fields(RankFailure)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
