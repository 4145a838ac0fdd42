"""The subject of a run: the variants of a series, of a patch file or of a checkout."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..assets import patches_dir
from ..errors import BadInputError
from .checkout import Checkout, read_checkout
from .pin import InstalledVllm, Pin, Pins
from .pull_request import read_patch_file
from .series import Variant, load_series


@dataclass(frozen=True)
class Subject:
    """The variants of a run, the release that they stand on, and their sources.

    `name` is the one in reports, `digests` identify the sources, `notes` are shown to the user
    before the run.
    """

    kind: Literal["series", "patch", "checkout"]
    name: str
    pin: Pin
    variants: tuple[Variant, ...]
    digests: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The kind of the subject and its name."""
        return f"{self.kind} {self.name}"

    @property
    def is_release_based(self) -> bool:
        """Whether `base` is the release as it is, so that its known findings are expected."""
        return self.kind != "checkout"


def read_subject(
    pins: Pins,
    locate: Callable[[Pin], InstalledVllm],
    *,
    series: Path | None,
    patch: Path | None,
    checkout: Path | None,
    base: str | None,
    base_version: str | None,
) -> Subject:
    """Read the source that is named; the default pin's own series where none is.

    Raises `BadInputError` if two sources are named, or the one that is named cannot be used.
    """
    sources = {"--pp-series": series, "--pp-patch": patch, "--pp-vllm": checkout}
    named = [option for option, value in sources.items() if value is not None]
    if len(named) > 1:
        raise BadInputError(f"{' and '.join(named)} exclude each other; give one of them")
    if checkout is not None:
        return _of_checkout(read_checkout(checkout, pins, locate, base=base, version=base_version))
    for option, value in (("--pp-base", base), ("--pp-base-version", base_version)):
        if value is not None:
            raise BadInputError(f"{option} is for a checkout; give --pp-vllm DIR with it")
    if patch is not None:
        return _of_patch_file(patch, pins.default)
    return _of_series(series or patches_dir() / pins.default.series, pins.default)


def _of_series(folder: Path, pin: Pin) -> Subject:
    series = load_series(folder)
    digests = {patch.name: patch.digest for patch in series.patches}
    return Subject("series", series.name, pin, series.variants(), digests)


def _of_patch_file(path: Path, pin: Pin) -> Subject:
    file = read_patch_file(path)
    skipped = ", ".join(file.skipped)
    notes = (f"{path.name}: skipped, outside vllm/: {skipped}",) if skipped else ()
    variants = (Variant("base", ()), Variant("patched", file.patches))
    digests = {patch.name: patch.digest for patch in file.patches}
    return Subject("patch", path.name, pin, variants, digests, notes)


def _of_checkout(checkout: Checkout) -> Subject:
    base, worktree = checkout.variants
    notes = [
        f"{checkout.root.name}: base is {checkout.base[:12]} (where HEAD {checkout.head[:12]} left "
        f"{checkout.base_name}), {checkout.compiled}"
    ]
    if base.files == worktree.files:
        notes.append(f"{checkout.root.name}: the work tree changes nothing in vllm/ since its base")
    return Subject(
        "checkout",
        checkout.root.name,
        checkout.pin,
        checkout.variants,
        {"base": checkout.base, "HEAD": checkout.head, "worktree": _digest(worktree)},
        tuple(notes),
    )


def _digest(variant: Variant) -> str:
    """Compute the sha256 of a variant's changes in the release: HEAD does not tell all of them."""
    digest = hashlib.sha256()
    for name, content in sorted(variant.files.items()):
        mark = "deleted" if content is None else hashlib.sha256(content).hexdigest()
        digest.update(f"{name}\0{mark}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
