"""The names of vLLM that `harness/engine/` relies on, and their check against a release's source.

`SURFACE` is the one list. `check_surface` reads the files that it names, of an installed package,
an unpacked wheel or a checkout, and imports nothing: whether the hooks fit a release is known
before anything of it runs (`pp-harness pin check`). Standard library only.
"""

import ast
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path


class Need(StrEnum):
    """The runs that need a name."""

    ALL = "all runs"
    CPU = "ranks on a CPU"
    V1 = "the V1 model runner"
    V2 = "the V2 model runner"
    SHARED = "ranks that share a GPU"
    RANDOM = "random weights"
    SELFTEST = "the self-test"


@dataclass(frozen=True)
class Names:
    """Names of one class, or of a module where `owner` is None, in the file `vllm/<file>`.

    Each of `names` is written `name`, or `name(a, b)` for a function whose first parameters after
    `self` must be called `a` and `b`, in this order; `one | other` asks for at least one of both.
    A class may inherit what it is asked for. `used_by` is below `harness/engine/`.
    """

    file: str
    owner: str | None
    used_by: str
    names: tuple[str, ...]
    need: Need = Need.ALL


SURFACE = (
    # ---- the engine's process ----------------------------------------------------------------
    Names("__init__.py", None, "main.py", ("LLM", "SamplingParams", "__version__")),
    Names(
        "entrypoints/llm.py",
        "LLM",
        "main.py, run_probes.py",
        (
            "__init__(model)",
            "generate(prompts, sampling_params)",
            "collective_rpc(method)",
            "reset_prefix_cache",
            "llm_engine",
        ),
    ),
    Names("v1/engine/llm_engine.py", "LLMEngine", "main.py", ("vllm_config", "engine_core")),
    Names("v1/engine/core_client.py", "EngineCoreClient", "main.py", ("shutdown",)),
    Names(
        "engine/arg_utils.py",
        "EngineArgs",
        "main.py",
        (
            "async_scheduling",
            "disable_cascade_attn",
            "distributed_executor_backend",
            "dtype",
            "enable_prefix_caching",
            "enforce_eager",
            "gpu_memory_utilization",
            "kv_cache_memory_bytes",
            "load_format",
            "max_model_len",
            "max_num_batched_tokens",
            "max_num_seqs",
            "num_gpu_blocks_override",
            "pipeline_parallel_size",
            "seed",
            "skip_tokenizer_init",
            "tensor_parallel_size",
            "trust_remote_code",
        ),
    ),
    Names(
        "config/model.py",
        "ModelConfig",
        "main.py, hooks/model.py",
        (
            "architectures",
            "dtype",
            "enforce_eager",
            "get_total_num_hidden_layers",
            "get_vocab_size",
        ),
    ),
    Names(
        "config/parallel.py",
        "ParallelConfig",
        "main.py, hooks/workers.py",
        ("distributed_executor_backend", "pipeline_parallel_size", "tensor_parallel_size"),
    ),
    Names(
        "config/scheduler.py",
        "SchedulerConfig",
        "main.py",
        ("async_scheduling", "enable_chunked_prefill", "max_num_batched_tokens", "max_num_seqs"),
    ),
    Names(
        "config/cache.py",
        "CacheConfig",
        "main.py",
        ("block_size", "enable_prefix_caching", "num_gpu_blocks"),
    ),
    Names(
        "sampling_params.py",
        "SamplingParams",
        "run_probes.py",
        ("detokenize", "extra_args", "ignore_eos", "max_tokens", "temperature"),
    ),
    Names("outputs.py", "RequestOutput", "run_probes.py", ("num_cached_tokens", "outputs")),
    Names("outputs.py", "CompletionOutput", "run_probes.py", ("token_ids",)),
    Names("model_executor/models/registry.py", None, "main.py", ("ModelRegistry",)),
    Names(
        "model_executor/models/registry.py",
        "_ModelRegistry",
        "main.py",
        ("models", "register_model(model_arch, model_cls)"),
    ),
    Names(
        "model_executor/models/registry.py",
        "_LazyRegisteredModel",
        "main.py",
        ("load_model_cls", "module_name"),
    ),
    Names("v1/executor/multiproc_executor.py", None, "main.py", ("get_mp_context",), Need.CPU),
    Names("compilation/backends.py", None, "server.py", ()),
    Names(
        "v1/executor/multiproc_executor.py",
        "MultiprocExecutor",
        "hooks/deaths.py",
        ("_ensure_worker_termination(worker_procs)", "is_failed", "shutdown", "workers"),
    ),
    Names("v1/executor/multiproc_executor.py", "WorkerProcHandle", "hooks/deaths.py", ("proc",)),
    Names("v1/executor/multiproc_executor.py", "WorkerProc", "hooks/workers.py", ("__init__",)),
    # ---- workers and what crosses a boundary -------------------------------------------------
    Names("platforms/__init__.py", None, "hooks/workers.py", ("current_platform",)),
    Names("platforms/interface.py", "Platform", "hooks/workers.py", ("is_cpu",)),
    Names("platforms/interface.py", "Platform", "hooks/share.py", ("dist_backend",), Need.SHARED),
    Names(
        "v1/worker/gpu_worker.py",
        "Worker",
        "hooks/workers.py",
        (
            "__init__",
            "execute_model(scheduler_output)",
            "init_device",
            "load_model",
            "model_runner",
            "parallel_config",
            "rank",
            "sample_tokens",
        ),
    ),
    Names("v1/worker/gpu_worker.py", "Worker", "hooks/share.py", ("local_rank",), Need.SHARED),
    Names(
        "v1/worker/cpu_worker.py",
        "CPUWorker",
        "hooks/workers.py",
        ("init_device", "load_model", "execute_model(scheduler_output)", "sample_tokens"),
        Need.CPU,
    ),
    Names(
        "v1/worker/gpu_worker.py",
        "AsyncIntermediateTensors",
        "hooks/position.py",
        ("_comm_handles", "_comm_waited", "wait_for_comm"),
    ),
    Names(
        "distributed/parallel_state.py",
        None,
        "hooks/workers.py",
        ("get_pp_group", "get_tp_group"),
    ),
    Names(
        "distributed/parallel_state.py",
        "GroupCoordinator",
        "hooks/workers.py, position.py, share.py",
        (
            "device",
            "irecv_tensor_dict",
            "is_last_rank",
            "isend_tensor_dict(tensor_dict)",
            "rank_in_group",
            "world_size",
        ),
    ),
    Names(
        "distributed/device_communicators/cpu_communicator.py",
        "_CPUSHMDistributed",
        "hooks/shm.py",
        ("_init_cpu_shm", "communicator", "group_name"),
        Need.CPU,
    ),
    Names(
        "sequence.py",
        "IntermediateTensors",
        "hooks/tensors.py",
        ("__getitem__(key)", "items", "tensors"),
    ),
    # ---- model runners -----------------------------------------------------------------------
    Names(
        "v1/core/sched/output.py",
        "SchedulerOutput",
        "hooks/runner_v1.py, runner_v2.py",
        (
            "finished_req_ids",
            "num_scheduled_tokens",
            "scheduled_new_reqs",
            "total_num_scheduled_tokens",
        ),
    ),
    Names(
        "v1/core/sched/output.py",
        "NewRequestData",
        "hooks/runner_v2.py",
        ("prompt_token_ids", "req_id", "sampling_params"),
        Need.V2,
    ),
    Names(
        "v1/worker/gpu_model_runner.py",
        "GPUModelRunner",
        "hooks/runner_v1.py",
        (
            "_dummy_run",
            "_update_states(scheduler_output)",
            "device",
            "get_model",
            "input_batch",
            "intermediate_tensors",
            "model_config",
            "requests",
            # Since 0.26.0 the copy gathers what sequence parallelism scattered.
            "sync_and_slice_intermediate_tensors(num_tokens, intermediate_tensors, sync_self)"
            " | sync_and_gather_intermediate_tensors(num_tokens, intermediate_tensors, sync_self)",
        ),
        Need.V1,
    ),
    Names(
        "v1/worker/gpu_model_runner.py",
        "AsyncGPUModelRunnerOutput",
        "hooks/runner_v1.py",
        ("get_output",),
        Need.V1,
    ),
    Names(
        "v1/worker/gpu_input_batch.py",
        "InputBatch",
        "hooks/runner_v1.py",
        ("num_computed_tokens_cpu", "req_ids"),
        Need.V1,
    ),
    Names(
        "v1/worker/gpu_input_batch.py",
        "CachedRequestState",
        "hooks/runner_v1.py",
        ("prompt_token_ids", "sampling_params"),
        Need.V1,
    ),
    Names(
        "v1/worker/gpu/model_runner.py",
        "GPUModelRunner",
        "hooks/runner_v2.py",
        (
            "_dummy_run",
            "add_requests(scheduler_output)",
            "device",
            "execute_model(scheduler_output, intermediate_tensors)",
            "get_model",
            "model_config",
            "prepare_inputs",
            "req_states",
        ),
        Need.V2,
    ),
    Names(
        "v1/worker/gpu/async_utils.py",
        "AsyncOutput",
        "hooks/runner_v2.py",
        ("get_output",),
        Need.V2,
    ),
    Names(
        "v1/worker/gpu/states.py",
        "RequestState",
        "hooks/runner_v2.py",
        ("num_computed_tokens_np",),
        Need.V2,
    ),
    Names(
        "v1/worker/gpu/input_batch.py",
        "InputBatch",
        "hooks/runner_v2.py",
        ("idx_mapping_np", "num_scheduled_tokens", "req_ids"),
        Need.V2,
    ),
    # ---- models ------------------------------------------------------------------------------
    Names(
        "model_executor/models/interfaces.py",
        "SupportsPP",
        "hooks/model.py",
        ("make_empty_intermediate_tensors(batch_size, dtype, device)",),
    ),
    Names("model_executor/models/utils.py", None, "hooks/model.py", ("PPMissingLayer",)),
    Names(
        "model_executor/layers/attention_layer_base.py",
        "AttentionLayerBase",
        "hooks/model.py",
        ("get_attn_backend", "impl"),
    ),
    Names("v1/attention/backend.py", "AttentionBackend", "hooks/model.py", ("get_name",)),
    Names(
        "model_executor/layers/linear.py",
        "LinearMethodBase",
        "hooks/perturb.py",
        ("apply(layer, x)",),
    ),
    Names("config/__init__.py", None, "hooks/random_load.py", ("ModelConfig",), Need.RANDOM),
    Names(
        "model_executor/layers/vocab_parallel_embedding.py",
        None,
        "hooks/random_load.py",
        ("VocabParallelEmbedding",),
        Need.RANDOM,
    ),
    Names(
        "model_executor/model_loader/__init__.py",
        None,
        "hooks/random_load.py",
        ("register_model_loader(load_format)",),
        Need.RANDOM,
    ),
    Names(
        "model_executor/model_loader/base_loader.py",
        "BaseModelLoader",
        "hooks/random_load.py",
        ("download_model(model_config)", "load_weights(model, model_config)"),
        Need.RANDOM,
    ),
    Names(
        "v1/worker/gpu_model_runner.py",
        "GPUModelRunner",
        "seeded/",
        ("kv_caches",),
        Need.SELFTEST,
    ),
    Names("config/model.py", "ModelConfig", "seeded/", ("hf_text_config",), Need.SELFTEST),
    Names(
        "model_executor/layers/attention/attention.py",
        None,
        "seeded/",
        ("get_attention_context(layer_name)",),
        Need.SELFTEST,
    ),
    Names(
        "model_executor/layers/attention/attention.py",
        "Attention",
        "seeded/",
        ("impl", "layer_name"),
        Need.SELFTEST,
    ),
)


class State(StrEnum):
    """The relation of a release to one name."""

    PRESENT = "present"
    MISSING = "missing"
    SIGNATURE_DIFFERS = "signature differs"


@dataclass(frozen=True)
class Finding:
    """One name as a release has it; `found` says in words how it is there, or what is instead."""

    name: str
    used_by: str
    need: Need
    state: State
    found: str

    @property
    def is_present(self) -> bool:
        """Whether the name is there as the hooks need it."""
        return self.state is State.PRESENT


def check_surface(root: Path, surface: Iterable[Names] = SURFACE) -> list[Finding]:
    """Look every name up in `root`, a folder with the package `vllm` in it."""
    source = _Source(root)
    return [
        _check(source, group, written)
        for group in surface
        for written in (group.names or ("",))  # no name: the file itself
    ]


def _check(source: "_Source", group: Names, written: str) -> Finding:
    place = ".".join(filter(None, (group.owner, written)))
    name = f"vllm/{group.file}: {place}" if place else f"vllm/{group.file}"

    def finding(state: State, found: str) -> Finding:
        return Finding(name, group.used_by, group.need, state, found)

    try:
        scope = source.module(f"vllm/{group.file}")
    except SyntaxError as error:
        return finding(State.MISSING, f"line {error.lineno} is no Python: {error.msg}")
    if scope is None:
        return finding(State.MISSING, f"no file vllm/{group.file}")
    if group.owner is not None:
        owner = source.class_in(scope, group.owner)
        if owner is None:
            return finding(State.MISSING, _instead(group.owner, scope.names))
        scope = owner
    if not written:
        return finding(State.PRESENT, "there")
    differs = ""
    for alternative in written.split(" | "):
        wanted, parameters = _parsed(alternative)
        known = source.find(scope, wanted)
        if known is None:
            continue
        actual = known.parameters
        if actual is not None and actual[: len(parameters)] != parameters:
            differs = f"{wanted}({', '.join(actual)})"
            continue
        return finding(State.PRESENT, wanted)
    if differs:
        return finding(State.SIGNATURE_DIFFERS, differs)
    wanted, _ = _parsed(written.partition(" | ")[0])
    return finding(State.MISSING, _instead(wanted, source.all_names(scope)))


def _parsed(written: str) -> tuple[str, tuple[str, ...]]:
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", written)
    assert match is not None, written
    return match[1], tuple(re.findall(r"\w+", match[2] or ""))


def _instead(wanted: str, names: Iterable[str]) -> str:
    alike = difflib.get_close_matches(wanted, list(names))
    return f"no {wanted}" + (f"; there is {', '.join(alike)}" if alike else "")


# ---- reading source --------------------------------------------------------------------------

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class _Binding:
    """One bound name: the statement that binds it and, of an import, the module and name there."""

    node: ast.stmt | None = None
    imported: tuple[str, str] | None = None

    @property
    def parameters(self) -> tuple[str, ...] | None:
        """The positional parameters of a function, without that of the instance."""
        if not isinstance(self.node, _FUNCTIONS):
            return None
        given = [each.arg for each in (*self.node.args.posonlyargs, *self.node.args.args)]
        return tuple(given[1:] if given[:1] in (["self"], ["cls"]) else given)


class _Scope:
    """The body of a module or of a class in the file `path`, looked through when it is asked."""

    def __init__(self, path: str, node: ast.Module | ast.ClassDef) -> None:
        self.path = path
        self._node = node

    @cached_property
    def names(self) -> dict[str, _Binding]:
        """The names that its statements bind, by the first that does."""
        bound: dict[str, _Binding] = {}
        for node in _statements(self._node.body):
            for name, binding in _bindings(self.path, node):
                bound.setdefault(name, binding)
        return bound

    @cached_property
    def attributes(self) -> set[str]:
        """The names that the methods of a class set on `self`."""
        if isinstance(self._node, ast.Module):
            return set()
        methods = (each for each in _statements(self._node.body) if isinstance(each, _FUNCTIONS))
        return {
            target.attr
            for method in methods
            for node in _statements(method.body)
            for target in _targets(node)
            if isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id == "self"
        }

    @property
    def bases(self) -> tuple[str, ...]:
        """The names of the classes that a class inherits from."""
        if isinstance(self._node, ast.Module):
            return ()
        return tuple(base.id for base in self._node.bases if isinstance(base, ast.Name))


class _Source:
    """The files of one release, each read when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, _Scope | None] = {}
        self._classes: dict[int, _Scope] = {}

    def module(self, path: str) -> _Scope | None:
        """Read a file below the root; None if it is not there."""
        if path not in self._modules:
            file = self._root / path
            self._modules[path] = (
                _Scope(path, ast.parse(file.read_bytes())) if file.is_file() else None
            )
        return self._modules[path]

    def class_in(self, module: _Scope, name: str) -> _Scope | None:
        """Find a class that a module defines or imports from vLLM."""
        place = self._defined(module, name)
        if place is None or not isinstance(place[1].node, ast.ClassDef):
            return None
        defined_in, node = place[0], place[1].node
        return self._classes.setdefault(id(node), _Scope(defined_in.path, node))

    def find(self, scope: _Scope, name: str) -> _Binding | None:
        """Find a name in a module, or in a class or one that it inherits from."""
        if place := self._defined(scope, name):
            return place[1]
        if name in scope.attributes:
            return _Binding()
        return next(filter(None, (self.find(base, name) for base in self._bases(scope))), None)

    def all_names(self, scope: _Scope) -> set[str]:
        """Collect the names of a scope and of those that it inherits from."""
        inherited = map(self.all_names, self._bases(scope))
        return set(scope.names).union(scope.attributes, *inherited)

    def _bases(self, scope: _Scope) -> Iterator[_Scope]:
        module = self.module(scope.path)
        for name in scope.bases:
            if module and (base := self.class_in(module, name)):
                yield base

    def _defined(self, scope: _Scope, name: str) -> tuple[_Scope, _Binding] | None:
        """Find where a name of a scope is defined, through imports from vLLM."""
        binding = scope.names.get(name)
        if binding is None:
            return None
        if binding.imported:
            module, name = binding.imported
            path = module.replace(".", "/")
            origin = self.module(f"{path}.py") or self.module(f"{path}/__init__.py")
            if origin and (place := self._defined(origin, name)):
                return place
        return scope, binding


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a body, those inside other statements too, but of no new scope."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from _statements(node.body)
            yield from _statements(getattr(node, "orelse", ()))
            yield from _statements(getattr(node, "finalbody", ()))
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)


def _targets(node: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions that an assignment assigns to, those of a tuple one by one."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from target.elts if isinstance(target, ast.Tuple) else (target,)
    elif isinstance(node, ast.AnnAssign):
        yield node.target


def _bindings(path: str, node: ast.stmt) -> Iterator[tuple[str, _Binding]]:
    """Yield the names that one statement of the file `path` binds."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        yield node.name, _Binding(node)
    elif isinstance(node, ast.ImportFrom):
        module = _absolute(path, node)
        for alias in node.names:
            ours = module == "vllm" or module.startswith("vllm.")
            origin = (module, alias.name) if ours else None
            yield alias.asname or alias.name, _Binding(node, origin)
    for target in _targets(node):
        if isinstance(target, ast.Name):
            yield target.id, _Binding(node)


def _absolute(path: str, node: ast.ImportFrom) -> str:
    """Name the module that a file imports from, which it may name relative to its own folder."""
    if not node.level:
        return node.module or ""
    package = path.split("/")[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])
