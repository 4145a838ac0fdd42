"""The map of a difference: which layers, which positions, how far; and its bound."""

import copy
import json
import math

import pytest

from harness.checks.logits.layer_map import difference_map
from harness.checks.logits.logits import compare_logits


@pytest.fixture
def pair(build):
    """Return a function that makes PP=1 and PP=2 captures of four layers, over the same rows."""

    def make(spans):
        baseline, candidate = build(pp=1, spans=spans), build(pp=2, spans=spans)
        for index, step in enumerate(baseline.steps(0)):
            step["layers"] = copy.deepcopy(
                candidate.steps(0)[index]["layers"] | candidate.steps(1)[index]["layers"]
            )
        return baseline, candidate

    return make


def spoil(candidate, rank, step, layer, row, norm=None):
    content = candidate.steps(rank)[step]["layers"][str(layer)]
    content["digest"][row] += 1
    if norm is not None:
        content["norm"][row] = norm


SPANS = (("one", 0, 3), ("two", 0, 2), ("one", 3, 1))


def test_equal_captures_have_no_map(pair):
    """Nothing is drawn, and nothing stands in the report, where no layer differs."""
    baseline, candidate = (one.save() for one in pair(SPANS))
    assert difference_map(baseline, candidate) is None
    assert "difference" not in compare_logits(baseline, candidate).figures


def test_every_row_and_layer_has_its_place(pair):
    """Columns follow the requests and their positions; a cell says what differs and how far."""
    baseline, candidate = pair(SPANS)
    spoil(candidate, 1, 2, 3, 0, norm=1.25)  # layer 3, request one, position 3
    spoil(candidate, 1, 1, 2, 1, norm=0.5)  # layer 2, request two, position 1
    spoil(candidate, 0, 0, 0, 0)  # a bit that leaves the norm
    found = difference_map(baseline.save(), candidate.save())
    assert found["layers"] == [0, 1, 2, 3]
    assert found["stages"] == [0, 0, 1, 1]
    assert found["columns"] == [["one", p, 1] for p in range(4)] + [["two", p, 1] for p in range(2)]
    nothing = [0.0] * 6
    assert found["changed"] == [
        [1.0, *nothing[1:]],
        nothing,
        [*nothing[:5], 1.0],
        [*nothing[:3], 1.0, *nothing[4:]],
    ]
    assert found["norm"] == [
        nothing,
        nothing,
        [*nothing[:5], 0.5],
        [*nothing[:3], 0.25, *nothing[4:]],
    ]


def test_differing_logits_bring_the_map_into_the_figures(pair):
    """The report holds it once, beside the figures and not in the finding's evidence."""
    baseline, candidate = pair(SPANS)
    spoil(candidate, 1, 0, 2, 1)
    candidate.logits["one", 1][0] += 1.0
    verdict = compare_logits(baseline.save(), candidate.save())
    assert verdict.figures["difference"] == difference_map(baseline.save(), candidate.save())
    assert all("difference" not in finding.evidence for finding in verdict.findings)


def test_positions_share_columns_where_there_are_many(pair):
    """A long prompt is drawn in at most 160 columns that cover each row once; none is lost."""
    rows = 1000
    baseline, candidate = pair((("short", 0, 1), ("long", 0, rows), ("long", rows, 5)))
    spoil(candidate, 0, 1, 1, 999, norm=3.0)
    found = difference_map(baseline.save(), candidate.save())
    columns = found["columns"]
    assert len(columns) <= 160
    assert columns[0] == ["short", 0, 1]
    covered = [p for name, first, count in columns[1:] for p in range(first, first + count)]
    assert covered == list(range(rows + 5))
    place = next(n for n, (_, first, count) in enumerate(columns) if n and first + count > 999)
    assert found["changed"][1][place] == pytest.approx(1 / columns[place][2], abs=1e-3)
    assert found["norm"][1][place] == 2.0
    assert sum(map(bool, found["changed"][1])) == 1
    assert len(json.dumps(found)) < 20_000


def test_more_requests_than_columns_keep_one_each(pair):
    """No request is left out, however many there are."""
    baseline, candidate = pair(tuple((f"r{number}", 0, 2) for number in range(200)))
    spoil(candidate, 0, 7, 0, 0)
    found = difference_map(baseline.save(), candidate.save())
    assert [name for name, _, _ in found["columns"]] == [f"r{number}" for number in range(200)]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_is_changed_and_has_no_distance(pair, broken):
    """NaN and infinity reach the map as a change; JSON has no number for their distance."""
    baseline, candidate = pair((("one", 0, 1),))
    spoil(candidate, 1, 0, 3, 0, norm=broken)
    found = difference_map(baseline.save(), candidate.save())
    assert (found["changed"][3], found["norm"][3]) == ([1.0], [None])
