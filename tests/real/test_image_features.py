"""Images in the prompts: what PP=2 makes of features, and each way in which it can lose them.

The features of `tools.deepstack` enter at layers of both stages. vLLM clears those for later stages
before it sends them (results/upstream/granite-vision.md), which a patch mends here.
"""

from pathlib import Path

import pytest
from patch_on_top import add_patch

from harness.capture.record import Capture
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.registry import Comparison
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.sweep import Sweep
from tools import deepstack

pytestmark = [pytest.mark.engine, pytest.mark.faults]

MODEL = "vllm/model_executor/models/granite4_vision.py"
# Features with which the second stage begins; layers at which features enter there.
FIRST, LAYERS = 4, (4, 5, 6, 7)
EDITS = {
    "import math\n": "import math\nimport os\n",
    "        if get_pp_group().is_first_rank:\n            if inputs_embeds is not None:\n": """\
        fault = _ordered()
        if get_pp_group().is_first_rank:
            if inputs_embeds is not None:
""",
    "        for layer_idx, layer in islice(\n": """\
        if not get_pp_group().is_first_rank and fault == "on the first stage only":
            deepstack_input_embeds = None
        if not get_pp_group().is_first_rank and fault == "applied again":
            hidden_states = hidden_states + deepstack_input_embeds["ds_4"]
        for layer_idx, layer in islice(
""",
    "                    k: v\n": """\
                    k: v[: hidden_states.size(0)].clone() * (fault != "zeroed")
""",
    "                it.update(remaining)\n": """\
                it.update({} if fault == "dropped" else remaining)
""",
    '        for llm_layer in getattr(self, "_ds_layer_indices", []):\n': """\
        for llm_layer in getattr(self, "_ds_layer_indices", []):
            if llm_layer < self.model.start_layer:
                continue
""",
}
ORDERED = """

def _ordered():
    try:
        with open(os.path.join(os.environ["PP_HARNESS_CAPTURE_DIR"], "fault")) as file:
            return file.read()
    except OSError:
        return ""
"""


@pytest.fixture(scope="module")
def see(sweep, servers, launched, tmp_path_factory):
    """Return a function that captures the model at a PP size, with a fault or without."""
    folder = tmp_path_factory.mktemp("images")
    deepstack.write(folder / "deepstack")
    installed = sweep.installation.vllm
    before = (installed.package_dir.parent / MODEL).read_text()
    after = before
    for old, new in EDITS.items():
        assert after.count(old) >= 1, old
        after = after.replace(old, new, 1)
    add_patch(folder / "series", "mended", installed.release, {MODEL: (before, after + ORDERED)})
    seeing = Sweep(
        Options(
            pps=(2, 4),
            series=folder / "series",
            models=(f"shape:{folder / 'deepstack'}",),
            recipes=("images",),
            store=sweep.store,
        )
    )

    def run(pp, fault=""):
        cell = seeing.cell(Point("mended", "deepstack", pp, serving="images"))
        target = Path(tmp_path_factory.mktemp(cell.id))
        (target / "fault").write_text(fault)
        manifest = launched(seeing, cell, target, servers, phase_timeout=300)
        assert manifest.status == "ok", manifest.failure
        return Capture(target, manifest)

    baseline = run(1)
    return lambda pp, fault="": Comparison(baseline, run(pp, fault))


@pytest.mark.parametrize("pp", [2, 4])
def test_features_reach_the_layers_of_every_stage(see, pp):
    """Bit by bit, one image and two, alone and in a batch with text; each key could have shown."""
    pair = see(pp)
    for check in ("engine", "contract", "logits"):
        verdict = judge(check, pair)
        assert verdict.outcome is Outcome.PASS, verdict.summary
    asked = pair.candidate.sensitivity.asked
    assert f"key:0:ds_{FIRST}" in asked
    assert len([name for name in asked if name.startswith("key:0:ds_")]) == (4 if pp == 2 else 5)


@pytest.mark.parametrize("fault", ["dropped", "zeroed", "on the first stage only", "applied again"])
def test_features_that_are_lost_show_where_they_enter(see, fault):
    """In the first layer of the second stage; a key that is not sent leaves the buffer stale."""
    pair = see(2, fault)
    verdict = judge("logits", pair)
    assert verdict.outcome is Outcome.FAIL, verdict.summary
    assert (1, FIRST) in {(finding.stage, finding.layer) for finding in verdict.findings}
    if fault == "dropped":
        assert "CON002" in {each.code for each in judge("contract", pair).findings}
