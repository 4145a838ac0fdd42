"""The checks of a point: each registers its name, needs, figures and judge function.

A check is a module of this room that calls `register`; tables, reports, expectations, trends and
the self-test read the registry and know no check by name.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache

from ..capture.record import Capture
from ..plan.options import DEFAULT_MARGIN
from .finding import Verdict

# The check of the engines themselves: where it fails, the others have no answer.
ENGINE = "engine"


class Need(Flag):
    """Conditions without which a check has no answer; a check without any judges whatever ran."""

    BOUNDARY = auto()  # two stages or more
    TOKENIZER = auto()  # a model that can be asked questions
    CANDIDATE = auto()  # a whole engine at PP=N
    BASELINE = auto()  # a whole engine at PP=1
    BESIDE = auto()  # PP=1 in eager mode beside compiled code, without drafts beside drafted tokens


@dataclass(frozen=True)
class Comparison:
    """Captures of a point at PP=1 and PP=N; `margin` is the accepted fall of accuracy (a share).

    `beside` is PP=1 as `Cell.beside` has it, where the point has such an engine and the check needs
    it.
    """

    baseline: Capture
    candidate: Capture
    margin: float = DEFAULT_MARGIN
    beside: Capture | None = None


@dataclass(frozen=True)
class Figure:
    """A number behind a verdict: its name in report.json, its label and its unit on the page.

    A `is_distance` figure measures how far PP=N is from PP=1, as its noise floor does for PP=1 and
    itself.
    """

    name: str
    label: str
    unit: str = ""
    is_distance: bool = False

    @property
    def title(self) -> str:
        """Label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True)
class Check:
    """A check of a point.

    Checks are shown by `order`, which leaves room between neighbours. `trend` names the figure that
    stands for the check in a history, `output` the output of a capture (`outputs` of a cell in
    report.json) whose bits the check compares; both are empty where there is none.
    """

    name: str
    order: int
    needs: Need
    judge: Callable[[Comparison], Verdict]
    figures: tuple[Figure, ...] = ()
    trend: str = ""
    output: str = ""


_registered: dict[str, Check] = {}


def register(check: Check) -> Check:
    """Add a check to the registry, and hand it back.

    Raises:
        ValueError: if another module has registered a check of that name.
    """
    known = _registered.setdefault(check.name, check)
    if known.judge.__module__ != check.judge.__module__:
        raise ValueError(f"{known.judge.__module__} has registered the check {check.name} already")
    return check


def checks() -> tuple[Check, ...]:
    """All checks in their order."""
    _import_checks()
    return tuple(sorted(_registered.values(), key=lambda check: (check.order, check.name)))


def check_names() -> tuple[str, ...]:
    """Names of all checks in their order."""
    return tuple(check.name for check in checks())


def find_check(name: str) -> Check | None:
    """The check of a name; None if it has none here, as in a report of another version."""
    _import_checks()
    return _registered.get(name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of checks, each once, in the order of the registry; unknown ones last, as first met."""
    met = dict.fromkeys(names)
    known = [name for name in check_names() if name in met]
    return (*known, *(name for name in met if name not in known))


def figure_of(check: str, name: str) -> Figure:
    """The figure `name` of a check; one that the registry does not know has its name as label."""
    registered = find_check(check)
    figures = registered.figures if registered else ()
    return next((figure for figure in figures if figure.name == name), Figure(name, name))


@cache
def _import_checks() -> None:
    """Import every module of this room: checks register themselves at import."""
    room = importlib.import_module(__package__)
    for module in pkgutil.walk_packages(room.__path__, f"{__package__}."):
        importlib.import_module(module.name)
