"""A git checkout of vLLM: what its base commit and its work tree change in a release.

Compiled files come from an installed release. The checkout is only read: no commit, worktree,
index or file of it is touched.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import BadInputError
from .compiled import SOURCES, CompiledDifference, compare_compiled, is_built
from .git import GitError, Repository, open_repository
from .pin import InstalledVllm, Pin, Pins, age
from .series import Variant

_PACKAGE = "vllm/"
# Where a branch usually starts, in the order in which they are tried.
_DEFAULT_BASES = ("upstream/main", "origin/main", "main")
_MOST_NAMES = 8


@dataclass(frozen=True)
class Checkout:
    """A checkout that can run on an installed release: its variants and what names them.

    `base` and `head` are commits; `base_name` says how the base was found; `pin` is the release
    whose compiled files it uses, `compiled` how they differ from those of the base.
    """

    root: Path
    pin: Pin
    base: str
    base_name: str
    head: str
    variants: tuple[Variant, ...]
    compiled: CompiledDifference


def open_checkout(folder: Path) -> Repository:
    """Return the repository of a vLLM checkout.

    Raises `BadInputError` if `folder` is no git checkout, or not one of vLLM.
    """
    repository = open_repository(folder)
    check_vllm_tree(repository.root)
    return repository


def check_vllm_tree(root: Path) -> None:
    """Raise `BadInputError` unless `root` holds vLLM's source."""
    if not ((root / "vllm/__init__.py").is_file() and (root / "vllm/model_executor").is_dir()):
        raise BadInputError(
            f"{root}: not a vLLM tree (no vllm/__init__.py with vllm/model_executor beside it); "
            "give the root of a vLLM checkout"
        )


def find_base(
    repository: Repository, revision: str | None, option: str = "--pp-base"
) -> tuple[str, str]:
    """Find the commit where HEAD left `revision`, and a name for it.

    Without `revision` it is the first that exists of upstream/main, origin/main and main, else
    the nearest release tag. `option` is the option with which the user gives a revision.

    Raises:
        BadInputError: if there is no such revision, or it shares no commit with HEAD.
    """
    head = _head(repository)
    name = revision or next((name for name in _DEFAULT_BASES if repository.commit(name)), None)
    name = name or repository.nearest_release(head)
    if name is None:
        _refuse(
            repository,
            f"has none of {', '.join(_DEFAULT_BASES)} and no release tag; name with {option} REV "
            "where the branch started",
        )
    commit = repository.commit(name)
    if commit is None:
        _refuse(repository, f"has no commit {name!r}; fetch it, or name another with {option} REV")
    base = repository.merge_base(head, commit)
    if base is None:
        _refuse(
            repository,
            f"HEAD and {name} share no commit; name the right base with {option} REV",
        )
    return base, name


def changed_since(repository: Repository, commit: str, *folders: str) -> list[str]:
    """List the files below `folders` that the work tree adds or changes since `commit`.

    Committed, staged and unstaged changes count, and Python files that git does not track yet.
    """
    before = repository.tree(commit, *folders)
    now, _ = _work_tree(repository, *folders)
    return sorted(name for name, blob in now.items() if blob != before.get(name))


def read_checkout(
    folder: Path,
    pins: Pins,
    locate: Callable[[Pin], InstalledVllm],
    *,
    base: str | None = None,
    version: str | None = None,
) -> Checkout:
    """Read the variants `base` and `worktree` of the checkout in `folder`.

    `base` names the revision that the branch started from, `version` the release that lends its
    compiled files; by default both are worked out (`find_base`; the newest pin that is not newer
    than the base). `locate` finds the installed release.

    Raises:
        BadInputError: if it is no checkout of vLLM, a revision, the release or its tag is unknown,
            or the work tree changes compiled code; the message names what differs and the fix.
    """
    repository = open_checkout(folder)
    root = repository.root
    if unmerged := repository.names("ls-files", "-z", "--unmerged", "--", _PACKAGE):
        name = unmerged[0].partition("\t")[2]
        raise BadInputError(f"{root}: {name} is in conflict; finish or abort the merge first")
    commit, base_name = find_base(repository, base)
    at_base = repository.tree(commit, _PACKAGE, *SOURCES)
    now, contents = _work_tree(repository, _PACKAGE, *SOURCES)
    _check_compiled(root, at_base, now)
    pin = _lender(repository, pins, commit, version)
    tag = _tag(repository, pin.version)
    # What tag and checkout have alike is left to the installed release, whose build left some of
    # it out. That build adds files that no commit has, so only what the tag has can be gone.
    released = repository.tree(tag, _PACKAGE)
    base_files: dict[str, bytes | None] = {
        **dict.fromkeys(released.keys() - at_base.keys()),
        **contents_of(repository, commit, _changed(at_base, released)),
    }
    files: dict[str, bytes | None] = {
        **dict.fromkeys(released.keys() - now.keys()),
        **{name: contents[name] for name in _changed(now, released)},
    }
    variants = (Variant("base", (), base_files), Variant("worktree", (), files))
    compiled = _compare_compiled(repository, commit, locate(pin))
    return Checkout(root, pin, commit, base_name, _head(repository), variants, compiled)


def _changed(files: Mapping[str, str], released: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the package, with their blob ids, that are not those of the release."""
    return {
        name: blob
        for name, blob in files.items()
        if name.startswith(_PACKAGE) and released.get(name) != blob
    }


def contents_of(repository: Repository, commit: str, files: Mapping[str, str]) -> dict[str, bytes]:
    """Read the content of files of `commit`, given with their blob ids.

    Raises:
        BadInputError: if git lacks one, as in a partial clone; the message has the fix.
    """
    try:
        contents = repository.blobs(files.values())
    except GitError as error:
        raise BadInputError(
            f"{error}; if this is a partial clone (--filter), let git fetch what it left out: "
            f"git -C {repository.root} archive {commit} vllm > /dev/null"
        ) from error
    return {name: contents[blob] for name, blob in files.items()}


def _work_tree(repository: Repository, *folders: str) -> tuple[dict[str, str], dict[str, bytes]]:
    """Read the files that git tracks and that exist, and new Python files: blob ids, contents."""
    tracked = repository.names("ls-files", "-z", "--cached", "--", *folders)
    new = repository.names("ls-files", "-z", "--others", "--exclude-standard", "--", *folders)
    algorithm = "sha256" if len(_head(repository)) == 64 else "sha1"
    blobs: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for name in sorted({*tracked, *(name for name in new if name.endswith(".py"))}):
        path = repository.root / name
        if path.is_symlink():
            if name.startswith(_PACKAGE):
                raise BadInputError(f"{path}: is a symbolic link; replace it by a file")
            content = os.fsencode(path.readlink())  # as git stores it
        elif path.is_file():
            content = path.read_bytes()
        else:
            continue
        contents[name] = content
        blob = b"blob %d\0%b" % (len(content), content)
        blobs[name] = hashlib.new(algorithm, blob, usedforsecurity=False).hexdigest()
    return blobs, contents


def _lender(repository: Repository, pins: Pins, base: str, version: str | None) -> Pin:
    """Choose the pin whose release lends its compiled files: the newest not newer than `base`.

    A branch cut from main between two releases has the tag of a candidate behind it at most.
    """
    if version is not None:
        return pins.get(version.removeprefix("v"))
    tag = repository.nearest_release(base, candidates=True)
    if tag is None:
        _refuse(
            repository,
            "no release tag before the base commit says which vLLM it is; run git fetch --tags, or "
            "name the release that lends its compiled files with --pp-base-version",
        )
    older = [pin for pin in pins.all if age(pin.version) <= age(tag)]
    if not older:
        _refuse(
            repository,
            f"the base commit follows {tag}, and each release that could lend its compiled files "
            f"is newer ({', '.join(pin.version for pin in pins.all)}); rebase the branch, or name "
            "one of them with --pp-base-version",
        )
    return max(older, key=lambda pin: age(pin.version))


def _tag(repository: Repository, version: str) -> str:
    """Return the commit of a release. Raises `BadInputError` if its tag is not here."""
    commit = repository.commit(f"refs/tags/v{version}")
    if commit is None:
        _refuse(
            repository,
            f"has no tag v{version} to compare the base commit with; run git fetch --tags, from "
            "vLLM's own repository",
        )
    return commit


def _compare_compiled(
    repository: Repository, base: str, installed: InstalledVllm
) -> CompiledDifference:
    """Compare what compiled files are built from at `base` with what `installed` was built from."""
    built = installed.lender or installed.release
    sources = []
    for commit in (base, _tag(repository, built)):
        tree = repository.tree(commit, *SOURCES)
        names = {name: blob for name, blob in tree.items() if is_built(name, cpu=installed.is_cpu)}
        sources.append(contents_of(repository, commit, names))
    return compare_compiled(built, *sources)


def _check_compiled(root: Path, base: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise `BadInputError` if the work tree changes what is compiled since its base."""
    names = sorted(
        name
        for name in {*base, *now}
        if name.startswith(SOURCES) and base.get(name) != now.get(name)
    )
    if names:
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        shown = ", ".join(names[:_MOST_NAMES]) + more
        raise BadInputError(
            f"{root}: the branch changes what is compiled ({shown}), "
            "which the compiled files of a release do not have: measure a branch without it; or "
            "commit it, build and install that vLLM (pip wheel --no-deps .), add its version to "
            "patches/pins.toml, tag the commit v<version>, and name it with --pp-base and "
            "--pp-base-version"
        )


def _head(repository: Repository) -> str:
    head = repository.commit("HEAD")
    if head is None:
        _refuse(repository, "has no commit yet; commit vLLM's source first")
    return head


def _refuse(repository: Repository, problem: str) -> NoReturn:
    """Raise `BadInputError`, with the fix for a clone that lacks older commits and tags."""
    shallow = " (this clone is shallow: run git fetch --unshallow --tags)"
    raise BadInputError(f"{repository.root}: {problem}{shallow if repository.is_shallow else ''}")
