"""The census: rows from reports, and the page that one pure function writes."""

import json
from pathlib import Path

import pytest

from harness.checks.engine import ELSEWHERE
from harness.checks.finding import Outcome
from harness.models.stand_in import Reason, StandIn
from harness.report.census import (
    CensusRow,
    census_document,
    census_page,
    changes_table,
    counts,
    judged_row,
    planned_row,
    without_paths,
)
from harness.report.schema import FindingRecord, Report, VerdictRecord

LLAMA = StandIn("LlamaForCausalLM", "transformers's LlamaConfig", {"model_type": "llama"})
FACTS = {"vllm": "0.20.2", "device": "CPU"}


def report(outcomes, *codes, model="LlamaForCausalLM", says="", fix="f"):
    """Make a report; `outcomes` are by PP size and check."""
    place = {"variant": "base", "model": model}
    verdicts = [
        VerdictRecord(
            **place, pp=pp, check=check, verdict=outcome, expected=False, summary="it differs"
        )
        for pp, checks in outcomes.items()
        for check, outcome in checks.items()
    ]
    findings = [
        FindingRecord(
            **place, pp=2, check="engine", code=code, severity="error", fix=fix,
            message=f"says {code}{says}", place="vllm/model.py:7",
        )
        for code in codes
    ]  # fmt: skip
    return Report(environment={}, cells=[], verdicts=verdicts, findings=findings)


GREEN = {pp: {"engine": "pass", "contract": "pass", "logits": "pass"} for pp in (2, 3, 4)}


def test_a_row_is_of_all_runs_of_an_architecture():
    """PP sizes run in two sweeps."""
    small, large = ({pp: GREEN[pp]} for pp in (2, 4))
    assert set(judged_row(LLAMA, [report(small), report(large)]).words) == {2, 4}


def test_the_word_of_a_size_is_its_worst_check():
    """A pass beside a failure is no pass."""
    outcomes = GREEN | {4: {"engine": "pass", "contract": "inconclusive", "logits": "fail"}}
    row = judged_row(LLAMA, [report(outcomes, "LOG001")], ["PP501"])
    assert row.words == {2: Outcome.PASS, 3: Outcome.PASS, 4: Outcome.FAIL}
    assert row.is_red
    assert row.agreement == "agree"
    assert row.detail == "LOG001: says LOG001 (vllm/model.py:7)"


@pytest.mark.parametrize(
    ("outcome", "codes", "reason"),
    [
        ("fail", ("ENG001", "ENG004"), Reason.FAILS_AT_1),
        ("blocked", ("ENG005",), Reason.NOT_RUN),
        ("not-applicable", ("ENG007",), Reason.NO_KERNEL),
    ],
)
def test_a_model_that_does_not_run_at_pp_1_has_a_reason_and_no_verdict(outcome, codes, reason):
    """What fails without PP says nothing about PP."""
    outcomes = {pp: {"engine": outcome, "logits": outcome} for pp in (2, 3, 4)}
    row = judged_row(LLAMA, [report(outcomes, *codes)])
    assert (row.verdicts, row.reason) == ({}, reason)
    assert not row.is_red
    assert codes[-1] in row.detail


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("You cannot pass text prompts when `skip_tokenizer_init=True`", Reason.PROCESSOR),
        ("This model requires `--tokenizer-mode mistral`", Reason.PROCESSOR),
        ("OSError: Can't load feature extractor for 'folder'.", Reason.PROCESSOR),
        ("OSError: Can't load image processor for 'folder'.", Reason.PROCESSOR),
        ("RuntimeError: Failed to load the processor.", Reason.PROCESSOR),
        ("ImportError: cannot import name 'HunYuanVLProcessor' from 'x'", Reason.PROCESSOR),
        ("ImportError: cannot import name 'Attention' from 'x'", Reason.FAILS_AT_1),
        ("OSError: Can't load the model for 'folder'.", Reason.FAILS_AT_1),
    ],
)
def test_a_model_that_asks_its_processor_is_told_from_one_that_fails(words, reason):
    """Text prompts do not reach every multimodal model."""
    row = judged_row(LLAMA, [report(GREEN, "ENG004", says=f" {words}")])
    assert row.reason is reason


def test_a_kernel_that_pp_1_lacks_is_the_reason_whatever_pp_n_fell_over_first():
    """A stage may fail before it asks for the kernel; the device is the reason all the same."""
    fails = {pp: {"engine": "fail", "logits": "blocked"} for pp in (2, 3, 4)}
    row = judged_row(LLAMA, [report(fails, "ENG001", "ENG004", fix=ELSEWHERE)])
    assert row.reason is Reason.NO_KERNEL
    assert row.detail.startswith("ENG004")
    killed = report(fails, "ENG002", "ENG005", says=" rank 0 was killed by SIGILL in phase probes")
    assert judged_row(LLAMA, [killed]).reason is Reason.NO_KERNEL, (
        "an instruction is part of a device"
    )


@pytest.mark.parametrize("top", ["/a", "/home/somebody/with/a/long/name"])
def test_no_path_of_the_machine_is_in_a_row(top):
    """Wherever a census is made its rows say the same, and are cut at the same place."""
    store, packages = Path(top, "store"), Path(top, "env/lib/site-packages")
    names = {store: "STORE", packages: "PIN"}
    says = f" no '{store}/shapes/5c6a' ({packages}/x/__init__.py)" + " or more" * 20
    row = judged_row(LLAMA, [report(GREEN, "ENG004", says=says)], names=names)
    begin = "ENG004: says ENG004 no 'STORE/shapes/5c6a' (PIN/x/__init__.py) or more"
    assert row.detail.startswith(begin)
    assert len(row.detail) == 160
    planned = StandIn("A", reason=Reason.NO_CONFIG, detail=f"not in {packages}/x")
    assert planned_row(planned, names).detail == "not in PIN/x"


def test_a_folder_has_its_own_name_though_it_is_inside_another_or_begins_like_it():
    """The inner one counts, and `/a/store-2` is not in `/a/store`."""
    names = {Path("/a"): "OUTER", Path("/a/store"): "STORE"}
    assert without_paths("/a/store/x /a/b", names) == "STORE/x OUTER/b"
    assert without_paths("/a/store-2/x", {Path("/a/store"): "STORE"}) == "/a/store-2/x"


def test_an_architecture_that_the_report_lacks_has_not_run():
    """Another model's verdicts are not its own."""
    assert judged_row(LLAMA, [report(GREEN, model="GPT2LMHeadModel")]).reason is Reason.NOT_RUN


def test_the_lint_and_the_run_are_compared():
    """Both may be the one that is wrong."""
    assert judged_row(LLAMA, [report(GREEN)]).agreement == "agree"
    assert judged_row(LLAMA, [report(GREEN)], ["PP501"]).agreement == "lint only"
    assert judged_row(LLAMA, [report(GREEN)], [], ["PP501"]).agreement == "agree", (
        "it loads nothing"
    )
    red = GREEN | {2: {"logits": "fail"}}
    assert judged_row(LLAMA, [report(red)]).agreement == "run only"
    assert planned_row(LLAMA).agreement == ""


def test_what_changed_between_releases_is_told_and_nothing_else():
    """A row that turned red and a new red one; none that is the same, went or never ran."""
    names = ("SameForCausalLM", "WorseForCausalLM", "NoneForCausalLM")
    same, worse, none = (StandIn(name, "b", {}) for name in names)
    red = GREEN | {2: {"logits": "fail"}}

    def document(release, *rows):
        return json.loads(json.dumps(census_document(rows, {"vllm": release})))

    def ran(each, outcomes):
        return judged_row(each, [report(outcomes, model=each.architecture)])

    new = StandIn(none.architecture, reason=Reason.NO_PP)
    gone = ran(StandIn("GoneForCausalLM", "b", {}), GREEN)
    before = document("0.20.2", ran(same, GREEN), ran(worse, GREEN), planned_row(none), gone)
    after = document("0.33.0", ran(same, GREEN), ran(worse, red), planned_row(new), ran(LLAMA, red))
    assert changes_table([before, after]) == [
        "| architecture | 0.20.2 | 0.33.0 |",
        "| -- | -- | -- |",
        "| LlamaForCausalLM | not in the registry | fail |",
        "| WorseForCausalLM | pass | fail |",
    ]


def test_every_row_is_on_the_page_red_ones_first():
    """Nothing is left out, and names cannot act as Markdown."""
    rows = [
        judged_row(LLAMA, [report(GREEN)]),
        CensusRow("Red_For*CausalLM", "b", verdicts={2: {"logits": Outcome.FAIL}}),
        planned_row(StandIn("OrionForCausalLM", reason=Reason.NO_CONFIG, detail="no class | here")),
    ]
    page = census_page(rows, FACTS)
    places = [page.index(name) for name in ("Red\\_For\\*", "LlamaFor", "OrionFor")]
    assert places == sorted(places)
    assert "no class \\| here" in page
    assert "3 architectures of the registry, 2 with an answer from a run" in page
    assert counts(rows) == {"pass": 1, "fail": 1, "no config": 1}


def test_the_document_is_json_with_every_row():
    """census.json holds what the page shows, by check."""
    rows = [judged_row(LLAMA, [report(GREEN)]), planned_row(LLAMA)]
    document = json.loads(json.dumps(census_document(rows, FACTS)))
    assert document["vllm"] == "0.20.2"
    first, second = document["rows"]
    assert first["verdicts"]["3"]["contract"] == "pass"
    assert second["reason"] == "not run yet"
