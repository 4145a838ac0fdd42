"""Run the engines of a self-test and judge each change by the checks of the sweep.

One engine runs all changes of a model, a profile and a PP size, one after another. Each is
compared with the unchanged run at PP=1.
"""

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ..capture.children import ForkServers
from ..capture.devices import DevicePool, lease
from ..capture.launch import launch
from ..capture.manifest import Status
from ..capture.pools import find_pool
from ..capture.record import Capture
from ..engine.names import SELFTEST
from ..engine.seeded import UNCHANGED, SeededChange
from ..engine.settings import Profile
from ..errors import BadInputError
from ..plan.options import Options
from ..plan.points import Point
from ..plan.sweep import Sweep, plan_sweeps
from .by_change import captures_by_change
from .outcome import ChangeResult, SelftestReport, UnchangedPair

_VARIANT = "fixed"
# Seconds that a phase of an engine may take, and more for each change.
_TIMEOUT, _TIMEOUT_PER_CHANGE = 600.0, 20.0
# Enough for the exact test to speak: five lost of five have p = 0.03, in parity enough.
QUESTIONS = 16

Progress = Callable[[str], None]


def run_selftest(
    changes: tuple[SeededChange, ...],
    questions: int,
    store: Path | None,
    dtype: str,
    pins: tuple[str, ...],
    progress: Progress,
) -> SelftestReport:
    """Run those of `changes` that this host and `dtype` can show, and judge them.

    `pins` names the release; empty: the default pin. `questions` are asked under each change; with
    0 there is no accuracy check, and no engine runs twice. `progress` is handed a line for each
    engine and for each change that is left out.

    Raises:
        BadInputError: if vLLM is not there, or nothing can be shown.
    """
    sweeps = plan_sweeps(
        Options(
            pps=tuple(sorted({change.pp for change in changes})),
            variants=(_VARIANT,),
            profiles=tuple(dict.fromkeys(change.profile for change in changes)),
            gsm8k_limit=questions or 1,
            dtype=dtype,
            store=store,
            pins=pins,
        )
    )
    (sweep,) = sweeps.values()
    pool = find_pool(sweep)
    changes = possible_here(changes, pool, sweep.dtype, progress)
    results: list[ChangeResult] = []
    pairs: list[UnchangedPair] = []
    not_run: list[str] = []
    # One lease for all engines: they run one after another, and wait for no other run.
    needed = pool.needed(max(change.pp for change in changes), 1)
    with closing(ForkServers()) as servers, lease(pool, needed) as devices:
        for model, profile in sorted({(change.model, change.profile) for change in changes}):
            unchanged = Point(_VARIANT, model, 1, profile)
            own = [
                change for change in changes if (change.model, change.profile) == (model, profile)
            ]
            with tempfile.TemporaryDirectory() as scratch:
                engines = _Engines(
                    sweep=sweep,
                    pool=pool,
                    servers=servers,
                    devices=devices,
                    scratch=Path(scratch),
                    unchanged=unchanged,
                    with_questions=questions > 0,
                    progress=progress,
                )
                try:
                    of_engines = _judge_engines(engines, own)
                except _NotRunError as error:
                    not_run.append(str(error))
                    continue
            results += of_engines.results
            pairs += of_engines.pairs
    return SelftestReport(tuple(results), tuple(pairs), tuple(not_run))


def possible_here(
    changes: tuple[SeededChange, ...], pool: DevicePool, dtype: str, progress: Progress
) -> tuple[SeededChange, ...]:
    """The changes that can be shown on these devices and in this dtype; the others are reported.

    Raises:
        BadInputError: if nothing is left.
    """
    obstacles = {
        change.name: obstacle for change in changes if (obstacle := _obstacle(change, pool, dtype))
    }
    for name, obstacle in obstacles.items():
        progress(f"{name} is left out: {obstacle}")
    possible = tuple(change for change in changes if change.name not in obstacles)
    if not possible:
        name, obstacle = next(iter(obstacles.items()))
        raise BadInputError(f"no chosen fault can be shown here; {name}: {obstacle}")
    return possible


def _obstacle(change: SeededChange, pool: DevicePool, dtype: str) -> str | None:
    if change.fine and dtype == "bfloat16":
        return "in bfloat16 it changes no bit"
    if pool.needed(change.pp, 1) > len(pool.ids):
        return f"PP={change.pp} needs a GPU for each rank, here are {len(pool.ids)}"
    return None


class _NotRunError(Exception):
    """An engine broke off, and with it all that was to be compared with it."""


@dataclass(frozen=True, kw_only=True)
class _Engines:
    """Engines of one model in one profile; `unchanged` is its point at PP=1."""

    sweep: Sweep
    pool: DevicePool
    servers: ForkServers
    devices: tuple[int, ...]
    scratch: Path
    unchanged: Point
    with_questions: bool
    progress: Progress

    def captures(self, pp: int, *names: str) -> dict[str, Capture]:
        """Run one engine without any change and then under each of `names`.

        Returns:
            The captures by the name of the change; "" is the one without any.

        Raises:
            _NotRunError: if the engine fails.
        """
        cell = self.sweep.cell(replace(self.unchanged, pp=pp))
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        changes = tuple(SELFTEST + name for name in names)
        manifest = launch(
            cell,
            folder,
            self.devices[: self.pool.needed(pp, 1)],
            self.servers,
            phase_timeout=_TIMEOUT + _TIMEOUT_PER_CHANGE * len(changes),
            changes=changes,
            ask_under_changes=self.with_questions,
        )
        self.progress(f"{cell.id}: {len(changes)} changes in {manifest.seconds['total']:.0f} s")
        whole = Capture(folder, manifest)
        if whole.status is not Status.OK:
            raise _NotRunError(f"{cell.id} did not run: {whole.failure and whole.failure.error}")
        parts = captures_by_change(whole, changes, folder / "by-change")
        return {change.removeprefix(SELFTEST): part for change, part in parts.items()}


def _judge_engines(engines: _Engines, changes: list[SeededChange]) -> SelftestReport:
    """Judge the changes of one model and profile, and pairs of its unchanged runs."""
    unchanged = engines.unchanged
    model = unchanged.model + (
        "" if unchanged.profile is Profile.PARITY else f" {unchanged.profile}"
    )
    first = engines.captures(1, UNCHANGED)
    reference = first[""]
    results: list[ChangeResult] = []
    to_compare = [("PP=1 again", reference, first[UNCHANGED])]
    other = engines.captures(1)[""] if engines.with_questions else None
    if other:
        to_compare.append(("PP=1, two engines", reference, other))
    for pp in sorted({change.pp for change in changes}):
        own = [change for change in changes if change.pp == pp]
        captures = engines.captures(pp, *(change.name for change in own), UNCHANGED)
        results += [ChangeResult.of(change, reference, captures[change.name]) for change in own]
        before, after = captures[""], captures[UNCHANGED]
        to_compare += [
            (f"PP=1, PP={pp}", reference, before),
            (f"PP=1, PP={pp} after all changes", reference, after),
            (f"PP={pp} before and after", before, after),
        ]
        if other:
            to_compare += [
                (f"PP={pp}, two engines", before, engines.captures(pp)[""]),
                (f"PP=1 of another engine, PP={pp}", other, before),
            ]
    pairs = [UnchangedPair.of(f"{model} {name}", left, right) for name, left, right in to_compare]
    return SelftestReport(tuple(results), tuple(pairs))
