"""One forward pass of a rank: the requests that its rows belong to, and the record of it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..names import REQUEST_MARK
from ..probes import keeps_logits
from .extent import WatchedTensor
from .fingerprints import FingerprintCollector


@dataclass(frozen=True)
class RowSpan:
    """The rows that one request occupies in a step: `count` rows from absolute `start`.

    `name` is empty for a question, which is run under a `change` and not traced.
    """

    name: str
    start: int
    count: int
    prompt_length: int
    forced: tuple[int, ...]
    change: str = ""

    @property
    def positions(self) -> range:
        """The absolute position of each row."""
        return range(self.start, self.start + self.count)

    @property
    def decodes(self) -> bool:
        """Whether all rows lie behind the prompt."""
        return self.start >= self.prompt_length

    def keeps(self, position: int, vocab: int) -> bool:
        """Whether logits of a row are kept: not of drafts for tokens that will not be taken."""
        is_needed = position < self.prompt_length + len(self.forced) - 1
        return is_needed and keeps_logits(position, self.prompt_length, vocab)

    @classmethod
    def of_request(
        cls, sampling_params: Any, *, start: int, count: int, prompt_length: int
    ) -> "RowSpan | None":
        """Describe a request in a step; None if it has no mark of ours or is not scheduled."""
        extra = sampling_params.extra_args if sampling_params else None
        mark = (extra or {}).get(REQUEST_MARK)
        if mark is None or count == 0:
            return None
        return cls(
            mark.get("request", ""),
            start,
            count,
            prompt_length,
            tuple(mark.get("forced", ())),
            mark.get("change", ""),
        )


# A row: the rows of its request in the step, and its absolute position.
Row = tuple[RowSpan, int]


def sampled_rows(spans: tuple[RowSpan, ...], count: int) -> list[Row]:
    """Name each of `count` rows that the engine samples from.

    That is the last row of each request, and where tokens were drafted all rows of a decode step.

    Raises:
        ValueError: if the rows are neither: then the engine would sample from other rows than it
            means to, as where it drafts for a token that it has not seen yet.
    """
    if count == len(spans):
        return [(span, span.positions[-1]) for span in spans]
    rows = [
        (span, position)
        for span in spans
        for position in (span.positions if span.decodes else span.positions[-1:])
    ]
    if count != len(rows):
        scheduled = ", ".join(f"{span.name}@{span.start}+{span.count}" for span in spans)
        raise ValueError(
            f"the engine samples {count} rows where the requests of the step have {len(rows)} to "
            f"sample from: {scheduled}"
        )
    return rows


@dataclass
class Step:
    """One traced forward pass on this rank.

    `sides` holds, for each of returned, sent, received and copied, the form of each key; `reads`
    the first reader of each key, `watched` the tensors whose use is watched.
    """

    spans: tuple[RowSpan, ...]
    sides: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    watched: dict[str, WatchedTensor] = field(default_factory=dict)

    @property
    def change(self) -> str:
        """The change under which all requests of the step run."""
        return self.spans[0].change

    @cached_property
    def rows(self) -> int:
        """The number of scheduled tokens."""
        return sum(span.count for span in self.spans)

    @cached_property
    def fingerprints(self) -> FingerprintCollector:
        """The fingerprints of all that crossed a boundary and of the layers that have run."""
        return FingerprintCollector(self.rows)
