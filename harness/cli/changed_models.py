"""The subjects of `pp-harness check`: changed model files, and tiny models of their classes."""

import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assets import default_store, suites_dir
from ..errors import BadInputError, first_line
from ..files import digest_of
from ..lint.sources import MODEL_FOLDERS
from ..models.class_defaults import class_defaults
from ..models.config import read_config
from ..models.instruments import CARD, instrument_names, instrument_path
from ..models.shrink import shrink
from ..source.checkout import changed_since, contents_of, find_base, open_checkout
from ..source.pin import InstalledVllm
from ..source.registry import ModelClass, generating_models

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
class ModelsToRun:
    """Models by name or folder, and by class the reason why nothing stands for it."""

    models: tuple[str, ...]
    not_run: Mapping[str, str]


def read_change(vllm: Path, revision: str | None) -> Change:
    """Read how the model files of a checkout differ from the commit where HEAD left `revision`.

    Without `revision` the branch's base is worked out (`find_base`). Raises `BadInputError` if it
    is no checkout of vLLM, the revision is unknown, or git lacks a file of it.
    """
    repository = open_checkout(vllm)
    commit, _ = find_base(repository, revision, "--diff")
    changed = changed_since(repository, commit, *(f"vllm/{name}" for name in MODEL_FOLDERS))
    names = tuple(name for name in changed if name.endswith(".py"))
    blobs = repository.tree(commit, *names) if names else {}
    contents = contents_of(repository, commit, blobs)
    before = {name: content.decode("utf-8-sig", "replace") for name, content in contents.items()}
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


def models_to_run(models: Sequence[ModelClass], root: Path, vllm: InstalledVllm) -> ModelsToRun:
    """Find what stands for each class of the tree at `root`.

    The instruments of its architectures; else a tiny random checkpoint of the first of them that
    has a default configuration in the environment of `vllm`, kept while that configuration stays.

    Raises:
        BadInputError: nothing stands for any class.
    """
    found: list[str] = []
    reasons: dict[str, str] = {}
    others: list[ModelClass] = []
    served = {n: read_config(instrument_path(n))["architectures"] for n in instrument_names()}
    for model in models:
        own = [name for name in served if set(served[name]) & set(model.architectures)]
        found += own
        others += [] if own else [model]
    defaults = class_defaults(vllm, others, root) if others else {}
    for model in others:
        of_model = [defaults[name] for name in model.architectures]
        config = next((each.config for each in of_model if each.config), None)
        try:
            if config is None:
                raise BadInputError(of_model[0].reason)
            found.append(str(_shrunk(model.name, config)))
        except BadInputError as error:
            reasons[model.name] = first_line(error)
    if not found:
        raise BadInputError(
            f"nothing can be run: {described(reasons)}; give a small checkpoint to pytest: "
            "--pp-vllm DIR --pp-model CHECKPOINT"
        )
    return ModelsToRun(tuple(found), reasons)


def _shrunk(name: str, config: Mapping[str, Any]) -> Path:
    """Build the tiny checkpoint of a configuration, or take the one that is there."""
    checkpoint = default_store() / "shrunk" / f"tiny-{name}-{digest_of(config)[:8]}"
    if not (checkpoint / CARD).is_file():
        _shrink(config, checkpoint)
    return checkpoint


def _shrink(config: Mapping[str, Any], out: Path) -> None:
    """Build a checkpoint in a process of its own: torch's gigabyte is free when engines start."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(shrink, config, out).result()


def described(reasons: Mapping[str, str]) -> str:
    """Join the names of classes with the reasons why nothing stands for them."""
    return "; ".join(f"{name} ({reason})" for name, reason in reasons.items())


def suite_command(
    vllm: Path, models: Sequence[str], *, base: str | None, base_version: str | None
) -> list[str]:
    """Build the command that runs the work tree of `vllm` at PP 1, 2 and 4 on the CPU."""
    optional = ["--pp-base", base] if base is not None else []
    optional += ["--pp-base-version", base_version] if base_version is not None else []
    return [
        *(sys.executable, "-m", "pytest", str(suites_dir()), "-p", "no:cacheprovider"),
        *("--pp", _SIZES, "--pp-vllm", str(vllm), "--pp-variant", "worktree", *optional),
        *("--pp-model", ",".join(models)),
        # Answers of random weights mean nothing: one question, and no verdict on it.
        *("--pp-device", "cpu", "--pp-gsm8k-fewshot", "0", "--pp-gsm8k-limit", "1", "-k", _CHECKS),
    ]
