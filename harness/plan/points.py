"""Points of a sweep: one record with one name and one order, for plan, checks and reports."""

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from ..engine.settings import Kernels, Profile


def _part(default: Any, in_id: str = "{}", in_words: str = "{}") -> Any:
    """Declare a part of a point that names leave out where it is at its default."""
    return field(default=default, metadata={"id": in_id, "words": in_words})


@dataclass(frozen=True, order=True)
class Point:
    """What a check judges: a variant and a model at PP=N, compared with PP=1.

    `serving` is empty where no setting of vLLM's own was asked for, `pin` for the default pin.
    """

    variant: str
    model: str
    pp: int
    profile: Profile = _part(Profile.PARITY)
    kernels: Kernels = _part(Kernels.DEFAULT, in_words="{} kernels")
    tp: int = _part(1, in_id="tp{}", in_words="TP {}")
    serving: str = _part("")
    pin: str = _part("", in_id="v{}")

    @classmethod
    def of(cls, record: Any) -> "Point":
        """Point of a record (verdict, finding, cell, history line) that names all parts."""
        return cls(**{entry.name: getattr(record, entry.name) for entry in fields(cls)})

    @property
    def id(self) -> str:
        """Its name, as in pytest's item ids; what is at its default is left out."""
        return "-".join([self.variant, self.model, f"pp{self.pp}", *self._written("id")])

    @property
    def extras(self) -> list[str]:
        """Its parts that are not at their default, but for the pin, in words."""
        return replace(self, pin="")._written("words")

    def _written(self, form: str) -> list[str]:
        return [
            entry.metadata[form].format(value)
            for entry in fields(self)
            if entry.metadata and (value := getattr(self, entry.name)) != entry.default
        ]

    @property
    def baseline(self) -> "Point":
        """The point of the same engine at PP=1."""
        return replace(self, pp=1)

    @property
    def settings(self) -> "Point":
        """The point without its names and sizes: what is left orders points that share those."""
        return replace(self, variant="", model="", pp=0, pin="")


def telling_parts(points: Iterable[Point]) -> list[str]:
    """Name the parts that tell points apart, the release first; all have the first three."""
    points = list(points)
    parts = [
        entry.name
        for entry in fields(Point)
        if entry.default is MISSING or len({getattr(point, entry.name) for point in points}) > 1
    ]
    return sorted(parts, key=lambda name: name != "pin")
