"""The last night compared with the last green one and the anchor; `report trend` and its page."""

import json
import re

import pytest
from click.testing import CliRunner
from hostile import ACTING, hostile_history
from small_report import small_report

from harness.cli.report import trend
from harness.errors import BadInputError
from harness.report.history import append, history_lines
from harness.report.trend import judge_nights, render_trend, trends

DAY = 86400.0


def night(number, outcome="ok", **fields):
    verdict = "pass" if outcome == "ok" else "fail"
    (line,) = history_lines(small_report(verdict, check="accuracy"), number * DAY)
    fields = {"inputs": "", "outputs": {}, "run": f"night {number}", "outcome": outcome, **fields}
    return line.model_copy(update=fields)


def nights(name, values, **fields):
    return [night(n, figures={name: value}, **fields) for n, value in enumerate(values)]


def codes(lines, accepted=None):
    return [code for code, _ in judge_nights(lines, accepted)]


# ---- alarms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "raised"),
    [
        ("relative_rms", [0.0] * 5, []),
        ("candidate", [0.5], []),  # one green night is the anchor itself
        # A jump since the last green night.
        ("relative_rms", [1e-3, 1e-3, 2e-3], ["TRD002"]),
        ("relative_rms", [0.0, 0.0, 1e-5], ["TRD002"]),
        ("kl", [1e-4, 1e-4, 1e-3], ["TRD002"]),
        ("top1", [1.0, 1.0, 0.98], ["TRD002"]),
        ("baseline", [0.95, 0.95, 0.93], ["TRD002"]),
        # Within tolerance, or better.
        ("relative_rms", [1e-3, 1.3e-3, 1.45e-3], []),
        ("candidate", [0.95, 0.95, 0.94], []),
        ("candidate", [0.90, 0.95, 0.95], []),
        ("kl", [0.0, 0.0, 5e-7], []),
        # No night is a jump; the anchor does not move, and the sum is a drift.
        ("candidate", [0.950, 0.946, 0.942], []),
        ("candidate", [0.950, 0.946, 0.942, 0.938], ["TRD003"]),
        # The night after a jump is as good as the last green one, and worse than the anchor.
        ("candidate", [0.95, 0.90, 0.90], ["TRD003"]),
    ],
)
def test_figures(name, values, raised):
    """A figure is compared with the last green night and the anchor; each alarm names it once."""
    alarms = judge_nights(nights(name, values))
    assert [code for code, _ in alarms] == raised
    assert all(message.startswith(f"{name} is ") for _, message in alarms)


def test_accepted_levels_are_the_new_anchor():
    """A person accepts a level once; further changes are compared with it."""
    series = nights("candidate", [0.95, 0.90, 0.90, 0.895])
    assert codes(series, accepted=2 * DAY) == []
    worse = night(4, figures={"candidate": 0.885})
    assert codes([*series, worse], accepted=2 * DAY) == ["TRD003"]
    # A check that is younger than the acceptance keeps its own first green night.
    assert codes(series[1:], accepted=0.5 * DAY) == []


def test_a_red_night_is_an_alarm_and_no_reference():
    """A red night is reported in its own words, lowers no bar and does not become the anchor."""
    red = night(1, "unexpected", figures={"candidate": 0.5})
    assert judge_nights([night(0), red]) == (("TRD001", "not green: it differs"),)
    first, last = (night(n, figures={"candidate": v}) for n, v in ((0, 0.95), (2, 0.90)))
    ((_, message),) = judge_nights([first, red, last])
    assert "0.95 at the last green night (night 0); 0.01 is allowed" in message
    assert codes([red, last]) == []


def test_a_known_failure_is_neither_red_nor_a_reference():
    """An expected failure goes on as it is: no green night is there to compare it with."""
    assert codes(nights("relative_rms", [0.5, 0.9], outcome="expected")) == []


def test_a_figure_that_is_gone_is_not_taken_from_before():
    """A night without the figure is not judged by an earlier night's."""
    assert codes([*nights("candidate", [0.95, 0.9]), night(2)]) == []


@pytest.mark.parametrize(
    ("inputs", "bits", "profile", "raised"),
    [
        ("a", "1", "parity", []),
        ("c", "3", "parity", []),  # other inputs may give other bits
        ("a", "3", "parity", ["TRD004"]),
        ("a", "3", "stress", []),  # other batches may, too
    ],
)
def test_equal_inputs_give_equal_bits(inputs, bits, profile, raised):
    """Other bits from equal inputs is an alarm, though nights without bits lie between."""
    before = [
        night(0, inputs="a", outputs={"logits": "1"}, profile=profile),
        night(1, inputs="b", outputs={"logits": "2"}, profile=profile),
        night(2, inputs="a", profile=profile),
    ]
    last = night(3, inputs=inputs, outputs={"logits": bits}, profile=profile)
    assert codes([*before, last]) == raised


# ---- the command ------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Write lines into a history and run `report trend` on it."""
    path = tmp_path / "history.jsonl"

    def run(lines, *options):
        append(path, lines)
        return CliRunner().invoke(trend, [str(path), *options])

    run.path = path
    return run


def test_steady_nights_end_with_0(run):
    """Nothing got worse: a row for the check, and no alarm."""
    result = run(nights("candidate", [0.95, 0.95]))
    assert result.exit_code == 0, result.output
    assert "accuracy[fixed-ple-pp2-v0.20.2]" in result.output
    assert result.output.endswith("1 checks, 0 alarms\n")


def test_a_drift_ends_with_1_until_its_level_is_accepted(run):
    """A drift that no single night shows is named; --accept appends an anchor with its reason."""
    lines = nights("candidate", [0.950, 0.945, 0.940, 0.935])
    result = run(lines)
    assert result.exit_code == 1
    assert "TRD003 accuracy[fixed-ple-pp2-v0.20.2]: candidate is 0.935, 0.95" in result.output
    before = run.path.read_bytes()
    assert run([], "--accept", "new prompt").exit_code == 0
    assert run([]).exit_code == 0
    assert run.path.read_bytes().startswith(before)
    assert json.loads(run.path.read_text().splitlines()[-1])["reason"] == "new prompt"


def test_what_is_not_judged_any_more_is_named(run):
    """A check that stopped running raises no alarm and is named."""
    result = run([night(0, "unexpected"), night(9, check="logits")])
    assert result.exit_code == 0
    assert "not judged since night 0: accuracy[fixed-ple-pp2-v0.20.2]" in result.output
    assert "not judged" not in run([], "--within", "10").output


def test_settings_are_not_mixed(run):
    """A GPU's figures are not compared with a CPU's."""
    other = night(1, figures={"candidate": 0.5}, setting={"device": "cuda"})
    assert run([*nights("candidate", [0.95]), other]).exit_code == 0


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_no_nights_is_bad_input(tmp_path, content):
    """A file without nights cannot be green."""
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInputError):
        CliRunner().invoke(trend, [str(path)], catch_exceptions=False, standalone_mode=False)


# ---- the page -----------------------------------------------------------------------------------


def test_the_page_shows_alarms_nights_and_levels(run, tmp_path):
    """--html writes the page: each alarm, each night with its figure, and the levels."""
    page = tmp_path / "trend.html"
    lines = nights("candidate", [0.95, 0.9, 0.85])
    result = run(lines, "--html", str(page))
    assert (result.exit_code, result.output.splitlines()[-1]) == (1, str(page))
    text = page.read_text(encoding="utf-8")
    assert all(message in text for _, message in judge_nights(lines))
    assert re.findall(r'class="ok" title="(.*?)">✓', text) == [
        f"night {n}: pass, candidate {value}" for n, value in enumerate((0.95, 0.9, 0.85))
    ]
    assert re.findall(r'class="number">([\d.]+)</td>', text) == ["3", "0.95", "0.9", "0.85"]


def test_hostile_names_stay_text():
    """Names of models and variants form no element, and no script may run at all."""
    wild, tame = (render_trend(trends(hostile_history(*text), 2.0)) for text in ((), ("m",)))
    assert not ACTING & set(wild)
    tags = [re.findall(r"<([a-z0-9]+)", text) for text in (wild, tame)]
    assert tags[0] == tags[1]
    assert "script-src &#39;none&#39;" in wild
    assert "script" not in tags[0]
