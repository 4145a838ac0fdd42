"""Hooks attach or refuse: none finds nothing to wrap and keeps silent."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the hooks run inside the engine, with torch")

from fake_ranks import Engine, Request  # noqa: E402 - needs torch

from harness.engine import hooks  # noqa: E402
from harness.engine.failures import read_failures  # noqa: E402
from harness.engine.hooks.wrap import HookError, names_of_vllm, wrap  # noqa: E402
from harness.source.surface import load_surface  # noqa: E402


class Base:
    def inherited(self):
        return "base"

    @staticmethod
    def static(value):
        return value


class Owner(Base):
    def own(self):
        return "own"


def louder(method, *args):
    return f"{method(*args)}!"


@pytest.fixture
def owner():
    """A class of its own for each test."""

    class Parent(Base):
        inherited = Base.inherited
        static = staticmethod(Base.static)

    return type("Owner", (Parent,), dict(vars(Owner)))


def test_a_method_is_wrapped_where_it_is_defined(owner):
    """In the class itself, in one that it inherits from, and as a static method."""
    for name in ("own", "inherited", "static"):
        wrap(owner, name, louder)
    assert owner().own() == "own!"
    assert owner().inherited() == "base!"
    assert owner.static("x") == owner().static("x") == "x!"
    assert "inherited" not in vars(owner)


def test_a_missing_method_is_refused(owner):
    """The error names class and method, the release, and the command that lists all names."""
    words = r"our hooks do not fit vLLM .*: .*Owner has no 'gone'; .*pp-harness pin check "
    with pytest.raises(HookError, match=words):
        wrap(owner, "gone", louder)
    # Every class has it from `object`, and no class of vLLM would be wrapped.
    with pytest.raises(HookError, match="has no '__init__'"):
        wrap(owner, "__init__", louder)


def test_a_renamed_method_is_wrapped_by_the_name_that_is_there(owner):
    """One of several names is enough, and none is refused with all of them."""
    wrap(owner, ("gone", "own"), louder)
    assert owner().own() == "own!"
    with pytest.raises(HookError, match="has no 'gone' and no 'lost'"):
        wrap(owner, ("gone", "lost"), louder)


def test_a_failed_import_is_refused():
    """A name that a module of vLLM does not have ends in the same error."""
    with pytest.raises(HookError, match="cannot import name 'gone'"), names_of_vllm():
        from os import gone  # noqa: F401


# ---- against the fake vLLM -------------------------------------------------------------------


def wrapped_names(engine):
    """(module, class, name) of each function of the fake that a hook of ours has replaced.

    Methods of workers are watched whatever they are called, and a model's are its own: these are
    no names that we rely on.
    """
    (rank,) = engine.ranks
    names = set()
    with rank.modules():
        from vllm.v1.worker.worker_base import WorkerBase

        for module_name, module in sorted(sys.modules.items()):
            if not module_name.startswith("vllm") or ".models" in module_name:
                continue
            for owner in vars(module).values():
                if isinstance(owner, type) and owner.__module__ == module_name:
                    watched = issubclass(owner, WorkerBase)
                    for name, value in vars(owner).items():
                        if wrappers_of_ours(value) > watched:
                            names.add((module_name, owner.__name__, name))
    return sorted(names)


def wrappers_of_ours(value):
    """How many wrappers of ours are around a function or static method."""
    function, count = getattr(value, "__func__", value), 0
    while hasattr(function, "__wrapped__"):
        count += "/harness/engine/" in function.__code__.co_filename
        function = function.__wrapped__
    return count


def without_method(module, owner, name):
    """Return a function that takes a method out of the fake, from a class and its bases."""

    def remove():
        for each in getattr(importlib.import_module(module), owner).__mro__:
            if name in vars(each) and each is not object:
                delattr(each, name)

    return remove


def without_name(module, name):
    """Return a function that takes a name out of a module, where the engine has imported it."""

    def remove():
        for user in ("executor.multiproc_executor", "worker.cpu_worker", "worker.gpu.model_runner"):
            importlib.import_module(f"vllm.v1.{user}")
        importlib.import_module("vllm.model_executor.models.tiny")
        delattr(importlib.import_module(module), name)

    return remove


def refusal(folder, v2, prepare):
    """The error of an engine of the fake that lacks something."""
    with pytest.raises(RuntimeError, match=r"our hooks do not fit vLLM 0\.0\.0") as caught:
        Engine(folder, v2=v2, prepare=prepare).start()
    return str(caught.value)


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_each_name_that_a_hook_wraps_is_in_the_table_and_is_refused_if_it_is_gone(tmp_path, v2):
    """Found by what is wrapped in an engine: no list of this test can lag behind the hooks."""
    listed = {
        (names.file, names.owner, alternative.partition("(")[0])
        for names in load_surface()
        for name in names.names
        for alternative in name.split(" | ")
    }
    wrapped = wrapped_names(Engine(tmp_path / "whole", v2=v2).start())
    assert len(wrapped) > 10
    for number, (module, owner, name) in enumerate(wrapped):
        path = module.removeprefix("vllm.").replace(".", "/") + ".py"
        assert (path, owner, name) in listed
        message = refusal(tmp_path / str(number), v2, without_method(module, owner, name))
        assert re.search(rf"has no '{name}'[ ;]", message), message


def module_of(names):
    """The module of vLLM that a group of the table is about."""
    return f"vllm.{names.file.removesuffix('.py').replace('/', '.')}"


def imports_of_hooks():
    """(module, name) of each import from vLLM in a hook that a run on a CPU has to have."""
    optional = {module_of(names) for names in load_surface() if names.optional}
    for path in sorted(Path(hooks.__file__).parent.glob("*.py")):
        if path.name in ("random_load.py", "share.py"):  # of runs with settings of their own
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm"):
                for alias in node.names:
                    if f"{node.module}.{alias.name}" not in optional:  # of later releases
                        yield node.module, alias.name


def test_each_name_that_a_hook_imports_is_refused_if_it_is_gone(tmp_path):
    """An import that fails is the same error as a method that is gone."""
    for number, (module, name) in enumerate(sorted(set(imports_of_hooks()))):
        v2 = module.startswith("vllm.v1.worker.gpu.")
        if name in ("Worker", "RayExecutorV2"):  # of ranks on a GPU alone, and of ranks under Ray
            continue
        message = refusal(tmp_path / str(number), v2, without_name(module, name))
        assert re.search(rf"cannot import name '{name}' from '{module}'", message), message


def test_a_release_without_an_optional_file_runs(tmp_path):
    """What later releases brought is looked for, not relied on."""
    optional = [names for names in load_surface() if names.optional]
    assert optional

    def remove():
        for names in optional:
            sys.modules[module_of(names)] = None

    Engine(tmp_path / "c", prepare=remove).start()


def other_runner():
    from vllm.v1.worker import cpu_worker

    class Runner:
        def __init__(self, config, device):
            self.device, self.model_config = device, config.model_config

    def init_device(self):
        self.model_runner = Runner(self.vllm_config, torch.device("cpu"))

    cpu_worker.CPUWorker.init_device = init_device


def test_a_runner_without_an_adapter_is_refused(tmp_path):
    """A third model runner is not taken for one of the two that we know."""
    message = refusal(tmp_path / "c", False, other_runner)
    assert "there is no adapter for its model runner" in message


def by_position():
    from vllm.v1.worker import runner_base

    forward = runner_base.RunnerBase.forward

    def positional(self, requests, output, intermediate_tensors):
        model = self.model
        self.model = lambda **given: model(*given.values())
        try:
            return forward(self, requests, output, intermediate_tensors)
        finally:
            self.model = model

    runner_base.RunnerBase.forward = positional


def test_a_runner_that_hands_tensors_on_by_position_is_refused(tmp_path):
    """The hook on the model looks for them by their name; else no read would be seen."""
    engine = Engine(tmp_path / "c", pp=2, prepare=by_position).start()
    with pytest.raises(RuntimeError, match="is given intermediate_tensors by position"):
        engine.run([Request("a", [1, 2], [3])])


def test_a_refusal_says_nothing_about_the_model(tmp_path):
    """It is recorded as a failure of the rank, and as one of our own code."""
    gone = without_method("vllm.v1.worker.gpu_model_runner", "GPUModelRunner", "_update_states")
    refusal(tmp_path / "c", False, gone)
    (failure,) = read_failures(tmp_path / "c")
    assert (failure.type, failure.phase, failure.ours) == ("HookError", "load_model", True)
    assert "GPUModelRunner has no '_update_states'" in failure.message
