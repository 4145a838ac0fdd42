"""Who was dead before vLLM ended the others, under Ray: an actor has no status of a process."""

import json
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the fake ranks need torch")

from fake_ranks import Modules


@pytest.fixture
def ended(monkeypatch):
    """The tasks that have ended, as a fake Ray tells; those that are not there never do."""
    tasks = []

    def wait(refs, *, num_returns, timeout):
        assert len(refs) >= num_returns
        ready = [ref for ref in refs if ref in tasks][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(wait=wait))
    return tasks


@pytest.fixture
def stop(tmp_path, ended):
    """Return a function that shuts down an executor of `loops` and gives the dead that it wrote."""

    def run(*loops, times=1):
        handles = [SimpleNamespace(rank=rank, run_ref=loop) for rank, loop in enumerate(loops)]
        with Modules()():
            from vllm.v1.executor.ray_executor_v2 import RayExecutorV2

            from harness.engine.hooks import deaths

            deaths.install_ray(tmp_path)
            executor = RayExecutorV2(handles)
            for _ in range(times):
                executor.shutdown()
                ended.extend(loops)
        assert all(handle.killed for handle in handles)
        file = tmp_path / deaths.FILE
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    return run


def test_actors_that_were_gone_are_named(stop, ended):
    """By their rank; those that vLLM ends itself, also when it is told to twice, are not."""
    ended += ["loop 1", "loop 3"]
    dead = stop("loop 0", "loop 1", "loop 2", "loop 3", times=2)
    assert dead == [{"rank": 1, "status": None}, {"rank": 3, "status": None}]


@pytest.mark.parametrize("loops", [("loop 0", "loop 1"), (None, None), ()])
def test_an_end_without_a_death_names_nobody(stop, loops):
    """All ranks ran, none had begun, or none was made."""
    assert stop(*loops, times=2) is None


def test_a_release_without_this_executor_is_refused(tmp_path):
    """A silent hook would let a dead rank be told as what its neighbours say."""
    with Modules()():
        from vllm.v1.executor import ray_executor_v2

        from harness.engine.hooks import deaths, wrap

        del ray_executor_v2.RayExecutorV2
        with pytest.raises(wrap.HookError, match="cannot import name 'RayExecutorV2'"):
            deaths.install_ray(tmp_path)
