"""`--pp-shard`: every point in exactly one shard, baselines shared where that is fair."""

from hypothesis import given
from hypothesis import strategies as st

from harness.plan.shard import Group, split


def group(name, *seconds, baseline=6.0):
    return Group(baseline, tuple((f"{name}{n}", one) for n, one in enumerate(seconds)))


groups = st.lists(st.lists(st.floats(1, 100), min_size=1, max_size=4), min_size=1, max_size=10).map(
    lambda every: [group(f"g{n}-", *seconds) for n, seconds in enumerate(every)]
)


@given(groups, st.integers(1, 12))
def test_every_point_is_in_one_shard(every, count):
    """The shards are a partition of the sweep, empty only if there are more shards than points."""
    shards = split(every, count)
    names = [name for one in every for name, _ in one.points]
    assert len(shards) == count
    assert sorted(name for side in shards for name in side) == sorted(names)
    assert sum(1 for side in shards if side) == min(count, len(names))


def test_points_stay_with_their_baseline():
    """Groups of about the same cost are not taken apart: no baseline runs twice."""
    every = [group(name, 15, 30) for name in "abcdef"]
    shards = split(every, 3)
    assert [len(side) for side in shards] == [4, 4, 4]
    for one in every:
        names = {name for name, _ in one.points}
        assert sum(1 for side in shards if names & side) == 1


def test_a_large_group_is_taken_apart():
    """Where one group is most of the sweep, its points go to two machines."""
    shards = split([group("large", 100, 100), group("small", 5)], 2)
    assert all(shards)
    assert {"large0", "large1"}.isdisjoint(shards[0]) is False
    assert not any({"large0", "large1"} <= side for side in shards)


def test_the_same_everywhere():
    """Machines that split the same sweep agree, whatever the order of its groups."""
    every = [group(name, 10, 20, 20) for name in "abcde"]
    assert split(every, 4) == split(every[::-1], 4)
