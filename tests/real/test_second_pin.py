"""Another release, in an environment of its own: its engines run there with our hooks."""

import dataclasses
import functools

import pytest

from harness.assets import patches_dir
from harness.capture.record import Capture
from harness.checks.contract.contract import compare_contract
from harness.checks.engine import compare_engines
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.layers import layer_rows
from harness.checks.logits.logits import compare_logits
from harness.checks.registry import Comparison
from harness.engine.asked import has_adapter
from harness.engine.names import ADAPTER
from harness.engine.settings import ModelRunner
from harness.errors import BadInputError
from harness.plan.options import Options
from harness.plan.sweep import Sweep

pytestmark = pytest.mark.engine

# By release: the series that makes it take Triton's interpreter, and the workarounds that act at
# PP=2. The CI installs the first; the other is for those who have it.
RELEASES = {
    "0.26.0": ("gemma4-ple-v2-cpu", ("cpu-shared-memory",)),
    "0.33.0": ("gemma4-ple-v2-cpu-33", ("cpu-receive-buffer", "cpu-shared-memory")),
}


@pytest.fixture(scope="module", params=RELEASES)
def version(request):
    """A release besides the default pin."""
    return request.param


@pytest.fixture(scope="module")
def plan(version, tmp_path_factory):
    """Return a function that plans a sweep on the release; skips where it is not installed."""
    store = tmp_path_factory.mktemp("store")

    def plan(pp=2, **options):
        chosen = Options(pps=(pp,), models=("ple",), gsm8k_limit=2, store=store, **options)
        return Sweep(chosen, version)

    try:
        _ = plan().installation
    except BadInputError as error:
        pytest.skip(str(error))
    return plan


@pytest.fixture(scope="module")
def run(plan, servers, launched, tmp_path_factory):
    """Return a function that runs a cell of the second pin, without questions: none is judged."""

    def run(variant, pp, **options):
        sweep = plan(max(pp, 2), **options)
        (point,) = (one for one in sweep.points if one.variant == variant)
        cell = dataclasses.replace(sweep.cell(point if pp > 1 else point.baseline), gsm8k=None)
        folder = tmp_path_factory.mktemp(f"{variant}-pp{pp}")
        manifest = launched(sweep, cell, folder, servers, phase_timeout=300)
        return Capture(folder, manifest)

    return run


@pytest.fixture(scope="module")
def baseline(run):
    """The release as it is, at PP=1."""
    return run("base", 1)


def test_the_second_pin_runs_in_its_own_environment(version, plan, baseline):
    """The tree, the interpreter and the versions in the key are those of that environment."""
    installed = plan().installation.vllm
    assert baseline.status == "ok", baseline.failure
    assert installed.release == version
    cell = baseline.manifest.cell
    assert cell.pin == f"{installed.distribution} {installed.version}"
    assert cell.python == installed.python
    assert ("torch", installed.package_version("torch")) in cell.versions
    assert baseline.manifest.effective.runner == "v1"
    assert baseline.manifest.effective.workarounds == ()


def test_the_merged_change_is_still_wrong_there(version, run, baseline):
    """The release carries PR #40786: the key is never read on stage 1, and logits differ.

    Its capture names the workarounds that acted: 0.26.0 has a receive buffer of its own.
    """
    candidate = run("base", 2)
    assert candidate.status == "ok", candidate.failure
    assert candidate.manifest.effective.workarounds == RELEASES[version][1]
    errors = [f for f in compare_contract(candidate).findings if f.severity.value == "error"]
    assert [(f.code, f.key, f.stage) for f in errors] == [("CON001", "per_layer_inputs", 1)]
    assert [f.code for f in compare_logits(baseline, candidate).findings] == ["LOG001"]


def test_our_series_fixes_it(run, baseline):
    """With our patch for that release PP=2 gives the bits of PP=1; PP=1 has nothing to fix."""
    candidate = run("fixed", 2)
    assert compare_engines(baseline, candidate).outcome is Outcome.PASS
    assert compare_contract(candidate).outcome is Outcome.PASS
    assert compare_logits(baseline, candidate).outcome is Outcome.PASS


def test_the_v2_runner_is_not_there_on_a_cpu(run, baseline):
    """vLLM refuses V2 without Triton's CPU backend: not applicable, with vLLM's own reason."""
    verdict = compare_engines(baseline, run("base", 2, runner=ModelRunner.V2))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "Model Runner V2 requires Triton" in verdict.summary


@pytest.fixture(scope="module")
def run_v2(version, run):
    """Return a function that runs a cell on V2: with Triton's interpreter, by a series of ours."""
    series = patches_dir() / RELEASES[version][0]
    return functools.partial(run, runner=ModelRunner.V2, series=series)


@pytest.fixture(scope="module")
def baseline_v2(run_v2):
    """PP=1 on V2."""
    return run_v2("v2-on-cpu", 1)


def test_the_merged_change_is_silent_on_v2_too(run_v2, baseline_v2):
    """At PP=2 every declared key is sent: V2 copies it, and nothing reads it."""
    candidate = run_v2("v2-on-cpu", 2)
    assert candidate.manifest.effective.runner == "v2"
    assert candidate.manifest.effective.workarounds == ("cpu-shared-memory",)
    assert compare_engines(baseline_v2, candidate).outcome is Outcome.PASS
    assert codes(compare_contract(candidate)) == ["CON001"]
    assert codes(compare_logits(baseline_v2, candidate)) == ["LOG001"]


def test_a_middle_stage_stops_v2(run_v2):
    """At PP=4 stage 1 does not send the key on: V2 fails where V1 reads what is stale."""
    candidate = run_v2("v2-on-cpu", 4)
    failure = candidate.failure
    assert (failure.rank, failure.error) == (2, "KeyError: 'per_layer_inputs'")
    assert codes(compare_contract(candidate)) == ["CON001", "CON002"]


def test_our_patch_fixes_v2(run_v2, baseline_v2):
    """With our patch three stages agree, and give the bits of PP=1."""
    candidate = run_v2("fixed", 3)
    assert compare_engines(baseline_v2, candidate).outcome is Outcome.PASS
    assert compare_contract(candidate).outcome is Outcome.PASS
    assert compare_logits(baseline_v2, candidate).outcome is Outcome.PASS


def codes(verdict):
    """Return the codes of a verdict's errors."""
    return [one.code for one in verdict.findings if one.severity.value == "error"]


def test_an_adapter_moves_the_rows_of_the_probes_that_have_it(run, baseline):
    """And no row of a probe in which no request has it.

    On a CPU vLLM gives it to the others of a batch, too (PR 48421).
    """
    adapted = run("base", 1, recipes=("lora",))
    before, after = (layer_rows(side, "digest")[0] for side in (baseline, adapted))
    assert before.keys() == after.keys()
    moved = {row for row in before if before[row] != after[row]}
    assert {row for row in before if has_adapter(row[0])} <= moved
    probes = {name.partition("/")[0] for name, _ in before if has_adapter(name)}
    assert {name.partition("/")[0] for name, _ in moved} == probes
    assert adapted.sensitivity.effects[ADAPTER] > 0


@pytest.mark.faults
def test_pp2_applies_an_adapter_as_pp1_does(run):
    """Each stage has the part of its layers."""
    pair = Comparison(*(run("fixed", pp, recipes=("lora",)) for pp in (1, 2)))
    for check in ("engine", "contract", "logits"):
        verdict = judge(check, pair)
        assert verdict.outcome is Outcome.PASS, verdict.summary
