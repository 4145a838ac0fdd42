"""Results of a self-test: a matrix of changes and checks, and its rates."""

from dataclasses import dataclass
from typing import Any

from ..capture.record import Capture
from ..checks.finding import Outcome, Verdict
from ..checks.judge import judge
from ..checks.registry import Comparison, Need, check_names, checks
from ..engine.seeded import AFTER_LAYERS, SeededChange
from ..engine.settings import Profile

# The share of faults with a place that must be placed rightly.
_LEAST_LOCATED = 0.95
# The findings that name the stage and the layer of the first difference.
_PLACES = {"LOG001", "LOG006"}
# Of these one must fail or stay undecided under a fault; accuracy is too coarse for most.
_DECISIVE = ("contract", "logits")


@dataclass(frozen=True)
class ChangeResult:
    """The outcome of each check under one change, and where the first difference was found.

    A check that could not be asked has no outcome. `stage` and `layer` are None where no check
    names a place, AFTER_LAYERS where all layers are equal and logits are not.
    """

    change: SeededChange
    outcomes: dict[str, Outcome]
    codes: tuple[str, ...]
    stage: int | None
    layer: int | None

    @classmethod
    def of(cls, change: SeededChange, reference: Capture, capture: Capture) -> "ChangeResult":
        """Judge a capture under a change against the unchanged one at PP=1."""
        verdicts = _verdicts(reference, capture)
        findings = [finding for verdict in verdicts.values() for finding in verdict.findings]
        place = next((finding for finding in findings if finding.code in _PLACES), None)
        stage, layer = (place.stage, place.layer) if place else (None, None)
        if place is not None and layer is None:
            stage, layer = len(capture.stages) - 1, AFTER_LAYERS
        errors = {code for verdict in verdicts.values() for code in verdict.error_codes}
        return cls(change, _outcomes(verdicts), tuple(sorted(errors)), stage, layer)

    @property
    def caught_by(self) -> tuple[str, ...]:
        """The checks that failed."""
        return tuple(name for name, outcome in self.outcomes.items() if outcome is Outcome.FAIL)

    @property
    def is_undecided(self) -> bool:
        """Whether noise keeps a check from passing and none fails, as is allowed under stress."""
        return (
            self.change.profile is not Profile.PARITY
            and not self.caught_by
            and any(self.outcomes[name] is Outcome.INCONCLUSIVE for name in _DECISIVE)
        )

    @property
    def is_localisable(self) -> bool:
        """Whether there is a layer to name."""
        return self.change.layer is not None

    @property
    def is_located(self) -> bool:
        """Whether there is a place to name, and stage and layer are the right ones."""
        expected = (self.change.stage, self.change.layer)
        return self.is_localisable and (self.stage, self.layer) == expected

    @property
    def is_quiet(self) -> bool:
        """Whether no check raises an alarm, as must be for a harmless change."""
        return _is_quiet(self.change.profile, self.outcomes)


@dataclass(frozen=True)
class UnchangedPair:
    """Two unchanged runs in one profile, and the outcome of each check."""

    name: str
    profile: Profile
    outcomes: dict[str, Outcome]

    @classmethod
    def of(cls, name: str, left: Capture, right: Capture) -> "UnchangedPair":
        """Judge two captures."""
        return cls(name, left.cell.profile, _outcomes(_verdicts(left, right)))

    @property
    def is_quiet(self) -> bool:
        """Whether no check raises an alarm."""
        return _is_quiet(self.profile, self.outcomes)


@dataclass(frozen=True)
class SelftestReport:
    """All results of one self-test; `not_run` names engines that broke off, and why."""

    results: tuple[ChangeResult, ...]
    pairs: tuple[UnchangedPair, ...]
    not_run: tuple[str, ...] = ()

    @property
    def figures(self) -> dict[str, Any]:
        """Counts and rates; `only` counts the faults that one check alone caught.

        What noise leaves undecided is not counted as placed or not.
        """
        faults = [result for result in self.results if not result.change.harmless]
        harmless = [result for result in self.results if result.change.harmless]
        caught = sum(bool(result.caught_by) for result in faults)
        localisable = sum(r.is_localisable and not r.is_undecided for r in faults)
        located = sum(result.is_located for result in faults)
        expected_quiet: list[ChangeResult | UnchangedPair] = [*harmless, *self.pairs]
        return {
            "faults": len(faults),
            "caught": caught,
            "undecided": sum(result.is_undecided for result in faults),
            "mutation_score": caught / len(faults) if faults else None,
            "harmless": len(harmless),
            "aa_pairs": len(self.pairs),
            "false_alarms": sum(not result.is_quiet for result in expected_quiet),
            "localisable": localisable,
            "located": located,
            "location_accuracy": located / localisable if localisable else None,
            "only": {
                check: sum(result.caught_by == (check,) for result in faults)
                for check in check_names()
            },
        }

    @property
    def is_good(self) -> bool:
        """Whether all ran, no fault passes, nothing harmless alarms and enough places are right."""
        figures = self.figures
        located = figures["location_accuracy"]
        return (
            not self.not_run
            and figures["caught"] + figures["undecided"] == figures["faults"]
            and figures["false_alarms"] == 0
            and (located is None or located >= _LEAST_LOCATED)
        )

    def document(self) -> dict[str, Any]:
        """All of it as `--json` writes it."""
        return {
            "schema": "pp-harness-selftest/1",
            "figures": self.figures,
            "results": [_record(result) for result in self.results],
            "aa_pairs": [{"name": pair.name, "verdicts": pair.outcomes} for pair in self.pairs],
            "not_run": list(self.not_run),
        }


_DECLARED = ("model", "pp", "profile", "stage", "layer", "harmless", "quick", "fine")


def _record(result: ChangeResult) -> dict[str, Any]:
    change = result.change
    return {
        "name": change.name,
        "kind": change.kind,
        "what": change.description,
        **{name: getattr(change, name) for name in _DECLARED},
        "verdicts": result.outcomes,
        "codes": list(result.codes),
        "caught_by": list(result.caught_by),
        "found_stage": result.stage,
        "found_layer": result.layer,
    }


def _verdicts(left: Capture, right: Capture) -> dict[str, Verdict]:
    """The verdict of each check that two captures can be asked."""
    verdicts = {}
    for check in checks():
        if Need.BOUNDARY in check.needs and len(right.stages) == 1:
            continue
        if Need.TOKENIZER in check.needs and not (left.answers and right.answers):
            continue
        verdicts[check.name] = judge(check.name, Comparison(left, right))
    return verdicts


def _outcomes(verdicts: dict[str, Verdict]) -> dict[str, Outcome]:
    return {check: verdict.outcome for check, verdict in verdicts.items()}


def _is_quiet(profile: Profile, outcomes: dict[str, Outcome]) -> bool:
    """Whether every check passes; under stress, where noise may leave one undecided, none fails."""
    if profile is Profile.PARITY:
        return all(outcome is Outcome.PASS for outcome in outcomes.values())
    return Outcome.FAIL not in outcomes.values()
