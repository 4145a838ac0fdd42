"""Expectations are strict and scoped: they excuse what they name, and nothing else."""

import pytest

from harness.assets import suites_dir
from harness.checks.expectations import Setting, load_expectations
from harness.checks.finding import Finding, Outcome, Severity, Verdict
from harness.errors import BadInputError
from harness.plan.points import Point

SETTING = Setting(pin="0.20.2", series="gemma4-pp", device="cpu", gsm8k="bundled")
POINT = Point("merged", "ple", 2)
PASS = Verdict(Outcome.PASS, "all equal")
ENTRY = {
    "variants": ["merged"],
    "checks": ["logits"],
    "codes": ["LOG001"],
    "reason": "known",
    "link": "issue 1",
}


def verdict(*codes, outcome=Outcome.FAIL, severity=Severity.ERROR):
    return Verdict(outcome, "it differs", tuple(Finding(c, "m", "f", severity) for c in codes))


def toml(value):
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture
def load(tmp_path):
    """Return a function that reads expectations with the given entries."""

    def load(*entries, setting=SETTING):
        path = tmp_path / "expected.toml"
        path.write_text(
            "".join(
                "[[expected]]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in entry.items())
                for entry in entries
            )
        )
        return load_expectations(path, setting)

    return load


def kind(expectations, verdict, check="logits", point=POINT, engine=PASS):
    return expectations.judge(check, point, verdict, engine).kind


def test_named_code_is_expected(load):
    """Exactly the named codes are expected, and reason and link are handed on."""
    outcome = load(ENTRY).judge("logits", POINT, verdict("LOG001"), PASS)
    assert (outcome.kind, outcome.reason) == ("expected", "known (issue 1)")


def test_pass_without_entry_is_ok(load):
    """What passes and is not expected to fail is fine."""
    assert kind(load(), PASS) == "ok"


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.BLOCKED])
def test_nothing_but_a_pass_is_ok(load, outcome):
    """Without an entry each outcome that is no pass is unexpected: blocked and open ones too."""
    assert kind(load(), verdict("X001", outcome=outcome)) == "unexpected"
    assert kind(load(), Verdict(outcome, "nothing to show")) == "unexpected"


def test_an_unexpected_pass_is_unexpected(load):
    """A check that passes against an entry turns red and says which entry to remove."""
    outcome = load(ENTRY).judge("logits", POINT, PASS, PASS)
    assert outcome.kind == "unexpected"
    assert outcome.reason.startswith("unexpected pass: LOG001 is expected here (known)")


@pytest.mark.parametrize("codes", [["LOG002"], ["LOG001", "LOG002"], []])
def test_other_codes_are_unexpected(load, codes):
    """Another code, or one more than named, is not what was foreseen."""
    assert kind(load(ENTRY), verdict(*codes)) == "unexpected"


def test_fewer_codes_are_unexpected(load):
    """An entry with two codes wants both: half a bug is another bug."""
    expectations = load({**ENTRY, "codes": ["LOG001", "LOG002"]})
    assert kind(expectations, verdict("LOG001")) == "unexpected"
    assert kind(expectations, verdict("LOG001", "LOG002")) == "expected"


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (["ACC001"], "expected"),
        (["ACC002"], "expected"),
        (["ACC003"], "unexpected"),
        (["ACC001", "ACC003"], "unexpected"),
        ([], "unexpected"),
    ],
)
def test_one_of_two_codes_is_enough_where_chance_decides(load, shown, wanted):
    """Lost tokens turn more answers in one run than in the next."""
    assert kind(load({**ENTRY, "codes": ["ACC001|ACC002"]}), verdict(*shown)) == wanted


def test_entries_of_one_check_add_up(load):
    """Two entries on the same check want the codes of both."""
    expectations = load(ENTRY, {**ENTRY, "codes": ["LOG002"], "reason": "other"})
    assert kind(expectations, verdict("LOG001", "LOG002")) == "expected"
    assert kind(expectations, verdict("LOG001")) == "unexpected"


def test_info_is_not_a_code_to_expect(load):
    """Findings that only inform neither fulfil an entry nor break one."""
    info = Finding("INF001", "m", "f", Severity.INFO)
    error = Finding("LOG001", "m", "f")
    both = Verdict(Outcome.FAIL, "s", (info, error))
    assert kind(load(ENTRY), both) == "expected"
    assert kind(load(ENTRY), Verdict(Outcome.FAIL, "s", (info,))) == "unexpected"


@pytest.mark.parametrize(
    ("scope", "applies"),
    [
        ({"pins": ["0.20.*"]}, True),
        ({"pins": ["0.26.0"]}, False),
        ({"series": ["gemma4-pp"]}, True),
        ({"series": ["other"]}, False),
        ({"devices": ["cpu"]}, True),
        ({"devices": ["cuda"]}, False),
        ({"gsm8k": ["bundled"]}, True),
        ({"gsm8k": ["file", "hub"]}, False),
        ({"models": ["dense", "p*"]}, True),
        ({"models": ["dense"]}, False),
        ({"variants": ["fixed"]}, False),
        ({"variants": ["MERGED"]}, False),
        ({"checks": ["*"]}, True),
        ({"pp_min": 2, "pp_max": 2}, True),
        ({"pp_min": 3}, False),
        ({"tp_min": 1}, True),
        ({"tp_min": 2}, False),
        ({"profiles": ["parity"]}, True),
        ({"profiles": ["stress"]}, False),
        ({"modes": ["eager"]}, True),
        ({"modes": ["compiled"]}, False),
    ],
)
def test_scope(load, scope, applies):
    """An entry holds only where each of its patterns fits; elsewhere it excuses nothing."""
    expectations = load({**ENTRY, **scope})
    assert kind(expectations, verdict("LOG001")) == ("expected" if applies else "unexpected")
    assert kind(expectations, PASS) == ("unexpected" if applies else "ok")
    assert expectations.not_applicable((POINT,)) == ([] if applies else ["known"])


def test_scope_by_check(load):
    """An entry for one check leaves the others of the same point alone."""
    expectations = load(ENTRY)
    assert kind(expectations, verdict("LOG001"), "accuracy") == "unexpected"
    assert kind(expectations, PASS, "accuracy") == "ok"


@pytest.mark.parametrize(("pp", "applies"), [(2, False), (3, True), (4, True), (5, False)])
def test_range_of_pp(load, pp, applies):
    """Both ends of the range of PP belong to it."""
    expectations = load({**ENTRY, "pp_min": 3, "pp_max": 4})
    found = kind(expectations, verdict("LOG001"), point=Point("merged", "ple", pp))
    assert found == ("expected" if applies else "unexpected")


ENGINE = {**ENTRY, "checks": ["engine"], "codes": ["ENG001"], "reason": "crashes"}
CRASH = verdict("ENG001")
BLOCKED = Verdict(Outcome.BLOCKED, "blocked by ENG001: it crashed")


def test_expected_crash_covers_what_it_blocks(load):
    """Checks without an answer because of an expected engine failure are expected with it."""
    outcome = load(ENGINE).judge("logits", POINT, BLOCKED, CRASH)
    assert (outcome.kind, outcome.reason) == (
        "expected",
        "blocked by the engine: crashes (issue 1)",
    )


def test_expected_crash_covers_a_check_with_its_own_entry(load):
    """A check that is blocked by an expected crash is no unexpected pass."""
    assert kind(load(ENGINE, ENTRY), BLOCKED, engine=CRASH) == "expected"


def test_unexpected_crash_covers_nothing(load):
    """A crash of another kind than the expected one leaves its dependants unexpected."""
    assert kind(load(ENGINE), BLOCKED, engine=verdict("ENG002")) == "unexpected"
    assert kind(load(ENGINE), BLOCKED, engine=verdict("ENG001", "ENG004")) == "unexpected"


def test_engine_entry_covers_no_failure(load):
    """An expected crash does not excuse a check that has an answer of its own."""
    assert kind(load(ENGINE), verdict("CON001"), "contract", engine=CRASH) == "unexpected"


def test_blocked_under_a_whole_engine_is_unexpected(load):
    """A check that is blocked although the engine ran is covered by no engine entry."""
    assert kind(load(ENGINE, ENTRY), BLOCKED, engine=PASS) == "unexpected"


def test_without_a_file_nothing_is_expected():
    """`--pp-ignore-expected` reads no file and excuses nothing."""
    expectations = load_expectations(None, SETTING)
    assert kind(expectations, verdict("LOG001")) == "unexpected"
    assert expectations.not_applicable((POINT,)) == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[[expected]]\nchecks = 3", "expected.0.checks"),
        ('[[expected]]\nchecks = "logits"', "expected.0.checks"),
        ('[[expected]]\nchecks = ["logit"]', "expected.0.checks"),
        ("[[expected]]\nchecks = []", "expected.0.checks"),
        ('[[expected]]\nchecks = ["logits"]', "expected.0.codes"),
        ("[other]", "other"),
        ("not toml", "line 1"),
    ],
)
def test_bad_file_is_refused(tmp_path, text, field):
    """A file that is not understood ends in one error that names file and field."""
    path = tmp_path / "expected.toml"
    path.write_text(text)
    with pytest.raises(BadInputError) as error:
        load_expectations(path, SETTING)
    assert str(error.value).startswith(f"{path}: ")
    assert field in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("pp_min", 1), ("pp_max", 0), ("reason", ""), ("typo", 1), ("codes", [])],
)
def test_bad_field_is_refused(load, tmp_path, name, value):
    """A field that is unknown, empty or out of range is named: no entry is half understood."""
    with pytest.raises(BadInputError, match=rf"expected\.toml: expected\.0\.{name}: "):
        load({**ENTRY, name: value})


def test_missing_file_is_refused(tmp_path):
    """A path that is not there is an error and not an empty list."""
    with pytest.raises(BadInputError, match=r"gone\.toml"):
        load_expectations(tmp_path / "gone.toml", SETTING)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """A file that is not UTF-8 ends in the same kind of error."""
    path = tmp_path / "expected.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match=r"expected\.toml"):
        load_expectations(path, SETTING)


def test_shipped_entries_are_scoped_to_the_pin():
    """The entries that ship hold for their own pin: at another one they all are not applicable."""
    path = suites_dir() / "expected.toml"
    points = tuple(
        Point(variant, model, pp)
        for variant in ("base", "merged", "fixed")
        for model in ("dense", "ple", "moe", "mm")
        for pp in (2, 4)
    )
    here = load_expectations(path, SETTING)
    elsewhere = load_expectations(path, Setting("9.9.9", "gemma4-pp", "cpu", "bundled"))
    assert len(elsewhere.not_applicable(points)) > len(here.not_applicable(points))
    fixed = [point for point in points if point.variant == "fixed"]
    for point in fixed:
        for check in ("engine", "contract", "logits", "accuracy"):
            assert here.judge(check, point, PASS, PASS).kind == "ok"
