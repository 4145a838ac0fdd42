"""What the ranks of an engine that ended badly were doing: read from what they left behind.

Files in the capture folder: `position.<R>.json` (hooks/position.py), `stack.<who>.txt`
(hooks/stacks.py), `deaths.json` (hooks/deaths.py).
"""

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil

from ..engine.hooks import deaths, stacks

# How long stacks may take: they are written by a signal handler, at once unless the host is busy.
_STACK_SECONDS = 3.0
# How many of the innermost frames stand in the record; the file has them all.
_FRAMES = 4
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)', re.M)
# vLLM's own frame is the place; the tracer's wrappers around it say nothing.
_OURS = "/harness/engine/"


def examine(folder: Path) -> dict[int, str]:
    """Ask living ranks for their stacks, once; return the ranks that were stopped, and how.

    They run on afterwards: end them.
    """
    stopped = {}
    for who, pid in stacks.armed(folder).items():
        if who.startswith("rank") and _is_stopped(pid):
            stopped[int(who.removeprefix("rank"))] = "is stopped (SIGSTOP)"
    stacks.request(folder, _STACK_SECONDS, resume=True)
    return stopped


def positions(folder: Path) -> dict[int, dict[str, Any]]:
    """Return where each rank was last, by its number; what cannot be read is left out."""
    found = {}
    for path in sorted(folder.glob("position.*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found[int(content["rank"])] = content
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def deaths_of(folder: Path) -> dict[int, int | None]:
    """Return the ranks that were dead before the others were ended, and the status of each.

    None is the status of an actor: Ray tells none.

    A rank that left its exception has not died silently: it is not among them.
    """
    try:
        dead = json.loads((folder / deaths.FILE).read_text(encoding="utf-8"))
        return {
            int(one["rank"]): None if one["status"] is None else int(one["status"])
            for one in dead
            if not (folder / f"failure.{int(one['rank'])}.json").exists()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def short_stacks(folder: Path) -> dict[str, list[str]]:
    """Return the innermost frames of each process that gave its stack, its main thread's."""
    dumps = {
        path.name.removeprefix("stack.").removesuffix(".txt"): path.read_text("utf-8", "replace")
        for path in sorted(folder.glob("stack.*.txt"))
    }
    return {who: frames for who, dump in dumps.items() if (frames := _innermost(dump))}


def clear(folder: Path) -> None:
    """Delete what only served to ask: a capture that is whole needs none of it."""
    for pattern in ("stack.*.txt", "position.*.json"):
        for path in folder.glob(pattern):
            path.unlink()


def where(position: dict[str, Any] | None, stack: list[str] | None) -> str:
    """Return in words where a rank is."""
    at = f" at {stack[0]}" if stack else ""
    if position is None or not position.get("phase"):
        return f"idle{at}"
    words = {"receive": ", waiting to receive", "send": ", sending"}
    doing = words.get(str(position.get("doing")), "")
    return f"in {position['phase']}{doing}{at}"


def death(status: int | None) -> str:
    """Return in words how a rank ended."""
    if status is None:
        return "lost its Ray actor"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status} and no exception"


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _innermost(dump: str) -> list[str]:
    """Return the innermost frames of the last dump's main thread, vLLM's first among them.

    faulthandler writes the main thread last, and each thread from its innermost frame on.
    """
    _, *threads = re.split(r"(?m)^(?=(?:Current thread|Thread) 0x)", dump)
    if not threads:
        return []
    frames = [frame for frame in _FRAME.finditer(threads[-1]) if _OURS not in frame["file"]]
    first = next((i for i, frame in enumerate(frames) if "/vllm/" in frame["file"]), 0)
    return [_named(frame) for frame in frames[first : first + _FRAMES]]


def _named(frame: re.Match[str]) -> str:
    """Return `file:line function`, the file from its package on."""
    path = frame["file"]
    for package in ("vllm", "torch", "harness", "lm_eval"):
        _, found, tail = path.rpartition(f"/{package}/")
        if found:
            path = f"{package}/{tail}"
            break
    else:
        path = Path(path).name
    return f"{path}:{frame['line']} {frame['function']}"
