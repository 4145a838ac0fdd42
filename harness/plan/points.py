"""Points of a sweep: one record with one name and one order, for plan, checks and reports."""

from dataclasses import dataclass, fields, replace
from typing import Any

from ..engine.settings import Kernels, Profile


@dataclass(frozen=True, order=True)
class Point:
    """What a check judges: a variant and a model at PP=N, compared with PP=1.

    `pin` is empty for the default pin, `serving` where no setting of vLLM's own was asked for.
    """

    variant: str
    model: str
    pp: int
    profile: Profile = Profile.PARITY
    tp: int = 1
    pin: str = ""
    kernels: Kernels = Kernels.DEFAULT
    serving: str = ""

    @classmethod
    def of(cls, record: Any) -> "Point":
        """Point of a record (verdict, finding, cell, history line) that names all parts."""
        names = (entry.name for entry in fields(cls))
        return cls(**{name: getattr(record, name) for name in names})

    @property
    def id(self) -> str:
        """Its name, as in pytest's item ids; what is at its default is left out."""
        profile = "" if self.profile == Profile.PARITY else f"-{self.profile}"
        kernels = "" if self.kernels == Kernels.DEFAULT else f"-{self.kernels}"
        tp = f"-tp{self.tp}" if self.tp > 1 else ""
        pin = f"-v{self.pin}" if self.pin else ""
        serving = f"-{self.serving}" if self.serving else ""
        return f"{self.variant}-{self.model}-pp{self.pp}{profile}{kernels}{tp}{serving}{pin}"

    @property
    def baseline(self) -> "Point":
        """The point of the same engine at PP=1."""
        return replace(self, pp=1)
