"""One rank's record of a step, and when it is written."""

import pytest

torch = pytest.importorskip("torch", reason="the tracer runs inside the engine, with torch")

from harness.capture.record import Capture, RankTrace  # noqa: E402
from harness.engine.failures import read_failures  # noqa: E402
from harness.engine.hooks.digest import row_digests  # noqa: E402 - needs torch
from harness.engine.hooks.step import RowSpan  # noqa: E402
from harness.engine.hooks.tracer import Tracer  # noqa: E402


@pytest.fixture
def tracer(tmp_path):
    """A rank that has begun."""
    made = Tracer(tmp_path, tracing=True)
    made.start(
        0,
        tp_rank=0,
        device=torch.device("cpu"),
        stage=0,
        stages=2,
        eager=True,
        runner="CPUModelRunner",
        adapter="v1",
    )
    return made


def read(tracer: Tracer) -> RankTrace:
    """What a reader of the capture finds by now."""
    (rank,) = Capture(tracer.folder, {}).ranks.values()
    return rank


def numbers(tracer: Tracer) -> list[int]:
    """The steps that are written."""
    return [step.index for step in read(tracer).steps]


def run(tracer: Tracer, hidden: "torch.Tensor") -> None:
    """A step of two rows, by one layer, whose result is overwritten once it is sent."""
    tracer.begin_step((RowSpan("a", start=0, count=2, prompt_length=2, forced=(1,)),))
    tracer.layer(3, hidden)
    tracer.boundary("sent", {"hidden_states": hidden, "nothing": None})
    hidden.zero_()
    tracer.end_step()


def test_a_step_is_written_once_no_one_waits_for_it(tracer):
    """The last stage settles a step as the next one begins, the others once it is sent."""
    run(tracer, torch.randn(4, 8))
    assert numbers(tracer) == []
    tracer.settle()
    assert numbers(tracer) == [0]
    run(tracer, torch.randn(4, 8))
    tracer.flush()
    assert numbers(tracer) == [0, 1]


def test_a_reader_finds_what_was_there_when_it_passed(tracer):
    """Rows that were not scheduled leave nothing, and what is overwritten later is seen before."""
    hidden = torch.randn(4, 8)
    wanted = row_digests(hidden, 2).tolist()
    run(tracer, hidden)
    tracer.settle()
    (step,) = read(tracer).steps
    assert step.sent["hidden_states"] == {
        "shape": [4, 8],
        "dtype": "float32",
        "contiguous": True,
        "digest": wanted,
    }
    assert step.sent["nothing"] is None
    assert step.returned is None
    assert step.layers[3]["digest"] == wanted
    assert {kind: len(rows) for kind, rows in step.layers[3].items()} == {
        "digest": 2,
        "norm": 2,
        "sketch": 2,
    }


def test_a_failing_step_leaves_what_it_had(tracer):
    """With the exception, in the order in which it came about."""
    tracer.begin_step((RowSpan("a", start=0, count=2, prompt_length=2, forced=(1,)),))
    tracer.note("missing-key", "k", "vllm/m.py:1")
    tracer.boundary("copied", {"hidden_states": torch.randn(2, 8)})
    tracer.fail(0, "execute_model", ValueError("no"))
    rank = read(tracer)
    assert [one["key"] for one in rank.misuses] == ["k"]
    assert list(rank.steps[0].copied) == ["hidden_states"]
    (failure,) = read_failures(tracer.folder)
    assert (failure.rank, failure.phase, failure.error) == (0, "execute_model", "ValueError: no")
