"""What capturing costs over bare vLLM, and what a cell costs: in turns, from one fork server.

    python benchmarks/overhead.py [--model ple] [--pp 2] [--rounds 5] [--limit N] [--device cpu]
        [--pin VERSION]

vLLM is imported once; each measurement is a fork, as cells are. Modes: `bare`, vLLM without our
hooks; `capture`, with them. Both build the same engine through lm-eval and run the probes' prompts
(bare: sampled greedily; capture: teacher-forced, traced, with the logits of whole prompts). Then,
when all is loaded, the same prompts some times more: `dormant`, without our mark in both modes, so
that the hooks have nothing to do, in turns with `traced`, which has it in capture mode. Then GSM8K,
some times too, unless the model is a shape: bare, as lm-eval asks; capture, with one batch in
flight, token ids and margins kept. Printed: the median seconds of each phase, and the
ratio of capture to bare in each round, its median and its range; `generation` is probes and GSM8K,
what a cell of PP=N runs. Two engines of one kind differ by more than the hooks cost, so the last
line compares within each: a traced pass over the dormant one before it (bare: the same twice).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
from harness.engine import main as engine
from harness.engine import server
from harness.engine.environment import cell_environment, server_environment
from harness.engine.manifest import Request, from_json, to_json
from harness.engine.names import CAPTURE_DIR_VARIABLE
from harness.engine.probes import Probe, probe_set
from harness.engine.questions import evaluate_gsm8k, run_gsm8k
from harness.engine.run_probes import run_probe
from harness.engine.settings import Device, Weights

PACKAGE = Path(harness.__file__).parents[1]
PHASES = ("engine", "probes", "dormant", "traced", "gsm8k", "shutdown")
MODES = ("bare", "capture")
# A ratio within one engine.
TRACING = "traced / dormant"
# Repetitions inside one engine, of probes and of GSM8K: what differs between engines stays out.
PASSES, EXAMS = 5, 3


def _plain_probes(llm: Any, probes: Iterable[Probe]) -> None:
    """Run the probes' prompts for as many tokens, without our mark."""
    from vllm import SamplingParams

    for probe in probes:
        prompts = [{"prompt_token_ids": list(one.prompt)} for one in probe.requests]
        params = [
            SamplingParams(
                temperature=0.0, max_tokens=len(one.forced), ignore_eos=True, detokenize=False
            )
            for one in probe.requests
        ]
        llm.generate(prompts, params, use_tqdm=False)


def _traced_probes(llm: Any, probes: Iterable[Probe]) -> None:
    """Run the probes as a cell does, until the last of what they leave is written."""
    for probe in probes:
        run_probe(llm, probe, io.StringIO())
    llm.collective_rpc("pp_harness_flush")


def _measure(plan: dict[str, Any], folder: Path, mode: str) -> dict[str, float]:
    """Run one engine in a fork and return the seconds of its phases."""
    pid = os.fork()
    if pid == 0:
        try:
            _run(plan, folder, mode)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    result = folder / "seconds.json"
    if not result.exists():
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"{mode}: the engine failed\n{log[-3000:]}")
    seconds: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
    return seconds


def _run(plan: dict[str, Any], folder: Path, mode: str) -> None:
    with (folder / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(plan["env"])
    request = from_json(Request, plan["request"])
    if mode == "capture":
        os.environ[CAPTURE_DIR_VARIABLE] = str(folder)
    else:
        os.environ.pop(CAPTURE_DIR_VARIABLE)
        if request.weights is Weights.RANDOM:  # its loader is one of our hooks
            request = replace(request, weights=Weights.DUMMY)
    if request.device is Device.CPU:
        os.sched_setaffinity(0, request.devices)
        engine._fork_workers()
    taken: dict[str, list[float]] = {phase: [] for phase in PHASES}

    @contextmanager
    def timed(phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        taken[phase].append(time.perf_counter() - began)

    with timed("engine"):
        engine.import_model_class(request.model_path)
        llm, lm = engine._build(request)
    probes = probe_set(request, llm.llm_engine.vllm_config.cache_config.block_size)
    run = _traced_probes if mode == "capture" else _plain_probes
    with timed("probes"):
        run(llm, probes)
    for _ in range(PASSES):
        with timed("dormant"):
            _plain_probes(llm, probes)
        with timed("traced"):
            run(llm, probes)
    for _ in range(EXAMS):
        if lm is not None and request.gsm8k is not None:
            with timed("gsm8k"):
                if mode == "capture":
                    run_gsm8k(llm, lm, request, folder / "gsm8k.jsonl")
                else:
                    evaluate_gsm8k(lm, request.gsm8k, folder)
    with timed("shutdown"):
        llm.llm_engine.engine_core.shutdown()
    seconds = {phase: statistics.median(times) for phase, times in taken.items() if times}
    pairs = zip(taken["traced"], taken["dormant"], strict=True)
    seconds[TRACING] = statistics.median(traced / dormant for traced, dormant in pairs)
    (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")


def _serve(plan: dict[str, Any]) -> None:
    """Import vLLM, measure both modes in turns, print medians and ratios."""
    request = from_json(Request, plan["request"])
    server._import_everything(request.device)
    taken: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(plan["rounds"]):
            for mode in MODES if number % 2 == 0 else MODES[::-1]:
                folder = Path(temporary) / f"{mode}{number}"
                folder.mkdir()
                taken[mode].append(_measure(plan, folder, mode))
    print(f"{Path(request.model_path).name}, PP={request.pp}, {plan['rounds']} rounds:")
    print(f"{'median s':18}" + "".join(f"{mode:>10}" for mode in MODES) + f"{'ratio':>8}  range")
    rows = {phase: (phase,) for phase in PHASES}
    for name, phases in {**rows, "generation": ("probes", "gsm8k"), TRACING: (TRACING,)}.items():
        sums = [[sum(one.get(phase, 0.0) for phase in phases) for one in taken[m]] for m in MODES]
        if not all(map(all, sums)):
            continue  # a shape answers no questions
        ratios = [capture / bare for bare, capture in zip(*sums, strict=True)]
        medians = "".join(f"{statistics.median(one):10.2f}" for one in sums)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name:18}{medians}{statistics.median(ratios):8.2f}  {spread}")


def main() -> None:
    """Read the options; what `_plan` starts is this program again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ple")
    parser.add_argument("--pp", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="questions of GSM8K (default: all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pin", default="", help="release of vLLM (default: the default pin)")
    parser.add_argument("--planned", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.planned:
        _serve(json.loads(options.planned))
    else:
        sys.exit(_plan(options))


def _plan(options: argparse.Namespace) -> int:
    """Plan here, where vLLM is not imported; measure in a process on the variant's tree.

    That is of the pin's environment, which lacks what planning needs: hence the imports here.
    """
    from harness.capture.devices import lease
    from harness.capture.launch import cell_request
    from harness.capture.order import devices_needed
    from harness.capture.pools import find_pool
    from harness.plan.options import Options
    from harness.plan.points import Point
    from harness.plan.sweep import Sweep

    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        sweep = Sweep(
            Options(
                pps=(max(2, options.pp),),
                variants=("fixed",),
                models=(options.model,),
                gsm8k_limit=options.limit,
                device=options.device,
                store=store,
            ),
            options.pin,
        )
        cell = sweep.cell(Point("fixed", next(iter(sweep.models)), options.pp))
        with lease(find_pool(sweep), devices_needed(cell, find_pool(sweep))) as devices:
            request = cell_request(cell, store, devices)
            plan = {
                "request": to_json(request),
                "env": cell_environment(request, tracing=True),
                "rounds": options.rounds,
            }
            return subprocess.run(
                [cell.python or sys.executable, __file__, "--planned", json.dumps(plan)],
                env=server_environment(cell, cell.tree, PACKAGE),
                check=False,
            ).returncode


if __name__ == "__main__":
    main()
