"""The manifest of a capture: what was asked for, what became of it, the digest of each file.

Written by `launch`, for engines that ran, and by the runner, for cells that never did. A manifest
of another version of the harness cannot be read and counts as absent.
"""

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..engine.manifest import Effective, read_record, to_json
from ..plan.cell import Cell

MANIFEST = "capture.json"


class Status(StrEnum):
    """What became of an engine: whole, failed with a known cause, or prevented from an answer."""

    OK = "ok"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The root cause of a capture that is not whole.

    `rank` is vLLM's global rank, `place` the innermost file:line of vLLM; of an exception `type`,
    and `file` and `line` of its innermost frame; `ours` says that our own code raised it. `ranks`
    and `stacks` are where each rank was, and the innermost frames of the processes that could still
    say so. `stands_still`: no rank raised, and none went on.
    """

    error: str
    phase: str
    rank: int | None = None
    place: str | None = None
    type: str = ""
    file: str = ""
    line: int = 0
    traceback: str = ""
    ours: bool = False
    stands_still: bool = False
    ranks: dict[str, dict[str, Any]] = field(default_factory=dict)
    stacks: dict[str, list[str]] = field(default_factory=dict)


# The type of a failure whose process the kernel killed for want of memory.
OUT_OF_MEMORY = "oom_kill"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a capture is of and what became of its engine.

    `seconds` maps each phase, and `total`, to its duration; `phases` maps each to its start and end
    in seconds after `began` (seconds since the epoch). `devices` are core numbers or GPU indices;
    empty: no engine was started. `peak_bytes` is the most memory that each rank held,
    `expected_bytes` what was predicted of the rank that holds most. `files` maps each file of the
    folder to its sha256, `seal` is the digest of all else in the manifest.
    """

    cell: Cell
    status: Status
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    began: float | None = None
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)
    peak_bytes: list[int] = field(default_factory=list)
    expected_bytes: int = 0
    effective: Effective | None = None
    devices: tuple[int, ...] = ()
    key: str = ""
    files: dict[str, str] = field(default_factory=dict)
    seal: str = ""

    def sealed(self, key: str, files: dict[str, str]) -> "Manifest":
        """Add the capture's key, its files, and the digest over all of it."""
        whole = replace(self, key=key, files=files, seal="")
        return replace(whole, seal=whole.digest)

    @property
    def digest(self) -> str:
        """The sha256 of all that stands in the manifest, its seal left out."""
        return hashlib.sha256(to_json(replace(self, seal="")).encode()).hexdigest()


def load_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a capture; None if it is missing or none of this version."""
    return read_record(Manifest, folder / MANIFEST)
