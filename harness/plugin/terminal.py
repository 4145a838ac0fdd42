"""Writes the lines of a run to pytest's terminal: the plan, or verdicts and findings at the end."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..capture.order import CellPlan
    from ..report.schema import Report


def summarize(terminal: Any, report: "Report | None", failure: str) -> None:
    """Write verdicts, findings that fail, which patch did what, why a run has no verdict."""
    if report is not None:
        from ..checks.registry import check_names
        from ..report.terminal import attribution_lines, finding_lines, verdict_table

        terminal.section("pipeline parallelism against PP=1")
        _write(terminal, verdict_table(report.verdicts, check_names()))
        if any(verdict.expected for verdict in report.verdicts):
            terminal.write_line("* expected, see expected.toml")
        _write(terminal, finding_lines(report))
        if report.attribution:
            terminal.section("what each patch did")
            _write(terminal, attribution_lines(report))
    if failure:
        terminal.write_line(f"pp-harness: {failure}", red=True, bold=True)


def show_plan(terminal: Any, planned: "CellPlan") -> None:
    """Write the schedule of a sweep."""
    from ..report.terminal import plan_lines

    terminal.section("plan: nothing is run")
    _write(terminal, plan_lines(planned))


def _write(terminal: Any, lines: list[str]) -> None:
    for line in lines:
        terminal.write_line(line)
