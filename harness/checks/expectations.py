"""Known findings: which checks are expected to fail, why, and until when they may.

Strict: a check in an entry's scope must show every code that the entry names and no other; one
that passes is an unexpected pass, and fails until the entry is removed.
"""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..files import read_toml
from ..plan.points import Point
from .finding import Outcome, Severity, Verdict
from .registry import ENGINE, check_names


class _Entry(BaseModel):
    """One `[[expected]]` table. Patterns are shell patterns; `*` is any.

    A code may be two, `ACC001|ACC002`: one of them shows, and which is a matter of chance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checks: tuple[str, ...] = Field(min_length=1)
    codes: tuple[str, ...] = Field(min_length=1)
    variants: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(min_length=1)
    link: str = Field(min_length=1)
    models: tuple[str, ...] = ("*",)
    pp_min: int = Field(default=2, ge=2)
    pp_max: int | None = Field(default=None, ge=2)
    tp_min: int = Field(default=1, ge=1)
    series: tuple[str, ...] = ("*",)
    pins: tuple[str, ...] = ("*",)
    devices: tuple[str, ...] = ("*",)
    gsm8k: tuple[str, ...] = ("*",)
    modes: tuple[str, ...] = ("*",)
    profiles: tuple[str, ...] = ("*",)
    kernels: tuple[str, ...] = ("*",)

    @field_validator("checks")
    @classmethod
    def _name_a_check(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        names = check_names()
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"{pattern!r} is no check; there are {', '.join(names)}")
        return patterns


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    expected: tuple[_Entry, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Settings that all points of a run share, as far as entries are scoped by them."""

    pin: str
    series: str
    device: str
    gsm8k: str
    mode: str = "eager"


class JudgementKind(StrEnum):
    """Stand of a verdict to the expectations; whatever is not among the first three fails."""

    OK = "ok"
    EXPECTED = "expected"
    NOT_APPLICABLE = "not-applicable"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class Judgement:
    """A verdict weighed against the expectations; `reason` is empty for OK."""

    kind: JudgementKind
    reason: str = ""


class Expectations:
    """The entries that hold for one setting."""

    def __init__(self, entries: tuple[_Entry, ...], setting: Setting) -> None:
        self._all = entries
        self._entries = tuple(
            entry
            for entry in entries
            if _any(entry.pins, setting.pin)
            and _any(entry.series, setting.series)
            and _any(entry.devices, setting.device)
            and _any(entry.gsm8k, setting.gsm8k)
            and _any(entry.modes, setting.mode)
        )

    def _of(self, check: str, point: Point) -> list[_Entry]:
        return [
            entry
            for entry in self._entries
            if _any(entry.checks, check)
            and _any(entry.variants, point.variant)
            and _any(entry.models, point.model)
            and entry.pp_min <= point.pp <= (entry.pp_max or point.pp)
            and entry.tp_min <= point.tp
            and _any(entry.profiles, point.profile)
            and _any(entry.kernels, point.kernels)
        ]

    def not_applicable(self, points: tuple[Point, ...]) -> list[str]:
        """Reasons, each once, under whose entries no point of this run falls."""
        names = check_names()
        used = {
            entry.reason for point in points for check in names for entry in self._of(check, point)
        }
        reasons = dict.fromkeys(entry.reason for entry in self._all)
        return [reason for reason in reasons if reason not in used]

    def judge(self, check: str, point: Point, verdict: Verdict, engine: Verdict) -> Judgement:
        """Weigh the verdict of a check; `engine` is the engine verdict of the same point.

        An expected engine failure covers the checks that it leaves without an answer.
        """
        if verdict.outcome is Outcome.NOT_APPLICABLE:
            return Judgement(JudgementKind.NOT_APPLICABLE, verdict.summary)
        entries = self._of(check, point)
        if verdict.outcome is Outcome.PASS:
            if not entries:
                return Judgement(JudgementKind.OK)
            codes = ", ".join(code for entry in entries for code in entry.codes)
            return Judgement(
                JudgementKind.UNEXPECTED,
                f"unexpected pass: {codes} is expected here ({entries[0].reason}) and did not "
                "show; remove the entry from expected.toml",
            )
        unexpected = Judgement(JudgementKind.UNEXPECTED, verdict.summary)
        if check != ENGINE and verdict.outcome is Outcome.BLOCKED and not verdict.findings:
            cause = self.judge(ENGINE, point, engine, engine)
            if cause.kind is not JudgementKind.EXPECTED:
                return unexpected
            return Judgement(JudgementKind.EXPECTED, f"blocked by the engine: {cause.reason}")
        shown = {f.code for f in verdict.findings if f.severity is not Severity.INFO}
        wanted = [set(code.split("|")) for entry in entries for code in entry.codes]
        if entries and all(shown & codes for codes in wanted) and shown <= set().union(*wanted):
            reasons = "; ".join(f"{entry.reason} ({entry.link})" for entry in entries)
            return Judgement(JudgementKind.EXPECTED, reasons)
        return unexpected


def load_expectations(path: Path | None, setting: Setting) -> Expectations:
    """Read an `expected.toml`; without a path nothing is expected.

    Raises:
        BadInputError: if the file cannot be read or an entry is not well formed.
    """
    if path is None:
        return Expectations((), setting)
    return Expectations(read_toml(path, _Document).expected, setting)


def _any(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
