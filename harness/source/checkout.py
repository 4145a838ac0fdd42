"""A git checkout of vLLM: what its base commit and its work tree change in a release.

Compiled files come from the installed release, so the checkout must have that release's C++ and
CUDA sources. The checkout is only read: no commit, worktree, index or file of it is touched.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInputError
from .git import GitError, Repository, open_repository
from .pin import InstalledVllm, Pin, Pins, read_record
from .series import Variant

_PACKAGE = "vllm"
# The compiled files are built from two folders; one Python file declares their functions.
_OPS = "vllm/_custom_ops.py"
_COMPILED_FROM = ("csrc/", "cmake/", _OPS)
# Where a branch usually starts, in the order in which they are tried.
_DEFAULT_BASES = ("upstream/main", "origin/main", "main")
_MOST_NAMES = 8


@dataclass(frozen=True)
class Checkout:
    """A checkout that can run on an installed release: its variants and what names them.

    `base` and `head` are commits; `base_name` says how the base was found; `pin` is the release
    whose compiled files it uses.
    """

    root: Path
    pin: Pin
    base: str
    base_name: str
    head: str
    variants: tuple[Variant, ...]


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
        raise BadInputError(
            f"{repository.root}: has none of {', '.join(_DEFAULT_BASES)} and no release tag; name "
            f"with {option} REV where the branch started{_shallow(repository)}"
        )
    commit = repository.commit(name)
    if commit is None:
        raise BadInputError(
            f"{repository.root}: has no commit {name!r}; fetch it, or name another with "
            f"{option} REV{_shallow(repository)}"
        )
    base = repository.merge_base(head, commit)
    if base is None:
        raise BadInputError(
            f"{repository.root}: HEAD and {name} share no commit; name the right base with "
            f"{option} REV{_shallow(repository)}"
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
    compiled files; by default both are worked out (`find_base`; the nearest release tag if it is
    a pin, else the default pin). `locate` finds the installed release, and is asked only where the
    repository has no tag of it.

    Raises:
        BadInputError: if it is no checkout of vLLM, a revision is unknown, or the compiled files of
            the release are not those of the checkout; the message names what differs and the fix.
    """
    repository = open_checkout(folder)
    root = repository.root
    if unmerged := repository.names("ls-files", "-z", "--unmerged", "--", _PACKAGE):
        name = unmerged[0].partition("\t")[2]
        raise BadInputError(f"{root}: {name} is in conflict; finish or abort the merge first")
    commit, base_name = find_base(repository, base)
    pin = _release(repository, pins, commit, version)
    tag = repository.commit(f"refs/tags/v{pin.version}")
    paths = (_PACKAGE, *_COMPILED_FROM)
    at_base = repository.tree(commit, *paths)
    now, contents = _work_tree(repository, *paths)
    at_tag = None if tag is None else repository.tree(tag, *paths)
    _check_sources(root, pin, at_base, now, at_tag)
    if at_tag is None:
        if version is None:
            raise BadInputError(
                f"{root}: has no tag v{pin.version} to compare its compiled sources with; fetch it "
                "(git fetch --tags), or say that they are that release's with --pp-base-version "
                f"{pin.version}"
            )
        _check_ops(root, locate(pin), contents.get(_OPS))
    # What tag and checkout have alike is left to the installed release, whose build left some of
    # it out. That build adds files that no commit has, so only what a commit had can be gone.
    released, package = _package(at_tag or {}), _package(at_base)
    base_files: dict[str, bytes | None] = {
        **contents_of(repository, commit, _added(package, released)),
        **_gone(released, at_base),
    }
    files: dict[str, bytes | None] = {
        name: contents[name] for name in _added(_package(now), released)
    }
    files |= _gone({**released, **package}, now)
    variants = (Variant("base", (), base_files), Variant("worktree", (), files))
    return Checkout(root, pin, commit, base_name, _head(repository), variants)


def _package(files: Mapping[str, str]) -> dict[str, str]:
    return {name: blob for name, blob in files.items() if name.startswith(f"{_PACKAGE}/")}


def _added(files: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """Return the files, with their blob ids, that are not the same in `before`."""
    return {name: blob for name, blob in files.items() if before.get(name) != blob}


def _gone(before: Iterable[str], files: Mapping[str, str]) -> dict[str, bytes | None]:
    return {name: None for name in before if name not in files}


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
            if name.startswith(f"{_PACKAGE}/"):
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


def _release(repository: Repository, pins: Pins, base: str, version: str | None) -> Pin:
    """Return the pin whose release lends its compiled files."""
    if version is not None:
        return pins.get(version.removeprefix("v"))
    nearest = (repository.nearest_release(base) or "").removeprefix("v")
    return next((pin for pin in pins.all if pin.version == nearest), pins.default)


def _check_sources(
    root: Path,
    pin: Pin,
    at_base: Mapping[str, str],
    now: Mapping[str, str],
    at_tag: Mapping[str, str] | None,
) -> None:
    """Raise `BadInputError` if base or work tree were compiled from other sources than the tag.

    Without a tag the work tree is compared with the base.
    """
    reference, reference_name = at_tag, f"the tag v{pin.version}"
    if reference is None:
        reference, reference_name = at_base, "the base commit"
    for tree_name, tree in (("the base commit", at_base), ("the work tree", now)):
        differ = sorted(
            name
            for name in {*tree, *reference}
            if name.startswith(_COMPILED_FROM) and tree.get(name) != reference.get(name)
        )
        if differ:
            more = len(differ) - _MOST_NAMES
            shown = ", ".join(differ[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
            raise BadInputError(
                f"{root}: {tree_name} differs from {reference_name} in what is compiled ({shown}), "
                f"so the compiled files of vLLM {pin.version} do not fit: take these changes out, "
                "rebase the branch onto a release that has them, or build this vLLM (pip wheel "
                "--no-deps .), install it in place of the release, add its version to "
                "patches/pins.toml and name it with --pp-base-version"
            )


def _check_ops(root: Path, installed: InstalledVllm, ours: bytes | None) -> None:
    """Raise `BadInputError` unless the checkout declares the ops that the release declares."""
    theirs = read_record(installed).get(_OPS)
    if ours is None or theirs is None or hashlib.sha256(ours).hexdigest() != theirs.sha256:
        raise BadInputError(
            f"{root}: {_OPS} is not that of vLLM {installed.release}, so its compiled files do not "
            "fit; name the release that the branch is based on with --pp-base-version"
        )


def _head(repository: Repository) -> str:
    head = repository.commit("HEAD")
    if head is None:
        raise BadInputError(f"{repository.root}: has no commit yet; commit vLLM's source first")
    return head


def _shallow(repository: Repository) -> str:
    if not repository.is_shallow:
        return ""
    return " (this clone is shallow: run git fetch --unshallow --tags)"
