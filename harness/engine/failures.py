"""The exception of a rank on disk: the rank that raised it writes it, the controller reads it.

A rank keeps its first exception as `failure.<R>.json`, because later ones are consequences. The
record tells whose code raised it: an exception of our own hooks says nothing about the model.
Standard library only.
"""

import inspect
import json
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

_OURS = "/harness/engine/"
# Functions of ours that raise, on purpose or by the model's own operation, as the model would
# without hooks: by the end of their file's path, and their name or any.
_IN_THE_MODELS_PLACE = (
    ("hooks/tensors.py", None),
    ("hooks/extent.py", "model_operation"),
    ("hooks/step.py", "sampled_rows"),
    ("hooks/workarounds.py", "_make_receive_buffer"),
)
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(
    r'^  File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?', re.MULTILINE
)


class ModelError(Exception):
    """Raised by a hook in the model's place: its class lacks something that a run needs."""

    def __init__(self, model_class: type, lacks: str) -> None:
        super().__init__(f"the model class {model_class.__name__} has no {lacks}")
        self.model_class = model_class


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """The first exception of one rank.

    `phase` is the method of the worker that its executor had called, `time` is in seconds since
    the epoch. `file` and `line` are of the innermost frame, `place` is `FILE:LINE` of the innermost
    one that is vLLM's; files are named from their package on. `ours`: our own code raised it, by
    itself or by the call of a library that is not vLLM.
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
        """The exception in one line, as Python prints it."""
        return f"{self.type}: {self.message}" if self.message else self.type

    @classmethod
    def of(cls, rank: int, phase: str, error: BaseException) -> "RankFailure":
        """Describe an exception that a rank has raised."""
        trace = "".join(traceback.format_exception(error))
        origin = _origin(trace)
        if isinstance(error, ModelError):
            origin = _model_origin(error.model_class)
        return cls(
            rank=rank,
            phase=phase,
            time=time.time(),
            type=type(error).__name__,
            message=str(error),
            **origin,
            traceback=trace,
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
    """Read the failures of all ranks, the earliest first; a file that was cut short is left out."""
    failures = [failure for path in folder.glob("failure.*.json") if (failure := _read(path))]
    return sorted(failures, key=lambda failure: failure.time)


def first_failure(folder: Path) -> RankFailure | None:
    """Read the exception that came first; None if no rank left one that can be read."""
    return next(iter(read_failures(folder)), None)


def is_ours(trace: str) -> bool:
    """Whether our own code raised the exception whose traceback is `trace`.

    The innermost frame that is vLLM's or ours decides: a library raises for its caller. A frame in
    the model's place is the model's.
    """
    if f"\n{ModelError.__module__}.{ModelError.__name__}: " in trace:
        return False
    for frame in reversed(_frames(trace)):
        if _OURS in frame["file"]:
            return not _in_the_models_place(frame)
        if _is_vllm(frame["file"]):
            return False
    return False


def _read(path: Path) -> RankFailure | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return RankFailure(**{field.name: content[field.name] for field in fields(RankFailure)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _origin(trace: str) -> dict[str, Any]:
    """Find file, line, place and whose code from a traceback."""
    frames = _frames(trace)
    if not frames:  # the exception was made and never raised
        return {"file": "", "line": 0, "place": "", "ours": False}
    innermost = frames[-1]
    inside = [frame for frame in frames if _is_vllm(frame["file"])] or [innermost]
    return {
        "file": _from_package(innermost["file"]),
        "line": int(innermost["line"]),
        "place": f"{_from_package(inside[-1]['file'])}:{inside[-1]['line']}",
        "ours": is_ours(trace),
    }


def _model_origin(model_class: type) -> dict[str, Any]:
    """Name the place of a model's class, which a hook has found lacking."""
    try:
        file = _from_package(inspect.getsourcefile(model_class) or "")
        line = inspect.getsourcelines(model_class)[1]
    except (OSError, TypeError):  # made while running, or built in
        file, line = "", 0
    return {"file": file, "line": line, "place": f"{file}:{line}", "ours": False}


def _frames(trace: str) -> Sequence[re.Match[str]]:
    """Return the frames of the exception that a traceback ends with, the innermost last.

    Without those of vLLM's parameters, which hand each operation on to torch: their caller raised.
    """
    found = _FRAME.finditer(trace.rpartition(_TRACEBACK)[2])
    return [
        frame
        for frame in found
        if not (_is_vllm(frame["file"]) and frame["function"] == "__torch_function__")
    ]


def _in_the_models_place(frame: re.Match[str]) -> bool:
    return any(
        frame["file"].endswith(file) and function in (None, frame["function"])
        for file, function in _IN_THE_MODELS_PLACE
    )


def _is_vllm(file: str) -> bool:
    """Whether a file is of the package vllm; an environment inside a checkout of it is not."""
    _, package, tail = file.rpartition("/vllm/")
    return bool(package) and "site-packages/" not in tail and _OURS not in file


def _from_package(file: str) -> str:
    """Shorten a path to the part that begins with its package."""
    if _OURS in file:
        return "harness/engine/" + file.rpartition(_OURS)[2]
    if _is_vllm(file):
        return "vllm/" + file.rpartition("/vllm/")[2]
    return file.rpartition("/site-packages/")[2]
