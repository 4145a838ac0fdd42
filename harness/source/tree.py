"""The variant tree: the installed vLLM with a variant's changes, as a folder to put on PYTHONPATH.

The tree is an overlay. What no change touches is a hard link to the installed file (a copy or a
symbolic link where the file system refuses), what one touches is a file of its own, and a
`vllm-<version>.dist-info` of its own makes it the distribution `vllm`. The installed package is
read, never written.
"""

import configparser
import hashlib
import io
import json
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import filelock

from ..errors import BadInputError
from .pin import InstalledVllm, RecordedFile, read_record, sha256_of
from .series import Variant, apply_patches

_log = logging.getLogger(__name__)

# Part of each digest: raise it when the same input would make another tree.
_LAYOUT = 2
# Above this size a file that cannot be hard-linked is symlinked, and its content is taken from
# RECORD on trust of its size: reading the compiled files (240 MB) would cost a second a tree.
_LARGE = 4 << 20
_LOCK_SECONDS = 300
_DIST_INFO_FILES = ("top_level.txt", "WHEEL", "INSTALLER")
_ENTRY_POINTS = "entry_points.txt"
# How vLLM finds our hooks: through the tree's own metadata, so that only engines of ours load them
# and an environment that holds vLLM needs no harness.
_PLUGIN_GROUP = "vllm.general_plugins"
_PLUGIN = ("pp_harness", "harness.engine.plugin:register")


@dataclass(frozen=True)
class VariantTree:
    """A variant on disk: `path` goes first on PYTHONPATH, `digest` names the content.

    `note` is what there is to say of it: that it was changed on disk and had to be built anew.
    """

    path: Path
    digest: str
    variant: Variant
    note: str = ""


def build_tree(installed: InstalledVllm, variant: Variant, cache_dir: Path) -> VariantTree:
    """Return the tree of `variant` over `installed`, built in `cache_dir` unless it stands there.

    The digest covers the release's files and the content of the changed ones; where it stands on
    disk depends on the installation too. Safe when several processes build at once: a tree
    appears whole or not at all. A tree that was changed on disk is built anew.

    Raises `BadInputError` if a patch is not for this release or does not apply exactly, or if
    the installed package is not what its RECORD says.
    """
    record = read_record(installed)
    check_installed(installed, record)
    patched = changed_files(installed, record, variant)
    digest = _digest(installed, record, patched)
    place = hashlib.sha256(os.fsencode(installed.package_dir)).hexdigest()[:8]
    path = cache_dir.absolute() / f"vllm-{installed.release}-{digest[:16]}-{place}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            note = _ensure(path, installed, record, patched)
    except filelock.Timeout as error:
        raise BadInputError(
            f"{path}: another process has held its lock for {_LOCK_SECONDS} s; end it and try again"
        ) from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot build the variant tree: {error}") from error
    return VariantTree(path, digest, variant, note)


def changed_files(
    installed: InstalledVllm, record: Mapping[str, RecordedFile], variant: Variant
) -> dict[str, bytes | None]:
    """Return the content of each file in which `variant` differs from the release; None: deleted.

    Raises `BadInputError` for the first patch that names pins but not this release, that does not
    apply exactly, or for a file that would stand where a folder is or the other way round.
    """
    for patch in variant.patches:
        if patch.pins and installed.release not in patch.pins:
            raise BadInputError(
                f"{patch.path}: is for vLLM {', '.join(patch.pins)}; {installed.release} is "
                "installed"
            )
    root = installed.package_dir.parent

    def read(name: str) -> bytes | None:
        if name in variant.files:
            return variant.files[name]
        return (root / name).read_bytes() if name in record else None

    changed = {**variant.files, **apply_patches(variant.patches, read)}
    changed = {
        name: content
        for name, content in changed.items()
        if not _is_as_released(record.get(name), content)
    }
    present = {name for name in record if name not in changed}
    present |= {name for name, content in changed.items() if content is not None}
    for name in present - set(record):
        above = {parent.as_posix() for parent in PurePosixPath(name).parents}
        if above & present or any(other.startswith(f"{name}/") for other in present):
            where = variant.patches[-1].path if variant.patches else variant.name
            raise BadInputError(f"{where}: {name}: a file cannot stand on a folder or below a file")
    return changed


def check_installed(installed: InstalledVllm, record: Mapping[str, RecordedFile]) -> None:
    """Raise `BadInputError`, naming the first file, if the package is not what RECORD says."""
    root = installed.package_dir.parent
    for name, recorded in record.items():
        path = root / name
        try:
            size = path.stat().st_size
            same = size == recorded.size and (size > _LARGE or sha256_of(path) == recorded.sha256)
        except OSError:
            same = False
        if not same:
            raise BadInputError(
                f"{path}: is not the file that {installed.distribution} {installed.version} "
                f"installed; keep changes in a patch, and run: {installed.restore_command}"
            )


def tree_version(installed: InstalledVllm) -> str:
    """Return the version that the tree's own metadata gives: a CPU build says `+cpu`."""
    if installed.is_cpu and "cpu" not in installed.version:
        return f"{installed.version}{'.' if '+' in installed.version else '+'}cpu"
    return installed.version


def _is_as_released(recorded: RecordedFile | None, content: bytes | None) -> bool:
    if recorded is None or content is None:
        return recorded is None and content is None
    return recorded.size == len(content) and recorded.sha256 == hashlib.sha256(content).hexdigest()


def _digest(
    installed: InstalledVllm,
    record: Mapping[str, RecordedFile],
    patched: Mapping[str, bytes | None],
) -> str:
    files: dict[str, str | None] = {name: file.sha256 for name, file in record.items()}
    for name, content in patched.items():
        files[name] = None if content is None else hashlib.sha256(content).hexdigest()
    document = {
        "layout": _LAYOUT,
        "distribution": installed.distribution,
        "version": installed.version,
        "files": {name: sha256 for name, sha256 in files.items() if sha256 is not None},
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _ensure(
    path: Path,
    installed: InstalledVllm,
    record: Mapping[str, RecordedFile],
    patched: Mapping[str, bytes | None],
) -> str:
    """Leave a sound tree at `path`, whose lock the caller holds; return what there is to say."""
    note = ""
    # What a build that was killed has left.
    for left in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    if path.exists():
        changed = _first_change(path, installed, record, patched)
        if changed is None:
            return note
        note = f"{path}: {changed} was changed on disk; the tree was built anew"
        _log.warning(note)
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _fill(building / "new", installed, record, patched)
        if path.exists():
            path.rename(building / "old")
        (building / "new").rename(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return note


def _fill(
    tree: Path,
    installed: InstalledVllm,
    record: Mapping[str, RecordedFile],
    patched: Mapping[str, bytes | None],
) -> None:
    root = installed.package_dir.parent
    linked = [name for name in record if name not in patched]
    for folder in {(tree / name).parent for name in [*linked, *patched]}:
        folder.mkdir(parents=True, exist_ok=True)
    for name in linked:
        _link(root / name, tree / name)
    for name, content in patched.items():
        if content is not None:
            (tree / name).write_bytes(content)
            if name in record:
                (tree / name).chmod(stat.S_IMODE((root / name).stat().st_mode))
    _link_compiled(tree, root, set(linked))
    for name, content in _dist_info(installed).items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(content)


def _link(source: Path, target: Path) -> None:
    """Hard-link; else symlink a large file and copy a small one, its time kept for the .pyc."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # Another file system, too many links, or files that belong to somebody else.
        if source.stat().st_size > _LARGE:
            target.symlink_to(source)
        else:
            shutil.copy2(source, target)


def _link_compiled(tree: Path, root: Path, linked: set[str]) -> None:
    """Link the .pyc files that lie beside the linked sources, so that the first import is warm.

    A patched source gets none: the old one would be taken for its own if size and time agreed.
    Python replaces a .pyc by renaming a new file over it, so a link is never written through.
    """
    for folder in sorted({Path(name).parent for name in linked}):
        cache = root / folder / "__pycache__"
        if not cache.is_dir():
            continue
        for compiled in cache.glob("*.pyc"):
            if f"{folder.as_posix()}/{compiled.name.partition('.')[0]}.py" in linked:
                target = tree / folder / "__pycache__" / compiled.name
                target.parent.mkdir(exist_ok=True)
                _link(compiled, target)


def _dist_info(installed: InstalledVllm) -> dict[str, bytes]:
    """Return the files of the tree's own metadata, by their names in the tree.

    vLLM reads "cpu" in the version of the distribution `vllm` to choose its platform, and lm-eval
    asks for that distribution by name: a build under another name gives neither.
    """
    version = tree_version(installed)
    folder = f"vllm-{version}.dist-info"
    metadata = (installed.dist_info_dir / "METADATA").read_text(encoding="utf-8")
    for key, value in (("Name", "vllm"), ("Version", version)):
        metadata = re.sub(rf"(?m)^{key}:.*$", f"{key}: {value}", metadata, count=1)
    files = {f"{folder}/METADATA": metadata.encode()}
    for name in _DIST_INFO_FILES:
        if (installed.dist_info_dir / name).is_file():
            files[f"{folder}/{name}"] = (installed.dist_info_dir / name).read_bytes()
    files[f"{folder}/{_ENTRY_POINTS}"] = _entry_points(installed.dist_info_dir / _ENTRY_POINTS)
    return files


def _entry_points(path: Path) -> bytes:
    """Return the release's entry points, if it has any, with our plugin among them."""
    points = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    points.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    if path.is_file():
        points.read_string(path.read_text(encoding="utf-8"))
    if not points.has_section(_PLUGIN_GROUP):
        points.add_section(_PLUGIN_GROUP)
    points.set(_PLUGIN_GROUP, *_PLUGIN)
    text = io.StringIO()
    points.write(text)
    return text.getvalue().encode()


def _first_change(
    tree: Path,
    installed: InstalledVllm,
    record: Mapping[str, RecordedFile],
    patched: Mapping[str, bytes | None],
) -> str | None:
    """Return the first file of a standing tree that is not as it was built, None if all are."""
    root = installed.package_dir.parent
    linked = {name for name in record if name not in patched}
    for name in sorted(linked):
        if not _same_file(root / name, tree / name):
            return name
    own = {name: content for name, content in patched.items() if content is not None}
    own |= _dist_info(installed)
    for name, content in own.items():
        if not (tree / name).is_file() or (tree / name).read_bytes() != content:
            return name
    return next((name for name in _files(tree) if name not in linked and name not in own), None)


def _same_file(source: Path, target: Path) -> bool:
    """Tell whether the tree's file is the installed one, or a copy untouched since it was made."""
    try:
        ours, theirs = target.stat(), source.stat()
    except OSError:
        return False
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
        return True
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)


def _files(tree: Path) -> list[str]:
    """Return the files of a tree, those that Python compiles and puts there left out."""
    found: list[str] = []
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [Path(folder, name).relative_to(tree).as_posix() for name in files]
    return sorted(found)
