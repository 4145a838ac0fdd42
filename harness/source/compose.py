"""A release for a device that it was not built for: its Python files, compiled files lent to it.

vLLM's Python files are the same for all devices, and `vllm` is on the package index before the
build for a CPU is. A release whose build for the device is out lends what that compiled. Where an
operator has changed since, a call of it fails; which ones have, says docs/series.md.
"""

import base64
import csv
import shutil
from pathlib import Path

from .pin import LENT, InstalledVllm, RecordedFile, read_record, renamed_metadata

# Executables and libraries begin with it.
_COMPILED = b"\x7fELF"


def compose(lender: InstalledVllm, release: InstalledVllm) -> str:
    """Put the Python files of `release` in the place of those of `lender`, and return the version.

    Both are installed, `release` in a folder of its own, which is used up. The result is the
    distribution of `lender` in the version of `release`, labelled, with a RECORD of its own.

    Raises:
        BadInputError: if either has no RECORD that can be read.
    """
    site, package = lender.package_dir.parent, release.package_dir
    rows = {
        name: row
        for name, row in read_record(release).items()
        if not _is_compiled(package.parent / name)
    }
    for name in read_record(release).keys() - rows:
        (package.parent / name).unlink()
    for name, row in read_record(lender).items():
        if _is_compiled(site / name):
            (site / name).rename(package.parent / name)
            rows[name] = row
    version = f"{release.version}{LENT}{lender.release}"
    info = site / f"{lender.distribution.replace('-', '_')}-{version}.dist-info"
    shutil.rmtree(lender.package_dir)
    shutil.rmtree(lender.dist_info_dir)
    package.rename(lender.package_dir)
    release.dist_info_dir.rename(info)
    metadata = renamed_metadata(info, lender.distribution, version)
    # uv links files from its cache: what is written in place is written for every environment.
    for name in ("METADATA", "RECORD"):
        (info / name).unlink()
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    _write_record(info, rows)
    return version


def _is_compiled(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_COMPILED)) == _COMPILED


def _write_record(info: Path, rows: dict[str, RecordedFile]) -> None:
    with (info / "RECORD").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        for name, row in sorted(rows.items()):
            digest = base64.urlsafe_b64encode(bytes.fromhex(row.sha256)).decode().rstrip("=")
            writer.writerow((name, f"sha256={digest}", row.size))
        writer.writerow((f"{info.name}/RECORD", "", ""))
