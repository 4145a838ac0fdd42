"""The same questions asked the usual way, and by one cold sweep, in turns on one machine.

    python benchmarks/usual.py [--variant merged] [--models dense,ple,moe] [--pps 2,4] [--rounds 1]

The usual way, process by process, each on all cores: for every model and PP size two servers
(`vllm serve` at PP=N and at PP=1) whose greedy completions are compared, as vLLM's own PP test does
it, and one `lm_eval --model vllm` for every model and PP size, PP=1 included. The sweep:
`pytest suites/` with the same variant, models and sizes and an empty store. Every process is cold;
all see the same checkpoint, tree, questions, dtype and context length. The ratio is printed with
what each side says about every point.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import harness
from harness.assets import suites_dir
from harness.engine.environment import server_environment
from harness.engine.questions import task_config
from harness.plan.cell import Cell
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep

PACKAGE = Path(harness.__file__).parents[1]
PORT = 18000
# What vLLM's own test asks (tests/utils.py, compare_two_settings): text and token ids, greedy.
PROMPTS: tuple[Any, ...] = ("Hello, my name is", [0, 0, 0, 0, 0], ["Hello, my name is"] * 2)
TOKENS = 5
SERVER_SECONDS = 900


def _environment(cell: Cell) -> dict[str, str]:
    """Return a plain user's environment for vLLM on this tree: nothing of the harness is active."""
    env = server_environment(cell, cell.tree, PACKAGE)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS", "TORCHDYNAMO_DISABLE"):
        env.pop(name, None)
    cores = sorted(os.sched_getaffinity(0))
    bind = [str(cores[rank % len(cores)]) for rank in range(cell.pp)]
    env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(bind)
    return env


@contextlib.contextmanager
def _group(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own; none of it is left afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _completions(cell: Cell, log: Path) -> list[str] | None:
    """Start a server, ask it, stop it; return its texts, None if it did not come up."""
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", cell.model_path),
        *("--port", str(PORT), "--pipeline-parallel-size", str(cell.pp), "--enforce-eager"),
        *("--dtype", cell.dtype, "--max-model-len", str(cell.max_model_len)),
        *("--max-num-seqs", "32"),
    ]
    with _group(command, _environment(cell), log) as server:
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5)
                break
            if server.poll() is not None or time.monotonic() > deadline:
                return None
            time.sleep(0.5)
        texts = []
        for prompt in PROMPTS:
            body = {
                "model": cell.model_path,
                "prompt": prompt,
                "max_tokens": TOKENS,
                "temperature": 0.0,
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{PORT}/v1/completions",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
                    texts += [one["text"] for one in json.load(answer)["choices"]]
            except OSError:
                return None
        return texts


def _score(cell: Cell, task: Path, folder: Path) -> float | None:
    """Run one `lm_eval --model vllm`; return its strict-match score, None if it failed."""
    settings = {
        "pretrained": cell.model_path,
        "dtype": cell.dtype,
        "pipeline_parallel_size": cell.pp,
        "max_model_len": cell.max_model_len,
        "max_gen_toks": cell.max_gen_tokens,
        "max_num_seqs": 32,
        "enforce_eager": True,
    }
    out = folder / "results"
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "vllm", "--tasks", str(task)),
        *("--model_args", ",".join(f"{name}={value}" for name, value in settings.items())),
        *("--batch_size", "auto", "--output_path", str(out)),
        *(("--limit", str(cell.gsm8k.limit)) if cell.gsm8k and cell.gsm8k.limit else ()),
    ]
    with _group(command, _environment(cell), folder / "lm_eval.txt") as process:
        process.wait()
    found = sorted(out.rglob("results_*.json"))
    if not found:
        return None
    scores = json.loads(found[-1].read_text(encoding="utf-8"))["results"]["gsm8k"]
    return float(scores["exact_match,strict-match"])


def _task(cell: Cell, folder: Path) -> Path:
    """Write lm-eval's gsm8k task with the questions of a cell."""
    assert cell.gsm8k is not None  # the models here are instruments
    path = folder / "gsm8k.yaml"
    path.write_text(
        yaml.safe_dump(task_config(cell.gsm8k, str(folder / "cache"))), encoding="utf-8"
    )
    return path


def _usual(sweep: Sweep, folder: Path, steps: list[tuple[str, float]]) -> dict[str, str]:
    """Ask everything the usual way; return what it says of each point."""

    def timed(name: str, work: Any, *args: Any) -> Any:
        began = time.perf_counter()
        result = work(*args)
        steps.append((name, time.perf_counter() - began))
        print(f"  {name:32} {steps[-1][1]:7.1f} s", flush=True)
        return result

    said: dict[str, str] = {}
    scores: dict[Point, float | None] = {}
    task = _task(sweep.cell(sweep.points[0]), folder)
    for point in dict.fromkeys(p for one in sweep.points for p in (one.baseline, one)):
        place = folder / point.id
        place.mkdir()
        scores[point] = timed(f"lm_eval {point.id}", _score, sweep.cell(point), task, place)
    for point in sweep.points:
        texts = [
            timed(f"serve {one.id}", _completions, sweep.cell(one), folder / f"{one.id}.txt")
            for one in (point, point.baseline)
        ]
        same = "crashed" if texts[0] is None else "equal" if texts[0] == texts[1] else "differ"
        here, there = scores[point], scores[point.baseline]
        said[point.id] = f"completions {same}, GSM8K {_percent(there)} to {_percent(here)}"
    return said


def _percent(score: float | None) -> str:
    return "crashed" if score is None else f"{score:.1%}"


def _sweep(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Run one cold sweep; return its verdicts of each point."""
    command = [
        *(sys.executable, "-m", "pytest", str(suites_dir()), "-q", "-p", "no:cacheprovider"),
        *("--pp", options.pps, "--pp-variant", options.variant),
        *("--pp-model", options.models, "--pp-store", str(folder / "store")),
        *("--pp-report", str(folder / "report")),
        *(("--pp-gsm8k-limit", str(options.limit)) if options.limit else ()),
    ]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    said: dict[str, str] = {}
    for one in report["verdicts"]:
        name = f"{one['variant']}-{one['model']}-pp{one['pp']}"
        said[name] = f"{said.get(name, '')} {one['check']} {one['verdict']}".strip()
    return said


def main() -> None:
    """Run both sides in turns and print the ratio and what each side sees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="merged")
    parser.add_argument("--models", default="dense,ple,moe")
    parser.add_argument("--pps", default="2,4", help="PP sizes, e.g. 2 or 2,4")
    parser.add_argument("--limit", type=int, help="questions of GSM8K (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    ratios: list[float] = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            sweep = Sweep(
                Options(
                    pps=tuple(map(int, options.pps.split(","))),
                    variants=(options.variant,),
                    models=tuple(options.models.split(",")),
                    gsm8k_limit=options.limit,
                    store=folder / "usual",
                )
            )
            steps: list[tuple[str, float]] = []
            usual = _usual(sweep, folder, steps)
            began = time.perf_counter()
            ours = _sweep(options, folder)
            seconds = time.perf_counter() - began
        total = sum(taken for _, taken in steps)
        ratios.append(total / seconds)
        print(
            f"round {number + 1}: {len(steps)} processes {total:.0f} s, one sweep {seconds:.0f} s"
        )
        for name, words in usual.items():
            print(f"  {name:18} usual: {words}\n  {'':18} sweep: {ours[name]}")
    print(f"the usual way takes {statistics.median(ratios):.1f} times as long (median)")


if __name__ == "__main__":
    main()
