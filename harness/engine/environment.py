"""The environment variables of engines: what a variant's server needs, and what each cell adds."""

import os
import re
from pathlib import Path

from .devices import KINDS
from .manifest import Request
from .names import CAPTURE_DIR_VARIABLE, TRACE_VARIABLE, WEIGHTS_VARIABLE
from .settings import EngineSettings, Kernels, Mode, ModelRunner, Weights

# A variable is taken for a secret by the words of its name: HF_TOKEN, not MAX_TOKENS.
_SECRET_WORDS = re.compile(
    r"(?:TOKEN|KEY|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CREDENTIALS|AUTH|COOKIE)$"
)
# Or by its value: an address that carries a password.
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")
# What each cell says itself: its kernels, its layer split, and a port, which engines side by side
# cannot share.
_OWN_SETTINGS = (
    *(name for kind in KINDS.values() for name in kind.invariant),
    *("VLLM_PP_LAYER_PARTITION", "VLLM_PORT"),
)
# More seconds than any phase may take: the harness ends what hangs, with the stacks of its ranks.
_NO_LIMIT = "1000000"


def is_secret(name: str, value: str) -> bool:
    """Whether an environment variable may hold a secret, which no engine gets and nothing records.

    The words of a name are parted by underscores; the end of a word counts, as in PGPASSWORD. A
    number in a setting of vLLM is a quantity (VLLM_..._TOKEN_THRESHOLD).
    """
    if name.startswith("VLLM_") and value.isdecimal():
        return False
    words = name.upper().split("_")
    return any(map(_SECRET_WORDS.search, words)) or bool(_SECRET_VALUE.search(value))


def inherited_settings() -> tuple[tuple[str, str], ...]:
    """Return the settings of vLLM that engines inherit from the user's environment, sorted."""
    return tuple(
        sorted(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith("VLLM_") and name not in _OWN_SETTINGS and not is_secret(name, value)
        )
    )


def server_environment(settings: EngineSettings, tree: Path, package: Path) -> dict[str, str]:
    """Build the environment in which vLLM is imported: the variant tree first, then the harness.

    `package` is a folder that holds the controller's own `harness` and nothing else.

    The same for all cells of a variant, mode and kernels on one device. What libraries read while
    they load stands here: OpenMP runs one thread per rank at every PP, so that sums run in the same
    order and a fork is safe. Secrets of the user's shell stay out: models and questions are local
    by now.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not is_secret(name, value)
    }
    inherited = env.get("PYTHONPATH")
    env["PYTHONPATH"] = os.pathsep.join(
        [str(tree), str(package), *([inherited] if inherited else [])]
    )
    if env.get("VLLM_PLUGINS"):  # a user's filter must not filter us out
        env["VLLM_PLUGINS"] += ",pp_harness"
    env.update(
        OMP_NUM_THREADS="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",  # engine core in process: identical batches
        VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS=_NO_LIMIT,
        VLLM_NO_USAGE_STATS="1",
        VLLM_DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",
    )
    for name in _OWN_SETTINGS:
        env.pop(name, None)
    kind = KINDS[settings.device]
    if settings.kernels is Kernels.INVARIANT:
        env.update(kind.invariant)
    env.update(kind.environment)
    if settings.mode is Mode.EAGER:
        env.update(kind.eager_environment)
    env.update(settings.env)
    return env


def cell_environment(request: Request, *, tracing: bool) -> dict[str, str]:
    """Build what one cell adds to its server's environment."""
    env = {
        CAPTURE_DIR_VARIABLE: str(request.folder),
        TRACE_VARIABLE: "1" if tracing else "0",
    }
    if request.weights is Weights.RANDOM:
        env[WEIGHTS_VARIABLE] = request.weights
    if request.runner is not ModelRunner.AUTO:
        env["VLLM_USE_V2_MODEL_RUNNER"] = "1" if request.runner is ModelRunner.V2 else "0"
    if request.partition:
        env["VLLM_PP_LAYER_PARTITION"] = ",".join(map(str, request.partition))
    env.update(KINDS[request.device].cell_environment(request))
    return env
