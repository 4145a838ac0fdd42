"""The history file: what a run appends, what is read back, and what `report trend` says of it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from harness.cli.trend import trend
from harness.errors import BadInputError
from harness.report.history import SCHEMA, append, history_lines, read
from harness.report.schema import CellRecord, FindingRecord, Report, VerdictRecord

DAY = 86400.0
WHERE = {"pin": "0.20.2", "variant": "fixed", "model": "ple"}


def cell(pp, seconds, fresh=True, key="key"):
    return CellRecord(
        **WHERE,
        id=f"fixed-ple-pp{pp}",
        pp=pp,
        status="ok",
        seconds={"start": 9.0, "engine": seconds, "probes": 1.0, "gsm8k": 1.0, "total": 99.0},
        partition=None,
        fresh=fresh,
        key=f"{key}-{pp}",
        outputs={"logits": "bits", "answers": "words"},
    )


def verdict(check, outcome="pass", reason="", **figures):
    return VerdictRecord(
        **WHERE,
        pp=2,
        check=check,
        verdict=outcome,
        expected=False,
        summary=f"{check}: {outcome}",
        reason=reason,
        figures=figures,
    )


def report(*verdicts, cells=None, findings=()):
    return Report(
        schema="pp-harness-report/1",
        environment={"pin": "0.20.2", "series": "s", "device": "cpu", "gsm8k_limit": None},
        cells=cells or [cell(1, 2.0), cell(2, 6.0)],
        verdicts=list(verdicts),
        findings=list(findings),
    )


@pytest.fixture
def nights(tmp_path):
    """Return a function that appends one report for each value of a figure, a day apart."""
    path = tmp_path / "history.jsonl"

    def nights(*values, check="accuracy", figure="candidate"):
        for number, value in enumerate(values):
            append(path, history_lines(report(verdict(check, **{figure: value})), number * DAY))
        return path

    return nights


def run(*arguments):
    return CliRunner().invoke(trend, [str(one) for one in arguments])


# ---- what a run appends -------------------------------------------------------------------


def test_a_line_per_check_with_digests_and_figures():
    """Each verdict leaves a line: setting, figures, key of the capture, digest of what it saw."""
    lines = history_lines(
        report(verdict("engine"), verdict("logits", relative_rms=0.5, first=None)), DAY
    )
    engine, logits = lines
    assert logits.run == "1970-01-02T00:00:00+00:00"
    assert logits.setting == {"device": "cpu"}
    assert logits.figures == {"relative_rms": 0.5}
    assert (logits.inputs, logits.outputs) == ("key-2", {"logits": "bits"})
    assert engine.seconds == {"candidate": 8.0, "baseline": 4.0}
    assert engine.figures == {"seconds_ratio": 2.0}
    assert engine.outputs == {}


def test_numbers_that_json_lacks_are_left_out():
    """A figure that is not finite is no figure; the line stays readable."""
    (line,) = history_lines(report(verdict("logits", relative_rms=float("nan"), kl=0.5)), 0.0)
    assert line.figures == {"kl": 0.5}


@pytest.mark.parametrize("fresh", [(True, False), (False, True), (False, False)])
def test_times_and_bits_of_an_earlier_run_are_not_counted_again(fresh):
    """A capture out of the store says nothing new: neither seconds nor bits."""
    cells = [cell(1, 2.0, fresh[0]), cell(2, 6.0, fresh[1])]
    engine, logits = history_lines(report(verdict("engine"), verdict("logits"), cells=cells), 0.0)
    assert engine.figures == {}
    assert bool(logits.outputs) == fresh[1]


def test_a_finding_is_named_on_the_line_of_its_check():
    """Codes stand where they were found, not on the point's other checks."""
    found = FindingRecord(
        **WHERE, pp=2, check="logits", code="LOG001", severity="error", message="m", fix="f"
    )
    contract, logits = history_lines(
        report(verdict("contract"), verdict("logits", "fail"), findings=[found]), 0.0
    )
    assert (contract.codes, logits.codes) == ([], ["LOG001"])
    assert (contract.outcome, logits.outcome) == ("ok", "unexpected")


def test_a_cured_finding_is_red():
    """A pass that carries a reason is an expectation that did not come true."""
    (line,) = history_lines(report(verdict("logits", reason="cured: remove the entry")), 0.0)
    assert line.outcome == "unexpected"
    assert not line.night.good


# ---- the file ------------------------------------------------------------------------------


def test_what_is_appended_is_read_back(nights):
    """Lines come back as they were, in one track."""
    history = read(nights(0.9, 0.9))
    (lines,) = history.tracks.values()
    assert [line.figures["candidate"] for line in lines] == [0.9, 0.9]
    assert history.damaged == ()


def test_a_torn_last_line_costs_that_line_alone(nights):
    """What a killed writer left is said and left alone, and does not eat the next line."""
    path = nights(0.9, 0.9)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert read(path).damaged == (2,)
    nights(0.8)
    history = read(path)
    assert (len(history.lines), history.damaged) == (2, (2,))


def test_writers_do_not_mix_their_lines(nights, tmp_path):
    """Several jobs append at a time: every line is whole."""
    path = tmp_path / "history.jsonl"
    lines = history_lines(report(*[verdict("logits", kl=0.1)] * 20), 0.0)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: append(path, lines), range(16)))
    history = read(path)
    assert (len(history.lines), history.damaged) == (320, ())


@pytest.mark.parametrize("line", ["[]", "null", "{}", f'{{"schema": "{SCHEMA}"}}', "\xff"])
def test_a_line_that_is_none_is_left_out_and_counted(nights, line):
    """Whatever stands in a line, the others are read."""
    path = nights(0.9)
    path.write_bytes(line.encode("latin-1") + b"\n" + path.read_bytes())
    history = read(path)
    assert (len(history.lines), history.damaged) == (1, (1,))


def test_a_field_of_a_later_release_is_passed_over(nights):
    """Within a version fields are added; an older reader reads on."""
    path = nights(0.9)
    path.write_text(json.dumps({**json.loads(path.read_text()), "moon": "full"}) + "\n")
    assert len(read(path).lines) == 1


def test_a_newer_version_is_refused(nights):
    """To skip what cannot be understood would lose a night in silence."""
    path = nights(0.9)
    path.write_text(path.read_text().replace(SCHEMA, "pp-harness-history/2"))
    with pytest.raises(BadInputError, match=r"history.jsonl:1: pp-harness-history/2 is not"):
        read(path)


# ---- report trend ---------------------------------------------------------------------------


def test_steady_nights_end_with_0(nights):
    """Nothing got worse."""
    result = run(nights(0.95, 0.95))
    assert result.exit_code == 0, result.output
    assert "accuracy[fixed-ple-pp2]" in result.output
    assert result.output.endswith("1 checks, 0 alarms\n")


def test_an_alarm_ends_with_1(nights):
    """A drift that no single night shows ends with 1 and says which check, by how much."""
    result = run(nights(0.950, 0.945, 0.940, 0.935))
    assert result.exit_code == 1
    assert "TRD003 accuracy[fixed-ple-pp2]: candidate is 0.935, 0.95 at the anchor" in result.output


def test_levels_are_accepted_with_a_reason(nights):
    """--accept appends an anchor, and the file keeps what it had."""
    path = nights(0.95, 0.85)
    before = path.read_bytes()
    assert run(path).exit_code == 1
    nights_later = history_lines(report(verdict("accuracy", candidate=0.85)), 2 * DAY)
    append(path, nights_later)
    assert run(path, "--accept", "new prompt").exit_code == 0
    assert run(path).exit_code == 0
    assert path.read_bytes().startswith(before)
    assert json.loads(path.read_text().splitlines()[-1])["reason"] == "new prompt"


def test_what_is_not_judged_any_more_is_said(nights):
    """A check that stopped running is named, and judged again once it is back."""
    path = nights(0.95)
    append(path, history_lines(report(verdict("logits", kl=0.0)), 9 * DAY))
    result = run(path)
    assert "not judged since 1970-01-01T00:00:00+00:00: accuracy[fixed-ple-pp2]" in result.output
    assert "not judged" not in run(path, "--within", "10").output


@pytest.mark.parametrize(
    "setting", [{"device": "cuda"}, {"mode": "compiled"}, {"dtype": "float16"}, {"runner": "v2"}]
)
def test_settings_are_not_mixed(nights, setting):
    """A GPU's figures are not held against a CPU's, nor those of compiled code against eager."""
    path = nights(0.95)
    other = report(verdict("accuracy", candidate=0.5))
    other.environment.update(setting)
    append(path, history_lines(other, DAY))
    assert run(path).exit_code == 0


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_no_nights_is_bad_input(tmp_path, content):
    """A file without nights cannot be green."""
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInputError):
        CliRunner().invoke(trend, [str(path)], catch_exceptions=False, standalone_mode=False)
