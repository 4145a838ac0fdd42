"""What a self-test found: a matrix of faults and checks, and three rates."""

from dataclasses import asdict, dataclass
from typing import Any

from ..capture.record import Capture
from ..checks.finding import Outcome, Verdict
from ..checks.judge import judge
from ..checks.registry import Need, check_names, checks
from .catalogue import AFTER_LAYERS, Seed


@dataclass(frozen=True)
class Result:
    """What each check said of one change, and where the difference was placed."""

    seed: Seed
    verdicts: dict[str, Outcome]
    codes: tuple[str, ...]
    stage: int | None
    layer: int | None

    @property
    def caught_by(self) -> tuple[str, ...]:
        """Return the checks that failed."""
        return tuple(c for c, outcome in self.verdicts.items() if outcome is Outcome.FAIL)

    @property
    def is_located(self) -> bool:
        """Whether there is a place to name, and stage and layer are the right ones."""
        return self.seed.is_localisable and (self.stage, self.layer) == (
            self.seed.stage,
            self.seed.layer,
        )

    @property
    def is_quiet(self) -> bool:
        """Whether no check spoke, as must be for a harmless change."""
        return all(outcome is Outcome.PASS for outcome in self.verdicts.values())


@dataclass(frozen=True)
class Pair:
    """Two unchanged runs, and what the checks say of them; anything but a pass is a false alarm."""

    name: str
    verdicts: dict[str, Outcome]

    @classmethod
    def of(cls, name: str, left: Capture, right: Capture) -> "Pair":
        """Judge two captures."""
        verdicts = _judged(left, right)
        return cls(name, {check: verdict.outcome for check, verdict in verdicts.items()})

    @property
    def is_quiet(self) -> bool:
        """Whether every check passed."""
        return all(outcome is Outcome.PASS for outcome in self.verdicts.values())


@dataclass(frozen=True)
class Selftest:
    """All results of a run."""

    results: tuple[Result, ...]
    pairs: tuple[Pair, ...]

    @property
    def faults(self) -> list[Result]:
        """Return the results of faults."""
        return [one for one in self.results if not one.seed.harmless]

    @property
    def harmless(self) -> list[Result]:
        """Return the results of harmless changes."""
        return [one for one in self.results if one.seed.harmless]

    @property
    def figures(self) -> dict[str, Any]:
        """Return the counts and the three rates; `only` counts by the one check that caught."""
        faults = self.faults
        quiet: list[Result | Pair] = [*self.harmless, *self.pairs]
        caught = [one for one in faults if one.caught_by]
        places = [one for one in faults if one.seed.is_localisable]
        placed = [one for one in places if one.is_located]
        alarms = [one for one in quiet if not one.is_quiet]
        return {
            "faults": len(faults),
            "caught": len(caught),
            "mutation_score": len(caught) / len(faults) if faults else None,
            "harmless": len(self.harmless),
            "aa_pairs": len(self.pairs),
            "false_alarms": len(alarms),
            "localisable": len(places),
            "located": len(placed),
            "location_accuracy": len(placed) / len(places) if places else None,
            "only": {
                check: sum(one.caught_by == (check,) for one in faults) for check in check_names()
            },
        }

    @property
    def is_good(self) -> bool:
        """Whether every fault is caught and nothing harmless is."""
        figures = self.figures
        located = figures["location_accuracy"]
        return (
            figures["caught"] == figures["faults"]
            and figures["false_alarms"] == 0
            and (located is None or located >= 0.95)
        )

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON would have it."""
        return {
            "schema": "pp-harness-selftest/1",
            "figures": self.figures,
            "results": [
                {
                    **asdict(one.seed),
                    "verdicts": one.verdicts,
                    "codes": list(one.codes),
                    "caught_by": list(one.caught_by),
                    "found_stage": one.stage,
                    "found_layer": one.layer,
                }
                for one in self.results
            ],
            "aa_pairs": [{"name": one.name, "verdicts": one.verdicts} for one in self.pairs],
        }


def result_of(seed: Seed, reference: Capture, capture: Capture) -> Result:
    """Judge what ran under a change against the unchanged run at PP=1."""
    verdicts = _judged(reference, capture)
    findings = [one for verdict in verdicts.values() for one in verdict.findings]
    place = next((one for one in findings if one.code == "LOG001"), None)
    stage, layer = (place.stage, place.layer) if place else (None, None)
    if place is not None and layer is None:  # no layer differs: it lies behind the last one
        stage, layer = len(capture.stages) - 1, AFTER_LAYERS
    return Result(
        seed,
        {check: verdict.outcome for check, verdict in verdicts.items()},
        tuple(sorted({code for verdict in verdicts.values() for code in verdict.error_codes})),
        stage,
        layer,
    )


def _judged(left: Capture, right: Capture) -> dict[str, Verdict]:
    verdicts = {}
    for check in checks():
        if Need.BOUNDARY in check.needs and len(right.stages) == 1:
            continue
        if Need.TOKENIZER in check.needs and not (left.answers and right.answers):
            continue
        verdicts[check.name] = judge(check.name, left, right)
    return verdicts
