"""The variant tree: the installed vLLM with a variant's changes, as a folder to put on PYTHONPATH.

The tree is an overlay. An unchanged file is a hard link to the installed one (a copy or a symbolic
link where the file system refuses), a changed one is a file of the tree's own, and a
`vllm-<version>.dist-info` of its own makes it the distribution `vllm`. The installed package is
read, never written.
"""

import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ..errors import BadInputError
from ..files import building, digest_of, sha256_of, whole_folder
from .pin import InstalledVllm, Pin, RecordedFile, read_record, renamed_metadata
from .series import Series, Variant, apply_patches

_log = logging.getLogger(__name__)

# Part of each digest: raise it when the same input would make another tree.
_LAYOUT = 3
# Above this size a file that cannot be hard-linked is symlinked, and its content is taken from
# RECORD on trust of its size: reading the compiled files (240 MB) would cost a second a tree.
_LARGE = 4 << 20
_LOCK_SECONDS = 300
_DIST_INFO_FILES = ("top_level.txt", "WHEEL", "INSTALLER")
_ENTRY_POINTS = "entry_points.txt"
# How vLLM finds our hooks: through the tree's own metadata, so that only engines of ours load them
# and an environment that holds vLLM needs no harness.
_PLUGIN_GROUP = "[vllm.general_plugins]\n"
_PLUGIN = "pp_harness = harness.engine.plugin:register\n"


@dataclass(frozen=True)
class VariantTree:
    """A variant on disk: `path` goes first on PYTHONPATH, `digest` names the content.

    `note` tells the user that the tree was changed on disk and was built anew; else it is empty.
    """

    path: Path
    digest: str
    note: str = ""


def build_tree(installed: InstalledVllm, variant: Variant, cache_dir: Path) -> VariantTree:
    """Build the tree of `variant` over `installed` in `cache_dir`, or take the one that is there.

    The digest covers the release's files and the content of the changed ones; the place on disk
    depends on the installation too. Safe when several processes build at once: a tree appears
    whole or not at all. A tree that was changed on disk is built anew.

    Raises `BadInputError` if a patch is not for this release or does not apply exactly, or if
    the installed package is not that of its RECORD.
    """
    record = read_record(installed)
    check_installed(installed, record)
    overlay = _Overlay(installed, record, changed_files(installed, record, variant))
    place = hashlib.sha256(os.fsencode(installed.package_dir)).hexdigest()[:8]
    digest = overlay.digest
    path = cache_dir.absolute() / f"vllm-{installed.release}-{digest[:16]}-{place}"
    note = ""
    with building(path, _LOCK_SECONDS):
        changed = overlay.first_difference(path) if path.exists() else None
        if changed is not None:
            note = f"{path}: {changed} was changed on disk; the tree was built anew"
            _log.warning(note)
        if changed is not None or not path.exists():
            with whole_folder(path) as new:
                overlay.write(new)
    return VariantTree(path, digest, note)


def changed_files(
    installed: InstalledVllm, record: Mapping[str, RecordedFile], variant: Variant
) -> dict[str, bytes | None]:
    """Return the content of each file that `variant` changes in the release; None: deleted.

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
        name: content for name, content in changed.items() if record.get(name) != _recorded(content)
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
    """Raise `BadInputError`, naming the first file, if the package differs from RECORD."""
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


def check_applies(series: Series, pin: Pin, installed: InstalledVllm) -> list[str]:
    """Check each prefix of the series against the release; return the files that no digest pins.

    Raises `BadInputError`, naming patch, file and hunk, for the first that does not apply exactly,
    for a patch that is for other releases, and for an installed file that is not the release's.
    """
    record = read_record(installed)
    check_installed(installed, record)
    touched: set[str] = set()
    for variant in series.variants():
        touched |= set(changed_files(installed, record, variant))
    return sorted(name for name in touched if name in record and name not in pin.files)


def tree_version(installed: InstalledVllm) -> str:
    """Return the version that the tree's own metadata gives: a CPU build says `+cpu`."""
    if installed.is_cpu and "cpu" not in installed.version:
        return f"{installed.version}{'.' if '+' in installed.version else '+'}cpu"
    return installed.version


def _recorded(content: bytes | None) -> RecordedFile | None:
    """Describe a file as RECORD would; None for one that does not exist."""
    if content is None:
        return None
    return RecordedFile(hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True)
class _Overlay:
    """The content of a tree: the release by its RECORD, and the files that are changed in it."""

    installed: InstalledVllm
    record: Mapping[str, RecordedFile]
    changed: Mapping[str, bytes | None]

    @property
    def root(self) -> Path:
        """The folder that the names of files start from."""
        return self.installed.package_dir.parent

    @property
    def linked(self) -> list[str]:
        """The files that are those of the release."""
        return [name for name in self.record if name not in self.changed]

    @cached_property
    def own(self) -> dict[str, bytes]:
        """The files that the tree does not share with the release."""
        kept = {name: content for name, content in self.changed.items() if content is not None}
        return kept | _dist_info(self.installed)

    @property
    def digest(self) -> str:
        """The sha256 of the release's name and of all files."""
        files = {name: self.record[name].sha256 for name in self.linked}
        for name, content in self.changed.items():
            if content is not None:
                files[name] = hashlib.sha256(content).hexdigest()
        document = {
            "layout": _LAYOUT,
            "distribution": self.installed.distribution,
            "version": self.installed.version,
            "files": files,
        }
        return digest_of(document)

    def write(self, tree: Path) -> None:
        """Write the tree into a new folder."""
        for folder in {(tree / name).parent for name in [*self.linked, *self.own]}:
            folder.mkdir(parents=True, exist_ok=True)
        for name in self.linked:
            _link(self.root / name, tree / name)
        for name, content in self.own.items():
            (tree / name).write_bytes(content)
            if name in self.record:
                (tree / name).chmod(stat.S_IMODE((self.root / name).stat().st_mode))
        _link_compiled(tree, self.root, set(self.linked))

    def first_difference(self, tree: Path) -> str | None:
        """Name a file of an existing tree that is not as it was written, None if all are."""
        linked = set(self.linked)
        for name in sorted(linked):
            if not _same_file(self.root / name, tree / name):
                return name
        for name, content in self.own.items():
            if not (tree / name).is_file() or (tree / name).read_bytes() != content:
                return name
        known = linked | self.own.keys()
        return next((name for name in _files(tree) if name not in known), None)


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
    metadata = renamed_metadata(installed.dist_info_dir, "vllm", version)
    files = {f"{folder}/METADATA": metadata.encode()}
    for name in _DIST_INFO_FILES:
        if (installed.dist_info_dir / name).is_file():
            files[f"{folder}/{name}"] = (installed.dist_info_dir / name).read_bytes()
    files[f"{folder}/{_ENTRY_POINTS}"] = _entry_points(installed.dist_info_dir / _ENTRY_POINTS)
    return files


def _entry_points(path: Path) -> bytes:
    """Return the release's entry points, if it has any, with our plugin among them."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if _PLUGIN_GROUP not in text:
        text += f"\n{_PLUGIN_GROUP}"
    return text.replace(_PLUGIN_GROUP, _PLUGIN_GROUP + _PLUGIN).encode()


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
    """List the files of a tree without those that Python compiled."""
    names: list[str] = []
    for folder, folders, files in os.walk(tree):
        folders[:] = [name for name in folders if name != "__pycache__"]
        names += [Path(folder, name).relative_to(tree).as_posix() for name in files]
    return sorted(names)
