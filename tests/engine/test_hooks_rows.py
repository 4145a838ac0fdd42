"""Which rows of logits a prompt keeps, and what is written of them."""

from itertools import accumulate
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the tracer runs inside the engine, with torch")

from harness.capture.record import Capture  # noqa: E402
from harness.engine.hooks.model import _without_adapter  # noqa: E402
from harness.engine.hooks.step import RowSpan, sampled_rows  # noqa: E402
from harness.engine.hooks.tracer import Tracer  # noqa: E402
from harness.engine.probes import keeps_logits  # noqa: E402


def span(name: str, start: int, count: int, prompt: int) -> RowSpan:
    """Rows of a request with four forced tokens."""
    return RowSpan(name, start, count, prompt, (1, 2, 3, 4))


# Steps of prompts of 300 tokens, in chunks. The last row of a chunk is sampled too, and thrown away
# by the engine.
STEPS = {
    "first-chunk": (span("a", 0, 128, 300),),
    "middle-chunk": (span("a", 128, 128, 300),),
    "last-chunk": (span("a", 256, 44, 300),),
    "decode": (span("a", 300, 1, 300), span("b", 301, 1, 300)),
    "chunk-beside-decode": (span("a", 300, 1, 300), span("b", 128, 100, 300)),
    # With two tokens drafted for the first request, none for the second.
    "drafts-beside-a-prompt": (
        span("a", 300, 3, 300),
        span("b", 0, 9, 300),
        span("c", 301, 1, 300),
    ),
    # With a vocabulary of 262144 a prompt of 300 keeps every tenth row: of these, none.
    "small-chunks": (span("a", 1, 5, 300), span("b", 20, 8, 300)),
}


@pytest.mark.parametrize("vocab", [1024, 49152, 262144])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_writes_the_rows_that_are_kept(tmp_path, vocab, step):
    """None, some or all rows: at a large vocabulary a chunk may keep not a single one."""
    spans = STEPS[step]
    tracer = Tracer(tmp_path, tracing=True)
    tracer.start(0, tp_rank=0, device=torch.device("cpu"))
    # One column tells a row by its place in the step; the other columns cost memory alone.
    hidden = torch.arange(sum(one.count for one in spans), dtype=torch.float32).unsqueeze(1)
    places = [
        (one, offset)
        for one, end in zip(spans, accumulate(one.count for one in spans), strict=True)
        for offset in range(end - one.count if one.decodes else end - 1, end)
    ]
    ends = [offset for _, offset in places]
    sampled = sampled_rows(spans, len(ends))
    tracer.logits.add_sampled(sampled, hidden[ends].expand(-1, vocab))
    tracer.logits.add_prompts(spans, sampled, hidden, lambda rows: rows.expand(-1, vocab), vocab)
    tracer.flush()
    table = Capture(tmp_path, {}).logits

    wanted, offset = {}, 0
    for one in spans:
        for row, position in enumerate(range(one.start, one.start + one.count)):
            if keeps_logits(position, one.prompt_length, vocab):
                wanted[one.name, position] = float(offset + row)
        offset += one.count
    assert {row: float(table.values[at, 0]) for row, at in table.index.items()} == wanted


def test_the_engine_samples_one_row_or_one_more_for_each_draft():
    """A row is named by its own position; rows that are neither are no step of ours."""
    spans = (span("a", 300, 3, 300), span("b", 0, 9, 300))
    assert sampled_rows(spans, 2) == [(spans[0], 302), (spans[1], 8)]
    assert sampled_rows(spans, 4) == [*((spans[0], at) for at in (300, 301, 302)), (spans[1], 8)]
    with pytest.raises(ValueError, match="samples 3 rows"):
        sampled_rows(spans, 3)


def test_logits_behind_the_last_forced_token_are_not_kept():
    """Of four forced tokens the last is no input: a draft for what would follow it has no row."""
    assert [span("a", 300, 5, 300).keeps(at, 448) for at in range(300, 305)] == [
        *(True, True, True),
        *(False, False),
    ]


def test_logits_of_prompts_pass_by_an_adapter():
    """Its part is laid out for the rows that are sampled; the model has its layer again after."""
    model = SimpleNamespace(logits_processor=SimpleNamespace(base_layer="plain"))
    wrapped = model.logits_processor
    assert _without_adapter(model, lambda: model.logits_processor) == "plain"
    assert model.logits_processor is wrapped
    bare = SimpleNamespace(logits_processor="plain")
    assert _without_adapter(bare, lambda: bare.logits_processor) == "plain"
