"""The contract of each boundary, from captures made by hand."""

import pytest

from harness.checks.contract.contract import compare_contract
from harness.checks.finding import Outcome, Severity


def codes(verdict):
    return [finding.code for finding in verdict.findings]


def only(verdict):
    """Return the single finding of a failed verdict."""
    assert verdict.outcome is Outcome.FAIL, verdict.summary
    assert len(verdict.findings) == 1, codes(verdict)
    return verdict.findings[0]


@pytest.mark.parametrize("pp", [2, 3, 4])
def test_agreement_passes(build, pp):
    """Stages that agree on every key pass, and the summary counts what was judged."""
    verdict = compare_contract(build(pp=pp, keys={"hidden_states": [8], "residual": [8]}).save())
    assert verdict.outcome is Outcome.PASS
    assert verdict.findings == ()
    boundaries = f"{pp - 1} {'boundary' if pp == 2 else 'boundaries'}"
    assert verdict.summary == (
        f"{2 * (pp - 1)} crossings of {boundaries} agree on hidden_states, residual"
    )


def test_sent_and_declared_but_never_read(build):
    """CON001: a key that crosses and is never read is found, as after PR #40786."""
    capture = build(keys={"hidden_states": [8], "per_layer_inputs": [2, 3]})
    for step in capture.steps(1):
        del step["reads"]["per_layer_inputs"]
    found = only(compare_contract(capture.save()))
    assert (found.code, found.stage, found.boundary) == ("CON001", 1, "0->1")
    assert found.key == "per_layer_inputs"
    assert "never reads it" in found.message
    assert found.evidence == {"steps": 2, "sent": 2, "read": 0}


def test_read_in_some_steps_only(build):
    """CON001: a key that is read in one step of two is found, with the place that reads it."""
    capture = build()
    capture.steps(1)[0]["reads"] = {}
    found = only(compare_contract(capture.save()))
    assert found.code == "CON001"
    assert "in 2 steps but stage 1 reads it in 1 only" in found.message
    assert found.place == "vllm/model_executor/models/m.py:10"


def test_read_where_not_sent_does_not_make_up_for_unread(build):
    """Reads are matched to sends step by step: equal counts in different steps are no agreement."""
    capture = build(keys={"hidden_states": [8], "side": [8]})
    for rank, sides in ((0, ("returned", "sent")), (1, ("received", "copied"))):
        for side in sides:
            del capture.steps(rank)[1][side]["side"]
    del capture.steps(1)[0]["reads"]["side"]
    assert codes(compare_contract(capture.save())) == ["CON002", "CON001"]


def test_sent_not_declared(build):
    """CON003: a key that the receiver does not declare is found even if it arrives and is read."""
    capture = build(keys={"hidden_states": [8], "extra": [8]})
    del capture.event(1, "declared")["keys"]["extra"]
    found = only(compare_contract(capture.save()))
    assert (found.code, found.key, found.stage) == ("CON003", "extra", 1)


def test_declared_not_sent(build):
    """CON002: a key that only the receiver knows is found: its buffer stays stale."""
    capture = build()
    capture.event(1, "declared")["keys"]["residual"] = {"shape": [1, 8], "dtype": "float32"}
    found = only(compare_contract(capture.save()))
    assert (found.code, found.key, found.boundary) == ("CON002", "residual", "0->1")
    assert "in 2 of 2 steps" in found.message


def test_declared_not_sent_in_one_step(build):
    """CON002: one step without a declared key is enough, and says in how many."""
    capture = build(keys={"hidden_states": [8], "side": [8]})
    for rank, sides in ((0, ("returned", "sent")), (1, ("received", "copied"))):
        for side in sides:
            del capture.steps(rank)[1][side]["side"]
    del capture.steps(1)[1]["reads"]["side"]
    found = only(compare_contract(capture.save()))
    assert found.code == "CON002"
    assert "in 1 of 2 steps" in found.message


def test_middle_boundary_is_judged_by_itself(build):
    """At PP=3 a key dropped by the middle stage is found at 1->2 and not at 0->1."""
    capture = build(pp=3, keys={"hidden_states": [8], "side": [8]})
    for step in capture.steps(1):
        del step["sent"]["side"]
    for step in capture.steps(2):
        del step["received"]["side"]
    verdict = compare_contract(capture.save())
    assert [(one.code, one.boundary) for one in verdict.findings] == [("CON002", "1->2")]


def test_first_stages_declaration_is_not_asked_for(build):
    """What stage 0 declares does not matter: nothing is sent to it."""
    capture = build()
    capture.event(0, "declared")["keys"] = {"nonsense": {"shape": [1, 1], "dtype": "int8"}}
    assert compare_contract(capture.save()).outcome is Outcome.PASS


def test_none_in_a_step(build):
    """CON004: None packed under a key is found on the stage that packs it."""
    capture = build(keys={"hidden_states": [8], "residual": [8]})
    for step in capture.steps(0):
        step["returned"]["residual"] = step["sent"]["residual"] = None
    for step in capture.steps(1):
        del step["received"]["residual"], step["copied"]["residual"]
    found = only(compare_contract(capture.save()))
    assert (found.code, found.stage, found.boundary, found.key) == ("CON004", 0, "0->1", "residual")


def test_none_in_a_dummy_run(build):
    """CON004: None packed while the engine warms up is found, and once for steps and warm-up."""
    capture = build(keys={"hidden_states": [8], "residual": [8]})
    dummy = {"kind": "dummy", "side": "returned", "keys": {"hidden_states": {}, "residual": None}}
    capture.ranks[0] += [dummy, dummy]
    for step in capture.steps(0):
        step["sent"]["residual"] = None
    for step in capture.steps(1):
        del step["received"]["residual"], step["copied"]["residual"]
    assert only(compare_contract(capture.save())).code == "CON004"


def test_none_in_an_engine_that_failed(build):
    """CON004: once too for warm-up and steps of an engine that failed after them."""
    capture = build(keys={"hidden_states": [8], "residual": [8]})
    dummy = {"kind": "dummy", "side": "returned", "keys": {"hidden_states": {}, "residual": None}}
    capture.ranks[0].append(dummy)
    for step in capture.steps(0):
        step["sent"]["residual"] = None
    capture.forget(1, "step")
    assert codes(compare_contract(capture.fail().save())) == ["CON004"]


def test_none_from_the_last_stage_is_no_finding(build):
    """The last stage sends nothing, so that what it returns breaks no contract."""
    capture = build()
    capture.ranks[1].append({"kind": "dummy", "side": "returned", "keys": {"residual": None}})
    assert compare_contract(capture.save()).outcome is Outcome.PASS


def test_missing_method(build):
    """CON005: a call of a method that IntermediateTensors lacks is found with its place, once."""
    capture = build()
    misuse = {"kind": "misuse", "what": "missing-attribute", "key": "get", "place": "vllm/m.py:7"}
    capture.ranks[1] += [misuse, misuse]
    found = only(compare_contract(capture.fail().save()))
    assert (found.code, found.key, found.stage, found.place) == ("CON005", "get", 1, "vllm/m.py:7")


def test_missing_key_read(build):
    """CON009: reading a key that was not given is found with its place."""
    capture = build()
    capture.ranks[1].append(
        {"kind": "misuse", "what": "missing-key", "key": "residual", "place": "vllm/m.py:9"}
    )
    found = only(compare_contract(capture.fail().save()))
    assert (found.code, found.key, found.place) == ("CON009", "residual", "vllm/m.py:9")


@pytest.mark.parametrize(
    ("what", "code"),
    [("missing-attribute", "CON005"), ("missing-key", "CON009"), ("absent-key", "CON009")],
)
def test_asking_is_no_misuse(build, what, code):
    """A forward that asked for what is not there and went on is told, and passes."""
    capture = build()
    capture.ranks[1].append({"kind": "misuse", "what": what, "key": "x", "place": "vllm/m.py:9"})
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.PASS
    assert [(f.code, f.severity) for f in verdict.findings] == [(code, Severity.WARNING)]


def test_declared_shape_differs(build):
    """CON006: a declared shape other than the one sent is found; the number of rows is free."""
    capture = build()
    capture.event(1, "declared")["keys"]["hidden_states"]["shape"] = [1, 16]
    found = only(compare_contract(capture.save()))
    assert found.code == "CON006"
    assert found.evidence["examples"][0] == [[16], [8]]


def test_shape_changes_on_the_way(build):
    """CON006: the same bits in another shape are found between the two stations."""
    capture = build()
    for step in capture.steps(1):
        step["copied"]["hidden_states"]["shape"][1:] = [2, 4]
    found = only(compare_contract(capture.save()))
    assert (found.code, found.stage) == ("CON006", 1)
    assert (found.evidence["from"], found.evidence["to"]) == ("received", "copied")


def test_declared_dtype_differs(build):
    """CON007: a declared dtype other than the one sent is found."""
    capture = build()
    capture.event(1, "declared")["keys"]["hidden_states"]["dtype"] = "bfloat16"
    found = only(compare_contract(capture.save()))
    assert found.code == "CON007"
    assert found.evidence["examples"][0] == ["bfloat16", "float32"]


STATIONS = [(0, "returned"), (0, "sent"), (1, "received"), (1, "copied")]


@pytest.mark.parametrize(
    ("first_changed", "changes", "stage"),
    [
        (1, ("returned", "sent"), 0),
        (2, ("sent", "received"), 1),
        (3, ("received", "copied"), 1),
    ],
)
def test_dtype_changes_on_the_way(build, first_changed, changes, stage):
    """CON007: a cast between any two stations is found, on the stage where it happens."""
    capture = build()
    for rank, side in STATIONS[first_changed:]:
        for step in capture.steps(rank):
            step[side]["hidden_states"]["dtype"] = "float16"
    if first_changed == 1:
        capture.event(1, "declared")["keys"]["hidden_states"]["dtype"] = "float16"
    found = only(compare_contract(capture.save()))
    assert (found.code, found.stage) == ("CON007", stage)
    assert (found.evidence["from"], found.evidence["to"]) == changes


@pytest.mark.parametrize(
    ("first_changed", "changes", "stage"),
    [
        (1, ("returned", "sent"), 0),
        (2, ("sent", "received"), 1),
        (3, ("received", "copied"), 1),
    ],
)
def test_content_changes_at_each_station(build, first_changed, changes, stage):
    """CON008: content that changes at a station is found there, with the step and the row."""
    capture = build()
    for rank, side in STATIONS[first_changed:]:
        capture.steps(rank)[0][side]["hidden_states"]["digest"][2] = 12345
    found = only(compare_contract(capture.save()))
    assert (found.code, found.stage) == ("CON008", stage)
    assert (found.evidence["from"], found.evidence["to"]) == changes
    assert found.evidence["examples"] == [{"step": 0, "row": 2}]
    assert "in 1 of 2 steps" in found.message


def test_too_few_rows_arrive(build):
    """CON008: a tensor with fewer rows than scheduled tokens has no digest and is still found."""
    capture = build()
    form = capture.steps(1)[0]["copied"]["hidden_states"]
    form["shape"][0] = 1
    del form["digest"]
    assert only(compare_contract(capture.save())).code == "CON008"


def test_padded_rows_are_no_difference(build):
    """More rows than scheduled tokens are padding: only the scheduled ones are compared."""
    capture = build()
    for step in capture.steps(1):
        for side in ("received", "copied"):
            step[side]["hidden_states"]["shape"][0] += 5
    assert compare_contract(capture.save()).outcome is Outcome.PASS


@pytest.mark.parametrize("station", ["received", "copied"])
def test_sent_but_lost(build, station):
    """CON013: a key that leaves and is missing where tensors arrive is found, read or not."""
    capture = build(keys={"hidden_states": [8], "side": [8]})
    del capture.steps(1)[1][station]["side"]
    found = only(compare_contract(capture.save()))
    assert (found.code, found.key) == ("CON013", "side")
    assert found.evidence["lost"] == [1]


def test_undeclared_key_need_not_reach_the_buffer(build):
    """The V2 runner copies what is declared: an extra key is CON003 and not also lost."""
    capture = build(keys={"hidden_states": [8], "extra": [8]})
    del capture.event(1, "declared")["keys"]["extra"]
    for step in capture.steps(1):
        del step["copied"]["extra"]
    assert codes(compare_contract(capture.save())) == ["CON003"]


@pytest.mark.parametrize("declared", [{"keys": None, "error": None}, {"keys": {}, "error": "E: x"}])
def test_no_declaration(build, declared):
    """CON010: a model without make_empty_intermediate_tensors, or whose call fails, is found."""
    capture = build()
    capture.event(1, "declared").update(declared)
    verdict = compare_contract(capture.save())
    assert "CON010" in codes(verdict)
    assert verdict.outcome is Outcome.FAIL


def test_declared_as_none(build):
    """CON010: a key that is declared without a tensor is found."""
    capture = build()
    capture.event(1, "declared")["keys"]["hidden_states"] = None
    found = only(compare_contract(capture.save()))
    assert (found.code, found.key) == ("CON010", "hidden_states")


def test_step_counts_differ(build):
    """CON012: a stage that ran fewer steps is found; the common steps are still judged."""
    capture = build()
    capture.ranks[1].pop()
    found = only(compare_contract(capture.save()))
    assert found.code == "CON012"
    assert "stage 0 ran 2 traced steps, stage 1 ran 1" in found.message


def test_stages_ran_different_rows(build):
    """CON012: steps whose tokens differ are found as such and not as changed content."""
    capture = build()
    capture.steps(1)[1]["spans"] = [["other", 0, 1]]
    capture.steps(1)[1]["copied"]["hidden_states"]["digest"] = [1]
    found = only(compare_contract(capture.save()))
    assert found.code == "CON012"
    assert found.evidence == {"steps": [1]}


def test_no_heartbeat_is_blocked(build):
    """A stage without a heartbeat was not traced, which is no pass and no failure."""
    capture = build()
    capture.forget(1, "heartbeat")
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.BLOCKED
    assert "stage 1" in verdict.summary


def test_no_step_is_blocked(build):
    """A stage that traced no step says nothing."""
    capture = build()
    capture.forget(1, "step")
    assert compare_contract(capture.save()).outcome is Outcome.BLOCKED


@pytest.mark.parametrize(
    ("rank", "sides", "word"),
    [(0, ("sent",), "leave stage 0"), (1, ("received", "copied"), "arrive at stage 1")],
)
@pytest.mark.parametrize("declared", [True, False])
def test_blind_tracer_is_blocked(build, rank, sides, word, declared):
    """Hooks that saw nothing cross are no agreement, and no accusation of the model either."""
    capture = build()
    for step in capture.steps(rank):
        for side in sides:
            step[side] = None
    if not declared:
        capture.event(1, "declared")["keys"] = {}
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.BLOCKED
    assert word in verdict.summary


@pytest.mark.parametrize(
    ("rank", "sides", "word"),
    [
        (0, ("sent",), "leave stage 0 in 1 of 2 steps"),
        (1, ("received", "copied"), "arrive at stage 1 in 1 of 2 steps"),
    ],
)
def test_a_step_that_was_not_seen_is_no_agreement(build, rank, sides, word):
    """Arrivals compared in some steps say nothing of the others."""
    capture = build()
    for side in sides:
        capture.steps(rank)[0][side] = None
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.BLOCKED
    assert word in verdict.summary


@pytest.mark.parametrize("changed", [0, 1, 4])
def test_a_relayed_key_is_passed_on_whole_or_not_at_all(build, changed):
    """CON016: a middle stage that passes most rows on as they came has changed the others."""
    capture = build(pp=3)
    rows = 0
    for step in capture.steps(1):
        came = step["copied"]["hidden_states"]["digest"]
        passed_on = [one + (rows + row < changed) for row, one in enumerate(came)]
        rows += len(came)
        for side in ("returned", "sent"):
            step[side]["hidden_states"]["digest"] = passed_on
        index = capture.steps(1).index(step)
        for side in ("received", "copied"):
            capture.steps(2)[index][side]["hidden_states"]["digest"] = passed_on
    assert rows == 4
    verdict = compare_contract(capture.save())
    codes = [found.code for found in verdict.findings if found.code != "CON101"]
    assert codes == (["CON016"] if changed == 1 else [])


def test_failed_engine_is_blocked(build):
    """An engine that failed before anything was seen leaves the contract without an answer."""
    capture = build()
    for rank in capture.ranks:
        capture.forget(rank, "step")
    assert compare_contract(capture.fail().save()).outcome is Outcome.BLOCKED


def test_failed_engine_with_a_cause_fails(build):
    """What the tracer saw before the engine died is a verdict, from every stage that spoke."""
    capture = build()
    for rank in capture.ranks:
        capture.forget(rank, "step")
    capture.ranks[0].append({"kind": "dummy", "side": "returned", "keys": {"residual": None}})
    capture.ranks[1].append(
        {"kind": "misuse", "what": "missing-attribute", "key": "get", "place": "vllm/m.py:7"}
    )
    verdict = compare_contract(capture.fail().save())
    assert verdict.outcome is Outcome.FAIL
    assert codes(verdict) == ["CON004", "CON005"]


def failed_in_a_step(build, adapter):
    """Return a capture at PP=4 that fails as stage 2 takes over what stage 1 has sent."""
    capture = build(pp=4, keys={"hidden_states": [8], "side": [4]})
    for rank in capture.ranks:
        capture.event(rank, "heartbeat")["adapter"] = adapter
        capture.ranks[rank] = capture.ranks[rank][: -1 if rank < 3 else -2]
    cut = capture.steps(2)[0]
    cut["reads"], cut["sent"], cut["copied"] = {}, None, None
    return capture.fail(error="KeyError: 'side'")


def test_a_key_that_the_copy_misses_is_the_cause(build):
    """V2 fails at a declared key that was not sent; the stage that dropped it is named too."""
    capture = failed_in_a_step(build, "v2")
    del capture.steps(1)[0]["sent"]["side"], capture.steps(1)[0]["reads"]["side"]
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.FAIL
    assert [(one.code, one.boundary, one.key) for one in verdict.findings] == [
        ("CON001", "0->1", "side"),
        ("CON002", "1->2", "side"),
    ]


def test_a_key_that_the_buffer_lacks_is_the_cause(build):
    """V1 fails at a key that was sent and not declared."""
    capture = failed_in_a_step(build, "v1")
    del capture.event(2, "declared")["keys"]["side"]
    found = only(compare_contract(capture.save()))
    assert (found.code, found.boundary, found.key) == ("CON003", "1->2", "side")


def test_a_step_that_was_cut_short_accuses_nobody(build):
    """What a failing stage did not come to read, or send, is no finding of its own."""
    assert compare_contract(failed_in_a_step(build, "v1").save()).outcome is Outcome.BLOCKED


def test_failed_engine_tells_keys_apart(build):
    """A key renamed on one side ends V1 in its first step; both names are findings all the same."""
    capture = build(spans=(("one", 0, 3),))
    (sent,), (received,) = capture.steps(0), capture.steps(1)
    for side in ("returned", "sent"):
        sent[side]["renamed"] = sent[side].pop("hidden_states")
    received |= {"received": sent["sent"], "copied": None, "reads": {}, "layers": {}}
    verdict = compare_contract(capture.fail(error="KeyError: 'renamed'").save())
    assert verdict.outcome is Outcome.FAIL
    assert [(one.code, one.key, one.stage) for one in verdict.findings] == [
        ("CON002", "hidden_states", 1),
        ("CON003", "renamed", 1),
    ]


def test_failed_engine_with_keys_that_agree_is_blocked(build):
    """A crash behind a boundary that is in order is not the contract's, nor is one before it."""
    capture = build()
    assert compare_contract(capture.fail().save()).outcome is Outcome.BLOCKED
    for step in capture.steps(0):
        step["sent"] = None
    assert compare_contract(capture.save()).outcome is Outcome.BLOCKED


def test_both_sides_keys_are_judged(build):
    """Findings come from the keys of both sides: one that each side knows alone gives two."""
    capture = build()
    declared = capture.event(1, "declared")["keys"]
    declared["b_declared"] = {"shape": [1, 8], "dtype": "float32"}
    for rank, sides in ((0, ("returned", "sent")), (1, ("received", "copied"))):
        for step in capture.steps(rank):
            for side in sides:
                step[side]["a_sent"] = dict(step[side]["hidden_states"])
    verdict = compare_contract(capture.save())
    assert [(one.code, one.key) for one in verdict.findings] == [
        ("CON003", "a_sent"),
        ("CON001", "a_sent"),
        ("CON002", "b_declared"),
    ]


# ---- tensor parallel beside it ---------------------------------------------------------------


def test_tensor_parallel_ranks_that_agree_pass(build):
    """Each rank is judged with its counterpart; rank 0 of a stage speaks for it."""
    saved = build(tp=2).save()
    assert compare_contract(saved).outcome is Outcome.PASS
    assert {stage: trace.rank for stage, trace in saved.stages.items()} == {0: 0, 1: 2}


def test_a_key_that_another_tensor_parallel_rank_does_not_read(build):
    """CON015: what rank 0 of a stage reads, its rank 1 reads too, or is named."""
    capture = build(tp=2)
    capture.steps(3)[0]["reads"] = {}
    verdict = compare_contract(capture.save())
    codes = {one.code: one for one in verdict.findings}
    assert set(codes) == {"CON001", "CON015"}
    assert "ranks 0 and 1 of stage 1 read different keys in 1 of 2 steps" in codes["CON015"].message
    assert codes["CON015"].stage == 1


def test_content_that_differs_between_tensor_parallel_ranks(build):
    """CON015: every rank of a stage returns the whole hidden state, or slices of it would mix."""
    capture = build(tp=2)
    for side, rank in (("returned", 1), ("sent", 1), ("received", 3), ("copied", 3)):
        capture.steps(rank)[1][side]["hidden_states"]["digest"] = [7]
    verdict = compare_contract(capture.save())
    assert [(one.code, one.stage, one.key) for one in verdict.findings] == [
        ("CON015", 0, "hidden_states")
    ]


def test_content_that_changes_on_another_tensor_parallel_rank(build):
    """CON008: a gather that mixes slices on one rank alone is seen on that rank."""
    capture = build(tp=2)
    for side in ("received", "copied"):
        capture.steps(3)[0][side]["hidden_states"]["digest"] = [7, 7, 7]
    verdict = compare_contract(capture.save())
    assert [one.code for one in verdict.findings] == ["CON008"]


@pytest.mark.parametrize(("kind", "words"), [("declared", "declare"), ("step", "ran different")])
def test_a_tensor_parallel_rank_of_its_own_mind(build, kind, words):
    """CON015: another declaration, or other steps, on one rank of a stage."""
    capture = build(tp=2)
    if kind == "step":
        capture.ranks[1].pop()
    else:
        capture.event(1, kind)["keys"] = {"other": {"shape": [1, 8], "dtype": "float32"}}
    found = [one for one in compare_contract(capture.save()).findings if one.code == "CON015"]
    assert len(found) == 1
    assert words in found[0].message


def test_a_silent_tensor_parallel_rank_is_blocked(build):
    """A rank without a heartbeat leaves the contract without an answer."""
    capture = build(tp=2)
    capture.ranks[3] = []
    verdict = compare_contract(capture.save())
    assert verdict.outcome is Outcome.BLOCKED
    assert "tensor-parallel rank 1 of stage 1" in verdict.summary


def test_cut_trace_is_read_up_to_the_cut(build):
    """A line that a dying writer cut is left out; the lines before it count."""
    capture = build().save()
    path = capture.folder / "rank1.jsonl"
    path.write_text(path.read_text() + '{"kind": "st')
    assert len(capture.stages[1].steps) == 2
