"""The schedule: never more devices than there are, near its lower bound, and nobody starves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capture.schedule import Job, lower_bound, next_start, plan, simulate

jobs = st.lists(
    st.builds(Job, st.just("job"), st.integers(1, 8), st.floats(0.5, 100)), min_size=1, max_size=40
)


@given(jobs, st.integers(8, 20), st.one_of(st.none(), st.integers(1, 5)))
def test_every_schedule_is_possible(some, devices, engines):
    """At no time are more devices or engines in use than there are; every job runs once."""
    made = plan(some, devices, engines)
    assert sorted(one.job.seconds for one in made.placed) == sorted(job.seconds for job in some)
    for moment in (one.start for one in made.placed):
        busy = [one for one in made.placed if one.start <= moment < one.end]
        assert sum(one.job.width for one in busy) <= devices
        assert engines is None or len(busy) <= engines
    assert made.makespan >= made.bound * 0.999999
    assert list(made.order) == [one.job for one in sorted(made.placed, key=lambda p: p.start)]


@given(jobs, st.integers(8, 20))
def test_the_bound_is_a_bound_of_any_order(some, devices):
    """No order beats the lower bound."""
    ends = max(one.end for one in simulate(some, devices))
    assert ends >= lower_bound(some, devices) * 0.999999


@pytest.mark.parametrize(
    ("widths", "devices", "bound"),
    [
        ([1] * 8, 4, 20.0),
        ([4] * 3, 4, 30.0),
        ([3] * 4, 8, 20.0),  # two side by side leave two devices idle: 15 by work alone
        ([5] * 4, 8, 40.0),  # one at a time: 25 by work alone
        ([1], 128, 10.0),
    ],
)
def test_bound_knows_what_does_not_pack(widths, devices, bound):
    """Idle devices that no job of these widths can use are no saving."""
    some = [Job(str(n), width, 10.0) for n, width in enumerate(widths)]
    assert lower_bound(some, devices) == pytest.approx(bound)
    assert plan(some, devices).makespan == pytest.approx(bound)


def test_nothing_to_do():
    """An empty sweep has an empty schedule."""
    assert (plan([], 4).makespan, plan([], 4).bound) == (0.0, 0.0)


def test_a_job_wider_than_the_host():
    """A job that can never run is an error and no endless loop."""
    with pytest.raises(ValueError, match="wider than 2"):
        plan([Job("wide", 3, 1.0)], 2)


HEAD = Job("wide", 4, 10.0)


@pytest.mark.parametrize(
    ("waiting", "free", "running", "index"),
    [
        ([HEAD], 4, [], 0),
        ([HEAD, Job("short", 1, 5.0)], 1, [(6.0, 3)], 1),  # over before the head can start
        ([HEAD, Job("long", 1, 50.0)], 1, [(6.0, 3)], None),  # would delay the head
        ([HEAD, Job("long", 1, 50.0)], 1, [(6.0, 4)], 1),  # leaves the head enough
        ([HEAD, Job("broad", 2, 1.0)], 1, [(6.0, 3)], None),  # does not fit
        ([HEAD], 0, [(6.0, 4)], None),
        ([], 4, [], None),
    ],
)
def test_who_may_overtake(waiting, free, running, index):
    """A smaller job passes the head of the list only if the head is not delayed."""
    assert next_start(waiting, free, running, now=0.0) == index


def test_late_cells_keep_nobody_out():
    """What runs longer than expected counts as ending now: short jobs may still pass or wait."""
    late = [(1.0, 3)]
    assert next_start([HEAD, Job("short", 1, 5.0)], 1, late, now=100.0) is None
    assert next_start([Job("fits", 1, 5.0)], 1, late, now=100.0) == 0


@given(st.lists(st.floats(1, 20), min_size=1, max_size=60))
def test_wide_job_does_not_starve(narrow):
    """However many narrow jobs there are, a wide head starts when what ran before it has ended."""
    first = Job("first", 1, 15.0)
    order = [first, HEAD, *(Job("narrow", 1, seconds) for seconds in narrow)]
    placed = {one.job.name: one for one in simulate(order, 4) if one.job.name != "narrow"}
    assert placed["wide"].start == placed["first"].end
