"""The last night against the last green one and against the anchor."""

import pytest

from harness.report.drift import Night, judge_nights


def night(number, good=True, green=True, inputs="", outputs=None, **figures):
    return Night(
        run=f"night {number}",
        time=float(number),
        good=good,
        green=green,
        summary="it differs",
        figures=figures,
        inputs=inputs,
        outputs=outputs or {},
    )


def nights(name, values, **options):
    return [night(number, **{name: value}, **options) for number, value in enumerate(values)]


def codes(alarms):
    return [alarm.code for alarm in alarms]


def test_equal_nights_raise_nothing():
    """Nothing changed, nothing said; and no night at all is no alarm."""
    assert judge_nights(nights("relative_rms", [0.0] * 5)) == ()
    assert judge_nights([]) == ()


def test_the_first_night_has_nothing_to_be_worse_than():
    """One green night is the anchor itself."""
    assert judge_nights(nights("candidate", [0.5])) == ()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("relative_rms", [1e-3, 1e-3, 2e-3]),
        ("relative_rms", [0.0, 0.0, 1e-5]),
        ("kl", [1e-4, 1e-4, 1e-3]),
        ("top1", [1.0, 1.0, 0.98]),
        ("candidate", [0.95, 0.95, 0.93]),
        ("baseline", [0.95, 0.95, 0.93]),
    ],
)
def test_a_jump_is_held_against_the_last_green_night(name, values):
    """What got worse by more than its tolerance since the last green night is one alarm."""
    (alarm,) = judge_nights(nights(name, values))
    assert alarm.code == "TRD002"
    assert name in alarm.message
    assert "the last green night (night 1)" in alarm.message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("relative_rms", [1e-3, 1.3e-3, 1.45e-3]),
        ("candidate", [0.95, 0.95, 0.94]),
        ("candidate", [0.90, 0.95, 0.95]),
        ("relative_rms", [1e-3, 1e-3, 1e-5]),
        ("kl", [0.0, 0.0, 5e-7]),
    ],
)
def test_within_tolerance_and_better_raise_nothing(name, values):
    """A tolerance is let pass whole, and no improvement is an alarm."""
    assert judge_nights(nights(name, values)) == ()


def test_small_changes_add_up():
    """No night is a jump, but the anchor does not move: the sum is a drift."""
    values = [0.950, 0.946, 0.942, 0.938]
    seen = [codes(judge_nights(nights("candidate", values[: n + 1]))) for n in range(len(values))]
    assert seen == [[], [], [], ["TRD003"]]


def test_a_drift_stays_an_alarm_after_a_jump():
    """The night after a jump is equal to the last green one, and still worse than the anchor."""
    assert codes(judge_nights(nights("candidate", [0.95, 0.90, 0.90]))) == ["TRD003"]


def test_accepted_levels_are_the_new_anchor():
    """A person accepts a level once; further changes are held against it."""
    series = nights("candidate", [0.95, 0.90, 0.90, 0.895])
    assert judge_nights(series, anchor=2.0) == ()
    assert codes(judge_nights([*series, night(4, candidate=0.885)], anchor=2.0)) == ["TRD003"]
    # A check that is younger than the acceptance keeps its own first green night.
    assert codes(judge_nights(series[1:], anchor=0.5)) == []


def test_red_nights_are_no_reference():
    """A red night in between neither lowers the bar nor becomes the anchor."""
    red = night(1, good=False, green=False, candidate=0.5)
    alarms = judge_nights([night(0, candidate=0.95), red, night(2, candidate=0.90)])
    assert "the last green night (night 0)" in alarms[0].message
    alarms = judge_nights([red, night(2, candidate=0.95), night(3, candidate=0.95)])
    assert alarms == ()


def test_a_red_night_is_said():
    """The last night is red: with its own words, even without a figure."""
    (alarm,) = judge_nights([night(0), night(1, good=False, green=False)])
    assert (alarm.code, alarm.message) == ("TRD001", "not green: it differs")


def test_a_known_failure_is_neither_red_nor_a_reference():
    """An expected failure goes on as it is: no green night is there to hold it against."""
    series = nights("relative_rms", [0.5, 0.9], green=False)
    assert judge_nights(series) == ()


def test_a_figure_that_is_gone_is_not_taken_from_before():
    """A night without the figure is not judged by an earlier night's."""
    assert judge_nights([*nights("candidate", [0.95, 0.9]), night(2)]) == ()


def test_time_is_judged_over_three_nights():
    """One slow night is the machine's; the third in a row is an alarm."""
    ratios = [2.0, 2.1, 1.9, 9.0]
    assert judge_nights(nights("seconds_ratio", ratios)) == ()
    assert judge_nights(nights("seconds_ratio", [2.0, 9.0])) == ()
    slow = judge_nights(nights("seconds_ratio", [*ratios, 3.4, 3.5]))
    assert codes(slow) == ["TRD003"]


def test_equal_inputs_give_equal_bits():
    """Other bits from equal inputs is an alarm; other inputs may give other bits."""
    before = [
        night(0, inputs="a", outputs={"logits": "1"}),
        night(1, inputs="b", outputs={"logits": "2"}),
        night(2, inputs="a"),
    ]
    assert codes(judge_nights([*before, night(3, inputs="a", outputs={"logits": "1"})])) == []
    assert codes(judge_nights([*before, night(3, inputs="c", outputs={"logits": "3"})])) == []
    (alarm,) = judge_nights([*before, night(3, inputs="a", outputs={"logits": "3"})])
    assert (alarm.code, "night 0" in alarm.message) == ("TRD004", True)
