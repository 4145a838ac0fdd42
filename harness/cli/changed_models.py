"""The subjects of `pp-harness check`: changed model files, and tiny models of their classes."""

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assets import default_store, suites_dir
from ..errors import BadInputError
from ..source.checkout import changed_since, contents_of, find_base, open_checkout
from ..source.registry import ModelClass, generating_models

MODEL_FOLDERS = ("vllm/model_executor/models", "vllm/models")
_SIZES = "4"
_CHECKS = "engine or contract or logits"


@dataclass(frozen=True)
class Change:
    """The model files that a work tree adds or changes, and the text of those that it changes.

    Names are paths from the checkout's root.
    """

    root: Path
    names: tuple[str, ...]
    before: Mapping[str, str]


@dataclass(frozen=True)
class ShrunkModels:
    """Tiny checkpoints, and the classes for which none can be made."""

    checkpoints: tuple[Path, ...]
    unavailable: tuple[ModelClass, ...]


def read_change(vllm: Path, revision: str | None) -> Change:
    """Read how the model files of a checkout differ from the commit where HEAD left `revision`.

    Without `revision` the branch's base is worked out (`find_base`). Raises `BadInputError` if it
    is no checkout of vLLM, the revision is unknown, or git lacks a file of it.
    """
    repository = open_checkout(vllm)
    commit, _ = find_base(repository, revision, "--diff")
    changed = changed_since(repository, commit, *MODEL_FOLDERS)
    names = tuple(name for name in changed if name.endswith(".py"))
    blobs = repository.tree(commit, *names) if names else {}
    contents = contents_of(repository, commit, blobs)
    before = {name: content.decode("utf-8", "replace") for name, content in contents.items()}
    return Change(repository.root, names, before)


def changed_models(root: Path, names: Sequence[str]) -> tuple[ModelClass, ...]:
    """List the classes that live in the files `names` of the tree at `root`.

    Raises `BadInputError` if there is none: files that only lend code name no model to run.
    """
    models = [model for model in generating_models(root) if any(map(model.is_in, names))]
    if not models:
        raise BadInputError(
            f"{root}: no model that generates text is registered for the changed files "
            f"({', '.join(names) or 'none changed'}); name one with pytest's --pp-vllm and "
            "--pp-model"
        )
    return tuple(models)


def shrink_models(models: Sequence[ModelClass], store: Path | None = None) -> ShrunkModels:
    """Build a tiny random checkpoint for each tiny configuration of the classes.

    A checkpoint is kept and used again while its configuration stays. Raises `BadInputError` if
    no class has a tiny configuration, or a model cannot be built.
    """
    from ..models.instruments import CARD
    from ..models.tiny import TINY, default_config

    checkpoints: list[Path] = []
    unavailable: list[ModelClass] = []
    folder = (store or default_store()) / "shrunk"
    tiny = {name: default_config(name) for name in TINY}
    for model in models:
        # One architecture can have several, each with parts that the others lack.
        chosen = {
            name: config
            for name, config in tiny.items()
            if set(config["architectures"]) & set(model.architectures)
        }
        if not chosen:
            unavailable.append(model)
        for name, config in chosen.items():
            digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
            checkpoint = folder / f"tiny-{name}-{digest[:8]}"
            if not (checkpoint / CARD).is_file():
                _shrink(config, checkpoint)
            checkpoints.append(checkpoint)
    if not checkpoints:
        raise BadInputError(
            f"no tiny configuration of {describe(unavailable)}, so it cannot be run; give a small "
            "checkpoint of it to pytest: --pp-vllm DIR --pp-model CHECKPOINT"
        )
    return ShrunkModels(tuple(checkpoints), tuple(unavailable))


def _shrink(config: Mapping[str, Any], out: Path) -> None:
    """Build a checkpoint in a process of its own: torch's gigabyte is free when engines start."""
    from ..models.shrink import shrink

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(shrink, config, out).result()


def describe(models: Sequence[ModelClass]) -> str:
    """Join the names of classes, for people."""
    return ", ".join(model.name for model in models)


def suite_command(
    vllm: Path, checkpoints: Sequence[Path], *, base: str | None, base_version: str | None
) -> list[str]:
    """Build the command that runs the work tree of `vllm` at PP 1, 2 and 4 on the CPU."""
    models = [word for path in checkpoints for word in ("--pp-model", str(path))]
    optional = ["--pp-base", base] if base is not None else []
    optional += ["--pp-base-version", base_version] if base_version is not None else []
    return [
        *(sys.executable, "-m", "pytest", str(suites_dir()), "-p", "no:cacheprovider"),
        *("--pp", _SIZES, "--pp-vllm", str(vllm), "--pp-variant", "worktree", *optional, *models),
        # Answers of random weights mean nothing: one question, and no verdict on it.
        *("--pp-device", "cpu", "--pp-gsm8k-fewshot", "0", "--pp-gsm8k-limit", "1", "-k", _CHECKS),
    ]
