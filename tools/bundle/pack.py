"""Cut a folder into parts with checksums, the same bytes for the same content."""

import lzma
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from harness.errors import BadInputError
from harness.files import sha256_of

SUMS = "SHA256SUMS"
NEEDS = "needs.txt"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_INSTALLER = Path(__file__).with_name("install.sh")
# Above this, compression takes minutes more and saves a few percent.
_PRESET = 4


def parse_size(text: str) -> int:
    """Return the bytes of `55M`, `1G`, `2000000`.

    Raises:
        BadInputError: if it is no size.
    """
    match = re.fullmatch(r"([1-9]\d*)([KMG]?)", text.strip().upper())
    if match is None:
        raise BadInputError(f"--split {text}: give a size such as 55M")
    return int(match[1]) * _UNITS[match[2]]


def pack(
    site: Path, out: Path, part_bytes: int, python: str, needs: Mapping[str, str]
) -> list[Path]:
    """Write the parts of `site`, their checksums and `install.sh` into `out`; return the parts.

    `needs` are the packages that the target is to have, with the version that was planned with.
    """
    for old in out.glob("bundle.part*"):
        old.unlink()
    writer = _Parts(out, part_bytes)
    with lzma.open(cast("IO[bytes]", writer), "wb", preset=_PRESET) as stream:
        _archive(site, stream)
    writer.close()
    (out / NEEDS).write_text(
        "".join(f"{name}=={version}\n" for name, version in sorted(needs.items())),
        encoding="utf-8",
    )
    held = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    installer = _INSTALLER.read_text(encoding="utf-8").replace("@PYTHON@", python)
    installer = installer.replace("@BYTES@", str(held))
    (out / _INSTALLER.name).write_text(installer, encoding="utf-8")
    (out / _INSTALLER.name).chmod(0o755)
    sums = [f"{sha256_of(path)}  {path.name}\n" for path in [*writer.paths, out / NEEDS]]
    (out / SUMS).write_text("".join(sums), encoding="utf-8")
    return writer.paths


class _Parts:
    """A file that is written on from one part to the next."""

    def __init__(self, out: Path, part_bytes: int) -> None:
        self.paths: list[Path] = []
        self._out, self._limit = out, part_bytes
        self._file: IO[bytes] | None = None
        self._room = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if not self._room:
                self.close()
                self.paths.append(self._out / f"bundle.part{len(self.paths) + 1:02}")
                self._file = self.paths[-1].open("wb")
                self._room = self._limit
            assert self._file is not None
            taken = view[: self._room]
            self._file.write(taken)
            self._room -= len(taken)
            view = view[len(taken) :]
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _archive(site: Path, stream: IO[bytes]) -> None:
    """Write a tar of `site` that depends on names, modes and content alone."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(site.rglob("*")):
            if "__pycache__" in path.parts or not (path.is_file() or path.is_dir()):
                continue
            entry = archive.gettarinfo(path, path.relative_to(site).as_posix())
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.isfile():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)
