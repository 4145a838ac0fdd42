"""What a cell's process is told about its devices."""

import dataclasses
from pathlib import Path

import pytest

from harness.capture.launch import cell_request
from harness.engine import main
from harness.engine.environment import (
    cell_environment,
    inherited_settings,
    is_secret,
    server_environment,
)
from harness.engine.names import SHARE_VARIABLE
from harness.engine.settings import Device


def on_gpus(cell, tmp_path, devices, ranks_per_device=1):
    cell = dataclasses.replace(
        cell, device=Device.CUDA, pp=len(devices), ranks_per_device=ranks_per_device
    )
    return cell_environment(cell_request(cell, tmp_path, devices), tracing=True)


def test_a_gpu_for_each_rank(cell, tmp_path):
    """The cell sees its GPUs alone, in the order of its ranks, and NCCL connects them."""
    env = on_gpus(cell, tmp_path, (2, 3))
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert SHARE_VARIABLE not in env
    assert "VLLM_DISABLE_PYNCCL" not in env


@pytest.mark.parametrize(
    ("devices", "visible", "ranks"),
    [((0, 1), "0", "0,0"), ((6, 7), "1", "0,0"), ((3, 4), "0,1", "0,1"), ((1, 2, 3), "0", "0,0,0")],
)
def test_ranks_that_share_a_gpu(cell, tmp_path, devices, visible, ranks):
    """With 4 ranks per GPU device 6 is a part of GPU 1, and no rank waits for NCCL."""
    env = on_gpus(cell, tmp_path, devices, ranks_per_device=4)
    assert env["CUDA_VISIBLE_DEVICES"] == visible
    assert env[SHARE_VARIABLE] == ranks
    assert env["VLLM_DISABLE_PYNCCL"] == "1"


def test_one_stage_needs_no_transport(cell, tmp_path):
    """At PP=1 nothing crosses, so that nothing is replaced."""
    env = on_gpus(cell, tmp_path, (5,), ranks_per_device=4)
    assert env["CUDA_VISIBLE_DEVICES"] == "1"
    assert SHARE_VARIABLE not in env


def test_a_server_for_gpus_leaves_the_driver_alone(cell):
    """A fork of a process that has started the CUDA driver could not use a GPU."""
    env = server_environment(
        dataclasses.replace(cell, device=Device.CUDA), cell.tree, Path("/package")
    )
    assert env["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert env["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "x", True),
        ("VLLM_API_KEY", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("PGPASSWORD", "x", True),
        ("HTTPS_PROXY", "http://me:word@proxy:80", True),
        ("HTTPS_PROXY", "http://proxy:80", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("VLLM_MAX_TOKENS_PER_STEP", "4", False),
        ("VLLM_STREAM_TOKEN_THRESHOLD", "4", False),
        ("VLLM_API_KEY", "4x", True),
        ("PASSWORD", "1234", True),
        ("PATH", "/bin:/usr/bin", False),
    ],
)
def test_secrets_reach_no_engine_and_no_record(cell, monkeypatch, name, value, secret):
    """By the words of its name or a password in an address; a quantity of vLLM is none."""
    monkeypatch.setenv(name, value)
    assert is_secret(name, value) == secret
    env = server_environment(cell, cell.tree, Path("/package"))
    assert (name in env) == (not secret)
    assert not secret or name not in dict(inherited_settings())


@pytest.mark.parametrize(
    ("device", "kernels", "values"),
    [
        ("cuda", "invariant", ("1", None)),
        ("cuda", "default", (None, None)),
        ("cpu", "invariant", (None, "default")),
        ("cpu", "default", (None, None)),
    ],
)
def test_kernels_are_those_of_the_cell(cell, monkeypatch, device, kernels, values):
    """The user's own setting does not reach an engine: it would not stand in the point's id."""
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    asked = dataclasses.replace(cell, device=device, kernels=kernels)
    env = server_environment(asked, cell.tree, Path("/package"))
    assert (env.get("VLLM_BATCH_INVARIANT"), env.get("ATEN_CPU_CAPABILITY")) == values
    assert "VLLM_BATCH_INVARIANT" not in dict(inherited_settings())


def test_vllm_has_no_time_limit_of_its_own(cell, monkeypatch):
    """Its limit for a step would end an engine before ours, and without the stacks of its ranks."""
    monkeypatch.setenv("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "1")
    limit = server_environment(cell, cell.tree, Path("/package"))[
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"
    ]
    assert int(limit) > 24 * 3600


@pytest.mark.parametrize(
    ("device", "kernels", "backend"),
    [("cuda", "invariant", "TRITON_ATTN"), ("cuda", "default", None), ("cpu", "invariant", None)],
)
def test_invariant_kernels_of_gpus_are_those_of_triton_in_attention(
    cell, tmp_path, device, kernels, backend
):
    """Under vLLM's variable alone FlashAttention would still move rows."""
    asked = dataclasses.replace(cell, device=device, kernels=kernels)
    settings = main._settings(cell_request(asked, tmp_path, (0,)))
    assert settings.get("attention_backend") == backend
