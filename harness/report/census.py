"""The census of a release: which architectures compute at PP=N what they compute at PP=1."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..checks.engine import ELSEWHERE
from ..checks.finding import Outcome
from ..models.stand_in import Reason, StandIn
from .markdown import text
from .schema import FindingRecord, Report, VerdictRecord
from .text import one_line

# The first of them that a check gave is the word for a PP size.
_WORST = (
    Outcome.FAIL, Outcome.BLOCKED, Outcome.INCONCLUSIVE, Outcome.NOT_APPLICABLE, Outcome.PASS,
)  # fmt: skip
# Findings by which PP=1 has no answer, and by which the device lacks a kernel.
BASELINE, _KERNEL = ("ENG004", "ENG005"), "ENG007"
# Of the former, that PP=1 raised an exception.
_RAISED = "ENG004"
# How vLLM and transformers word that a model's processor is asked for, which needs a tokenizer or
# files of its own.
_PROCESSOR = re.compile(
    r"skip_tokenizer_init|--tokenizer-mode|Failed to load the processor"
    r"|Can't load (?:feature extractor|image processor)|cannot import name '\w+Processor'"
)
# A kernel was built for instructions that this processor lacks.
_ILLEGAL = "killed by SIGILL"
_LONGEST = 160


@dataclass(frozen=True)
class CensusRow:
    """An architecture: a verdict for each PP size from a run, or one reason why there is none.

    Attributes:
        by: the class that gave its config.
        is_multimodal: whether it reads more than text; it ran by text prompts alone.
        dtype: of weights and activations.
        verdicts: of each PP size the outcome of each check.
        detail: the first finding, or what the reason does not say.
        lint: codes of the lint's errors and warnings in the model's classes, by reading.
        loading: those of loading weights, which a run with drawn weights does not do.
    """

    architecture: str
    by: str = ""
    is_multimodal: bool = False
    dtype: str = ""
    verdicts: dict[int, dict[str, Outcome]] = field(default_factory=dict)
    reason: Reason | None = None
    detail: str = ""
    lint: tuple[str, ...] = ()
    loading: tuple[str, ...] = ()

    @property
    def words(self) -> dict[int, Outcome]:
        """The worst outcome at each PP size."""
        return {pp: min(found.values(), key=_WORST.index) for pp, found in self.verdicts.items()}

    @property
    def is_red(self) -> bool:
        """Whether a check failed at some PP size, and PP=1 has an answer."""
        return self.reason is None and Outcome.FAIL in self.words.values()

    @property
    def agreement(self) -> str:
        """How the lint's reading and the run compare, loading aside; empty without a run."""
        if not self.words:
            return ""
        if self.is_red == bool(self.lint):
            return "agree"
        return "run only" if self.is_red else "lint only"


def without_paths(text: str, names: Mapping[Path, str]) -> str:
    """Call folders of this machine by their names: a record says the same wherever it was made."""
    for folder in sorted(names, reverse=True):  # what is inside another comes before it
        text = text.replace(f"{folder}/", f"{names[folder]}/")
    return text


def planned_row(each: StandIn, names: Mapping[Path, str] = MappingProxyType({})) -> CensusRow:
    """Make the row of an architecture that has not run; `names` are of folders."""
    reason = each.reason or Reason.NOT_RUN
    detail = without_paths(each.detail, names)
    return CensusRow(each.architecture, each.by, each.is_multimodal, reason=reason, detail=detail)


def judged_row(
    each: StandIn,
    reports: Sequence[Report],
    lint: Sequence[str] = (),
    loading: Sequence[str] = (),
    names: Mapping[Path, str] = MappingProxyType({}),
) -> CensusRow:
    """Read the row of an architecture from the reports of its runs; `names` are of folders."""
    name = each.architecture
    verdicts = [record for made in reports for record in made.verdicts if record.model == name]
    findings = [record for made in reports for record in made.findings if record.model == name]
    if not verdicts:
        return planned_row(each, names)
    codes = {record.code for record in findings}
    reason = None
    if codes & {*BASELINE}:
        reason = _reason_at_1([record for record in findings if record.code in BASELINE])
    elif all(record.verdict is Outcome.NOT_APPLICABLE for record in verdicts):
        reason = Reason.NO_KERNEL if _KERNEL in codes else Reason.NOT_RUN
    table = {} if reason else _by_size(verdicts)
    detail = without_paths(_detail(findings, verdicts, reason), names)
    dtypes = [
        cell.effective["dtype"]
        for made in reports
        for cell in made.cells
        if cell.model == name and cell.effective
    ]
    return CensusRow(
        each.architecture,
        each.by,
        each.is_multimodal,
        (dtypes or [""])[0],
        table,
        reason,
        one_line(detail, _LONGEST),
        tuple(lint),
        tuple(loading),
    )


def _reason_at_1(findings: Iterable[FindingRecord]) -> Reason:
    """Say why PP=1 has no answer; at PP=N another exception may have come first."""
    for record in findings:
        if _PROCESSOR.search(record.message):
            return Reason.PROCESSOR
        if record.fix == ELSEWHERE or _ILLEGAL in record.message:
            return Reason.NO_KERNEL
        if record.code == _RAISED:
            return Reason.FAILS_AT_1
    return Reason.NOT_RUN  # it was ended, by a time limit


def census_document(rows: Iterable[CensusRow], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make the content of `census.json`."""
    return {"schema": "pp-harness census 1", **facts, "rows": [asdict(row) for row in rows]}


def changes_table(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the architectures that turned red or green, or are red in some of the censuses alone.

    Each census is the content of a `census.json`; one may lack an architecture. What did not run
    yet in one of them has not changed, nor has what only came, went or became runnable, and passes.
    """
    answers = [{row["architecture"]: answer_of(row) for row in each["rows"]} for each in documents]
    lines = []
    for name in sorted(set().union(*answers)):
        words = [each.get(name, "not in the registry") for each in answers]
        by_runs = {*words} & {*_WORST}
        if len({*words}) > 1 and Reason.NOT_RUN not in words and by_runs - {Outcome.PASS}:
            lines.append((name, *words))
    return markdown_table(("architecture", *(str(each["vllm"]) for each in documents)), lines)


def answers_in_order() -> tuple[str, ...]:
    """List every answer that a row may have, those of runs first."""
    return (*map(str, reversed(_WORST)), *map(str, Reason))


def answer_of(row: Mapping[str, Any]) -> str:
    """The answer of a row of `census.json`: its worst outcome, or the reason why it has none."""
    outcomes = [outcome for found in row["verdicts"].values() for outcome in found.values()]
    return str(row["reason"] or min(map(Outcome, outcomes), key=_WORST.index))


def counts(rows: Iterable[CensusRow]) -> dict[str, int]:
    """Count the rows by their answer: those with verdicts by the worst, the others by reason."""
    return dict(Counter(answer_of(asdict(row)) for row in rows).most_common())


def census_page(rows: Sequence[CensusRow], facts: Mapping[str, Any]) -> str:
    """Write the census as a page of Markdown: rows with verdicts first, the red ones on top."""
    order = [*_WORST, *Reason]
    ranked = sorted(rows, key=lambda row: (order.index(answer_of(asdict(row))), row.architecture))
    answered = [row for row in ranked if row.words]
    without = [row for row in ranked if not row.words]
    lines = [
        f"# Census of vLLM {facts['vllm']}",
        "",
        f"{len(rows)} architectures of the registry, {len(answered)} with an answer from a run "
        f"({facts['device']}, eager, random weights in vLLM's own classes; "
        "multimodal models by text prompts alone). The lint's word is by reading; "
        "what it says of loading no run here shows.",
        "",
        *markdown_table(
            ("answer", "architectures"), [(k, str(n)) for k, n in counts(rows).items()]
        ),
    ]
    for title, part in (
        ("Text models", [row for row in answered if not row.is_multimodal]),
        ("Multimodal models, by text prompts", [row for row in answered if row.is_multimodal]),
    ):
        if part:
            lines += ["", f"## {title}", "", *_answered_table(part)]
    if without:
        table = [(row.architecture, str(row.reason), row.by, row.detail) for row in without]
        head = ("architecture", "reason", "config", "more")
        lines += ["", "## Without an answer", "", *markdown_table(head, table)]
    return "\n".join(lines) + "\n"


def _answered_table(rows: Sequence[CensusRow]) -> list[str]:
    sizes = sorted({pp for row in rows for pp in row.words})
    head = (
        *("architecture", *(f"PP={pp}" for pp in sizes)),
        *("dtype", "lint", "lint and run", "lint, of loading", "first finding"),
    )
    table = [
        (
            *(row.architecture, *(str(row.words.get(pp, "")) for pp in sizes)),
            *(row.dtype, ", ".join(row.lint), row.agreement, ", ".join(row.loading), row.detail),
        )
        for row in rows
    ]
    return markdown_table(head, table)


def _by_size(verdicts: Iterable[VerdictRecord]) -> dict[int, dict[str, Outcome]]:
    table: dict[int, dict[str, Outcome]] = {}
    for record in sorted(verdicts, key=lambda record: record.pp):
        table.setdefault(record.pp, {})[record.check] = record.verdict
    return table


def _detail(
    findings: Iterable[FindingRecord], verdicts: Iterable[VerdictRecord], reason: Reason | None
) -> str:
    """The first sentence that says why: of PP=1 where that fails, else of the worst check."""
    findings = list(findings)
    chosen = [each for each in findings if each.code in BASELINE] if reason else []
    for each in chosen or findings:
        place = f" ({each.place})" if each.place else ""
        return f"{each.code}: {each.message}{place}"
    worst = min(verdicts, key=lambda record: _WORST.index(record.verdict))
    return "" if worst.verdict is Outcome.PASS else worst.summary


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table of Markdown, whose cells cannot act as Markdown."""
    cells = ([text(cell) for cell in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in (head, ["--"] * len(head), *cells)]
