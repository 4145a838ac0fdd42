"""The schedule: never more devices than there are, and no worse than its lower bound allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capture.schedule import Job, first_fit, lower_bound, makespan, schedule, simulate

jobs = st.lists(
    st.builds(Job, st.just("job"), st.integers(1, 8), st.floats(0.5, 100)), min_size=1, max_size=40
)


@given(jobs, st.integers(8, 20), st.one_of(st.none(), st.integers(1, 5)))
def test_every_schedule_is_possible(some, devices, engines):
    """At no time are more devices or engines in use than there are; every job runs once."""
    made = schedule(some, devices, engines)
    assert sorted(each.job.seconds for each in made) == sorted(job.seconds for job in some)
    for moment in (each.start for each in made):
        busy = [each for each in made if each.start <= moment < each.end]
        assert sum(each.job.width for each in busy) <= devices
        assert engines is None or len(busy) <= engines
    assert [each.start for each in made] == sorted(each.start for each in made)


@given(jobs, st.integers(8, 20), st.one_of(st.none(), st.integers(1, 5)))
def test_no_list_ends_before_the_bound(some, devices, engines):
    """The lower bound is one for any list, and the schedule is no longer than longest first."""
    bound = lower_bound(some, devices, engines) * 0.999999
    assert makespan(simulate(some, devices, engines)) >= bound
    longest_first = sorted(some, key=lambda job: (-job.seconds, -job.width))
    assert makespan(schedule(some, devices, engines)) <= makespan(
        simulate(longest_first, devices, engines)
    )


@pytest.mark.parametrize(
    ("widths", "devices", "engines", "bound"),
    [
        ([1] * 8, 4, None, 20.0),  # the work over the devices
        ([1] * 8, 4, 2, 40.0),  # the seconds over the engines
        ([5] * 4, 8, None, 40.0),  # no two of them side by side: 25 by work alone
        ([1], 128, None, 10.0),  # the longest
    ],
)
def test_the_bound_is_met_where_jobs_are_equal(widths, devices, engines, bound):
    """Each term of the bound decides somewhere, and there the schedule reaches it."""
    some = [Job(str(number), width, 10.0) for number, width in enumerate(widths)]
    assert lower_bound(some, devices, engines) == pytest.approx(bound)
    assert makespan(schedule(some, devices, engines)) == pytest.approx(bound)


def test_nothing_to_do():
    """An empty sweep has an empty schedule."""
    assert (schedule([], 4), lower_bound([], 4)) == ((), 0.0)


def test_a_job_wider_than_the_host():
    """A job that can never run is an error and no endless loop."""
    with pytest.raises(ValueError, match="wider than 2"):
        schedule([Job("wide", 3, 1.0)], 2)


@pytest.mark.parametrize(("free", "index"), [(4, 0), (3, 1), (1, 2), (0, None)])
def test_first_fit(free, index):
    """The first of the list that the free devices are enough for starts."""
    assert first_fit([Job("a", 4, 9.0), Job("b", 2, 8.0), Job("c", 1, 7.0)], free) == index
