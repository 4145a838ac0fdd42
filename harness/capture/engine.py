"""The process of one cell: one engine, first the probes, then lm-eval's gsm8k on it.

It is forked from a server that has imported vLLM (server.py). It writes into the folder named in
the request: `phases.jsonl` (a line as each phase starts), `effective.json`, `gsm8k.jsonl` and,
last, `result.json`. The hooks, loaded by vLLM as a plugin, write the rest beside them.
"""

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .probes import parity_probes

# Requests in flight at most; above every probe batch, so that parity sees identical batches.
_MAX_NUM_SEQS = 32
# The smallest block that vLLM uses, in tokens: enough blocks for all sequences at full length.
_BLOCK_TOKENS = 16


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
    each worker imports the model's module by itself.
    """
    config = json.loads((Path(model_path) / "config.json").read_text(encoding="utf-8"))

    from vllm.model_executor.models.registry import ModelRegistry

    for name in config.get("architectures") or ():
        if name in ModelRegistry.models:
            ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


def _build(request: dict[str, Any]) -> Any:
    """Build the engine through lm-eval's vLLM backend; its `.model` is the `LLM`."""
    from lm_eval.models.vllm_causallms import VLLM

    max_len = request["max_model_len"]
    blocks_per_sequence = -(-max_len // _BLOCK_TOKENS)
    return VLLM(
        pretrained=request["model_path"],
        dtype=request["dtype"],
        tensor_parallel_size=request["tp"],
        pipeline_parallel_size=request["pp"],
        max_model_len=max_len,
        max_gen_toks=request["max_gen_tokens"],
        max_num_seqs=_MAX_NUM_SEQS,
        max_num_batched_tokens=max(2048, max_len * 4),
        num_gpu_blocks_override=(_MAX_NUM_SEQS + 1) * blocks_per_sequence,
        distributed_executor_backend="mp",
        enforce_eager=True,
        async_scheduling=False,
        enable_prefix_caching=False,
        disable_cascade_attn=True,
        seed=0,
        batch_size="auto",
    )


def _effective(llm: Any) -> dict[str, Any]:
    """Read back what the engine really is; what was asked for may not be in effect."""
    config = llm.llm_engine.vllm_config
    return {
        "pp": config.parallel_config.pipeline_parallel_size,
        "tp": config.parallel_config.tensor_parallel_size,
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "enforce_eager": config.model_config.enforce_eager,
        "async_scheduling": bool(config.scheduler_config.async_scheduling),
        "chunked_prefill": bool(config.scheduler_config.enable_chunked_prefill),
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "kv_blocks": config.cache_config.num_gpu_blocks,
        "block_size": config.cache_config.block_size,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "architecture": config.model_config.architectures[0],
        "partition": os.environ.get("VLLM_PP_LAYER_PARTITION"),
    }


def _run_probes(llm: Any, request: dict[str, Any]) -> None:
    """Run the probe set; the hooks record it, because each request carries our mark."""
    from vllm import SamplingParams

    probes = parity_probes(
        request["vocab_size"], request["sliding_window"], request["max_model_len"]
    )
    for probe in probes:
        prompts = [{"prompt_token_ids": list(one.prompt)} for one in probe.requests]
        params = [
            SamplingParams(
                temperature=0.0,
                max_tokens=len(one.forced),
                ignore_eos=True,
                detokenize=False,
                extra_args={"pp_harness": {"request": one.name, "forced": list(one.forced)}},
            )
            for one in probe.requests
        ]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        for one, output in zip(probe.requests, outputs, strict=True):
            taken = tuple(output.outputs[0].token_ids)
            if taken != one.forced:
                raise RuntimeError(
                    f"probe {one.name}: the engine took {taken} and was to take {one.forced}"
                )


def main(request_file: str) -> int:
    """Run one cell; return 0 when the capture is whole."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    folder = Path(request["folder"])
    if request["device"] == "cpu":
        os.sched_setaffinity(0, request["devices"])
    phase = _Phases(folder)
    error: dict[str, str] | None = None
    try:
        with phase("engine"):
            if request["device"] == "cpu" and request["worker_start"] == "fork":
                _fork_workers()
            import_model_class(request["model_path"])
            lm = _build(request)
            (folder / "effective.json").write_text(json.dumps(_effective(lm.model)))
        with phase("probes"):
            _run_probes(lm.model, request)
        with phase("gsm8k"):
            from .gsm8k import run_gsm8k

            run_gsm8k(lm, request["gsm8k"], folder / "gsm8k.jsonl")
        with phase("shutdown"):
            lm.model.llm_engine.engine_core.shutdown()
    except BaseException as problem:
        error = {
            "error": f"{type(problem).__name__}: {problem}",
            "phase": phase.current,
            "traceback": traceback.format_exc(),
        }
    result = {"seconds": phase.seconds, "error": error}
    partial = folder / "result.json.partial"
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(folder / "result.json")
    return 1 if error else 0
