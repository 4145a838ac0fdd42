"""Read a patch series: a folder with an order file `series` and the patches that it names.

The form is quilt's (one patch a line, `#` starts a comment); each patch begins with a header of
`Key: value` lines and an explanation, as Debian's DEP-3 has it. docs/series.md describes both.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from ..errors import BadInputError
from ..files import read_bytes
from .diff import FileDiff, apply_diff, message_of, parse_diff

ORDER_FILE = "series"
_SUFFIXES = (".patch", ".diff")
# What `git format-patch` puts before a subject: [PATCH 1/2].
_MAIL_TAG = re.compile(r"^\[PATCH[^\]]*\]\s*")
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Patch:
    """One patch file: its header and its changes.

    A field that the header lacks is empty; `pins` empty means that the patch names no pin, and
    `variant` falls back on the file's name. `digest` is the sha256 of the file.
    """

    path: Path
    files: tuple[FileDiff, ...]
    digest: str
    variant: str
    subject: str = ""
    why: str = ""
    upstream: str = ""
    pins: tuple[str, ...] = ()
    remove_when: str = ""

    @property
    def name(self) -> str:
        """The name of the patch file."""
        return self.path.name


@dataclass(frozen=True)
class Variant:
    """A changed release, under the name by which reports and options call it.

    `files` puts content in the place of the release's own (None: no such file); then `patches`
    apply. A series and a patch file have patches, a checkout has files.
    """

    name: str
    patches: tuple[Patch, ...]
    files: Mapping[str, bytes | None] = field(default_factory=dict, hash=False, repr=False)


@dataclass(frozen=True)
class Series:
    """The patches of one folder, in the order in which they apply."""

    path: Path
    patches: tuple[Patch, ...]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    def variants(self) -> tuple[Variant, ...]:
        """Return every prefix, shortest first: no patch, the first, the first two, ...

        Raises `BadInputError` if two of them have one name.
        """
        names = ["base"]
        for patch in self.patches:
            if patch.variant in names:
                raise BadInputError(
                    f"{patch.path}: a second variant named {patch.variant!r}; "
                    "give the patch another name in a Variant header"
                )
            names.append(patch.variant)
        return tuple(Variant(name, self.patches[:i]) for i, name in enumerate(names))


def load_series(directory: Path) -> Series:
    """Read the series in `directory`.

    Raises `BadInputError` for an order file that is missing, empty, names a patch twice, one that
    is not there or one outside the folder, or leaves out a patch that lies there; for a patch that
    is not a strict diff of files below `vllm/`; and for variants that share a name.
    """
    directory = directory.resolve()
    order = directory / ORDER_FILE
    if not directory.is_dir():
        raise BadInputError(
            f"{directory}: no such folder; a series is a folder with an order file {ORDER_FILE!r}"
        )
    if not order.is_file():
        raise BadInputError(f"{directory}: no order file named {ORDER_FILE!r} in this folder")
    names = _read_order(order)
    present = {path.name for path in directory.iterdir() if path.suffix in _SUFFIXES}
    if unlisted := sorted(present - set(names)):
        raise BadInputError(
            f"{order}: does not list {', '.join(unlisted)}; list each patch or move it away"
        )
    series = Series(directory, tuple(load_patch(directory / name) for name in names))
    series.variants()
    return series


def load_patch(path: Path) -> Patch:
    """Read one patch file.

    Raises `BadInputError`, naming file and line, if it is no strict diff of files below `vllm/`.
    """
    data = read_bytes(path)
    text = _decode(data, path)
    message = HeaderParser().parsestr(message_of(text))
    reasons = (_header(message, "Description", path), str(message.get_payload()).strip())
    return Patch(
        path=path,
        files=parse_diff(text, str(path)),
        digest=hashlib.sha256(data).hexdigest(),
        variant=_variant_name(_header(message, "Variant", path), path),
        subject=_MAIL_TAG.sub("", _header(message, "Subject", path)),
        why="\n\n".join(reason for reason in reasons if reason),
        upstream=_header(message, "Upstream", path),
        pins=tuple(_header(message, "Pins", path).replace(",", " ").split()),
        remove_when=_header(message, "Remove-when", path),
    )


def header_problems(patch: Patch) -> list[str]:
    """List what the patch's header lacks, a line for each; none if it is complete."""
    required = (
        ("Subject", patch.subject, "what the patch does, in a line"),
        ("Upstream", patch.upstream, "the address of the change or the issue, or 'not submitted' "
         "and why"),
        ("Pins", patch.pins, "the vLLM releases that it is for"),
        ("Remove-when", patch.remove_when, "the condition under which it can go"),
    )  # fmt: skip
    problems = [
        f"{patch.path}: no {header} header ({meaning})"
        for header, value, meaning in required
        if not value
    ]
    if not patch.why:
        problems.append(f"{patch.path}: no explanation after the header (why the patch exists)")
    return problems


def apply_patches(
    patches: Sequence[Patch], read: Callable[[str], bytes | None]
) -> dict[str, bytes | None]:
    """Return the content of each file that `patches` touch after all of them; None where deleted.

    `read` gives a file's content before the first patch, None where there is no such file. Raises
    `BadInputError`, naming patch, file and hunk, for the first that does not apply exactly.
    """
    contents: dict[str, bytes | None] = {}
    for patch in patches:
        for diff in patch.files:
            data = contents[diff.path] if diff.path in contents else read(diff.path)
            try:
                before = None if data is None else data.decode()
            except UnicodeDecodeError:
                raise BadInputError(
                    f"{patch.path}: {diff.path}: the file is not UTF-8 text"
                ) from None
            after = apply_diff(diff, before, str(patch.path))
            contents[diff.path] = None if after is None else after.encode()
    return contents


def _read_order(order: Path) -> list[str]:
    names: list[str] = []
    for number, line in enumerate(_decode(read_bytes(order), order).split("\n"), start=1):
        name = line.partition("#")[0].strip()
        where = f"{order}: line {number}"
        if not name:
            continue
        if "/" in name or "\\" in name or not name.isprintable():
            raise BadInputError(f"{where}: {name!r} is not the name of a file in this folder")
        if not name.endswith(_SUFFIXES):
            raise BadInputError(f"{where}: {name!r} does not end in .patch or .diff")
        if name in names:
            raise BadInputError(f"{where}: {name!r} is listed twice")
        if not (order.parent / name).is_file():
            raise BadInputError(f"{where}: {name!r} is not in this folder")
        names.append(name)
    if not names:
        raise BadInputError(f"{order}: lists no patch")
    return names


def _decode(data: bytes, path: Path) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInputError(f"{path}: line {line}: not UTF-8 text") from None
    if not text.strip():
        raise BadInputError(f"{path}: the file is empty")
    if "\r" in text:
        line = text.count("\n", 0, text.index("\r")) + 1
        raise BadInputError(f"{path}: line {line}: has a carriage return; use line feeds alone")
    return text


def _header(message: Message, key: str, path: Path) -> str:
    values = message.get_all(key, [])
    if len(values) > 1:
        raise BadInputError(f"{path}: two {key} headers")
    return " ".join(str(values[0]).split()) if values else ""


def _variant_name(declared: str, path: Path) -> str:
    if not declared:
        stem = re.sub(r"^\d+[-_]", "", path.stem)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "patch"
    if not _VARIANT_NAME.fullmatch(declared):
        raise BadInputError(
            f"{path}: Variant {declared!r} may hold only letters, digits, '.', '_' and '-'"
        )
    return declared
