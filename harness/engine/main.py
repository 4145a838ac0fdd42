"""The process of one cell: one engine, first the probes, then lm-eval's gsm8k on it.

It is forked from a server that has imported vLLM (server.py). It writes into the folder named in
the request: `phases.jsonl` (a line as each phase starts), `effective.json`, `gsm8k.jsonl` and,
last, `result.json`. The hooks, loaded by vLLM as a plugin, write the rest beside them.
"""

import json
import os
import shutil
import sys
import time
import traceback
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .devices import KINDS
from .hooks import deaths, stacks
from .json_lines import first_events, read_lines
from .manifest import (
    EFFECTIVE,
    RESULT,
    Effective,
    EngineError,
    EngineResult,
    Request,
    from_json,
    write_record,
)
from .names import ITSELF, LOAD_FORMAT, TRACE_VARIABLE
from .probes import step_tokens
from .questions import ask_questions
from .run_probes import ProbeRun
from .settings import Device, Executor, Kernels, Mode, Profile, Weights

# By where the weights of a cell come from.
_LOAD_FORMATS = {Weights.CHECKPOINT: "auto", Weights.RANDOM: LOAD_FORMAT, Weights.DUMMY: "dummy"}
# Of a checkpoint: its weights, in the forms that vLLM knows.
_WEIGHT_FILES = ("*.safetensors*", "*.bin", "*.pt", "*.pth", "*.gguf")
# Settings that vLLM's configuration has under another name than its engine's arguments.
_IN_CONFIG = {"kv_cache_dtype": "cache_dtype"}
# What vLLM is told that its cache may take where ranks share a GPU; the blocks that it takes are
# given by number.
_SHARED_KV_BYTES = 4 << 30


class _Phases:
    """Seconds by phase, written as each phase starts so that a silent child can be placed."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "phases.jsonl").open("a", encoding="utf-8")
        self.seconds: dict[str, float] = {}
        self.current = "start"

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.current = name
        self._file.write(json.dumps({"phase": name, "time": time.time()}) + "\n")
        self._file.flush()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - began, 3)


def _fork_workers() -> None:
    """Let CPU workers fork from this process, which has imported vLLM, instead of spawning.

    vLLM's CPU platform forces spawn, so that each rank would import everything again (8 to 12 s).
    A fork is safe here because OpenMP runs one thread and no parallel region has started.
    """
    import multiprocessing

    import torch
    from vllm.v1.executor import multiproc_executor

    multiproc_executor.get_mp_context = lambda: multiprocessing.get_context("fork")
    # The worker's shutdown synchronizes the accelerator. There is none, and a CUDA build of
    # torch refuses even to look for one in a forked process.
    torch.accelerator.synchronize = lambda *_args, **_kwargs: None


def import_model_class(model_path: str) -> None:
    """Import the model's class in this process, before its workers fork.

    Otherwise vLLM starts a subprocess to inspect the class (it imports vLLM again, 10 s) and
    each worker imports the model's module by itself. A multimodal class imports that of its
    decoder, and asks the registry for it in each rank: what is imported is registered too.
    """
    config = json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))

    import torch
    from vllm.model_executor.models.registry import ModelRegistry

    for name in config.get("architectures") or ():
        if name in ModelRegistry.models:
            ModelRegistry.models[name].load_model_cls()
    for name, entry in list(ModelRegistry.models.items()):
        if getattr(entry, "module_name", None) in sys.modules:
            served = entry.load_model_cls()
            # Releases after 0.26.0 have entries that are no class, or one of no module.
            if isinstance(served, type) and issubclass(served, torch.nn.Module):
                ModelRegistry.register_model(name, served)


def _settings(request: Request) -> dict[str, Any]:
    """Build the settings that vLLM is given.

    In *parity* every PP size sees the same batches and the same cache. *stress* is what users run:
    prompts in chunks, several batches in flight, prefixes from the cache, and asynchronous
    scheduling wherever vLLM itself would have it.
    """
    stress, invariant = request.profile is Profile.STRESS, request.kernels is Kernels.INVARIANT
    share = request.ranks_per_device
    # vLLM measures free memory to size its cache, which nothing can while others take and give.
    memory = {"gpu_memory_utilization": 0.9 / share, "kv_cache_memory_bytes": _SHARED_KV_BYTES}
    return {
        "dtype": request.dtype,
        "tensor_parallel_size": request.tp,
        "pipeline_parallel_size": request.pp,
        "max_model_len": request.max_model_len,
        "max_num_seqs": request.max_sequences,
        "max_num_batched_tokens": step_tokens(
            request.profile, request.max_model_len, request.max_sequences
        ),
        "num_gpu_blocks_override": -(-request.cache_tokens // KINDS[request.device].block_tokens),
        "distributed_executor_backend": str(request.executor),
        "enforce_eager": request.mode is Mode.EAGER,
        "async_scheduling": None if stress else False,
        "enable_prefix_caching": stress,
        "disable_cascade_attn": not stress,
        "seed": 0,
        "load_format": _LOAD_FORMATS[request.weights],
        "trust_remote_code": request.trust_remote_code,
        **(memory if share > 1 else {}),
        **(KINDS[request.device].invariant_settings if invariant else {}),
    }


class RefusedSettingError(Exception):
    """vLLM refuses a setting that the user asked for; without it the engine could start."""


def _with_asked(request: Request, settings: dict[str, Any]) -> dict[str, Any]:
    """Add the settings that the user asked for by vLLM's own names.

    Raises:
        RefusedSettingError: if vLLM takes `settings` and refuses them with what was asked for.
    """
    if not request.engine_args:
        return settings
    from vllm import EngineArgs

    asked = {
        name: json.loads(value.replace(ITSELF, request.model_path))
        for name, value in request.engine_args
    }
    try:
        EngineArgs(model=request.model_path, **settings | asked).create_engine_config()
    except Exception as refusal:
        EngineArgs(model=request.model_path, **settings).create_engine_config()
        pairs = ", ".join(f"{name}={value}" for name, value in request.engine_args)
        reason = " ".join(str(refusal).split())
        raise RefusedSettingError(f"vLLM refuses {pairs}: {reason}") from refusal
    return settings | asked


def _build(request: Request) -> tuple[Any, Any]:
    """Return the `LLM`, and lm-eval's backend around it where there are questions."""
    settings = _with_asked(request, _settings(request))
    if not request.reload:
        return _load(request, request.model_path, settings)
    with TemporaryDirectory(dir=request.folder) as folder:
        _save_sharded(request.model_path, settings, folder)
        return _load(request, folder, {**settings, "load_format": "sharded_state"})


def _save_sharded(model: str, settings: dict[str, Any], folder: str) -> None:
    """Let an engine of the same sizes save what its ranks have loaded, as vLLM's sharded state."""
    from vllm import LLM

    weights = shutil.ignore_patterns(*_WEIGHT_FILES)
    shutil.copytree(model, folder, ignore=weights, dirs_exist_ok=True)
    core = LLM(model, skip_tokenizer_init=True, **settings).llm_engine.engine_core
    core.save_sharded_state(folder)
    core.shutdown()


def _load(request: Request, model: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    if request.gsm8k is None:
        from vllm import LLM

        # A processor of images looks for their marks with the tokenizer.
        return LLM(model, skip_tokenizer_init=not request.images, **settings), None
    from lm_eval.models.vllm_causallms import VLLM

    lm = VLLM(
        pretrained=model,
        max_gen_toks=request.max_gen_tokens,
        batch_size="auto",
        **settings,
    )
    return lm.model, lm


def _in_ranks(folder: Path) -> dict[str, str]:
    """Return what is in effect in the ranks, by their own word: model runner, attention backends.

    A control run that traces nothing knows no backends.
    """
    ranks = [first_events(read_lines(path)) for path in folder.glob("rank*.jsonl")]
    runners = {rank["heartbeat"]["adapter"] for rank in ranks}
    backends = {
        name for rank in ranks if "attention" in rank for name in rank["attention"]["backends"]
    }
    return {"runner": " and ".join(sorted(runners)), "attention": " and ".join(sorted(backends))}


def _kept(config: Any, asked: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    """Yield what vLLM's configuration has of the settings `asked`, as JSON; an object is true."""
    parts = (config, *vars(config).values())
    fields = ChainMap(*(vars(part) for part in parts if hasattr(part, "__dict__")))
    for name, _ in asked:
        field = _IN_CONFIG.get(name, name)
        if field in fields:
            value = fields[field]
            is_plain = value is None or isinstance(value, bool | int | float | str)
            yield name, json.dumps(value if is_plain else True)


def _effective(llm: Any, request: Request) -> Effective:
    """Read back what the engine really is; what was asked for may not be in effect."""
    config = llm.llm_engine.vllm_config
    scheduler, cache = config.scheduler_config, config.cache_config
    return Effective(
        pp=config.parallel_config.pipeline_parallel_size,
        tp=config.parallel_config.tensor_parallel_size,
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        enforce_eager=config.model_config.enforce_eager,
        async_scheduling=bool(scheduler.async_scheduling),
        chunked_prefill=bool(scheduler.enable_chunked_prefill),
        prefix_caching=bool(cache.enable_prefix_caching),
        kv_blocks=cache.num_gpu_blocks,
        block_size=cache.block_size,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_num_seqs=scheduler.max_num_seqs,
        **_in_ranks(request.folder),
        architecture=config.model_config.architectures[0],
        partition=os.environ.get("VLLM_PP_LAYER_PARTITION"),
        ranks_per_device=request.ranks_per_device,
        worker_start=request.worker_start
        if request.device is Device.CPU
        else os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "fork"),
        kernels=KINDS[request.device].kernels(),
        workarounds=tuple(sorted(set().union(*llm.collective_rpc("pp_harness_workarounds")))),
        engine_args=tuple(_kept(config, request.engine_args)),
    )


def main(request_file: str) -> int:
    """Run one cell; return 0 when the capture is whole."""
    request = from_json(Request, Path(request_file).read_bytes())
    folder = request.folder
    if request.device is Device.CPU:
        os.sched_setaffinity(0, request.devices)
    stacks.arm(folder, "engine")
    phase = _Phases(folder)
    error: EngineError | None = None
    peak_bytes: list[int] = []
    try:
        with phase("engine"):
            if request.executor is Executor.RAY:
                from .ray_cluster import join_cluster

                join_cluster()
                deaths.install_ray(folder)
            if request.device is Device.CPU and request.worker_start == "fork":
                _fork_workers()
            import_model_class(request.model_path)
            llm, lm = _build(request)
            write_record(_effective(llm, request), folder / EFFECTIVE)
        with phase("probes"):
            probes = ProbeRun(llm, request)
            probes.run()
        if os.environ[TRACE_VARIABLE] != "0":
            with phase("sensitivity"):
                probes.run_sensitivity()
        if lm is not None and request.gsm8k is not None:
            with phase("gsm8k"):
                ask_questions(llm, lm, request, folder)
        if request.changes:
            with phase("changes"):
                probes.run_under_changes(lm)
        peak_bytes = llm.collective_rpc("pp_harness_peak_bytes")
        with phase("shutdown"):
            llm.llm_engine.engine_core.shutdown()
    except BaseException as problem:
        error = EngineError(
            error=f"{type(problem).__name__}: {problem}",
            phase=phase.current,
            traceback=traceback.format_exc(),
        )
    result = EngineResult(seconds=phase.seconds, peak_bytes=peak_bytes, error=error)
    write_record(result, folder / RESULT)
    return 1 if error else 0
