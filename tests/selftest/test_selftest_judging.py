"""The self-test without engines: what is possible here, captures by change, and what is counted."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import CaptureBuilder, answer

from harness.capture.devices import DevicePool
from harness.checks.finding import Outcome
from harness.cli.selftest import select_changes
from harness.engine.seeded import AFTER_LAYERS, declared
from harness.engine.settings import Profile
from harness.errors import BadInputError
from harness.plan.points import Point
from harness.selftest.by_change import captures_by_change
from harness.selftest.outcome import ChangeResult, SelftestReport, UnchangedPair
from harness.selftest.run import _judge_engines, possible_here
from harness.selftest.table import lines

RESULTS = Path(__file__).resolve().parents[2] / "results"
FAULTS = tuple(change for change in declared() if not change.harmless)
HARMLESS = tuple(change for change in declared() if change.harmless)


def test_what_cannot_be_shown_is_left_out_and_named():
    """What bfloat16 rounds away, and what needs more GPUs than there are."""
    two_gpus, cpu = DevicePool("cuda", (0, 1)), DevicePool("cpu", (0, 1))
    told = []
    possible = possible_here(declared(), two_gpus, "bfloat16", told.append)
    left_out = {change.name for change in declared()} - {change.name for change in possible}
    assert left_out == {change.name for change in declared() if change.fine or change.pp > 2}
    assert len(told) == len(left_out)
    assert "numeric-only is left out: in bfloat16 it changes no bit" in told
    assert "pp4-only is left out: PP=4 needs a GPU for each rank, here are 2" in told
    assert possible_here(declared(), cpu, "float32", told.append) == declared()
    only = select_changes(("numeric-only",), quick=False)
    with pytest.raises(BadInputError, match="no chosen fault can be shown here; numeric-only: in"):
        possible_here(only, two_gpus, "bfloat16", told.append)


@pytest.fixture
def whole(tmp_path):
    """A capture at PP=2 of two runs: unchanged, and under `selftest:x`."""
    built = CaptureBuilder(tmp_path / "whole", pp=2)
    for rank in built.ranks:
        steps = built.steps(rank)
        again = [{**step, "change": "selftest:x", "index": step["index"] + 2} for step in steps]
        for step in steps:
            step["change"] = ""
        misuse = {"kind": "misuse", "what": "absent-key", "key": "k", "place": "m.py:1"}
        built.ranks[rank] += [misuse, *again]
    capture = built.save()
    index = capture.folder / "logits.jsonl"
    text = index.read_text()
    count = len(text.splitlines())
    plain = text.replace('"request"', '"change": "", "request"')
    changed = text.replace('"request"', '"change": "selftest:x", "request"')
    for row in range(count):
        changed = changed.replace(f'"row": {row},', f'"row": {row + count},', 1)
    index.write_text(plain + changed)
    raw = capture.folder / "logits.f32"
    raw.write_bytes(raw.read_bytes() * 2)
    (capture.folder / "gsm8k.selftest:x.jsonl").write_text(
        (capture.folder / "gsm8k.jsonl").read_text()
    )
    return capture


def test_a_capture_is_divided_by_change(whole, tmp_path):
    """Each part is a whole capture; what was noted during a step goes with its change."""
    parts = captures_by_change(whole, ["selftest:x"], tmp_path / "parts")
    for part in parts.values():
        assert [len(trace.steps) for trace in part.stages.values()] == [2, 2]
        assert len(part.logits.index) == 4
        assert len(part.answers) == 4
    assert not parts[""].stages[1].misuses
    assert parts["selftest:x"].stages[1].misuses


@pytest.mark.parametrize(("questions", "started"), [(True, [1, 1, 2, 2]), (False, [1, 2])])
def test_without_questions_no_engine_runs_twice(build, questions, started):
    """The subset of the CI compares runs of the same engine, and PP=1 with PP=2; the whole more."""
    ran = []

    def captures(pp, *names):
        ran.append(pp)
        capture = build(pp=pp).save()
        return dict.fromkeys(("", *names), capture)

    engines = SimpleNamespace(
        unchanged=Point("fixed", "ple", 1), with_questions=questions, captures=captures
    )
    changes = [change for change in HARMLESS if change.pp == 2 and change.quick]
    report = _judge_engines(engines, changes)
    assert sorted(ran) == started
    assert len(report.results) == len(changes)
    assert all(pair.is_quiet for pair in report.pairs)
    two_engines = [pair.name for pair in report.pairs if "engine" in pair.name]
    assert len(two_engines) == (3 if questions else 0)


def test_rates_are_counted(build):
    """A caught fault, one that escapes, a quiet change and a false alarm; what one check caught."""
    reference, same, other = build(pp=1).save(), build(pp=2).save(), build(pp=2)
    for row in other.logits.values():
        row[0] += 1.0
    other = other.save()
    fault, harmless = FAULTS[0], HARMLESS[0]
    report = SelftestReport(
        (
            ChangeResult.of(fault, reference, other),
            ChangeResult.of(fault, reference, same),
            ChangeResult.of(harmless, reference, same),
            ChangeResult.of(harmless, reference, other),
        ),
        (
            UnchangedPair.of("a pair", reference, same),
            UnchangedPair.of("another pair", reference, other),
        ),
    )
    figures = report.figures
    assert (figures["faults"], figures["caught"], figures["mutation_score"]) == (2, 1, 0.5)
    assert (figures["harmless"], figures["aa_pairs"], figures["false_alarms"]) == (2, 2, 2)
    assert figures["only"] == {"engine": 0, "contract": 0, "logits": 1, "accuracy": 0}
    assert not report.is_good
    text = "\n".join(lines(report))
    assert "ESCAPED" in text
    assert text.count("FALSE ALARM") == 2
    assert "FALSE ALARM in another pair: engine pass, contract pass, logits fail, " in text
    assert "one check alone catches: engine 0, contract 0, logits 1, accuracy 0" in text


def test_noise_may_leave_a_fault_undecided_and_never_lets_it_pass(build):
    """Under stress an inconclusive verdict is no alarm and no miss; a fault that passes is one."""
    fault = replace(FAULTS[0], profile=Profile.STRESS)
    passed = dict.fromkeys(("engine", "contract", "logits"), Outcome.PASS)
    undecided = {**passed, "logits": Outcome.INCONCLUSIVE}
    escaped = SelftestReport((ChangeResult(fault, passed, (), None, None),), ())
    noisy = SelftestReport(
        (ChangeResult(fault, undecided, (), None, None),),
        (UnchangedPair("a pair", Profile.STRESS, undecided),),
    )
    assert not escaped.is_good
    assert "ESCAPED" in "\n".join(lines(escaped))
    assert noisy.is_good
    assert (noisy.figures["undecided"], noisy.figures["false_alarms"]) == (1, 0)
    assert noisy.figures["localisable"] == 0
    assert "undecided in noise" in "\n".join(lines(noisy))
    in_parity = (ChangeResult(FAULTS[0], undecided, (), None, None),)
    pair = (UnchangedPair("a pair", Profile.PARITY, undecided),)
    assert not SelftestReport(in_parity, ()).is_good
    assert not SelftestReport((), pair).is_good


def test_an_engine_that_breaks_off_loses_nothing_of_the_others(build):
    """What was judged stands, the engine is named, and the self-test is not good."""
    same = ChangeResult.of(HARMLESS[0], build(pp=1).save(), build(pp=2).save())
    report = SelftestReport((same,), (), ("fixed-ple-pp2 did not run: why",))
    assert not report.is_good
    text = "\n".join(lines(report))
    assert "NOT RUN: fixed-ple-pp2 did not run: why" in text
    assert "0 false alarms in 1 harmless" in text
    assert report.document()["not_run"] == ["fixed-ple-pp2 did not run: why"]


def test_a_fault_without_a_layer_counts_as_caught_and_not_as_placed(build):
    """Where no layer differs there is no place to be right about: the rate leaves it out."""
    fault = next(fault for fault in FAULTS if fault.layer is None)
    reference, other = build(pp=1), build(pp=2)
    reference.answers = [answer(number) for number in range(16)]
    other.answers = [answer(number, right=number >= 12) for number in range(16)]
    result = ChangeResult.of(fault, reference.save(), other.save())
    report = SelftestReport((result,), ())
    figures = report.figures
    assert (figures["caught"], figures["localisable"], figures["located"]) == (1, 0, 0)
    assert figures["location_accuracy"] is None
    assert figures["only"]["accuracy"] == 1
    assert report.is_good
    assert "caught, no layer to name" in "\n".join(lines(report))


def test_a_place_is_a_stage_and_a_layer_or_behind_the_layers(build):
    """A difference of logits alone lies behind the layers; placed elsewhere it tells both."""
    reference, other = build(pp=1).save(), build(pp=2)
    for row in other.logits.values():
        row[0] += 1.0
    other = other.save()
    behind = next(fault for fault in FAULTS if fault.layer == AFTER_LAYERS)
    before = next(fault for fault in FAULTS if (fault.stage, fault.layer) == (1, 5))
    results = [ChangeResult.of(fault, reference, other) for fault in (behind, before)]
    assert [result.is_located for result in results] == [True, False]
    report = SelftestReport(tuple(results), ())
    assert not report.is_good
    first, second = list(lines(report))[1:3]
    assert first.endswith("  stage 1")
    assert second.endswith("  stage 1 (is stage 1, layer 5)")


def test_the_document_has_the_fields_of_earlier_records(build):
    """`--json` keeps its schema: a program that reads a record of results/ reads the next one."""
    record = json.loads((RESULTS / "2026-11-26-selftest" / "selftest.json").read_text())
    reference, other = build(pp=1).save(), build(pp=2).save()
    report = SelftestReport(
        (ChangeResult.of(FAULTS[0], reference, other),),
        (UnchangedPair.of("a pair", reference, other),),
    )
    document = json.loads(json.dumps(report.document()))
    assert document["schema"] == record["schema"]
    assert document["figures"].keys() >= record["figures"].keys()
    assert document["results"][0].keys() >= record["results"][0].keys()
    assert document["aa_pairs"][0].keys() == record["aa_pairs"][0].keys()
    assert set(document["results"][0]["verdicts"].values()) == {"pass"}
