"""Run the engines of a self-test and judge each change by the checks of the sweep.

One engine for each model and PP: its changes are switched between its probes. The reference is the
unchanged run at PP=1.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..capture.children import ForkServers
from ..capture.devices import lease
from ..capture.launch import launch
from ..capture.pools import find_pool
from ..capture.record import Capture
from ..engine.names import SELFTEST
from ..engine.settings import Profile
from ..errors import BadInputError
from ..plan.options import Options
from ..plan.points import Point
from ..plan.sweep import Sweep
from .catalogue import Seed
from .outcome import Pair, Result, Selftest, result_of
from .split import split

_VARIANT = "fixed"
_TIMEOUT = 600.0
# Enough for the exact test to speak: five lost of five have p = 0.03.
QUESTIONS = 16


def run_selftest(
    seeds: tuple[Seed, ...],
    questions: int,
    store: Path | None,
    dtype: str,
    say: Callable[[str], None],
) -> Selftest:
    """Run those of `seeds` that this host and `dtype` can show, and return what each check said.

    `questions` are asked under each change; none with 0, and accuracy then says nothing.

    Raises:
        BadInputError: if vLLM is not there, nothing can be shown, or an engine of `fixed` does not
            run by itself.
    """
    sweep = Sweep(
        Options(
            pps=tuple(sorted({seed.pp for seed in seeds})),
            variants=(_VARIANT,),
            profiles=tuple(dict.fromkeys(Profile(seed.profile) for seed in seeds)),
            gsm8k_limit=questions or 1,
            dtype=dtype,
            store=store,
        )
    )
    seeds = shown_here(seeds, sweep, say)
    found: list[Result | Pair] = []
    servers = ForkServers()
    pool = find_pool(sweep)
    try:
        # One lease for all engines: they run one after another, and wait for no other run.
        with lease(pool, pool.needed(max(seed.pp for seed in seeds), 1)) as devices:
            for model, profile in sorted({(seed.model, seed.profile) for seed in seeds}):
                with tempfile.TemporaryDirectory() as scratch:
                    unchanged = Point(_VARIANT, model, 1, Profile(profile))
                    engines = _Engines(
                        sweep, servers, devices, Path(scratch), unchanged, questions > 0, say
                    )
                    mine = [s for s in seeds if (s.model, s.profile) == (model, profile)]
                    found += _of_engines(engines, unchanged, tuple(mine))
    finally:
        servers.close()
    return Selftest(
        tuple(one for one in found if isinstance(one, Result)),
        tuple(one for one in found if isinstance(one, Pair)),
    )


def shown_here(
    seeds: tuple[Seed, ...], sweep: Sweep, say: Callable[[str], None]
) -> tuple[Seed, ...]:
    """Return the seeds that can be shown here, and say why the others cannot."""
    why = {seed.name: reason for seed in seeds if (reason := _hindrance(seed, sweep))}
    for name, reason in why.items():
        say(f"{name} is left out: {reason}")
    shown = tuple(seed for seed in seeds if seed.name not in why)
    if not shown:
        first = next(iter(why))
        raise BadInputError(f"no chosen fault can be shown here; {first}: {why[first]}")
    return shown


def _hindrance(seed: Seed, sweep: Sweep) -> str | None:
    pool = find_pool(sweep)
    if seed.fine and sweep.dtype == "bfloat16":
        return "in bfloat16 it changes no bit"
    if pool.needed(seed.pp, 1) > len(pool.ids):
        return f"PP={seed.pp} needs a GPU for each rank, here are {len(pool.ids)}"
    return None


def _of_engines(
    engines: "_Engines", unchanged: Point, seeds: tuple[Seed, ...]
) -> Iterator[Result | Pair]:
    """Yield what the checks say of the seeds of a model and profile, and of its unchanged runs."""
    model = unchanged.model + ("" if unchanged.profile == "parity" else f" {unchanged.profile}")
    reference, *again = engines.plain()
    for one in again:
        yield Pair.of(f"{model} PP=1 again", reference, one)
    for pp in sorted({seed.pp for seed in seeds}):
        mine = tuple(seed for seed in seeds if seed.pp == pp)
        captures = engines.changed(pp, mine)
        for seed in mine:
            yield result_of(seed, reference, captures[SELFTEST + seed.name])
        before, after = captures[""], captures[SELFTEST + "last"]
        yield Pair.of(f"{model} PP=1, PP={pp}", reference, before)
        yield Pair.of(f"{model} PP=1, PP={pp} after all changes", reference, after)
        yield Pair.of(f"{model} PP={pp} before and after", before, after)
        yield Pair.of(f"{model} PP={pp}, two engines", before, engines.fresh(pp))
        yield Pair.of(f"{model} PP=1 of another engine, PP={pp}", again[-1], before)


class _Engines:
    """The engines of one model in one profile; `unchanged` is its point at PP=1."""

    def __init__(
        self,
        sweep: Sweep,
        servers: ForkServers,
        devices: tuple[int, ...],
        scratch: Path,
        unchanged: Point,
        ask: bool,
        say: Callable[[str], None],
    ) -> None:
        self._sweep, self._servers, self._devices = sweep, servers, devices
        self._scratch, self._unchanged, self._ask, self._say = scratch, unchanged, ask, say
        self._pool = find_pool(sweep)
        self._count = 0

    def plain(self) -> list[Capture]:
        """Return three unchanged runs at PP=1: two of one engine, one of another."""
        once = self._launch(1, (SELFTEST + "nothing",))
        return [*split(once, (SELFTEST + "nothing",), self._folder()).values(), self.fresh(1)]

    def fresh(self, pp: int) -> Capture:
        """Return the unchanged run of another engine."""
        return split(self._launch(pp, ()), (), self._folder())[""]

    def changed(self, pp: int, seeds: tuple[Seed, ...]) -> dict[str, Capture]:
        """Return a capture for each seed, "" before all of them and `last` after them."""
        names = [SELFTEST + seed.name for seed in seeds] + [SELFTEST + "last"]
        return split(self._launch(pp, tuple(names)), names, self._folder())

    def _launch(self, pp: int, changes: tuple[str, ...]) -> Capture:
        cell = self._sweep.cell(replace(self._unchanged, pp=pp))
        folder = self._folder()
        devices = self._devices[: self._pool.needed(pp, 1)]
        manifest = launch(
            cell,
            folder,
            devices,
            self._servers,
            phase_timeout=_TIMEOUT + 20 * len(changes),
            changes=changes,
            ask_under_changes=self._ask,
        )
        self._say(f"{cell.id}: {len(changes)} changes in {manifest.seconds['total']:.0f} s")
        capture = Capture(folder, manifest)
        if capture.status != "ok":
            raise BadInputError(
                f"{cell.id} did not run: {capture.failure and capture.failure.error}"
            )
        return capture

    def _folder(self) -> Path:
        self._count += 1
        folder = self._scratch / str(self._count)
        folder.mkdir()
        return folder
