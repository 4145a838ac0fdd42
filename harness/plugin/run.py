"""One pytest run with `--pp`: queue the cells, judge the items, keep the records.

Items compare; the engines run in threads of this process, and an item waits for the two captures
that it compares. Nothing is gained by items in processes of their own: pytest-xdist's `-n N` limits
the engines at once.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, nullcontext
from functools import cached_property
from typing import Any

import pytest

from ..assets import suites_dir
from ..capture.launch import launch
from ..capture.order import CellPlan
from ..capture.pools import find_pool
from ..capture.runner import CaptureResult, Runner
from ..capture.store import Store
from ..checks.expectations import Expectations, Judgement, Setting, load_expectations
from ..checks.registry import Need, check_names, find_check
from ..errors import BadInputError
from ..plan.cell import Cell
from ..plan.installation import find_installation
from ..plan.options import declarations, read_options
from ..plan.points import Point
from ..plan.sweep import Sweep, plan_sweeps
from ..report.files import write_job_summary, write_reports
from ..report.history import append, history_lines
from ..report.records import ItemRecord, junit_properties, run_report
from ..report.schema import Report
from ..report.terminal import (
    attribution_lines,
    finding_lines,
    header,
    plan_lines,
    question_lines,
    verdict_table,
    workaround_lines,
)
from . import POINT_FIXTURE
from .judging import Judge
from .progress import ProgressLines, progress_lines


class Run:
    """One pytest run with `--pp`. What it starts stands on `_stack` and ends with the session."""

    def __init__(self, config: pytest.Config) -> None:
        """Read the options and refuse what cannot be run.

        Raises:
            BadInputError: naming the option, the thing and the fix.
        """
        self._config = config
        self._stack = ExitStack()
        self._to_stop: list[Runner] = []
        self._records: list[ItemRecord] = []
        self._failure = ""
        self._plan: CellPlan | None = None
        flags = [option.flag for _, option in declarations()]
        self.options = read_options({flag: config.getoption(flag) for flag in flags})
        self._collect_only = bool(config.getoption("collectonly"))
        self._jobs = len(config.getoption("tx", None) or ()) or None
        config.option.dist = "no"  # before xdist looks: no workers
        self._began = time.time()
        find = config.hook.pytest_pp_harness_finder(config=config) or find_installation
        self.sweeps = plan_sweeps(self.options, find=find)
        _ = self.points
        if not self._collect_only:
            # Fail now, not in the first item: device, packages.
            for sweep in self.sweeps.values():
                _ = sweep.device
            _ = self._judge

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point, those of the first pin first."""
        return tuple(point for sweep in self.sweeps.values() for point in sweep.points)

    @property
    def _first(self) -> Sweep:
        """The sweep whose store and devices all share."""
        return next(iter(self.sweeps.values()))

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.sweeps, self._expectations(), find_pool(self._first))

    def _expectations(self) -> dict[str, Expectations]:
        """Load the known findings that hold for this run, by the pin of the points."""
        source = self.options.gsm8k
        expectations = {}
        for label, sweep in self.sweeps.items():
            setting = Setting(
                pin=sweep.pin.version,
                series=sweep.subject.name,
                device=sweep.device,
                gsm8k=source if source in ("bundled", "hub") else "file",
                mode=self.options.mode,
            )
            ignored = self.options.ignore_expected or not sweep.subject.is_release_based
            path = None if ignored else suites_dir() / "expected.toml"
            expectations[label] = load_expectations(path, setting)
        return expectations

    # ---- engines ----------------------------------------------------------------------------

    @cached_property
    def _lines(self) -> ProgressLines | None:
        return progress_lines(self._config)

    @cached_property
    def _runner(self) -> Runner:
        """Runs the cells; starts as it is first asked for."""
        runner = Runner(
            Store(self._first.store),
            self._judge.pool,
            jobs=self._jobs,
            phase_timeout=self.options.timeout,
            time_limit=self.options.time_limit,
            listener=self._lines or (lambda _: None),
            launcher=self._config.hook.pytest_pp_harness_launcher(config=self._config) or launch,
        )
        self._to_stop.append(runner)
        return self._stack.enter_context(closing(runner))

    def _queue(self, selected: Mapping[Point, bool]) -> None:
        """Run, or only plan, the cells of the selected points and of their baselines.

        A point is mapped to whether a check may need the engine beside its baseline.

        Raises:
            pytest.UsageError: if a cell cannot be made from what was given.
        """
        made: dict[Point, Cell] = {}
        try:
            for point in self.points:
                if point in selected and self._judge.refusal(point) is None:
                    made |= self.sweeps[point.pin].cells(point, beside=selected[point])
        except BadInputError as error:
            raise pytest.UsageError(str(error)) from error
        cells = list(made.values())
        terminal: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if cells and terminal:
            trees = (tree for sweep in self.sweeps.values() for tree in sweep.trees.values())
            for note in (tree.note for tree in trees if tree.note):
                terminal.write_line(f"pp-harness: {note}")
        if self.options.plan_only:
            self._plan = self._runner.plan(cells)
        else:
            self._runner.submit(cells)

    # ---- pytest hooks -----------------------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        """Say what is measured, before anything runs."""
        lines = [line for sweep in self.sweeps.values() for line in header(sweep)]
        return [*lines, *question_lines(self._first)]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Queue the cells that the selected items need."""
        if self._collect_only:
            return
        selected: dict[Point, bool] = {}
        for item in session.items:
            callspec = getattr(item, "callspec", None)
            if callspec and POINT_FIXTURE in callspec.params:
                point = callspec.params[POINT_FIXTURE]
                selected[point] = selected.get(point, False) or _may_need_beside(item)
        self._queue(selected)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """Run nothing if only the plan is asked for."""
        return True if self.options.plan_only else None

    def pytest_keyboard_interrupt(self) -> None:
        """End engines now, not when the session finishes: a second Ctrl-C would get in between."""
        for running in self._to_stop:
            running.stop()

    pytest_internalerror = pytest_keyboard_interrupt

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, None, None]:
        """Fail a run that judged nothing, write the report, end engines that still run."""
        try:
            yield
        finally:
            self._stack.close()
        if not (self.options.plan_only or self._collect_only):
            self._check_judged(session, exitstatus)
            self._write()

    def _check_judged(self, session: pytest.Session, exitstatus: int) -> None:
        quiet = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        judged = any(record.verdict.verdict != "not-applicable" for record in self._records)
        if not judged and exitstatus in quiet:
            self._failure = (
                "--pp was given and no point was judged: nothing collected, all skipped, or not "
                "applicable"
            )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _write(self) -> None:
        if not self._records:
            return

        if self.options.report is not None:
            write_reports(self._report, self.options.report)
        if self.options.history is not None:
            append(self.options.history, history_lines(self._report, self._began))
        write_job_summary(self._report)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the plan or the verdict table, and why a run without a verdict fails."""

        def section(title: str, lines: list[str]) -> None:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)

        if self._plan is not None:
            section("plan: nothing is run", plan_lines(self._plan))
        if self._records:
            verdicts = self._report.verdicts
            lines = verdict_table(verdicts, check_names())
            if any(verdict.expected for verdict in verdicts):
                lines.append("* expected, see expected.toml")
            lines += [*workaround_lines(self._report), *finding_lines(self._report)]
            section("pipeline parallelism against PP=1", lines)
            if self._report.attribution:
                section("what each patch did", attribution_lines(self._report))
        if self._failure:
            terminalreporter.write_line(f"pp-harness: {self._failure}", red=True, bold=True)

    # ---- judging ----------------------------------------------------------------------------

    def _obtain(self, cell: Cell) -> CaptureResult:
        """Wait for the capture of a cell; progress lines are printed meanwhile."""
        with self._lines.shown() if self._lines else nullcontext():
            return self._runner.obtain(cell)

    def judge(self, check: str, point: Point, item: pytest.Item) -> tuple[Judgement, ItemRecord]:
        """Judge a check of a point, and keep its record."""
        outcome, record = self._judge(check, point, self._obtain)
        self._records.append(record)
        item.user_properties += junit_properties(record)
        return outcome, record

    @cached_property
    def _report(self) -> Report:
        """The report of the run; once all items are judged."""
        order = {point.id: number for number, point in enumerate(self.points)}
        records = sorted(self._records, key=lambda record: order[record.verdict.point])
        arguments = self._config.invocation_params.args
        judge, store = self._judge, Store(self._first.store)
        return run_report(
            judge.sweeps, judge.expectations, len(judge.pool.ids), records, arguments, store
        )


def _may_need_beside(item: pytest.Item) -> bool:
    """Whether a check needs the engine beside PP=1; a test that has no check's name may ask it."""
    check = find_check(getattr(item, "originalname", "").removeprefix("test_"))
    return check is None or Need.BESIDE in check.needs
