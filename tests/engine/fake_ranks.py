"""Ranks of the fake vLLM in this process, with the real hooks in each.

A rank is a process of its own in an engine. Here it is a set of modules of its own: `vllm`, from
tests/fake_vllm, and `harness.engine`, imported anew for each rank and swapped in while it runs.
"""

import contextlib
import itertools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch

FAKE = Path(__file__).parent.parent / "fake_vllm"
_PACKAGES = ("vllm", "harness.engine")


def _is_of_a_rank(name):
    return any(name == package or name.startswith(f"{package}.") for package in _PACKAGES)


class Modules:
    """The modules of one process, in sys.modules while the context is entered."""

    def __init__(self):
        self._modules = {}
        self._isend = lambda tensor, dst: None

    @contextlib.contextmanager
    def __call__(self):
        outer = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_of_a_rank(name)}
        import harness

        package = vars(harness).pop("engine", None)
        isend, torch.distributed.isend = torch.distributed.isend, self._isend
        sys.modules.update(self._modules)
        sys.path.insert(0, str(FAKE))
        try:
            yield
        finally:
            sys.path.remove(str(FAKE))
            names = [name for name in sys.modules if _is_of_a_rank(name)]
            self._modules = {name: sys.modules.pop(name) for name in names}
            sys.modules.update(outer)
            self._isend, torch.distributed.isend = torch.distributed.isend, isend
            if package is not None:
                harness.engine = package


@dataclass
class Settings:
    """What an engine of the fake is like."""

    pp: int = 1
    tp: int = 1
    v2: bool = False
    vocab: int = 32
    eager: bool = True
    tracing: bool = True
    model: str = "TinyForCausalLM"
    # Called in each rank before the hooks are installed, to take or add something.
    prepare: object = staticmethod(lambda: None)


class Rank:
    """One rank: `call` is what its executor does."""

    def __init__(self, settings, folder, rank, pp_mail, tp_mail):
        self.modules = Modules()
        self._arguments = {"local_rank": rank, "rank": rank}
        environment = {
            "PP_HARNESS_CAPTURE_DIR": str(folder),
            "PP_HARNESS_TRACE": str(int(settings.tracing)),
        }
        with self.modules(), _environment(environment):
            from vllm.config import ModelConfig, ParallelConfig, VllmConfig
            from vllm.distributed import parallel_state

            parallel_state._PP = parallel_state.GroupCoordinator(rank // settings.tp, pp_mail)
            parallel_state._TP = parallel_state.GroupCoordinator(rank % settings.tp, tp_mail)
            self._arguments["vllm_config"] = VllmConfig(
                ModelConfig(
                    settings.vocab, enforce_eager=settings.eager, architectures=(settings.model,)
                ),
                ParallelConfig(settings.pp, settings.tp),
                settings.v2,
            )
            settings.prepare()
            from harness.engine.plugin import register

            register()
        self.worker = None

    @property
    def vllm_config(self):
        """What the worker is made from."""
        return self._arguments["vllm_config"]

    def start(self):
        """Make the worker and load the model, as the engine does."""
        with self.modules():
            from vllm.v1.worker.cpu_worker import CPUWorker

            self.worker = CPUWorker(**self._arguments)
        for method in (
            "init_device",
            "load_model",
            "get_kv_cache_spec",
            "determine_available_memory",
            "compile_or_warm_up_model",
        ):
            self.call(method)

    def call(self, method, *args):
        with self.modules():
            return getattr(self.worker, method)(*args)


@contextlib.contextmanager
def _environment(values):
    before = os.environ.copy()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Request:
    """A prompt with its forced ids; `change` is asked for by its mark."""

    name: str
    prompt: list
    forced: list
    change: str = ""
    taken: list = field(default_factory=list)
    computed: int = 0

    @property
    def tokens(self):
        return self.prompt + self.taken

    @property
    def params(self):
        mark = {"request": self.name, "forced": self.forced, "change": self.change}
        return SimpleNamespace(extra_args={"pp_harness": mark})


class Engine:
    """Ranks and the loop that schedules requests on them, at most `budget` tokens a step."""

    def __init__(self, folder, **settings):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.settings = Settings(**settings)
        pp, tp = self.settings.pp, self.settings.tp
        mails = [[[] for _ in range(pp)] for _ in range(tp)]
        self.ranks = [
            Rank(self.settings, folder, rank, mails[rank % tp], [[] for _ in range(tp)])
            for rank in range(pp * tp)
        ]
        self._steps = itertools.count()

    def start(self):
        for rank in self.ranks:
            rank.start()
        return self

    def run(self, requests, budget=1024):
        """Run requests to their end, all in flight at once."""
        waiting, seen, finished = list(requests), set(), set()
        while waiting:
            room, counts = budget, {}
            for request in waiting:
                count = min(room, len(request.tokens) - request.computed)
                if count:
                    counts[request.name] = count
                    room -= count
            finished = self._step(waiting, counts, seen, finished)
            waiting = [request for request in waiting if request.name not in finished]
        for rank in self.ranks:
            rank.call("pp_harness_flush")

    def _step(self, requests, counts, seen, finished):
        """Run one step and return the names of the requests that it has finished."""
        last = len(self.ranks) - self.settings.tp
        sampled = None
        for number, rank in enumerate(self.ranks):
            output = self._output(rank, requests, counts, seen, finished)
            rank.call("execute_model", output)
            if number >= last:
                tokens = rank.call("sample_tokens", None)
                sampled = sampled or tokens
        done = set()
        for request in requests:
            seen.update({request.name} & counts.keys())
            request.computed += counts.get(request.name, 0)
            if request.name in counts and request.computed == len(request.tokens):
                request.taken.append(sampled[request.name])
                if len(request.taken) == len(request.forced):
                    done.add(request.name)
        return done

    def _output(self, rank, requests, counts, seen, finished):
        """Make the scheduler's output from the classes that a rank knows."""
        with rank.modules():
            from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

            scheduled = [request for request in requests if request.name in counts]
            return SchedulerOutput(
                [
                    NewRequestData(request.name, request.prompt, request.params)
                    for request in scheduled
                    if request.name not in seen
                ],
                counts,
                {request.name: request.tokens for request in scheduled},
                {request.name: request.computed for request in scheduled},
                finished,
            )
