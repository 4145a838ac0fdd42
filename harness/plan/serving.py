"""People's own serving settings: vLLM's engine settings by their own names, and `VLLM_` variables.

A recipe is such settings under a name, and sampling parameters with them: one file
`recipes/<name>.toml`, read where it is asked for.
"""

import ast
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..engine.names import ITSELF
from ..engine.settings import Device, Profile
from ..errors import BadInputError
from ..files import read_toml
from ..source.pin import InstalledVllm, age

Pairs = tuple[tuple[str, str], ...]

_RECIPES = Path(__file__).resolve().parent / "recipes"
_ARGUMENTS = Path("engine/arg_utils.py")
_VARIABLES = Path("envs.py")
_LONGEST_LABEL = 60

# What the harness decides itself: each setting with the reason, or the option that decides it.
_OWNED = {
    "model": "--pp-model names the model",
    "tokenizer": "--pp-model names the model",
    "skip_tokenizer_init": "a model without questions needs no tokenizer",
    "pipeline_parallel_size": "--pp gives the PP sizes",
    "tensor_parallel_size": "--pp-tp gives it",
    "distributed_executor_backend": "--pp-executor gives it",
    "dtype": "--pp-dtype gives it",
    "enforce_eager": "--pp-mode gives it",
    "trust_remote_code": "--pp-trust-remote-code gives it",
    "max_model_len": "the probes and questions decide it",
    "num_gpu_blocks_override": "the probes and questions decide it",
    "seed": "every engine has the same",
}
# In the parity profile: what would let PP=1 and PP=N run other batches.
_PARITY_OWNED = ("async_scheduling", "max_num_batched_tokens", "max_num_seqs")
_PARITY_REASON = "in parity every PP size runs the same batches; --pp-profile stress allows it"
_OWNED_VARIABLES = {
    "VLLM_PP_LAYER_PARTITION": "--pp-partition gives it",
    "VLLM_USE_V2_MODEL_RUNNER": "--pp-runner gives it",
    "VLLM_PLUGINS": "the hooks of the harness are a plugin",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "the engine core runs in one process with the probes",
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "--pp-timeout gives it",
    "VLLM_PORT": "engines run side by side",
    "VLLM_RPC_BASE_PATH": "engines run side by side",
    "VLLM_WORKER_MULTIPROC_METHOD": "the harness starts the ranks",
}


class Recipe(BaseModel):
    """Settings under a name: what each engine, its probes and its questions are given.

    `about` is one line for the docs. `refused` has the reason for each device that vLLM itself
    refuses them on, at PP=1 too, `since` the release from which it does not. Where the harness
    cannot ask, `not_yet` says why.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    refused: dict[Device, str] = {}
    since: dict[Device, str] = {}
    not_yet: str = ""
    engine: dict[str, Any] = {}
    env: dict[str, str] = {}
    probes: dict[str, Any] = {}
    questions: dict[str, Any] = {}
    aborts: bool = False
    reload: bool = False
    images: bool = False

    def refusal(self, device: Device, release: str) -> str | None:
        """The reason for which vLLM `release` does not serve so on a device; None if it does."""
        if device in self.since and age(release) >= age(self.since[device]):
            return None
        return self.refused.get(device)


_NO_RECIPE = Recipe(about="")


@dataclass(frozen=True)
class Serving:
    """Settings of all engines of a point; values are JSON but for those of `env`, all are sorted.

    `label` stands in ids: the recipe, and what was asked for beside it; empty without either.
    `asked` names what the user gave.
    """

    label: str = ""
    engine: Pairs = ()
    env: Pairs = ()
    probes: Pairs = ()
    questions: Pairs = ()
    asked: frozenset[str] = frozenset()
    recipe: Recipe = _NO_RECIPE

    @property
    def words(self) -> str:
        """The settings in words, for the header and the report; empty without any."""
        given = {
            "every engine": (*self.engine, *self.env),
            "probes": self.probes,
            "questions": self.questions,
        }
        words = [
            f"{what} with {', '.join(f'{name}={value}' for name, value in pairs)}"
            for what, pairs in given.items()
            if pairs
        ]
        words += ["requests cancelled before each probe"] * self.recipe.aborts
        words += ["weights loaded from what an engine saved"] * self.recipe.reload
        words += ["images in some probes"] * self.recipe.images
        return "; ".join(words)

    @property
    def needs_weights(self) -> bool:
        """Whether a checkpoint's files are read beside the model: for an adapter, or a drafter."""
        return dict(self.engine).get("enable_lora") == "true" or any(
            ITSELF in value for _, value in self.engine
        )


def recipe_names() -> tuple[str, ...]:
    """Names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in _RECIPES.glob("*.toml")))


@cache
def load_recipe(name: str) -> Recipe:
    """Read the recipe of a name.

    Raises:
        BadInputError: if there is none, or its file is not well formed.
    """
    if name not in recipe_names():
        raise BadInputError(f"--pp-recipe {name}: there is {', '.join(recipe_names())}")
    return read_toml(_RECIPES / f"{name}.toml", Recipe)


def read_pair(text: str) -> tuple[str, str]:
    """Part `NAME=VALUE`.

    Raises:
        ValueError: if it has no name or no `=`.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError("give NAME=VALUE")
    return name, value


def read_settings(texts: Iterable[str]) -> Pairs:
    """Read `NAME=VALUE` texts of engine settings; a value that is no JSON is a string.

    Raises:
        ValueError: if a text is no pair, or a name stands twice with other values.
    """
    return _sorted((name, _json(value)) for name, value in map(read_pair, texts))


def read_variables(texts: Iterable[str]) -> Pairs:
    """Read `NAME=VALUE` texts of environment variables.

    Raises:
        ValueError: if a text is no pair, or a name stands twice with other values.
    """
    return _sorted(map(read_pair, texts))


def read_settings_file(text: str) -> Pairs:
    """Read engine settings from a TOML file.

    Raises:
        ValueError: if it is no TOML.
    """
    return _as_json(tomllib.loads(Path(text).read_text(encoding="utf-8")))


def _sorted(pairs: Iterable[tuple[str, str]]) -> Pairs:
    known: dict[str, str] = {}
    for name, value in pairs:
        if known.setdefault(name, value) != value:
            raise ValueError(f"{name} has two values")
    return tuple(sorted(known.items()))


def _json(text: str) -> str:
    try:
        return json.dumps(json.loads(text))
    except ValueError:
        return json.dumps(text)


def servings(recipes: Iterable[str], engine: Pairs, env: Pairs) -> tuple[Serving, ...]:
    """Join what was asked for with each recipe; without recipes it stands alone.

    What was asked for wins over what the recipe says.

    Raises:
        BadInputError: if a recipe is unknown, or cannot be asked yet.
    """
    beside, names = _label((*engine, *env)), frozenset(dict((*engine, *env)))
    joined = []
    for name in tuple(recipes) or ("",):
        recipe = load_recipe(name) if name else _NO_RECIPE
        if recipe.not_yet:
            raise BadInputError(f"--pp-recipe {name}: not yet, {recipe.not_yet}")
        joined.append(
            Serving(
                label="+".join(filter(None, (name, beside))),
                engine=tuple(sorted((dict(_as_json(recipe.engine)) | dict(engine)).items())),
                env=tuple(sorted((recipe.env | dict(env)).items())),
                probes=_as_json(recipe.probes),
                questions=_as_json(recipe.questions),
                asked=names,
                recipe=recipe,
            )
        )
    return tuple(joined)


def _as_json(values: Mapping[str, Any]) -> Pairs:
    return tuple(sorted((name, json.dumps(value)) for name, value in values.items()))


def _label(pairs: Pairs) -> str:
    """Name settings for an id: as they are where that is short and plain, else by a digest."""
    text = ",".join("{}={}".format(name, value.strip('"')) for name, value in pairs)
    if len(text) <= _LONGEST_LABEL and re.fullmatch(r"[\w.,=-]*", text):
        return text
    return f"settings-{hashlib.sha256(repr(pairs).encode()).hexdigest()[:8]}"


# ---- what a release knows ----------------------------------------------------------------------


def check_serving(serving: Serving, vllm: InstalledVllm, profiles: Iterable[Profile]) -> None:
    """Refuse settings that a release does not know, or that the harness decides.

    Reads vLLM's source, imports nothing. Values are checked by vLLM itself, in the engine. A recipe
    may decide what a user may not.

    Raises:
        BadInputError: naming the setting, and the nearest names or the option that decides it.
    """
    parity = _PARITY_OWNED if Profile.PARITY in profiles else ()
    owned = _OWNED | dict.fromkeys(parity, _PARITY_REASON)
    for flag, pairs, decided, read in (
        ("--pp-engine", serving.engine, owned, engine_settings),
        ("--pp-env", serving.env, _OWNED_VARIABLES, variables),
    ):
        known = read(vllm.package_dir) if pairs else frozenset()
        for name, value in pairs:
            if name in decided and name in serving.asked:
                raise BadInputError(f"{flag} {name}={value}: {decided[name]}")
            if name in known:
                continue
            near = difflib.get_close_matches(name, sorted(known))
            raise BadInputError(
                f"{flag} {name}: vLLM {vllm.version} has no such setting"
                + (f"; there is {', '.join(near)}" if near else "")
            )


def engine_settings(package: Path) -> frozenset[str]:
    """Read the names of vLLM's engine settings: the fields of `EngineArgs`."""
    module = ast.parse((package / _ARGUMENTS).read_text(encoding="utf-8"))
    return frozenset(
        field.target.id
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )


def variables(package: Path) -> frozenset[str]:
    """Read the names of the environment variables that vLLM knows."""
    return frozenset(
        re.findall(r'"(VLLM_\w+)"', (package / _VARIABLES).read_text(encoding="utf-8"))
    )
