"""The workarounds: declared, noted where they act, and acting only where they are needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the hooks run inside the engine, with torch")

from fake_ranks import Engine, Request  # noqa: E402 - needs torch

from harness.engine.hooks.workarounds import WORKAROUNDS, needed  # noqa: E402
from harness.engine.settings import Device  # noqa: E402

BUFFER = "cpu-receive-buffer"


def without_warm_up():
    """Let the worker skip the run that makes the receive buffer, as vLLM 0.27.1 does on a CPU."""
    from vllm.v1.worker.gpu_worker import Worker

    Worker.determine_available_memory = lambda _worker: 1 << 30


def on_a_gpu():
    """Let the platform be no CPU."""
    from vllm.platforms.interface import Platform

    Platform.is_cpu = lambda _platform: False


def acted(engine):
    return [rank.call("pp_harness_workarounds") for rank in engine.ranks]


@pytest.mark.parametrize("tracing", [True, False], ids=["traced", "control"])
def test_a_later_stage_without_a_buffer_gets_one_and_says_so(tmp_path, tracing):
    """Also in a control run: the engine that it is compared with has the workaround too."""
    engine = Engine(tmp_path / "c", pp=2, tracing=tracing, prepare=without_warm_up).start()
    engine.run([Request("a", [1, 2], [3])])
    assert acted(engine) == [[], [BUFFER]]
    buffer = engine.ranks[1].worker.model_runner.intermediate_tensors
    assert {len(value) for value in buffer.tensors.values()} == {512}


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_a_buffer_that_is_there_is_left_alone(tmp_path, v2):
    """Releases whose warm-up makes it, and the V2 runner, run as published."""
    engine = Engine(tmp_path / "c", pp=2, v2=v2).start()
    assert acted(engine) == [[], []]


def test_the_first_stage_needs_no_buffer(tmp_path):
    """Nothing acts at PP=1 either."""
    assert acted(Engine(tmp_path / "c", prepare=without_warm_up).start()) == [[]]


def test_no_workaround_for_a_cpu_acts_on_a_gpu(tmp_path):
    """The worker of a GPU keeps its methods, and what vLLM does wrong there would show."""

    def prepare():
        without_warm_up()
        on_a_gpu()

    engine = Engine(tmp_path / "c", pp=2, prepare=prepare)
    for rank in engine.ranks:
        with rank.modules():
            from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed
            from vllm.v1.worker.cpu_worker import CPUWorker

            assert not hasattr(CPUWorker.compile_or_warm_up_model, "__wrapped__")
            assert not hasattr(_CPUSHMDistributed._init_cpu_shm, "__wrapped__")


@pytest.mark.parametrize(
    ("release", "device", "has_buffer"),
    [
        ("0.20.2", Device.CPU, False),
        ("0.26.0", Device.CPU, False),
        ("0.27.1", Device.CPU, True),
        ("0.33.0", Device.CPU, True),
        ("0.33.0", Device.CUDA, False),
        ("1.0rc1", Device.CPU, True),
    ],
)
def test_a_run_is_told_which_ones_its_release_needs(release, device, has_buffer):
    """By release and device, before anything runs; none is for a GPU."""
    names = needed(release, device)
    assert (BUFFER in names) == has_buffer
    assert bool(names) == (device is Device.CPU)


def test_a_workaround_ends_with_the_release_that_needs_none():
    """A later release, and a checkout of one, is not told of it."""
    name = "cpu-moe-activation"
    told = {release: name in needed(release, Device.CPU) for release in ("0.20.2", "0.26.0", "1.0")}
    assert told == {"0.20.2": True, "0.26.0": False, "1.0": False}


def test_each_says_why_it_is_there_and_when_it_can_go():
    """No entry without reason, end and what upstream knows of it; docs/runners.md names all."""
    page = (Path(__file__).parents[2] / "docs/runners.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(cpu-[\w-]+)` \|", page, re.MULTILINE) == [w.name for w in WORKAROUNDS]
    assert len({each.name for each in WORKAROUNDS}) == len(WORKAROUNDS)
    for each in WORKAROUNDS:
        assert each.reason
        assert each.remove_when
        assert each.upstream
        assert each.devices


class AnswersToAnyName:
    """As llvmlite's library does, `__dict__` included."""

    __slots__ = ()

    def __getattribute__(self, name):
        return print


def test_an_object_that_gives_no_dictionary_holds_no_kernel(tmp_path):
    """The scan reads others as before; a note is made only where it would have failed."""
    (rank,) = Engine(tmp_path / "c").start().ranks
    owner = type("Owner", (), {})()
    owner.kernel = "a kernel"
    with rank.modules():
        from vllm.triton_utils.dispatcher import register_kernels

        assert register_kernels({"owner": owner, "a class": int}) == ["a kernel", None]
    assert rank.call("pp_harness_workarounds") == []
    with rank.modules():
        assert register_kernels({"library": AnswersToAnyName()}) == [None]
    assert rank.call("pp_harness_workarounds") == ["cpu-kernel-scan"]


def with_experts():
    """Let the model import the experts of a CPU."""
    from vllm.model_executor.layers.fused_moe import cpu_fused_moe  # noqa: F401


def test_gated_silu_of_experts_makes_no_object(tmp_path):
    """Other activations, and a later release's own function, are left alone."""
    (rank,) = Engine(tmp_path / "c", prepare=with_experts).start().ranks
    with rank.modules():
        from vllm.model_executor.layers.fused_moe.cpu_fused_moe import (
            _CPU_MOE_ACT_FN,
            MoEActivation,
        )

        assert _CPU_MOE_ACT_FN[MoEActivation.SILU](1) == ("silu", 1)
        assert _CPU_MOE_ACT_FN[MoEActivation.GELU](1) == ("gelu", 1)
    assert rank.call("pp_harness_workarounds") == ["cpu-moe-activation"]


@pytest.mark.parametrize(
    ("dtype", "granted", "noted"),
    [
        (torch.bfloat16, False, ["cpu-amx"]),
        (torch.bfloat16, True, []),
        (torch.float32, False, []),
    ],
)
def test_a_rank_that_computes_in_bfloat16_may_use_amx(tmp_path, monkeypatch, dtype, granted, noted):
    """Where nothing before had asked for it; a release that warms up has."""
    asked = []
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: asked.append(True))

    def prepare():
        from harness.engine.hooks import workarounds

        workarounds.may_use_tiles = lambda: granted

    engine = Engine(tmp_path / "c", prepare=prepare)
    (rank,) = engine.ranks
    rank.vllm_config.model_config.dtype = dtype
    engine.start()
    assert rank.call("pp_harness_workarounds") == noted
    assert len(asked) == len(noted)


@pytest.mark.skipif(
    not (hasattr(torch.cpu, "_init_amx") and torch.cpu._is_amx_tile_supported()), reason="needs AMX"
)
def test_linux_is_asked_for_amx_where_the_processor_has_it():
    """The real call, in a process of its own: before it no permission, after it permission."""
    code = (
        "import torch; from harness.engine.hooks.workarounds import may_use_tiles as may; "
        "print(may(), torch.cpu._init_amx(), may())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True", "True"]


@pytest.mark.parametrize(
    ("tokens", "wide"), [(1, 8), (1, 4), (3, 4)], ids=["a slice of one", "one", "three"]
)
def test_a_convolution_takes_one_token_as_it_takes_many(tmp_path, tokens, wide):
    """The same values, one row of channels apart."""

    def prepare():
        from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention  # noqa: F401

    (rank,) = Engine(tmp_path / "c", prepare=prepare).start().ranks
    x = torch.arange(tokens * wide).view(tokens, wide)[:, :4].contiguous().mT
    with rank.modules():
        from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention

        assert torch.equal(gdn_attention._causal_conv1d_fwd_cpu(x=x), x)
    assert rank.call("pp_harness_workarounds") == ["cpu-conv-strides"]


def test_a_table_of_activations_that_is_right_is_left_alone(tmp_path):
    """As 0.26.0 has it."""

    def prepare():
        with_experts()
        from vllm.model_executor.layers.fused_moe import cpu_fused_moe as table

        table._CPU_MOE_ACT_FN[table.MoEActivation.SILU] = table.SiluAndMul.forward_native

    (rank,) = Engine(tmp_path / "c", prepare=prepare).start().ranks
    assert rank.call("pp_harness_workarounds") == []
