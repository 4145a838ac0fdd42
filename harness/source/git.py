"""The `git` program, asked about a repository that belongs to somebody else: never written to."""

import io
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInputError

# Set by git itself inside hooks and aliases; they would lead to another repository than the one
# named, and GIT_INDEX_FILE to another index. GIT_CONFIG_* carries safe.directory and stays.
_KEPT = "GIT_CONFIG"
# A repository's own configuration can name programs to run, and a partial clone fetches what it
# lacks into its object store when asked for it: both are off.
_SETTINGS = tuple(
    word
    for setting in ("core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never")
    for word in ("-c", setting)
)
_GITLINK = "160000"
_SYMLINK = "120000"


class GitError(BadInputError):
    """git ended with an error; the message names the folder and has the first line of git's."""


@dataclass(frozen=True)
class Repository:
    """A git repository with a work tree at `root`."""

    root: Path

    def commit(self, revision: str) -> str | None:
        """Return the id of the commit that `revision` names, None if there is none here."""
        commit = f"{revision}^{{commit}}"
        return self._try("rev-parse", "--verify", "--quiet", "--end-of-options", commit)

    def merge_base(self, commit: str, other: str) -> str | None:
        """Return the commit at which two commits part, None if they share none here."""
        return self._try("merge-base", commit, other)

    def nearest_release(self, commit: str, *, candidates: bool = False) -> str | None:
        """Return the release tag (v1.2.3) nearest before `commit`, None if there is none.

        With `candidates` the tag of a candidate (v1.2.3rc1) counts too.
        """
        select = ["--match=v[0-9]*", "--exclude=*dev*", *([] if candidates else ["--exclude=*rc*"])]
        return self._try("describe", "--tags", "--abbrev=0", *select, commit)

    @property
    def is_shallow(self) -> bool:
        """Whether older commits were left out when the repository was cloned."""
        return self.text("rev-parse", "--is-shallow-repository") == "true"

    def tree(self, commit: str, *paths: str) -> dict[str, str]:
        """Return the blob id of each file of `commit` below `paths`.

        Raises `BadInputError` for a symbolic link in vllm/: its blob is not what it leads to.
        """
        blobs: dict[str, str] = {}
        for entry in self.names("ls-tree", "-r", "-z", commit, "--", *paths):
            attributes, _, name = entry.partition("\t")
            mode, _, blob = attributes.split()
            if mode == _SYMLINK and name.startswith("vllm/"):
                raise BadInputError(
                    f"{self.root}: {name} is a symbolic link in commit {commit[:12]}; vLLM has "
                    "none, so it cannot be measured: replace it by a file"
                )
            if mode != _GITLINK:
                blobs[name] = blob
        return blobs

    def blobs(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return the content of each blob. Raises `GitError` if one is not here."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        data = self.run("cat-file", "--batch", stdin="\n".join(wanted).encode() + b"\n")
        stream = io.BytesIO(data)
        contents: dict[str, bytes] = {}
        for blob in wanted:
            header = stream.readline().split()
            if len(header) != 3:
                raise GitError(f"{self.root}: has no object {blob}")
            contents[blob] = stream.read(int(header[2]))
            stream.readline()  # the line end after the content
        return contents

    def names(self, *arguments: str) -> list[str]:
        """Return the names that a command lists under `-z`."""
        listed = self.run(*arguments).decode("utf-8", "surrogateescape")
        return [name for name in listed.split("\0") if name]

    def text(self, *arguments: str) -> str:
        """Return the output of a command, without the line's end."""
        return self.run(*arguments).decode("utf-8", "surrogateescape").strip()

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run git and return its output.

        Raises:
            GitError: if git ends with an error.
            BadInputError: if there is no git program.
        """
        command = ("git", "-C", str(self.root), *_SETTINGS, *arguments)
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, check=False, env=_environment()
            )
        except OSError as error:
            raise BadInputError(f"cannot run git ({error.strerror}); install it") from error
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[0] if lines else f"ended with {done.returncode}"
            raise GitError(f"{self.root}: git {arguments[0]}: {reason}")
        return done.stdout

    def _try(self, *arguments: str) -> str | None:
        try:
            return self.text(*arguments)
        except GitError:
            return None


def open_repository(folder: Path) -> Repository:
    """Return the repository whose work tree holds `folder`.

    Raises `BadInputError` if the folder does not exist, is in no repository, or has no work tree.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder; give a git checkout of vLLM")
    try:
        root = Repository(folder).run("rev-parse", "--show-toplevel")
    except GitError as error:
        if "dubious ownership" in str(error):
            raise BadInputError(
                f"{folder}: belongs to another user, so git does not read it; if you trust it, "
                f"run: git config --global --add safe.directory {folder.resolve()}"
            ) from error
        raise BadInputError(
            f"{error} (not a git checkout with files); clone vLLM with git, or add a worktree with "
            "`git worktree add`"
        ) from error
    return Repository(Path(os.fsdecode(root).removesuffix("\n")))


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(_KEPT)
    }
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    return kept | quiet | {"LC_ALL": "C"}
