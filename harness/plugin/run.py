"""One pytest run with `--pp`: queue the cells, judge the items, keep the records.

Items compare; the engines run in threads of this process, and an item waits for the two captures
that it compares. Under pytest-xdist the controller runs the engines, and the workers compare.
"""

import time
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from .terminal import header, questions_line, show_plan, summarize
from .workers import distributed, points_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..capture.exchange import CaptureClient, CaptureServer
    from ..capture.order import CellPlan
    from ..capture.runner import Runner
    from ..checks.expectations import Expectations, Judgement
    from ..checks.finding import Verdict
    from ..plan.points import Point
    from ..plan.sweep import Sweep
    from ..report.schema import AttributionRecord, CellRecord, ItemRecord
    from .progress import ProgressLines, VisibleRunner

# An item's records on their way: in its stash, then as an attribute of its report, which xdist and
# reportlog carry along and JUnit does not write. The name is ours in xdist's input of a worker too.
_RECORDS = pytest.StashKey[list[str]]()
_NAME = "pp_harness"
POINT_FIXTURE = "pp_point"


class Run:
    """One pytest run with `--pp`."""

    def __init__(self, config: pytest.Config) -> None:
        """Read the options and refuse what cannot be run.

        Raises:
            BadInputError: naming the option, the thing and the cure.
        """
        from ..plan.sweep import plan_sweeps
        from .options import names, read_options

        self._config = config
        self._worker = hasattr(config, "workerinput")
        self._records: list[ItemRecord] = []
        self._failure = ""
        self._plan: CellPlan | None = None
        self._plan_only = bool(config.getoption("--pp-plan"))
        if self._plan_only:
            config.option.dist = "no"  # before xdist looks: a plan needs no workers
        self._workers = len(config.getoption("tx")) if distributed(config) else 0
        self._began = time.time()
        self.sweeps = plan_sweeps(read_options(config), names(config.getoption("--pp-pin")))
        _ = self.points
        if not config.getoption("collectonly"):
            # Fail now, not in the first item: device, packages.
            for sweep in self.sweeps.values():
                _ = sweep.device, sweep.versions, sweep.devices
            _ = self._expectations

    @property
    def points(self) -> "tuple[Point, ...]":
        """Return every point, those of the first pin first."""
        return tuple(point for sweep in self.sweeps.values() for point in sweep.points)

    @property
    def _first(self) -> "Sweep":
        """Return the sweep whose store and devices all share."""
        return next(iter(self.sweeps.values()))

    @cached_property
    def _expectations(self) -> "dict[str, Expectations]":
        """Return the known findings that hold for this run, by the pin of the points."""
        from ..assets import suites_dir
        from ..checks.expectations import Setting, load_expectations

        source = self._config.getoption("--pp-gsm8k")
        ignored = self._config.getoption("--pp-ignore-expected")
        found = {}
        for label, sweep in self.sweeps.items():
            setting = Setting(
                pin=sweep.pin.version,
                series=sweep.subject.name,
                device=sweep.device,
                gsm8k=source if source in ("bundled", "hub") else "file",
                mode=sweep.options.mode,
            )
            ignore = ignored or not sweep.subject.is_release_based
            path = None if ignore else suites_dir() / "expected.toml"
            found[label] = load_expectations(path, setting)
        return found

    @cached_property
    def _progress(self) -> "ProgressLines | None":
        """Return the lines that say what runs; none where pytest is quiet."""
        from .progress import progress_lines

        return progress_lines(self._config)

    @cached_property
    def _runner(self) -> "Runner":
        from ..capture.runner import Runner
        from ..capture.store import Store

        return Runner(
            Store(self._first.store),
            self._first.devices,
            jobs=self._workers or None,
            phase_timeout=self._config.getoption("--pp-timeout"),
            time_limit=self._config.getoption("--pp-time-limit"),
            listener=self._progress,
        )

    @cached_property
    def _server(self) -> "CaptureServer":
        from ..capture.exchange import CaptureServer

        return CaptureServer(self._runner)

    @cached_property
    def _captures(self) -> "Runner | VisibleRunner | CaptureClient":
        """Return where captures come from."""
        if not self._worker:
            from .progress import VisibleRunner

            return VisibleRunner(self._runner, self._progress) if self._progress else self._runner
        from ..capture.exchange import CaptureClient

        return CaptureClient(Path(cast("Any", self._config).workerinput[_NAME]))

    # ---- pytest hooks -----------------------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        """Say what is measured, before anything runs."""
        lines = [line for sweep in self.sweeps.values() for line in header(sweep)]
        return [*lines, *questions_line(self._first)]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Queue the cells that the selected items need."""
        if self._config.getoption("collectonly") or self._worker:
            return
        self._queue(
            {
                cast("Point", item.callspec.params[POINT_FIXTURE])
                for item in session.items
                if isinstance(item, pytest.Function)
                and hasattr(item, "callspec")
                and POINT_FIXTURE in item.callspec.params
            }
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of xdist where captures are announced."""
        node.workerinput[_NAME] = str(self._server.folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: "Sequence[str]") -> None:
        """Queue the cells that the items of a worker need; all workers have the same."""
        self._queue(points_named(ids, self.points))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """Run nothing if only the plan is asked for."""
        return True if self._plan_only else None

    def pytest_keyboard_interrupt(self) -> None:
        """End engines, and let go of workers that wait for a capture.

        Now, not when the session finishes: a second Ctrl-C would get in between.
        """
        self._let_go()

    def pytest_internalerror(self) -> None:
        """Let go of workers that wait for a capture."""
        self._let_go()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let the report of an item carry its records."""
        report = yield
        if report.when == "call":
            setattr(report, _NAME, item.stash.get(_RECORDS, []))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the record of an item; under xdist it comes from a worker."""
        from ..report.schema import ItemRecord

        if report.when == "call" and not self._worker:
            records = getattr(report, _NAME, ())
            self._records += [ItemRecord.model_validate_json(one) for one in records]

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, None, None]:
        """Fail a run that judged nothing, write the report, end engines that still run.

        They are ended whatever else fails here: xdist raises if one of its workers was killed.
        """
        try:
            yield
        finally:
            for name in ("_server", "_runner"):
                if name in self.__dict__:
                    getattr(self, name).close()
        self._report_run(session, exitstatus)

    def _report_run(self, session: pytest.Session, exitstatus: int) -> None:
        if self._worker or self._plan_only or self._config.getoption("collectonly"):
            return
        quiet = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        judged = any(one.verdict.verdict != "not-applicable" for one in self._records)
        if not judged and exitstatus in quiet:
            self._failure = (
                "--pp was given and no point was judged: nothing collected, all skipped, or not "
                "applicable"
            )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        folder = self._config.getoption("--pp-report")
        if folder and self._records:
            from ..report.write import write_reports

            write_reports(self._report(), Path(folder))
        history = self._config.getoption("--pp-history")
        if history and self._records:
            from ..report.history import append, history_lines

            append(Path(history), history_lines(self._report(), self._began))
        if self._records:
            from ..report.write import write_job_summary

            write_job_summary(self._report())

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the plan or the verdict table, and why a run without a verdict fails."""
        if self._plan is not None:
            show_plan(terminalreporter, self._plan)
        summarize(terminalreporter, self._ordered(), self._attribution, self._failure)

    # ---- judging ----------------------------------------------------------------------------

    def judge(
        self, check: str, point: "Point", item: pytest.Item
    ) -> "tuple[Judgement, ItemRecord]":
        """Return what the expectations make of a check's verdict, and the record of both."""
        from ..checks.judge import blocked_by, judge
        from ..report.records import cell_record, item_record, junit_properties

        sweep = self.sweeps[point.pin]
        refusal = self._refusal(point)
        if refusal is not None:
            engine = refusal
            verdict = refusal if check == "engine" else blocked_by(refusal)
            cells: list[CellRecord] = []
        else:
            made = {one: sweep.cell(one) for one in (point.baseline, point)}
            candidate = self._captures.obtain(made[point])
            baseline = self._captures.obtain(made[point.baseline])
            both = baseline.capture, candidate.capture
            engine = judge("engine", *both)
            verdict = engine if check == "engine" else judge(check, *both, sweep.options.margin)
            cells = [
                cell_record(one, cell, came.capture, sweep.pin.version, fresh=came.fresh)
                for (one, cell), came in zip(made.items(), (baseline, candidate), strict=True)
            ]
        outcome = self._expectations[point.pin].judge(check, point, verdict, engine)
        record = item_record(check, point, sweep.pin.version, verdict, outcome, cells)
        item.stash.setdefault(_RECORDS, []).append(record.model_dump_json())
        item.user_properties += junit_properties(record)
        return outcome, record

    def _queue(self, selected: "set[Point]") -> None:
        """Run, or only plan, the cells of the selected points and of their baselines.

        Raises:
            pytest.UsageError: if a cell cannot be made from what was given.
        """
        from ..errors import BadInputError

        every = dict.fromkeys(
            one for point in self.points if point in selected for one in (point, point.baseline)
        )
        try:
            cells = [
                self.sweeps[point.pin].cell(point)
                for point in every
                if self._refusal(point) is None
            ]
        except BadInputError as error:
            raise pytest.UsageError(str(error)) from error
        if cells:
            self._say_of_trees()
        if self._plan_only:
            self._plan = self._runner.plan(cells)
        elif self._workers:
            self._server.submit_all(cells)
        else:
            self._runner.submit_all(cells)

    def _say_of_trees(self) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        for note in (note for sweep in self.sweeps.values() for note in sweep.tree_notes):
            if terminal is not None:
                terminal.write_line(f"pp-harness: {note}")

    def _let_go(self) -> None:
        if "_runner" in self.__dict__:
            self._runner.stop()
        if "_server" in self.__dict__:
            self._server.stop()

    def _refusal(self, point: "Point") -> "Verdict | None":
        """Return the verdict on a point that needs no engine to be answered."""
        from ..checks.judge import judge_devices, judge_partition

        sweep = self.sweeps[point.pin]
        refusal = judge_partition(sweep.partition(point))
        return refusal or judge_devices(self._first.devices, sweep.cell(point))

    def _ordered(self) -> "list[ItemRecord]":
        """Return the records in the order of the sweep; xdist delivers them as they end."""
        order = {point.id: number for number, point in enumerate(self.points)}
        return sorted(self._records, key=lambda record: order[record.point])

    def _report(self) -> Any:
        import platform

        from .. import __version__
        from ..capture.devices import host_identity
        from ..report.reproduce import lasting
        from ..report.schema import merge

        sweep = self._first
        environment = {
            "pp_harness": __version__,
            "arguments": lasting(self._config.invocation_params.args),
            **sweep.facts,
            "host": host_identity(sweep.device),
            "device": sweep.device,
            "devices": len(sweep.devices.ids),
            **sweep.settings,
            "gsm8k": self._config.getoption("--pp-gsm8k"),
            "gsm8k_limit": sweep.options.gsm8k_limit,
            **({"shard": shard} if (shard := self._config.getoption("--pp-shard")) else {}),
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        if len(self.sweeps) > 1:
            environment["pins"] = {one.pin.version: one.facts for one in self.sweeps.values()}
        # An entry that no pin's points fall under.
        unused = [
            self._expectations[label].not_applicable(one.points)
            for label, one in self.sweeps.items()
        ]
        nowhere = [reason for reason in unused[0] if all(reason in others for others in unused)]
        report = merge(self._ordered(), environment, nowhere)
        return report.model_copy(update={"attribution": self._attribution})

    @cached_property
    def _attribution(self) -> "list[AttributionRecord]":
        """Return which patch did what; once all items are judged."""
        if self._worker or not self._records:
            return []
        from ..report.attribution import attribution_records

        return [
            record
            for label, sweep in self.sweeps.items()
            for record in attribution_records(
                sweep, [one for one in self.points if one.pin == label], self._records
            )
        ]
