"""Known findings: which checks are expected to fail, why, and until when they may.

Strict: a check in an entry's scope must show every code that the entry names and no other; one
that passes is reported as cured and fails until the entry is removed.
"""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import BadInputError
from ..plan.points import Point
from .finding import Outcome, Severity, Verdict


class _Entry(BaseModel):
    """One `[[expected]]` table. Patterns are shell patterns; `*` is any."""

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

    @field_validator("checks")
    @classmethod
    def _name_a_check(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        from .judge import CHECKS

        for pattern in patterns:
            if not any(fnmatchcase(check, pattern) for check in CHECKS):
                raise ValueError(f"{pattern!r} is no check; there are {', '.join(CHECKS)}")
        return patterns


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    expected: tuple[_Entry, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What is the same for all points of a run, as far as entries are scoped by it."""

    pin: str
    series: str
    device: str
    gsm8k: str
    mode: str = "eager"


@dataclass(frozen=True)
class Judgement:
    """What the expectations make of a verdict.

    `ok`, `expected` (reason), `unexpected` (why) or `not-applicable` (why).
    """

    kind: str
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
        ]

    def not_applicable(self, points: tuple[Point, ...]) -> list[str]:
        """Return the reasons of the entries that no point of this run falls under."""
        from .judge import CHECKS

        used = {
            id(entry) for point in points for check in CHECKS for entry in self._of(check, point)
        }
        return [entry.reason for entry in self._all if id(entry) not in used]

    def judge(self, check: str, point: Point, verdict: Verdict, engine: Verdict) -> Judgement:
        """Weigh the verdict of a check; `engine` is the engine verdict of the same point.

        An expected engine failure covers the checks that it leaves without an answer.
        """
        if verdict.outcome is Outcome.NOT_APPLICABLE:
            return Judgement("not-applicable", verdict.summary)
        entries = self._of(check, point)
        if verdict.outcome is Outcome.PASS:
            if entries:
                names = ", ".join(code for entry in entries for code in entry.codes)
                return Judgement(
                    "unexpected",
                    f"cured: {names} is expected here ({entries[0].reason}) and did not show; "
                    "remove the entry from expected.toml",
                )
            return Judgement("ok")
        if verdict.outcome is Outcome.BLOCKED and check != "engine" and not verdict.findings:
            if engine.outcome is not Outcome.PASS:
                cause = self.judge("engine", point, engine, engine)
                if cause.kind == "expected":
                    return Judgement("expected", f"blocked by the engine: {cause.reason}")
            return Judgement("unexpected", verdict.summary)
        seen = {f.code for f in verdict.findings if f.severity is not Severity.INFO}
        named = {code for entry in entries for code in entry.codes}
        if entries and seen == named:
            return Judgement("expected", "; ".join(f"{e.reason} ({e.link})" for e in entries))
        return Judgement("unexpected", verdict.summary)


def load_expectations(path: Path | None, setting: Setting) -> Expectations:
    """Read an `expected.toml`; without a path nothing is expected.

    Raises:
        BadInputError: if the file cannot be read or an entry is not well formed.
    """
    if path is None:
        return Expectations((), setting)
    try:
        document = _Document.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInputError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInputError(f"{path}: {where}: {first['msg']}") from error
    return Expectations(document.expected, setting)


def _any(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
