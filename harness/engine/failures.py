"""The exception of a rank on disk: the rank that raised it writes it, the controller reads it.

A rank keeps its first exception as `failure.<R>.json`, because what follows is a consequence. The
record says whose code raised it: an exception of our own hooks says nothing about the model.
Standard library only.
"""

import inspect
import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_OURS = "/harness/engine/"
# Functions of ours that raise, on purpose or by the model's own operation, as the model would
# without hooks. By the end of their file's path and their name.
_IN_THE_MODELS_PLACE = (
    ("hooks/tensors.py", None),
    ("hooks/extent.py", "model_operation"),
)


class ModelError(Exception):
    """Raised by a hook in the model's place: its class lacks something that a run needs."""

    def __init__(self, model_class: type, lacks: str) -> None:
        super().__init__(f"the model class {model_class.__name__} has no {lacks}")
        self.model_class = model_class


@dataclass(frozen=True)
class Origin:
    """The place where an exception was raised.

    `file` and `line` are of its innermost frame, `place` is `FILE:LINE` of the innermost one that
    is vLLM's; files are named from their package on. `ours` is true if our own code raised it, by
    itself or by a call of a library that is not vLLM.
    """

    file: str
    line: int
    place: str
    ours: bool

    @classmethod
    def of(cls, error: BaseException) -> "Origin":
        """Find the origin of an exception by its traceback."""
        if isinstance(error, ModelError):
            file, line = _class_source(error.model_class)
            return cls(file, line, f"{file}:{line}", ours=False)
        frames = traceback.extract_tb(error.__traceback__)
        if not frames:  # it was made and never raised
            return cls("", 0, "", ours=False)
        innermost = frames[-1]
        inside = [frame for frame in frames if _is_vllm(frame.filename)] or [innermost]
        return cls(
            _from_package(innermost.filename),
            innermost.lineno or 0,
            f"{_from_package(inside[-1].filename)}:{inside[-1].lineno}",
            _is_ours(frames),
        )


@dataclass(frozen=True)
class RankFailure:
    """The first exception of one rank.

    `phase` is the method of the worker that its executor had called, `time` is in seconds since
    the epoch; `type` and `message` are of the exception, the rest as in `Origin`.
    """

    rank: int
    phase: str
    time: float
    type: str
    message: str
    file: str
    line: int
    place: str
    ours: bool
    traceback: str

    @property
    def error(self) -> str:
        """The exception in one line."""
        return f"{self.type}: {self.message}"

    @classmethod
    def of(cls, rank: int, phase: str, error: BaseException) -> "RankFailure":
        """Describe an exception that a rank has raised."""
        return cls(
            rank=rank,
            phase=phase,
            time=time.time(),
            type=type(error).__name__,
            message=str(error),
            **asdict(Origin.of(error)),
            traceback="".join(traceback.format_exception(error)),
        )

    def write(self, folder: Path) -> None:
        """Write the failure into the capture folder, unless the rank has left one before."""
        path = folder / f"failure.{self.rank}.json"
        if path.exists():
            return
        content = {**asdict(self), "error": self.error}
        partial = folder / f"partial.{path.name}"
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)


def read_failures(folder: Path) -> list[RankFailure]:
    """Read the failures of all ranks, in the order in which they happened."""
    return sorted(
        (_read(path) for path in folder.glob("failure.*.json")), key=lambda failure: failure.time
    )


def _read(path: Path) -> RankFailure:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    del content["error"]
    return RankFailure(**content)


def _is_ours(frames: Sequence[traceback.FrameSummary]) -> bool:
    """Whether the innermost frame that is either vLLM's or ours is ours.

    A library that raises does so for its caller. A frame in the model's place is the model's.
    """
    for frame in reversed(frames):
        if _OURS in frame.filename:
            return not _in_the_models_place(frame)
        if _is_vllm(frame.filename):
            return False
    return False


def _in_the_models_place(frame: traceback.FrameSummary) -> bool:
    return any(
        frame.filename.endswith(file) and name in (None, frame.name)
        for file, name in _IN_THE_MODELS_PLACE
    )


def _is_vllm(filename: str) -> bool:
    """Whether a file is of the package vllm; an environment inside a checkout of it is not."""
    _, package, tail = filename.rpartition("/vllm/")
    return bool(package) and "/site-packages/" not in f"/{tail}" and _OURS not in filename


def _from_package(filename: str) -> str:
    """Shorten a path to what follows the folder that holds its package."""
    if _OURS in filename:
        return "harness/engine/" + filename.rpartition(_OURS)[2]
    if _is_vllm(filename):
        return "vllm/" + filename.rpartition("/vllm/")[2]
    return filename.rpartition("/site-packages/")[2]


def _class_source(model_class: type) -> tuple[str, int]:
    try:
        return (
            _from_package(inspect.getsourcefile(model_class) or ""),
            inspect.getsourcelines(model_class)[1],
        )
    except (OSError, TypeError):  # made while running, or built in
        return "", 0
