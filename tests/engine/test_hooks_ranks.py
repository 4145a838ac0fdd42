"""What whole ranks record: the hooks on the workers, runners and models of the fake vLLM."""

import json
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the hooks run inside the engine, with torch")

from fake_ranks import Engine, Request  # noqa: E402 - needs torch

from harness.capture.record import Capture  # noqa: E402
from harness.engine.names import SENSITIVITY  # noqa: E402
from harness.engine.probes import kept_positions  # noqa: E402

RUNNERS = pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
KEYS = ["hidden_states", "per_layer_inputs"]


def probes(vocab=32, lengths=(3, 9, 1, 14)):
    """Requests of unequal lengths, each with three forced ids; the same ones on every call."""
    draw = random.Random(vocab)
    return [
        Request(
            f"r{number}",
            [draw.randrange(vocab) for _ in range(length)],
            [draw.randrange(vocab) for _ in range(3)],
        )
        for number, length in enumerate(lengths)
    ]


@pytest.fixture
def capture(tmp_path):
    """Return a function that runs requests on an engine and gives what was recorded."""

    def run(name, requests, budget=1024, **settings):
        Engine(tmp_path / name, **settings).start().run(requests, budget)
        return Capture(tmp_path / name, {})

    return run


def rows(table):
    """The bits of each row of logits, by request and position."""
    return {row: table.values[at].tobytes() for row, at in table.index.items()}


def all_positions(requests):
    """Every position whose row an engine computes: the last forced id is never an input."""
    return {
        (request.name, position)
        for request in requests
        for position in range(len(request.prompt) + len(request.forced) - 1)
    }


@RUNNERS
@pytest.mark.parametrize("budget", [1024, 5], ids=["whole", "chunks"])
def test_two_stages_record_the_rows_of_one(capture, v2, budget):
    """Every row of prompt and decode steps, with the same bits; and the forced ids were taken.

    Under a budget of 5 tokens a step prompts come in chunks, beside the decode steps of others.
    """
    first, second = probes(), probes()
    one = capture("one", first, budget, v2=v2)
    two = capture("two", second, budget, v2=v2, pp=2)
    assert [request.taken for request in first] == [request.forced for request in first]
    assert [request.taken for request in second] == [request.forced for request in second]
    assert rows(one.logits).keys() == all_positions(first)
    assert rows(two.logits) == rows(one.logits)


@RUNNERS
def test_what_crosses_a_boundary_is_recorded_on_both_of_its_sides(capture, v2):
    """Returned, sent, received and copied agree in form and bits; each key has its reader."""
    both = capture("c", probes(), 5, v2=v2, pp=2)
    sender, receiver = both.stages[0], both.stages[1]
    assert list(receiver.declared) == KEYS
    assert (sender.layers, receiver.layers) == ((0, 1), (2, 3))
    assert len(sender.steps) == len(receiver.steps) > 5
    for before, after in zip(sender.steps, receiver.steps, strict=True):
        assert before.spans == after.spans
        assert list(before.sent) == KEYS
        assert before.returned == before.sent == after.received
        digests = {key: value["digest"] for key, value in after.copied.items()}
        assert digests == {key: value["digest"] for key, value in before.sent.items()}
        assert all(
            place.startswith("vllm/model_executor/models/tiny.py:")
            for place in after.reads.values()
        )
        assert list(after.reads) == KEYS
        assert before.reads == {}
        assert (list(before.layers), list(after.layers)) == ([0, 1], [2, 3])
    # Which part of a row is used: of the embeddings per layer, those of its own layers.
    assert receiver.steps[0].used == {"hidden_states": [[0, 4]], "per_layer_inputs": [[4, 8]]}


@RUNNERS
def test_layers_leave_the_fingerprints_of_one_stage(capture, v2):
    """A layer gives the same bits in the stage that has it as in an engine of one stage."""
    one = capture("one", probes(), v2=v2)
    two = capture("two", probes(), v2=v2, pp=2)
    for alone, first, second in zip(
        one.stages[0].steps, two.stages[0].steps, two.stages[1].steps, strict=True
    ):
        assert first.layers | second.layers == alone.layers


@RUNNERS
@pytest.mark.parametrize(
    ("vocab", "length", "budget"), [(1024, 40, 3), (49152, 200, 16), (262144, 90, 2)]
)
@pytest.mark.parametrize("whole", [False, True], ids=["stress", "parity"])
def test_a_large_vocabulary_keeps_a_spread_of_each_prompt(
    capture, v2, vocab, length, budget, whole
):
    """Of chunks a step keeps all of its rows, some, or, at the largest vocabulary, not one.

    Whole prompts keep the same rows.
    """
    budget = 1024 if whole else budget
    requests = probes(vocab, lengths=(length, 7))
    table = capture("c", requests, budget, v2=v2, pp=2, vocab=vocab).logits
    kept = {request.name: kept_positions(len(request.prompt), vocab) for request in requests}
    ends = {request.name: len(request.prompt) - 1 for request in requests}
    wanted = {
        (name, position)
        for name, position in all_positions(requests)
        if position >= ends[name] or position in kept[name]
    }
    assert table.index.keys() == wanted
    assert table.values.shape == (len(wanted), vocab)
    assert (len(kept["r0"]) < length) == (vocab > 1024)
    chunks = [set(range(start, start + budget)) & kept["r0"] for start in range(0, length, budget)]
    assert all(chunks) == (whole or vocab < 262144)


@RUNNERS
def test_one_rank_of_a_stage_writes_its_logits(capture, v2):
    """With TP=2 all four ranks are traced, and each row of logits stands once."""
    requests = probes()
    alone = capture("alone", probes(), v2=v2)
    both = capture("both", requests, v2=v2, pp=2, tp=2)
    assert sorted(both.ranks) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    lines = (both.folder / "logits.jsonl").read_text().splitlines()
    assert len(lines) == len(both.logits.index)
    assert rows(both.logits) == rows(alone.logits)
    for step, other in zip(both.ranks[0, 0].steps, both.ranks[0, 1].steps, strict=True):
        assert step.sent == other.sent


@RUNNERS
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_a_model_that_is_called_past_torchs_hooks_is_watched(capture, v2, eager):
    """A class that vLLM may compile as a whole leaves the records of one that it may not."""
    name = f"{{}}-{v2}-{eager}"
    plain, past = (
        capture(name.format(model), probes(), v2=v2, pp=2, eager=eager, model=model)
        for model in ("TinyForCausalLM", "CalledPastHooks")
    )
    assert rows(past.logits) == rows(plain.logits)
    for stage in (0, 1):
        seen = [
            (step.reads, step.used, step.returned, step.copied) for step in past.stages[stage].steps
        ]
        assert seen == [
            (step.reads, step.used, step.returned, step.copied)
            for step in plain.stages[stage].steps
        ]


@RUNNERS
def test_compiled_code_gets_no_hook_inside(capture, v2):
    """Neither on the model's forward nor on a layer; boundaries and logits are recorded."""
    two = capture("two", probes(), v2=v2, pp=2, eager=False)
    for rank in two.stages.values():
        assert not rank.eager
        for step in rank.steps:
            assert (step.layers, step.reads, step.returned, step.copied) == ({}, {}, None, None)
    assert [list(step.sent) for step in two.stages[0].steps] == [KEYS] * len(two.stages[0].steps)
    received = [step.received for step in two.stages[1].steps]
    assert received == [step.sent for step in two.stages[0].steps]
    assert rows(two.logits) == rows(capture("one", probes(), v2=v2).logits)


@RUNNERS
def test_a_control_run_computes_the_same_and_records_no_step(capture, v2):
    """Tracing off: forced ids and sampled rows as with it, and nothing else is written."""
    traced = capture("traced", probes(), v2=v2, pp=2)
    requests = probes()
    control = capture("control", requests, v2=v2, pp=2, tracing=False)
    assert [request.taken for request in requests] == [request.forced for request in requests]
    sampled = {(r.name, p) for r in requests for p in range(len(r.prompt) - 1, len(r.tokens) - 1)}
    assert rows(control.logits) == {
        row: bits for row, bits in rows(traced.logits).items() if row in sampled
    }
    for path in control.folder.glob("rank*.jsonl"):
        assert [json.loads(line)["kind"] for line in path.open()] == ["heartbeat"]


@RUNNERS
def test_a_dummy_run_leaves_keys_and_no_content(capture, v2):
    """Profiling reads a buffer that nothing was received into: no fingerprint, no NaN."""
    two = capture("two", [], v2=v2, pp=2)
    assert {dummy["side"] for dummy in two.stages[0].dummies} == {"returned"}
    assert all(list(dummy["keys"]) == KEYS for dummy in two.stages[0].dummies)
    assert two.stages[1].dummies == ()
    assert all(rank.steps == () for rank in two.ranks.values())


def test_a_key_that_is_not_sent_is_seen_in_v1(capture):
    """V1 would read what its buffer held: it is filled with NaN, so that the logits tell."""
    two = capture("two", probes(), pp=2, model="ForgetsKey")
    assert all(list(step.sent) == ["hidden_states"] for step in two.stages[0].steps)
    assert np.isnan(two.logits.values).all()


class Unmarked(Request):
    params = None


def test_questions_are_left_alone(tmp_path):
    """A request without our mark takes the model's own tokens, and leaves no row and no step."""
    engine = Engine(tmp_path / "c", pp=2).start()
    engine.run([Unmarked("q", [1, 2, 3], [0, 0, 0])])
    found = Capture(tmp_path / "c", {})
    assert found.logits.index == {}
    assert all(rank.steps == () for rank in found.ranks.values())


@RUNNERS
def test_a_step_runs_under_the_change_that_its_requests_ask_for(capture, tmp_path, v2):
    """A perturbed key moves the logits, which leave one number a step; nothing else is traced."""
    engine = Engine(tmp_path / "c", v2=v2, pp=2).start()
    for name in ("none", "key:0:hidden_states", "none"):
        engine.run([Request("sensitivity", [1, 2, 3], [4, 5], change=SENSITIVITY + name)])
    lines = [json.loads(line) for line in (tmp_path / "c" / "sensitivity.jsonl").open()]
    assert [line["change"] for line in lines] == ["key:0:hidden_states"] * 2
    assert all(line["effect"] > 0 for line in lines)
    found = Capture(tmp_path / "c", {})
    assert all(rank.steps == () for rank in found.ranks.values())
    # The change is over with its step: what runs after it is as before.
    after = probes()
    engine.run(after)
    assert rows(Capture(tmp_path / "c", {}).logits) == rows(capture("one", probes(), v2=v2).logits)


@RUNNERS
def test_a_rank_keeps_its_position(capture, v2):
    """The messages that it gave and took, the passes that it made, and that it is idle now."""
    two = capture("two", probes(), v2=v2, pp=2)
    positions = [json.loads((two.folder / f"position.{rank}.json").read_text()) for rank in (0, 1)]
    steps = len(two.stages[0].steps)
    for rank, position in enumerate(positions):
        assert (position["rank"], position["stage"], position["tp_rank"]) == (rank, rank, 0)
        assert (position["passes"], position["phase"], position["doing"]) == (steps, None, None)
    assert (positions[0]["sent"], positions[0]["keys"], positions[0]["unsent"]) == (steps, KEYS, [])
    assert positions[1]["received"] == steps


def half_a_message():
    """Let a stage announce all tensors and send the first alone."""
    from vllm.distributed.parallel_state import GroupCoordinator

    whole = GroupCoordinator.isend_tensor_dict

    def isend_tensor_dict(self, tensor_dict, dst=None, all_gather_group=None):
        whole(self, dict([next(iter(tensor_dict.items()))]))
        self.mailboxes[self.rank_in_group + 1][-1] = {k: v.clone() for k, v in tensor_dict.items()}
        return []

    GroupCoordinator.isend_tensor_dict = isend_tensor_dict


def test_half_a_message_is_told_from_a_whole_one(capture):
    """The announcement goes as tensors too, since vLLM 0.29.0: they are none of the message."""
    two = capture("two", probes(), pp=2, prepare=half_a_message)
    position = json.loads((two.folder / "position.0.json").read_text())
    assert position["unsent"] == KEYS[1:]
