"""The page of a history: its levels and charts, and that no text of it acts."""

import json
import re

import pytest
from click.testing import CliRunner
from hostile import ACTING, hostile_history

from harness.cli.trend import trend
from harness.report.history import append
from harness.report.trend import trends
from harness.report.trend_page import levels, render_trend


def page(history):
    return render_trend(trends(history, 2.0))


def charts(text):
    return json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])


def test_each_side_is_a_line_over_the_nights():
    """Accuracy has a line for PP=N and one for PP=1, with a value for each night, in one colour."""
    drawn = charts(page(hostile_history("m")))["accuracy-chart"]["data"]
    candidate, baseline = drawn
    assert candidate["y"] == pytest.approx([0.9, 0.8, 0.7])
    assert candidate["x"][1] == "1970-01-02T00:00"
    assert (baseline["name"], baseline["y"]) == (f"{candidate['name']} PP=1", [0.9] * 3)
    assert candidate["meta"] == baseline["meta"]
    assert candidate["marker"]["symbol"] == "x"  # it has an alarm


def test_equal_bits_are_drawn():
    """A difference of 0 has no place on a logarithmic axis and is not left out for that."""
    chart = charts(page(hostile_history("m")))["drift-chart"]
    assert chart["layout"]["yaxis"]["type"] == "log"
    assert chart["data"][0]["y"] == [1e-9, 1e-3, 2e-3]


def test_levels_are_those_that_alarms_are_held_against():
    """Each followed figure stands at the anchor, at the last green night, and now."""
    found = trends(hostile_history("m"), 2.0)
    (accuracy,) = [one for one in found if one.track.check == "accuracy"]
    assert levels(accuracy)["candidate"] == pytest.approx((0.9, 0.8, 0.7))
    assert "lost" not in levels(accuracy)
    (alarm,) = [one for one in accuracy.alarms if one.code == "TRD002"]
    text = page(hostile_history("m"))
    assert alarm.message in text
    assert ">0.9</td><td" in text


def test_hostile_names_stay_text():
    """Names of models and variants form no element, no handler, and act on no reader."""
    wild, tame = page(hostile_history()), page(hostile_history("m"))
    ours = wild[: wild.index("<script>")]
    assert not ACTING & set(ours)
    tags = [re.findall(r"<([a-z0-9]+)", text[: text.index("<script>")]) for text in (wild, tame)]
    assert tags[0] == tags[1]
    data = json.dumps([one["data"] for one in charts(wild).values()])
    assert "<" not in data.replace("<br>", "").replace("<extra></extra>", "")


def test_many_tracks_and_nights_stay_below_six_megabytes():
    """A hundred points over a year fit into a mail."""
    one = hostile_history("m", nights=365)
    lines = [
        line.model_copy(update={"model": f"model-{number}"})
        for number in range(100)
        for line in one.lines
        if line.check in ("accuracy", "logits")
    ]
    text = page(type(one)(tuple(lines), None, ()))
    assert len(text.encode()) < 6_000_000


def test_the_command_writes_the_page(tmp_path):
    """--html writes the page and names it; the status is that of the trend."""
    path, out = tmp_path / "history.jsonl", tmp_path / "trend.html"
    append(path, hostile_history("m").lines)
    result = CliRunner().invoke(trend, [str(path), "--html", str(out)])
    assert result.exit_code == 1
    assert str(out) in result.output
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
