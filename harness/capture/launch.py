"""Start the child of one cell, watch its phases, and say what became of it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cell import Cell
from .hooks import CAPTURE_DIR_VARIABLE, TRACE_VARIABLE

_POLL_SECONDS = 0.1
# A log line that names an exception, with vLLM's prefixes before it.
_ERROR_LINE = re.compile(r"(?P<error>\b[A-Z]\w*(?:Error|Exception|Interrupt)\b: .+)$")
# Wrappers around the cause; they say where to look and not what happened.
_WRAPPERS = ("Engine core initialization failed", "WorkerProc initialization failed", "cancelled")


def environment(cell: Cell, folder: Path, devices: tuple[int, ...], *, tracing: bool) -> dict[str, str]:
    """Return the environment of a cell's child: the variant tree first, one thread per rank."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    inherited = env.get("PYTHONPATH")
    env["PYTHONPATH"] = os.pathsep.join([str(cell.tree), *([inherited] if inherited else [])])
    env[CAPTURE_DIR_VARIABLE] = str(folder)
    env[TRACE_VARIABLE] = "1" if tracing else "0"
    if env.get("VLLM_PLUGINS"):  # a user's filter must not filter us out
        env["VLLM_PLUGINS"] += ",pp_harness"
    env.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",  # engine core in process: identical batches
        VLLM_NO_USAGE_STATS="1",
        VLLM_DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",  # models and questions are local by now
        HF_DATASETS_CACHE=str(folder / "datasets"),
    )
    env.pop("VLLM_PP_LAYER_PARTITION", None)
    if cell.partition:
        env["VLLM_PP_LAYER_PARTITION"] = ",".join(map(str, cell.partition))
    if cell.device == "cpu":
        ranks = cell.pp * cell.tp
        bind = [str(devices[rank % len(devices)]) for rank in range(ranks)]
        env.update(
            VLLM_CPU_KVCACHE_SPACE="1",
            VLLM_CPU_OMP_THREADS_BIND="|".join(bind),
            OMP_NUM_THREADS="1",
            TORCHDYNAMO_DISABLE="1",
        )
    else:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
    return env


def _request(cell: Cell, folder: Path, devices: tuple[int, ...]) -> dict[str, Any]:
    source = cell.gsm8k
    return {
        **{k: v for k, v in asdict(cell).items() if k not in ("tree", "gsm8k")},
        "folder": str(folder),
        "devices": list(devices),
        "gsm8k": {
            "questions": str(source.questions),
            "limit": source.limit,
            "fewshot": source.fewshot,
            "fewshot_file": str(source.fewshot_file) if source.fewshot_file else None,
        },
    }


def launch(
    cell: Cell,
    folder: Path,
    devices: tuple[int, ...],
    *,
    phase_timeout: float,
    tracing: bool = True,
    worker_start: str = "fork",
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Run one cell into `folder` and return its manifest (status, failure, seconds, cell).

    `phase_timeout` is in seconds and holds for each phase (import, engine, probes, gsm8k,
    shutdown). However the child ends, its whole process group is gone on return. `tracing` and
    `worker_start` (fork or spawn, on the CPU) are for control runs: neither may change a result.

    Raises:
        InterruptedError: if `stop` was set before the child ended.
    """
    request = folder / "request.json"
    content = {**_request(cell, folder, devices), "worker_start": worker_start}
    request.write_text(json.dumps(content), encoding="utf-8")
    log = folder / "log.txt"
    began = time.time()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "harness.capture.engine", str(request)],
            cwd=folder,
            env=environment(cell, folder, devices, tracing=tracing),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            late = _watch(child, folder, phase_timeout, stop)
        finally:
            _kill_group(child)
    failure = _failure(folder, child.returncode, late, phase_timeout)
    result = _read_json(folder / "result.json") or {"seconds": {}}
    return {
        "cell": json.loads(json.dumps(asdict(cell), default=str)),
        "id": cell.id,
        "status": "ok" if failure is None else failure.pop("status"),
        "failure": failure,
        "seconds": {**result["seconds"], "total": round(time.time() - began, 3)},
        "effective": _read_json(folder / "effective.json"),
        "devices": list(devices),
    }


def _watch(
    child: "subprocess.Popen[bytes]",
    folder: Path,
    phase_timeout: float,
    stop: threading.Event | None,
) -> str | None:
    """Wait for the child; return the phase that outlasted the limit, None if it ended by itself."""
    while child.poll() is None:
        if stop is not None and stop.is_set():
            raise InterruptedError("the run was stopped")
        phase, since = _current_phase(folder)
        if since is not None and time.time() - since > phase_timeout:
            return phase
        time.sleep(_POLL_SECONDS)
    return None


def _current_phase(folder: Path) -> tuple[str, float | None]:
    try:
        last = (folder / "phases.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")[-1]
        phase = json.loads(last)
        return phase["phase"], phase["time"]
    except (OSError, ValueError):
        return "start", (folder / "request.json").stat().st_mtime


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of the child's process group: workers outlive an engine that dies."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _failure(
    folder: Path, returncode: int, late: str | None, phase_timeout: float
) -> dict[str, Any] | None:
    """Return the root cause with its status (failed or blocked), None if the capture is whole."""
    result = _read_json(folder / "result.json")
    if late is None and returncode == 0 and result is not None and result["error"] is None:
        return None
    ranks = [_read_json(path) for path in folder.glob("failure.*.json")]
    known = sorted((one for one in ranks if one), key=lambda one: float(one["time"]))
    if known:
        cause = known[0]
        return {"status": "blocked" if _is_ours(cause["traceback"]) else "failed", **cause}
    phase, _ = _current_phase(folder)
    blank = {"rank": None, "place": None, "phase": phase, "traceback": _tail(folder / "log.txt")}
    if late is not None:
        error = f"no end of phase {late} within {phase_timeout:.0f} s"
        return {"status": "blocked", **blank, "error": error}
    if result is not None and result["error"] is not None:
        error, trace = result["error"]["error"], result["error"]["traceback"]
        # What the engine itself refuses is its failure; what fails around it blocks the answer.
        status = "failed" if phase == "engine" else "blocked"
        if any(wrapper in error for wrapper in _WRAPPERS):
            cause = _cause_line(folder / "log.txt")
            if cause is None:  # the wrapper speaks of an exception, but no rank left one
                status, cause = "blocked", f"a rank died without an exception ({error})"
            error = cause
        return {**blank, "status": status, "error": error, "traceback": trace}
    if returncode < 0:
        error = f"the engine's process was killed by {signal.Signals(-returncode).name}"
    else:
        error = f"the engine's process ended with status {returncode} and no result"
    return {"status": "blocked", **blank, "error": error}


def _is_ours(trace: str) -> bool:
    """Whether an exception came out of our own hooks and so says nothing about the model.

    The tracing tensors raise on purpose, in the model's place, what IntermediateTensors raises.
    """
    innermost = trace.rsplit('File "', 1)[-1].split('"')[0]
    return "/harness/capture/" in innermost and not innermost.endswith("hooks/tensors.py")


def _cause_line(log: Path) -> str | None:
    """Return the first line of the log that names an exception and is no wrapper's."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _ERROR_LINE.search(line)
        if match and not any(wrapper in line for wrapper in _WRAPPERS):
            return match["error"]
    return None


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content
