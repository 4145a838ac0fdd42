"""Records that the controller and the process of a cell hand to each other, as JSON files.

`request.json` goes in; `effective.json` and `result.json` come back (main.py). vLLM brings
pydantic, which checks types at the file edge.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from .settings import NOT_IN_KEY, EngineSettings, Kernels

Record = TypeVar("Record")
REQUEST, EFFECTIVE, RESULT = "request.json", "effective.json", "result.json"


@dataclass(frozen=True, kw_only=True)
class Gsm8kSource:
    """The questions of a cell: a JSONL file, its digest, and how many are asked and shown."""

    name: str = field(metadata=NOT_IN_KEY)
    questions: Path = field(metadata=NOT_IN_KEY)
    digest: str
    limit: int | None
    fewshot: int
    fewshot_file: Path | None = field(metadata=NOT_IN_KEY, default=None)


@dataclass(frozen=True, kw_only=True)
class Request(EngineSettings):
    """What the process of a cell is asked to do; it writes into `folder`.

    `devices` are core numbers or GPU indices. `worker_start` (fork or spawn) is for the CPU. Under
    each of `changes` (hooks/changes.py) the probes run once more, and with `ask_under_changes` the
    questions too.
    """

    folder: Path
    model_path: str
    devices: tuple[int, ...]
    gsm8k: Gsm8kSource | None = None
    worker_start: str = "fork"
    changes: tuple[str, ...] = ()
    ask_under_changes: bool = True


@dataclass(frozen=True, kw_only=True)
class Effective:
    """The configuration that is in effect, read back from the engine.

    `runner` and `attention` are the ranks' own word, joined by " and " where they differ; a control
    run that traces nothing knows no attention backend. `kernels` are those that were switched
    on: whether rows then depend on the batch, the floor passes of PP=1 show. `workarounds` names
    those that acted in any rank (hooks/workarounds.py). `engine_args` are those that were asked
    for, with the values that vLLM has now, as JSON; what it keeps by no such name is left out.
    """

    pp: int
    tp: int
    dtype: str
    enforce_eager: bool
    async_scheduling: bool
    chunked_prefill: bool
    prefix_caching: bool
    kv_blocks: int | None
    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    runner: str
    attention: str
    architecture: str
    partition: str | None
    ranks_per_device: int
    worker_start: str
    kernels: Kernels = Kernels.DEFAULT
    workarounds: tuple[str, ...] = ()
    engine_args: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineError:
    """The exception that ended the process of a cell, and the phase that it was in."""

    error: str
    phase: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class EngineResult:
    """What a process leaves at its end: seconds by phase, each rank's peak bytes, its error."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: list[int] = field(default_factory=list)
    error: EngineError | None = None


_adapter: Callable[[Any], TypeAdapter[Any]] = lru_cache(maxsize=16)(TypeAdapter)


def to_json(record: Any) -> str:
    """Serialize a record of this module, or one built on it."""
    text: str = _adapter(type(record)).dump_json(record, indent=1).decode()
    return text


def from_json(kind: type[Record], text: str | bytes) -> Record:
    """Parse a record.

    Raises:
        ValueError: if the text is no JSON, or not of this kind.
    """
    record: Record = _adapter(kind).validate_json(text)
    return record


def read_record(kind: type[Record], path: Path) -> Record | None:
    """Read a record from a file; None if it is missing, torn or of another kind."""
    try:
        return from_json(kind, path.read_bytes())
    except (OSError, ValueError):
        return None


def write_record(record: Any, path: Path) -> None:
    """Write a record so that a reader never sees half of it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(to_json(record), encoding="utf-8")
    partial.replace(path)
