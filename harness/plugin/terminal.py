"""What the plugin prints: the plan in the header, the verdict table at the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..capture.order import CellPlan
    from ..plan.sweep import Sweep
    from ..report.schema import AttributionRecord, ItemRecord


def header(sweep: "Sweep") -> list[str]:
    """Return the lines that say what is measured."""
    variants = " ".join(variant.name for variant in sweep.variants)
    sizes = ", ".join(map(str, sweep.options.pps))
    tp = f", TP {sweep.options.tp}" if sweep.options.tp > 1 else ""
    return [
        f"pp-harness: vLLM {sweep.pin.version}, {sweep.subject.title} ({variants}), "
        f"models {' '.join(sweep.models)}, PP {sizes} against 1{tp}",
        *(f"pp-harness: {note}" for note in sweep.subject.notes),
    ]


def questions_line(sweep: "Sweep") -> list[str]:
    """Return the line that says what the questions of a cell can decide; none if none are asked."""
    from ..checks.accuracy.power import FLIP_RATE, fewest_questions, questions_needed

    count, margin, limit = sweep.questions, sweep.options.margin, sweep.options.gsm8k_limit
    if not count:
        return []
    needed, fewest = questions_needed(margin), fewest_questions(margin)
    what, at = f"{count} questions", f"{needed} at {FLIP_RATE:.0%} flips"
    if count >= needed:
        return [f"pp-harness: {what} can exclude a fall of {margin:g} (it takes {at})"]
    if limit is not None:
        what = f"warning: --pp-gsm8k-limit {limit}"
    if count >= fewest:
        can = f"can exclude a fall of {margin:g} only if few answers flip: it takes {at}"
    else:
        can = (
            f"can pass only with identical answers: to exclude a fall of {margin:g} takes {fewest} "
            f"without a flip, {at}"
        )
    return [f"pp-harness: {what} {can}"]


def summarize(
    terminal: Any,
    records: "Sequence[ItemRecord]",
    attribution: "Sequence[AttributionRecord]",
    failure: str,
) -> None:
    """Print verdicts, findings that fail, which patch did what, why a run has no verdict."""
    if records:
        from ..report.table import verdict_table
        from ..report.words import finding_lines

        terminal.section("pipeline parallelism against PP=1")
        for line in verdict_table([record.verdict for record in records]):
            terminal.write_line(line)
        if any(record.verdict.expected for record in records):
            terminal.write_line("* expected, see expected.toml")
        for line in finding_lines(records):
            terminal.write_line(line)
    if attribution:
        terminal.section("what each patch did")
        for one in attribution:
            terminal.write_line(one.message)
    if failure:
        terminal.write_line(f"pp-harness: {failure}", red=True, bold=True)


def show_plan(terminal: Any, planned: "CellPlan") -> None:
    """Print the schedule of a sweep: cells as they start, and the whole beside its lower bound."""
    terminal.section("plan: nothing is run")
    terminal.write_line(f"{'start':>7}  {'seconds':>7}  {'devices':>7}  {'from':6}  cell")
    for scheduled in planned.jobs:
        job = scheduled.job
        cell, source = planned.cells[job.name], planned.expected[job.name].source
        terminal.write_line(
            f"{scheduled.start:7.0f}  {job.seconds:7.0f}  {job.width:7}  {source:6}  {cell.id}"
        )
    makespan, bound = planned.makespan, planned.bound
    terminal.write_line(
        f"{len(planned.cells)} cells to run on {planned.devices} devices, at most "
        f"{planned.engines} at once; {len(planned.stored)} are in the store"
    )
    ratio = f", {makespan / bound:.2f} times that" if bound else ""
    terminal.write_line(f"lower bound {bound:.0f} s, expected {makespan:.0f} s{ratio}")
