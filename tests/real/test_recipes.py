"""Each recipe is in effect in the engine that has it, and not in name alone; PP=2 agrees on it."""

import re
from dataclasses import replace

import pytest

from harness.capture.record import Capture
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.layers import layer_rows
from harness.checks.registry import Comparison
from harness.plan.options import Options
from harness.plan.points import Point
from harness.plan.serving import load_recipe
from harness.plan.sweep import Sweep

pytestmark = pytest.mark.engine

# Speculation is not among them: the CPU build of 0.20.2 lacks its kernel. Nor are adapters, which
# it does not apply to these models; another release does (test_second_pin.py).
RECIPES = ("aborts", "logprobs", "prefix-cache", "structured")


@pytest.fixture(scope="module")
def serve(sweep, store, servers, launched, tmp_path_factory):
    """Return a function that gives dense's capture at a PP size by a recipe, or by none."""
    options = Options(pps=(2,), recipes=(*RECIPES, "lora"), gsm8k_limit=8, store=store.root)
    by_recipe = Sweep(options)

    def run(recipe, pp):
        made = by_recipe if recipe else sweep
        cell = made.cell(Point("fixed", "dense", pp, serving=recipe))
        if capture := store.find(cell.key):
            return capture
        folder = tmp_path_factory.mktemp(cell.id)
        manifest = launched(made, cell, folder, servers, phase_timeout=300)
        return store.commit(cell.key, folder, manifest)

    return run


@pytest.mark.faults
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("check", ["engine", "contract", "logits", "accuracy"])
def test_pp2_computes_what_pp1_does(serve, recipe, check):
    """By every recipe that the CPU build has, the fixed series passes every check."""
    verdict = judge(check, Comparison(serve(recipe, 1), serve(recipe, 2)))
    assert verdict.outcome is Outcome.PASS, verdict.summary


def test_an_adapter_that_is_not_applied_is_no_test_of_adapters(serve):
    """vLLM 0.20.2 resets what it has loaded, by a second name of each layer (issue 39815)."""
    verdict = judge("logits", Comparison(serve("lora", 1), serve("lora", 2)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = verdict.findings
    assert (finding.code, finding.evidence) == ("LOG004", {"blind_to": ["adapter"]})


@pytest.mark.faults
def test_a_setting_that_vllm_drops_is_read_back(sweep, servers, launched, tmp_path):
    """0.20.2 keeps the cache in its own dtype on a CPU, with a warning in its log."""
    asked = (("enable_chunked_prefill", "false"), ("kv_cache_dtype", '"fp8"'))
    cell = replace(sweep.cell(Point("fixed", "dense", 1)), gsm8k=None, engine_args=asked)
    manifest = launched(sweep, cell, tmp_path, servers, phase_timeout=300)
    assert manifest.effective.engine_args == (asked[0], ("kv_cache_dtype", '"auto"'))
    verdict = judge("engine", Comparison(*[Capture(tmp_path, manifest)] * 2))
    assert [finding.code for finding in verdict.findings] == ["ENG006"]


def test_answers_obey_the_grammar(serve):
    """The grammar masks what the model would have chosen: some answers are others than without."""
    grammar = load_recipe("structured").questions["structured_outputs"]["regex"]
    by_grammar = serve("structured", 1).answers
    assert all(re.fullmatch(grammar, line["output"]) for line in by_grammar)
    free = serve("", 1).answers
    assert [line["output"] for line in by_grammar] != [line["output"] for line in free]


@pytest.mark.faults
def test_every_position_of_a_prompt_has_log_probabilities(serve):
    """Asked for, they come back for all but the first token; else there is none."""
    for sent in serve("logprobs", 1).probes.values():
        assert len(sent.prompt_logprobs) == len(sent.request.prompt) - 1
    assert not any(sent.prompt_logprobs for sent in serve("", 1).probes.values())


@pytest.mark.faults
def test_blocks_come_from_the_prefix_cache(serve):
    """As many at PP=2 as at PP=1, and in the floor pass; without the recipe none do."""
    cached = [
        {name: sent.cached for name, sent in serve(recipe, pp).probes.items() if sent.cached}
        for recipe, pp in (("prefix-cache", 1), ("prefix-cache", 2), ("", 1))
    ]
    assert cached[0] == cached[1] != {}
    assert cached[2] == {}
    baseline = serve("prefix-cache", 1)
    assert [floor.index.keys() for floor in baseline.floor_logits] == [baseline.logits.index.keys()]


@pytest.mark.faults
@pytest.mark.parametrize("recipe", ["aborts", "logprobs"])
def test_a_recipe_that_changes_how_and_not_what_has_the_bits_of_none(serve, recipe):
    """On against off, behind every layer: cancelled requests leave no row and change none."""
    assert layer_rows(serve("", 1), "digest") == layer_rows(serve(recipe, 1), "digest")
