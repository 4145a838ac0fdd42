"""Moves of rows beside those of floor passes: what chance shows, what it does not."""

import numpy as np
import pytest

from harness.checks.logits.noise import (
    MARGIN,
    RESOLUTION,
    SUSPICION,
    Place,
    entry_limit,
    rounding,
    single_excess,
    smallest_systematic,
    systematic_excess,
)

REQUESTS, FLOORS = 27, 3
DTYPES = {"bfloat16": 2e-3, "float32": 2e-7}


def passes(draw, sizes, count=FLOORS + 1):
    """Return passes of rows that move by log-normal noise, together within a request."""
    return [
        {
            f"r{number}": size
            * draw.choice([0.0, 1.0], p=[0.6, 0.4])
            * np.exp(draw.normal(0, 0.3) + draw.normal(0, 0.8, rows))
            for number, (rows, size) in enumerate(sizes)
        }
        for _ in range(count)
    ]


def place(candidate, floors, layer=None):
    return Place(layer, candidate, tuple(floors))


def sizes(draw, size):
    return [(int(rows), size) for rows in draw.integers(4, 120, REQUESTS)]


@pytest.mark.parametrize("size", [1e-7, 2e-3, 0.5])
def test_one_more_pass_of_the_noise_is_no_excess(size):
    """In 60 comparisons of a pass with its equals none is an excess of most requests."""
    for seed in range(60):
        draw = np.random.default_rng(seed)
        candidate, *floors = passes(draw, sizes(draw, size))
        assert systematic_excess([place(candidate, floors)]) is None


def test_chance_is_as_often_as_it_claims():
    """At a level of 20 % an honest pass alarms in 20 % of comparisons at most, at the hardest."""
    draw = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        # Each request moves in one pass only, so that any margin is exceeded.
        ahead = draw.integers(0, FLOORS + 1, REQUESTS)
        tables = [
            {f"r{n}": np.array([float(ahead[n] == number)]) for n in range(REQUESTS)}
            for number in range(FLOORS + 1)
        ]
        alarms += systematic_excess([place(tables[0], tables[1:])], 0.2) is not None
    assert 0 < alarms <= 0.2 * 400


@pytest.mark.parametrize("floors", [1, 3, 5])
def test_every_row_off_by_a_percent_is_seen(floors):
    """A systematic fault of the resolution is an excess wherever noise does not hide as much."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        candidate, *others = passes(draw, sizes(draw, 1e-3), floors + 1)
        here = place(candidate, others)
        seen = smallest_systematic(here, 1)
        assert seen < RESOLUTION
        moved = {name: np.hypot(far, RESOLUTION) for name, far in candidate.items()}
        assert systematic_excess([place(moved, others)]) is not None


def test_the_smallest_fault_is_the_one_that_is_seen():
    """Rows that all move by a little more than `smallest_systematic` are seen."""
    draw = np.random.default_rng(3)
    _, *floors = passes(draw, sizes(draw, 1e-3))
    seen = smallest_systematic(place(floors[0], floors), 1)
    for factor, expected in ((1.001, True), (0.3, False)):
        moved = {name: np.full(len(far), factor * seen) for name, far in floors[0].items()}
        assert (systematic_excess([place(moved, floors)]) is not None) is expected


def test_a_fault_of_long_requests_stands_out_of_the_noise_of_the_others():
    """Ten of 54 requests off by 3 % are suspicious at least: noise in the others excuses none."""
    for seed in range(10):
        draw = np.random.default_rng(seed)
        rows = [(int(count), 1e-3) for count in draw.integers(4, 120, 2 * REQUESTS)]
        candidate, *floors = passes(draw, rows)
        for name in list(candidate)[:10]:
            candidate[name] = np.hypot(candidate[name], 0.03)
        found = systematic_excess([place(candidate, floors)], SUSPICION)
        assert set(found.requests) <= set(candidate)
        assert found.chance < SUSPICION


def test_an_outlier_at_pp_1_excuses_nothing():
    """A floor row that moved a thousand times further hides a fault in its own request only."""
    draw = np.random.default_rng(4)
    _, *floors = passes(draw, sizes(draw, 1e-3))
    before = smallest_systematic(place(floors[0], floors), 1)
    floors[0]["r3"] = floors[0]["r3"] + 1.0
    assert smallest_systematic(place(floors[0], floors), 1) <= 2 * before
    moved = {name: np.full(len(far), RESOLUTION) for name, far in floors[0].items()}
    assert systematic_excess([place(moved, floors)]) is not None


def test_rows_that_move_less_widen_no_limit():
    """Noise that is smaller in half of the requests lets no larger fault pass."""
    draw = np.random.default_rng(5)
    _, *floors = passes(draw, sizes(draw, 1e-3))
    before = smallest_systematic(place(floors[0], floors), 1)
    for floor in floors:
        for name in list(floor)[::2]:
            floor[name] = floor[name] / 100
    assert smallest_systematic(place(floors[0], floors), 1) <= before


def test_a_flip_of_experts_in_some_requests_is_chance():
    """Rows that jump where a tie is turned are as rare at PP=N as at PP=1, and no excess."""
    for seed in range(60):
        draw = np.random.default_rng(seed)
        candidate, *floors = passes(draw, sizes(draw, 1e-3))
        for table in (candidate, *floors):
            for far in table.values():
                far[draw.random(len(far)) < 0.01] = 0.4
        assert systematic_excess([place(candidate, floors)]) is None


def test_too_few_requests_see_nothing():
    """Five requests cannot be told from chance beside three floor passes, and it is known."""
    floors = [{f"r{n}": np.zeros(4) for n in range(5)}] * FLOORS
    assert smallest_systematic(place(floors[0], floors), 1) is None
    moved = {f"r{n}": np.ones(4) for n in range(5)}
    assert systematic_excess([place(moved, floors)]) is None


def test_more_places_ask_for_more():
    """The chance of a false alarm is that of the whole comparison, however many layers it has."""
    floors = [{f"r{n}": np.zeros(4) for n in range(9)}] * FLOORS
    here = place({f"r{n}": np.full(4, 0.1) for n in range(9)}, floors)
    assert systematic_excess([here]) is not None
    assert systematic_excess([place(floors[0], floors, layer) for layer in range(60)] + [here]) is (
        None
    )


def test_the_first_place_with_an_excess_is_named():
    """A fault of stage 1 is 0 of N rows up to the boundary and N of N behind it."""
    quiet = {f"r{n}": np.zeros(4) for n in range(REQUESTS)}
    moved = {f"r{n}": np.full(4, 1e-3) for n in range(REQUESTS)}
    places = [place(moved if layer >= 5 else quiet, [quiet] * 3, layer) for layer in range(10)]
    found = systematic_excess(places)
    assert found.layer == 5
    assert len(found.requests) == REQUESTS


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_enters_by_a_rounding_however_far_it_grows(dtype):
    """Later layers may amplify noise until rows are unrelated; where it enters it is small."""
    for seed in range(60):
        draw = np.random.default_rng(seed)
        entering = passes(draw, sizes(draw, DTYPES[dtype]))
        later = [{name: far * 500 for name, far in table.items()} for table in entering]
        places = [place(table[0], table[1:], n) for n, table in enumerate((entering, later))]
        limit = entry_limit(places, dtype)
        found = single_excess(places, limit)
        assert found is None or max(found.far, limit) < 10 * rounding(dtype, 4), (seed, found)


def test_one_request_that_enters_by_more_than_a_rounding_is_named():
    """A single row that is another token's is seen at its layer, with its request."""
    draw = np.random.default_rng(0)
    candidate, *floors = passes(draw, sizes(draw, 1e-3))
    quiet = {name: np.zeros(len(far)) for name, far in candidate.items()}
    swapped = dict(quiet)
    swapped["r7"] = quiet["r7"] + np.eye(len(quiet["r7"]))[1]
    noisy = {name: np.maximum(candidate[name], swapped[name]) for name in candidate}
    places = [place(swapped, [quiet] * 3, 4), place(noisy, floors, 5)]
    found = single_excess(places, entry_limit(places, "bfloat16"))
    assert (found.layer, found.requests) == (4, ("r7",))


def test_a_row_far_beyond_the_floor_is_named_though_noise_came_first():
    """A row that is another in a request whose noise entered a layer before is no noise."""
    draw = np.random.default_rng(0)
    candidate, *floors = passes(draw, sizes(draw, 1e-3))
    while not candidate["r7"].any():
        candidate, *floors = passes(draw, sizes(draw, 1e-3))
    spoiled = dict(candidate) | {"r7": candidate["r7"] + np.eye(len(candidate["r7"]))[1]}
    places = [place(candidate, floors, 4), place(spoiled, floors, 5)]
    found = single_excess(places, entry_limit(places, "bfloat16"))
    assert (found.layer, found.requests) == (5, ("r7",))
    assert single_excess([place(candidate, floors, 4)] * 2, found.limit) is None


def test_equal_bits_at_pp_1_leave_a_rounding():
    """Where PP=1 showed no noise at all, an entry may be four roundings of the dtype."""
    quiet = {f"r{n}": np.zeros(4) for n in range(REQUESTS)}
    places = [place(quiet, [quiet] * 3, 0)]
    assert entry_limit(places, "bfloat16") == rounding("bfloat16", 4)
    assert single_excess(places, entry_limit(places, "bfloat16")) is None


def test_margin_allows_pp_n_to_be_somewhat_noisier():
    """Smaller batches of PP=N may round a little more: less than the margin is no excess."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        candidate, *floors = passes(draw, sizes(draw, 1e-3))
        noisier = {name: far * (MARGIN * 0.6) for name, far in candidate.items()}
        assert systematic_excess([place(noisier, floors)]) is None
