"""Logits row by row against brute force, and where a difference enters."""

import copy
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.capture.record import LogitTable
from harness.checks.finding import Outcome
from harness.checks.logits.distance import distance
from harness.checks.logits.locate import locate
from harness.checks.logits.logits import compare_logits
from harness.engine.settings import Device, Kernels


def table(values):
    values = np.asarray(values, np.float32)
    return LogitTable(values, {("r", row): row for row in range(len(values))})


def one_ulp_up(value):
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def test_identical_captures_pass(build):
    """Equal bits in every row pass, with the number of rows."""
    verdict = compare_logits(build(pp=1).save(), build(pp=2).save())
    assert verdict.outcome is Outcome.PASS
    assert verdict.summary == "4 rows bit-identical"
    assert verdict.figures["equal_rows"] == 4
    assert verdict.figures["max_abs"] == 0.0
    assert verdict.figures["top1"] == 1.0


def test_one_ulp_is_a_difference(build):
    """The least change that float32 can hold fails, though no token flips."""
    candidate = build(pp=2)
    candidate.logits["one", 2][3] = one_ulp_up(candidate.logits["one", 2][3])
    verdict = compare_logits(build(pp=1).save(), candidate.save())
    assert verdict.outcome is Outcome.FAIL
    (found,) = verdict.findings
    assert found.code == "LOG001"
    assert found.evidence["first_row"] == "one@2"
    assert found.evidence["equal_rows"] == 3
    assert found.evidence["top1"] == 1.0
    assert found.evidence["smallest_flip_margin"] is None


def test_rows_are_matched_by_request_and_position(build):
    """Rows that were written in another order are the same rows."""
    candidate = build(pp=2)
    candidate.logits = dict(reversed(candidate.logits.items()))
    assert compare_logits(build(pp=1).save(), candidate.save()).outcome is Outcome.PASS


def test_minus_zero_is_not_zero():
    """Bits are compared, not values."""
    far = distance(table([[0.0, 1.0]]), table([[-0.0, 1.0]]))
    assert far.equal_rows == 0
    assert far.max_abs == 0.0


def test_same_nan_is_equal_and_still_reported(build):
    """A NaN on both sides is bit-identical, and LOG002: a stale tensor was read."""
    sides = [build(pp=1), build(pp=2)]
    for side in sides:
        side.logits["one", 1][0] = math.nan
    sides[0].floors[0]["one", 1][0] = math.nan
    verdict = compare_logits(*(side.save() for side in sides))
    assert [found.code for found in verdict.findings] == ["LOG002"]
    assert verdict.figures["equal_rows"] == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_not_finite_on_one_side(build, bad, side):
    """NaN or Inf on either side is reported and differs; the figures of the rest stay finite."""
    sides = [build(pp=1), build(pp=2)]
    sides[side].logits["one", 0][0] = bad
    if side == 0:
        sides[0].floors[0]["one", 0][0] = bad
    verdict = compare_logits(*(one.save() for one in sides))
    assert [found.code for found in verdict.findings] == ["LOG002", "LOG001"]
    assert verdict.figures["max_abs"] == 0.0
    assert verdict.figures["top1"] == 0.75  # a row that is not finite agrees with nothing


def test_every_row_not_finite(build):
    """A candidate that is NaN throughout fails without an error of our own."""
    candidate = build(pp=2)
    for row in candidate.logits.values():
        row[:] = [math.nan] * len(row)
    verdict = compare_logits(build(pp=1).save(), candidate.save())
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figures["top1"] == 0.0


@pytest.mark.parametrize("side", [0, 1])
def test_rows_on_one_side_only(build, side):
    """LOG003: a row that one side lacks fails even if all common rows are equal."""
    sides = [build(pp=1), build(pp=2)]
    del sides[side].logits["one", 3]
    verdict = compare_logits(*(one.save() for one in sides))
    assert [found.code for found in verdict.findings] == ["LOG003"]
    assert verdict.findings[0].evidence["rows"] == ["one@3"]


def test_no_common_row(build):
    """LOG003: sides without a common row fail, with that as the reason."""
    candidate = build(pp=2)
    candidate.logits = {("other", p): row for (_, p), row in candidate.logits.items()}
    verdict = compare_logits(build(pp=1).save(), candidate.save())
    assert verdict.outcome is Outcome.FAIL
    assert [found.code for found in verdict.findings] == ["LOG003"]


def test_vocabulary_differs(build):
    """LOG003: rows of different width are never shortened to fit."""
    candidate = build(pp=2)
    candidate.logits = {row: values[:-1] for row, values in candidate.logits.items()}
    verdict = compare_logits(build(pp=1).save(), candidate.save())
    assert verdict.outcome is Outcome.FAIL
    assert "5 against 4" in verdict.findings[0].message


@pytest.mark.parametrize("side", [0, 1])
def test_empty_table_is_blocked(build, side):
    """A side without logits gives no answer, and it is said which side."""
    sides = [build(pp=1), build(pp=2)]
    sides[side].logits = {}
    verdict = compare_logits(*(one.save() for one in sides))
    assert verdict.outcome is Outcome.BLOCKED
    assert ("baseline", "candidate")[side] in verdict.summary


def test_zero_baseline_has_no_relative_rms(build):
    """A difference from a baseline of zeros is not called a relative difference of zero."""
    baseline = build(pp=1)
    baseline.logits = baseline.floors[0] = dict.fromkeys(baseline.logits, [0.0] * 5)
    verdict = compare_logits(baseline.save(), build(pp=2).save())
    assert verdict.outcome is Outcome.FAIL
    assert verdict.figures["relative_rms"] is None
    assert "undefined" in verdict.summary


@pytest.mark.parametrize("changed", [0, 63, 64, 65, 127, 128, 199])
def test_chunk_boundaries(changed, monkeypatch):
    """A single changed row is found wherever it lies among more rows than one chunk holds."""
    monkeypatch.setattr("harness.checks.logits.distance._CHUNK_VALUES", 64 * 3)
    left = np.arange(200 * 3, dtype=np.float32).reshape(200, 3)
    right = left.copy()
    right[changed, 1] = 5000.0
    far = distance(table(left), table(right))
    assert (far.rows, far.equal_rows) == (200, 199)
    assert [row for row, same in zip(far.order, far.same, strict=True) if not same] == [
        ("r", changed)
    ]
    assert far.max_abs == 5000.0 - (3 * changed + 1)
    assert far.top1 == 199 / 200
    assert far.smallest_flip_margin == 1.0  # between the values 3i+2 and 3i+1


ROWS = st.sampled_from([1, 2, 64, 65]).flatmap(
    lambda rows: st.tuples(
        *[
            arrays(
                np.float32,
                (rows, 4),
                elements=st.floats(-50, 50, width=32).map(lambda x: round(x * 4) / 4),
            )
        ]
        * 2
    )
)


@given(ROWS)
def test_distance_against_brute_force(sides):
    """Every figure equals its definition, written out with plain loops."""
    left, right = sides
    far = distance(table(left), table(right))
    difference = [float(a) - float(b) for a, b in zip(left.flat, right.flat, strict=True)]
    assert far.max_abs == max(map(abs, difference))
    rows = [[centred(a), centred(b)] for a, b in zip(left, right, strict=True)]
    square = math.fsum((x - y) ** 2 for a, b in rows for x, y in zip(a, b, strict=True))
    base = math.fsum(x * x for a, _ in rows for x in a)
    if base:
        assert far.relative_rms == pytest.approx(math.sqrt(square / base), abs=1e-9)
    else:
        assert far.relative_rms is None
    assert far.kl == pytest.approx(max(map(brute_kl, left, right)), abs=1e-12)
    assert far.kl_reverse == pytest.approx(max(map(brute_kl, right, left)), abs=1e-12)
    for row, (a, b) in enumerate(rows):
        apart = [abs(x - y) for x, y in zip(a, b, strict=True)]
        size = math.fsum(x * x for x in a)
        if size:
            rms = math.sqrt(math.fsum(x * x for x in apart) / size)
            assert far.row_rms[row] == pytest.approx(rms, abs=1e-9)
            assert far.row_max[row] == pytest.approx(max(apart) / max(map(abs, a)), abs=1e-9)
    flips = [(a, b) for a, b in zip(left, right, strict=True) if brute_top(a) != brute_top(b)]
    assert far.top1 == pytest.approx(1 - len(flips) / len(left))
    margins = [sorted(map(float, a))[-1] - sorted(map(float, a))[-2] for a, _ in flips]
    assert far.smallest_flip_margin == (min(margins) if margins else None)
    equal = [a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True)]
    assert far.equal_rows == sum(equal)
    assert far.same.tolist() == equal


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_ulps_are_steps_to_the_next_number(value, steps):
    """A value that is so many float32 numbers away falls into the bucket of that count."""
    other = np.float32(value)
    for _ in range(steps):
        other = np.nextafter(other, np.float32(np.inf))
    if not np.isfinite(other):
        return
    counts = distance(table([[value]]), table([[other]])).ulps
    assert sum(counts) == 1
    assert counts.index(1) == steps.bit_length()


def test_top_five():
    """Top-5 agreement is the share of the five highest tokens that stay among the five."""
    left = np.arange(20, dtype=np.float32)[None, :]
    right = left.copy()
    right[0, 19], right[0, 0] = 0.5, 18.5
    assert distance(table(left), table(right)).top5 == pytest.approx(0.8)
    assert distance(table(left[:, :3]), table(left[:, :3])).top5 == 1.0


def centred(row):
    mean = math.fsum(map(float, row)) / len(row)
    return [float(x) - mean for x in row]


def brute_kl(a, b):
    p, q = ([math.exp(float(x) - float(max(row))) for x in row] for row in (a, b))
    p, q = ([x / math.fsum(side) for x in side] for side in (p, q))
    return math.fsum(x * (math.log(x) - math.log(y)) for x, y in zip(p, q, strict=True) if x)


def brute_top(row):
    return [float(x) for x in row].index(float(max(row)))


# ---- where --------------------------------------------------------------------------------


def spoil(capture, layer, *rows):
    """Change the fingerprint of a layer at (step, row) pairs on the stage that runs it."""
    for step, row in rows:
        capture.steps(layer // 2)[step]["layers"][str(layer)]["digest"][row] = 1


def test_no_difference_has_no_location(build):
    """Equal fingerprints have no first difference."""
    assert locate(build(pp=1).save(), build(pp=2).save()) is None


@pytest.fixture
def pair(build):
    """Return a baseline of six layers on one stage, and the same split into three stages."""
    baseline, candidate = build(pp=1), build(pp=3)
    whole = baseline.event(0, "layers")
    whole["indices"] = list(range(6))
    for index, step in enumerate(baseline.steps(0)):
        step["layers"] = {
            layer: copy.deepcopy(value)
            for rank in range(3)
            for layer, value in candidate.steps(rank)[index]["layers"].items()
        }
    return baseline, candidate


def test_first_layer_wins(pair):
    """The lowest layer that differs is named, not the first row or the first stage in a file."""
    baseline, candidate = pair
    spoil(candidate, 5, (0, 0))
    spoil(candidate, 2, (1, 0))
    where = locate(baseline.save(), candidate.save())
    assert (where.layer, where.stage, where.request, where.position) == (2, 1, "one", 3)


def test_first_row_wins_within_a_layer(pair):
    """Within the layer the row that ran first is named."""
    baseline, candidate = pair
    spoil(candidate, 2, (1, 0), (0, 2), (0, 1))
    where = locate(baseline.save(), candidate.save())
    assert (where.layer, where.position) == (2, 1)


def test_the_last_layer_of_a_stage_counts_where_the_next_one_differs(pair):
    """A look ahead to the next layer's norm is no difference; what reaches that layer is."""
    baseline, candidate = pair
    spoil(candidate, 1, (0, 0))
    spoil(candidate, 3, (0, 0))
    assert compare_logits(baseline.save(), candidate.save()).outcome is Outcome.PASS
    spoil(candidate, 4, (0, 0))
    where = locate(baseline.save(), candidate.save())
    assert (where.layer, where.stage) == (3, 1)


def test_the_last_layer_of_all_counts_alone(pair):
    """No layer is behind it that could show its difference."""
    baseline, candidate = pair
    spoil(candidate, 5, (0, 0))
    (found,) = compare_logits(baseline.save(), candidate.save()).findings
    assert (found.code, found.layer) == ("LOG006", 5)


def test_difference_on_the_first_stage_was_fed_by_nothing(pair):
    """On stage 0 no boundary tensor can be the cause."""
    baseline, candidate = pair
    spoil(candidate, 0, (0, 0))
    where = locate(baseline.save(), candidate.save())
    assert (where.stage, where.entered) == (0, {})
    assert where.sentence == "stage 0, layer 0: first difference after layer 0 at one position 0"


def test_what_entered(build):
    """Each key that fed the stage is told apart: equal, changed, not sent, not read."""
    keys = {"a": [8], "b": [8], "c": [8], "d": [8]}
    baseline, candidate = build(pp=1, keys=keys), build(pp=2, keys=keys)
    baseline.steps(0)[1]["layers"]["2"] = {"digest": [7], "norm": [1.0]}
    arriving = candidate.steps(1)[1]
    arriving["copied"]["b"]["digest"] = [1]
    del candidate.steps(0)[1]["sent"]["c"]
    del arriving["reads"]["d"]
    where = locate(baseline.save(), candidate.save())
    assert (where.layer, where.position) == (2, 3)
    assert where.entered == {
        "a": "arrives equal",
        "b": "arrives changed",
        "c": "is not sent",
        "d": "arrives equal and is not read",
    }
    assert where.sentence == (
        "stage 1, layer 2: a arrives equal; b arrives changed; c is not sent; "
        "d arrives equal and is not read; first difference after layer 2 at one position 3"
    )


def test_finding_carries_the_location(pair):
    """LOG001 names stage and layer and tells the story in its message."""
    baseline, candidate = pair
    candidate.logits["one", 0][0] += 1.0
    spoil(candidate, 4, (0, 0))
    (found,) = compare_logits(baseline.save(), candidate.save()).findings
    assert (found.stage, found.layer) == (2, 4)
    assert "first difference after layer 4 at one position 0" in found.message


def test_difference_after_the_last_layer_has_no_layer(pair):
    """Logits that differ behind equal layers (norm, head) are reported without a layer."""
    baseline, candidate = pair
    candidate.logits["one", 0][0] += 1.0
    (found,) = compare_logits(baseline.save(), candidate.save()).findings
    assert (found.stage, found.layer) == (None, None)


@pytest.mark.parametrize(
    ("device", "kernels", "moved", "outcome"),
    [
        ("cuda", "default", False, Outcome.PASS),
        ("cuda", "default", True, Outcome.INCONCLUSIVE),
        ("cuda", "invariant", True, Outcome.FAIL),
        ("cpu", "default", True, Outcome.FAIL),
    ],
)
def test_adapters_on_a_gpu_have_no_bits_to_ask_for(build, device, kernels, moved, outcome):
    """Their sums are atomic: that PP=1 repeated once does not make a row that moved a fault."""
    sides = [build(pp=1), build(pp=2)]
    for side in sides:
        cell = dataclasses.replace(
            side.manifest.cell,
            device=Device(device),
            kernels=Kernels(kernels),
            engine_args=(("enable_lora", "true"),),
        )
        side.manifest = dataclasses.replace(side.manifest, cell=cell)
    if moved:
        sides[1].logits["one", 2][3] = one_ulp_up(sides[1].logits["one", 2][3])
    verdict = compare_logits(*(side.save() for side in sides))
    assert verdict.outcome is outcome
    for finding in verdict.findings:
        assert finding.code == ("LOG001" if outcome is Outcome.FAIL else "LOG005")
        assert ("--pp-kernels invariant" in finding.fix) is (outcome is Outcome.INCONCLUSIVE)
