"""From a check of a point to its verdict and record: refuse, or compare two captures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..capture.devices import DevicePool
from ..capture.runner import CaptureResult
from ..checks.expectations import Expectations, Judgement
from ..checks.finding import Outcome, Verdict, blocked_by
from ..checks.judge import judge
from ..checks.refusals import judge_devices, judge_partition, judge_serving
from ..checks.registry import ENGINE, Comparison, Need, find_check
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
            or judge_serving(sweep.servings[point.serving], sweep.device, sweep.pin.version)
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
            alone = check == ENGINE or refusal.outcome is Outcome.NOT_APPLICABLE
            verdict = refusal if alone else blocked_by(refusal)
        else:
            known = find_check(check)
            made = sweep.cells(point, beside=known is not None and Need.BESIDE in known.needs)
            results = {place: obtain(cell) for place, cell in made.items()}
            candidate, baseline, *beside = (result.capture for result in results.values())
            pair = Comparison(baseline, candidate, sweep.options.margin, *beside)
            verdict = engine = judge(ENGINE, pair)
            if check != ENGINE:
                verdict = judge(check, pair)
            cells = [
                cell_record(
                    place, made[place], result.capture, sweep.pin.version, fresh=result.fresh
                )
                for place, result in results.items()
            ]
        outcome = self.expectations[point.pin].judge(check, point, verdict, engine)
        return outcome, item_record(check, point, sweep.pin.version, verdict, outcome, cells)
