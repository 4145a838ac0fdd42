"""From a check of a point to its verdict and record: refuse, or compare two captures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..capture.devices import DevicePool
from ..capture.runner import CaptureResult
from ..checks.expectations import Expectations, Judgement
from ..checks.finding import Outcome, Verdict, blocked_by
from ..checks.judge import judge
from ..checks.refusals import judge_devices, judge_partition, judge_serving
from ..plan.cell import Cell
from ..plan.points import Point
from ..plan.sweep import Sweep
from ..report.records import ItemRecord, cell_record, item_record
from ..report.schema import CellRecord


@dataclass(frozen=True)
class Judge:
    """Judges the points of several sweeps, by the pin of the point."""

    sweeps: Mapping[str, Sweep]
    expectations: Mapping[str, Expectations]
    pool: DevicePool

    def refusal(self, point: Point) -> Verdict | None:
        """Give the verdict on a point that needs no engine to be answered."""
        sweep = self.sweeps[point.pin]
        return (
            judge_partition(sweep.partition(point))
            or judge_serving(sweep.servings[point.serving], sweep.device)
            or judge_devices(self.pool, sweep.cell(point))
        )

    def __call__(
        self, check: str, point: Point, obtain: Callable[[Cell], CaptureResult]
    ) -> tuple[Judgement, ItemRecord]:
        """Judge a check: what the expectations make of its verdict, and the record of both.

        `obtain` waits for the capture of a cell.
        """
        sweep = self.sweeps[point.pin]
        refusal = self.refusal(point)
        cells: list[CellRecord] = []
        if refusal is not None:
            engine = refusal
            alone = check == "engine" or refusal.outcome is Outcome.NOT_APPLICABLE
            verdict = refusal if alone else blocked_by(refusal)
        else:
            made = {place: sweep.cell(place) for place in (point.baseline, point)}
            candidate, baseline = obtain(made[point]), obtain(made[point.baseline])
            both = baseline.capture, candidate.capture
            verdict = engine = judge("engine", *both)
            if check != "engine":
                eager = made[point.baseline].eager
                beside = None if eager is None else obtain(eager).capture
                verdict = judge(check, *both, sweep.options.margin, beside)
            cells = [
                cell_record(place, cell, result.capture, sweep.pin.version, fresh=result.fresh)
                for (place, cell), result in zip(made.items(), (baseline, candidate), strict=True)
            ]
        outcome = self.expectations[point.pin].judge(check, point, verdict, engine)
        return outcome, item_record(check, point, sweep.pin.version, verdict, outcome, cells)
