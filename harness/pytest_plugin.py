"""The pytest plugin: options, one item per check of a point, verdicts as test outcomes.

Inert without `--pp`. Items compare; the engines run in threads of the controller (in the workers,
under pytest-xdist), and an item waits for the two captures that it compares.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from .capture.record import Capture
    from .compare.finding import Verdict
    from .report.schema import CellRecord, ItemRecord
    from .sweep import Point

_PROPERTY = "pp_harness"
_NAME = "pp-harness"
_POINT_FIXTURE = "pp_point"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the `--pp` options."""
    group = parser.getgroup("pp-harness", "pipeline-parallel regression harness")
    add = group.addoption
    add(
        "--pp",
        metavar="N|N,M",
        help="pipeline-parallel sizes to judge against PP=1: one N means the powers of two below "
        "N, and N; a list means exactly those. Without it the plugin does nothing.",
    )
    add(
        "--pp-variant",
        action="append",
        metavar="NAME",
        help="judge only this variant of the series (repeat, or separate by commas)",
    )
    add(
        "--pp-series",
        metavar="DIR",
        help="patch series to measure; every prefix is a variant (default: the pin's own)",
    )
    add(
        "--pp-patch",
        metavar="FILE",
        help="patch file to measure in place of a series, as downloaded from a pull request "
        "(.diff or .patch); variants base and patched",
    )
    add(
        "--pp-vllm",
        metavar="DIR",
        help="git checkout of vLLM to measure in place of a series; variants base and worktree",
    )
    add(
        "--pp-base",
        metavar="REV",
        help="revision that the checkout's branch started from (default: the first that exists of "
        "upstream/main, origin/main, main, else the nearest release tag)",
    )
    add(
        "--pp-base-version",
        metavar="VERSION",
        help="release that lends the checkout its compiled files (default: its nearest release "
        "tag if that is pinned, else the default pin)",
    )
    add(
        "--pp-model",
        action="append",
        metavar="NAME|PATH|HUB_ID",
        help="model to run: a bundled instrument, a checkpoint folder or a hub id (repeat, or "
        "separate by commas; default: all instruments)",
    )
    add(
        "--pp-device",
        default="auto",
        metavar="auto|cpu|cuda",
        help="where the ranks run (default: what the installed vLLM is built for)",
    )
    add(
        "--pp-gsm8k",
        default="bundled",
        metavar="bundled|hub|FILE.jsonl",
        help="the questions: the bundled word problems, openai/gsm8k from the hub, or a file in "
        "GSM8K's format (its examples come from train.jsonl beside it)",
    )
    add(
        "--pp-gsm8k-limit",
        type=int,
        metavar="N",
        help="ask only the first N questions (default: all)",
    )
    add(
        "--pp-gsm8k-fewshot",
        type=int,
        metavar="N",
        help="examples before each question (default: 0 for instruments, else 5)",
    )
    add(
        "--pp-partition",
        action="append",
        metavar="A,B,..",
        help="layers of each stage, for the PP size with that many stages (repeat for several; "
        "default: vLLM's own cut, or the legal cut nearest to balanced)",
    )
    add("--pp-report", metavar="DIR", help="write report.json into this folder")
    add(
        "--pp-store",
        metavar="DIR",
        help="keep captures and variant trees here (default: the user's cache folder)",
    )
    add(
        "--pp-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest time for one phase of an engine (import, start, probes, GSM8K) before its "
        "cell counts as blocked (default: 600)",
    )
    add(
        "--pp-ignore-expected",
        action="store_true",
        help="do not read expected.toml: known findings fail too",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the options and refuse what cannot be run, before anything is collected."""
    if config.getoption("--pp") is None:
        return
    from .errors import BadInputError

    try:
        run = _Run(config)
    except BadInputError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(run, _NAME)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per point for each test that asks for `pp_point`; one skipped item without --pp."""
    if _POINT_FIXTURE not in metafunc.fixturenames:
        return
    run = metafunc.config.pluginmanager.get_plugin(_NAME)
    if run is None:
        # Not an empty set: what that means is for the user's ini file to say.
        skip = pytest.mark.skip(reason="give --pp to run this suite")
        metafunc.parametrize(_POINT_FIXTURE, [pytest.param(None, marks=skip, id="without-pp")])
    else:
        metafunc.parametrize(_POINT_FIXTURE, run.sweep.points, ids=lambda point: point.id)


@pytest.fixture
def pp_judge(request: pytest.FixtureRequest) -> "Callable[[str, Point], None]":
    """Judge one check of a point: pass, or fail with the finding; known findings are xfail."""
    run: _Run | None = request.config.pluginmanager.get_plugin(_NAME)
    if run is None:
        pytest.skip("give --pp to run this suite")

    def judge(check: str, point: "Point") -> None:
        outcome = run.judge(check, point, request.node)
        if outcome.kind == "expected":
            pytest.xfail(outcome.reason)
        if outcome.kind == "unexpected":
            pytest.fail(outcome.reason, pytrace=False)

    return judge


class _Run:
    """One pytest run with `--pp`."""

    def __init__(self, config: pytest.Config) -> None:
        from .errors import BadInputError
        from .source.subject import SubjectOptions
        from .sweep import Sweep, SweepOptions, parse_pps

        option = config.getoption
        self._config = config
        self._worker = hasattr(config, "workerinput")
        self._records: list[ItemRecord] = []
        self._failure = ""
        if option("--pp-timeout") <= 0:
            raise BadInputError("--pp-timeout must be above 0")
        for name in ("--pp-report", "--pp-store"):
            if option(name):
                _check_folder(name, Path(option(name)))
        self.sweep: Sweep = Sweep(
            SweepOptions(
                pps=parse_pps(option("--pp")),
                variants=_names(option("--pp-variant")),
                subject=SubjectOptions(
                    series=_path(option("--pp-series")),
                    patch=_path(option("--pp-patch")),
                    checkout=_path(option("--pp-vllm")),
                    base=option("--pp-base"),
                    base_version=option("--pp-base-version"),
                ),
                models=_names(option("--pp-model")),
                device=option("--pp-device"),
                gsm8k=option("--pp-gsm8k"),
                gsm8k_limit=option("--pp-gsm8k-limit"),
                gsm8k_fewshot=option("--pp-gsm8k-fewshot"),
                partitions=tuple(_cut(text) for text in option("--pp-partition") or ()),
                store=_path(option("--pp-store")),
            )
        )
        if not option("collectonly"):
            # Fail now, not in the first item: device, packages.
            _ = self.sweep.device, self.sweep.versions, self.sweep.devices
            _ = self.expectations

    @cached_property
    def expectations(self) -> Any:
        from .assets import suites_dir
        from .expected import Setting, load_expectations

        source = self._config.getoption("--pp-gsm8k")
        setting = Setting(
            pin=self.sweep.pin.version,
            series=self.sweep.subject.name,
            device=self.sweep.device,
            gsm8k=source if source in ("bundled", "hub") else "file",
        )
        ignore = (
            self._config.getoption("--pp-ignore-expected")
            or not self.sweep.subject.is_release_based
        )
        return load_expectations(None if ignore else suites_dir() / "expected.toml", setting)

    @cached_property
    def _runner(self) -> Any:
        from .capture.runner import Runner
        from .capture.store import Store

        return Runner(
            Store(self.sweep.store),
            self.sweep.devices,
            # Under xdist each worker asks for what its item needs; `-n` caps the engines.
            jobs=1 if self._worker else None,
            phase_timeout=self._config.getoption("--pp-timeout"),
        )

    # ---- pytest hooks -----------------------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        sweep = self.sweep
        variants = " ".join(variant.name for variant in sweep.variants)
        sizes = ", ".join(map(str, sweep.options.pps))
        return [
            f"pp-harness: vLLM {sweep.pin.version}, {sweep.subject.title} ({variants}), "
            f"models {' '.join(sweep.models)}, PP {sizes} against 1",
            *(f"pp-harness: {note}" for note in sweep.subject.notes),
        ]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Queue the cells that the selected items need, largest first."""
        if self._config.getoption("collectonly") or self._worker:
            return
        from .errors import BadInputError
        from .sweep import Point

        selected: set[Point] = {
            cast("Point", item.callspec.params[_POINT_FIXTURE])
            for item in session.items
            if isinstance(item, pytest.Function)
            and hasattr(item, "callspec")
            and _POINT_FIXTURE in item.callspec.params
        }
        points = selected | {Point(point.variant, point.model, 1) for point in selected}
        try:
            for point in sorted(points, key=lambda one: (-one.pp, one.variant, one.model)):
                if self._refusal(point) is None:
                    self._runner.submit(self.sweep.cell(point))
        except BadInputError as error:
            raise pytest.UsageError(str(error)) from error

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the record of an item; under xdist it comes from a worker."""
        from .report.schema import ItemRecord

        if report.when == "call" and not self._worker:
            self._records += [
                ItemRecord.model_validate_json(str(value))
                for name, value in report.user_properties
                if name == _PROPERTY
            ]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a run that judged nothing, write the report, end engines that still run."""
        if "_runner" in self.__dict__:
            self._runner.close()
        if self._worker or self._config.getoption("collectonly"):
            return
        quiet = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if not self._records and exitstatus in quiet:
            self._failure = (
                "--pp was given and no point was judged: nothing collected, or all skipped"
            )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        folder = self._config.getoption("--pp-report")
        if folder and self._records:
            target = Path(folder)
            target.mkdir(parents=True, exist_ok=True)
            text = self._report().model_dump_json(indent=1, by_alias=True)
            (target / "report.json").write_text(text + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the verdict table, and why a run without a verdict fails."""
        if self._records:
            from .report.table import verdict_table

            terminalreporter.section("pipeline parallelism against PP=1")
            for line in verdict_table([record.verdict for record in self._ordered()]):
                terminalreporter.write_line(line)
            terminalreporter.write_line("* expected, see expected.toml")
        if self._failure:
            terminalreporter.write_line(f"pp-harness: {self._failure}", red=True, bold=True)

    # ---- judging ----------------------------------------------------------------------------

    def judge(self, check: str, point: "Point", item: pytest.Item) -> Any:
        """Return what the expectations make of a check's verdict, and leave a record of both."""
        from .judge import judge

        refusal = self._refusal(point)
        if refusal is not None:
            from .judge import blocked_by

            engine = refusal
            verdict = refusal if check == "engine" else blocked_by(refusal)
            cells: list[CellRecord] = []
        else:
            baseline_cell, candidate_cell = self.sweep.baseline(point), self.sweep.cell(point)
            candidate: Capture = self._runner.submit(candidate_cell).result()
            baseline: Capture = self._runner.submit(baseline_cell).result()
            engine = judge("engine", baseline, candidate)
            verdict = engine if check == "engine" else judge(check, baseline, candidate)
            cells = [
                self._cell_record(cell, capture)
                for cell, capture in ((baseline_cell, baseline), (candidate_cell, candidate))
            ]
        outcome = self.expectations.judge(check, point, verdict, engine)
        record = _item_record(check, point, verdict, outcome, cells)
        item.user_properties.append((_PROPERTY, record.model_dump_json()))
        return outcome

    def _refusal(self, point: "Point") -> "Verdict | None":
        """Return the verdict on a point that needs no engine to be answered."""
        from .judge import judge_devices, judge_partition

        refusal = judge_partition(self.sweep.partition(point))
        return refusal or judge_devices(self.sweep.devices, point.pp)

    def _cell_record(self, cell: Any, capture: "Capture") -> "CellRecord":
        from .report.schema import CellRecord

        return CellRecord(
            id=cell.id,
            variant=cell.variant,
            model=cell.model,
            pp=cell.pp,
            status=capture.status,
            seconds=capture.seconds,
            partition=list(cell.partition) if cell.partition else None,
            fresh=cell.key in self._runner.fresh,
            key=cell.key,
            effective=capture.manifest["effective"],
        )

    def _ordered(self) -> "list[ItemRecord]":
        """Return the records in the order of the sweep; xdist delivers them as they end."""
        from .sweep import Point

        order = {point: number for number, point in enumerate(self.sweep.points)}

        def place(record: "ItemRecord") -> int:
            where = record.verdict
            return order[Point(where.variant, where.model, where.pp)]

        return sorted(self._records, key=place)

    def _report(self) -> Any:
        import platform

        from . import __version__
        from .capture.devices import host_identity
        from .report.schema import merge

        sweep = self.sweep
        environment = {
            "pp_harness": __version__,
            "pin": sweep.pin.version,
            "vllm": f"{sweep.installed.distribution} {sweep.installed.version}",
            "series": sweep.subject.name,
            "patches": dict(sweep.subject.digests),
            "trees": sweep.tree_digests,
            "host": host_identity(sweep.device),
            "device": sweep.device,
            "devices": len(sweep.devices.ids),
            "gsm8k": self._config.getoption("--pp-gsm8k"),
            "gsm8k_limit": sweep.options.gsm8k_limit,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **dict(sweep.versions),
        }
        return merge(self._ordered(), environment, self.expectations.not_applicable(sweep.points))


def _item_record(
    check: str, point: "Point", verdict: "Verdict", outcome: Any, cells: "list[CellRecord]"
) -> "ItemRecord":
    from .report.schema import FindingRecord, ItemRecord, VerdictRecord

    where = {"variant": point.variant, "model": point.model, "pp": point.pp, "check": check}
    return ItemRecord(
        verdict=VerdictRecord.model_validate(
            {
                **where,
                "verdict": verdict.outcome.value,
                "expected": outcome.kind == "expected",
                "summary": verdict.summary,
                "reason": outcome.reason,
                "figures": verdict.figures,
            }
        ),
        findings=[
            FindingRecord.model_validate({**where, **asdict(finding)})
            for finding in verdict.findings
        ],
        cells=cells,
    )


def _check_folder(option: str, folder: Path) -> None:
    """Refuse now what could not be written after an hour of engines; nothing is made yet."""
    from .errors import BadInputError

    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if path.exists())
    if not nearest.is_dir():
        raise BadInputError(f"{option} {folder}: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BadInputError(f"{option} {folder}: {nearest} cannot be written to")


def _names(values: list[str] | None) -> tuple[str, ...]:
    """Split repeated, comma-separated option values."""
    return tuple(name for value in values or () for name in value.split(",") if name)


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _cut(text: str) -> tuple[int, ...]:
    from .errors import BadInputError

    try:
        cut = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"--pp-partition {text}: give layers per stage, e.g. 3,5") from None
    if min(cut) < 1:
        raise BadInputError(f"--pp-partition {text}: every stage needs a layer")
    return cut
