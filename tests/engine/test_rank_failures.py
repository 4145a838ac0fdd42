"""Every failure of a rank is recorded: with type, message, file, line and whose code it was."""

import importlib
import json

import pytest

torch = pytest.importorskip("torch", reason="the hooks run inside the engine, with torch")

from fake_ranks import Engine, Request  # noqa: E402 - needs torch

from harness.engine.failures import (  # noqa: E402
    RankFailure,
    first_failure,
    is_ours,
    read_failures,
)

REQUESTS = (Request("a", [1, 2, 3], [4, 5]),)


def replaced(module, owner, name, function):
    """Return a function that gives a class of a rank another method."""
    return lambda: setattr(getattr(importlib.import_module(module), owner), name, function)


def failing(message="no", kind=ValueError):
    """Return a method that raises."""

    def method(self, *args, **kwargs):
        raise kind(message)

    return method


@pytest.fixture
def failure(tmp_path):
    """Return a function that runs an engine that fails, and gives the first failure recorded."""

    def run(**settings):
        engine = Engine(tmp_path / "c", **settings)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - it is compared below
            engine.start().run([Request(r.name, r.prompt, r.forced) for r in REQUESTS])
        first = first_failure(tmp_path / "c")
        assert first is not None
        assert (first.type, first.message) == (caught.type.__name__, str(caught.value))
        assert first.error in first.traceback
        return first

    return run


def test_a_model_without_logits_is_the_models_failure(failure):
    """A hook notices it as the model is loaded, and raises in the model's place."""
    found = failure(model="PoolingModel")
    assert found.message == "the model class PoolingModel has no compute_logits (pooling model?)"
    assert (found.rank, found.phase, found.ours) == (0, "load_model", False)
    assert found.file == "vllm/model_executor/models/tiny.py"
    assert found.place == f"{found.file}:{found.line}"


@pytest.mark.parametrize(
    ("method", "phase"),
    [
        ("__init__", "create_worker"),
        ("init_device", "init_device"),
        ("get_kv_cache_spec", "get_kv_cache_spec"),
        ("determine_available_memory", "determine_available_memory"),
        ("sample_tokens", "sample_tokens"),
    ],
)
def test_every_call_of_a_worker_is_watched(failure, method, phase):
    """What an executor may call is not listed anywhere: all of it is watched, creation too."""
    worker = ("vllm.v1.worker.cpu_worker", "CPUWorker", method)
    found = failure(prepare=replaced(*worker, failing("a cause")))
    assert (found.rank, found.phase, found.error) == (0, phase, "ValueError: a cause")


def test_a_failure_inside_a_call_of_a_call_has_the_outer_phase(failure):
    """A method that another one calls is no phase of its own."""
    module, owner = "vllm.v1.worker.cpu_worker", "CPUWorker"

    def prepare():
        replaced(module, owner, "inner", failing())()
        replaced(module, owner, "get_kv_cache_spec", lambda self: self.inner())()

    assert failure(prepare=prepare).phase == "get_kv_cache_spec"


def test_the_rank_that_failed_is_named(failure):
    """By its own number, at the place in vLLM: the profiling run of stage 1 comes first."""
    found = failure(pp=2, model="GetsByName")
    assert (found.rank, found.phase) == (1, "determine_available_memory")
    assert not found.ours
    assert found.error == "AttributeError: 'IntermediateTensors' object has no attribute 'get'"
    # Raised by the tracing tensors, as vLLM's own would: the place is the model's line.
    assert found.place.startswith("vllm/model_executor/models/tiny.py:")


def test_an_operation_on_a_watched_tensor_is_the_models(failure):
    """The tensor that a model adds to is a view of ours, and the sum is the model's doing."""
    found = failure(pp=2, model="AddsUnlikeShapes")
    assert found.message.startswith("The size of tensor a (4) must match")
    assert (found.rank, found.ours) == (1, False)
    assert found.place.startswith("vllm/model_executor/models/tiny.py:")


def test_a_key_that_is_not_sent_fails_v2_in_its_runner(failure):
    """V2 copies what is declared."""
    found = failure(pp=2, v2=True, model="ForgetsKey")
    assert (found.rank, found.ours, found.error) == (1, False, "KeyError: 'per_layer_inputs'")
    assert found.place.startswith("vllm/v1/worker/gpu/model_runner.py:")


def test_an_exception_of_a_hook_is_ours(failure):
    """In a hook that vLLM calls deep inside: no word about the model."""
    hook = (
        "harness.engine.hooks.tracer",
        "Tracer",
        "boundary",
        lambda self, side, tensors: {}[side],
    )
    found = failure(pp=2, prepare=replaced(*hook))
    assert (found.type, found.ours) == ("KeyError", True)


def test_a_process_that_cannot_start_is_watched(tmp_path):
    """Between the calls of its worker too; there the rank is known by the process's arguments."""
    module = "vllm.v1.executor.multiproc_executor"
    (rank,) = Engine(
        tmp_path / "c", prepare=replaced(module, "WorkerProc", "__init__", failing("no queue"))
    ).ranks
    with rank.modules(), pytest.raises(ValueError, match="no queue"):
        importlib.import_module(module).WorkerProc(rank=3)
    found = first_failure(tmp_path / "c")
    assert (found.rank, found.phase, found.error) == (3, "start", "ValueError: no queue")


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_an_output_that_comes_later_is_watched(failure, v2):
    """With asynchronous scheduling a thread of the executor asks for it, outside any call."""
    place = (
        ("vllm.v1.worker.gpu.async_utils", "AsyncOutput")
        if v2
        else ("vllm.v1.worker.gpu_model_runner", "AsyncGPUModelRunnerOutput")
    )
    found = failure(v2=v2, prepare=replaced(*place, "get_output", failing("late")))
    assert (found.rank, found.phase, found.error) == (0, "get_output", "ValueError: late")


def test_the_end_of_a_rank_is_no_failure(tmp_path):
    """What fails while a rank is told to end, and the signal to end, are no cause."""
    worker = ("vllm.v1.worker.cpu_worker", "CPUWorker")

    def prepare():
        replaced(*worker, "shutdown", failing())()
        replaced(*worker, "check_health", failing("told to end", SystemExit))()

    engine = Engine(tmp_path / "c", prepare=prepare).start()
    (rank,) = engine.ranks
    with pytest.raises(ValueError, match="no"):
        rank.call("shutdown")
    with pytest.raises(SystemExit):
        rank.call("check_health")
    assert read_failures(tmp_path / "c") == []


def test_the_first_exception_of_a_rank_stays(tmp_path):
    """Later ones are consequences; and the earliest of all ranks is the cause."""
    for rank, message in ((0, "first"), (0, "second"), (1, "of another rank")):
        RankFailure.of(rank, "execute_model", ValueError(message)).write(tmp_path)
    assert [one.message for one in read_failures(tmp_path)] == ["first", "of another rank"]


def test_the_file_has_the_fields_that_readers_know(tmp_path):
    """Rank, phase, time, error, place and traceback, as ever; and the parts of each."""
    try:
        raise KeyError("k")
    except KeyError as error:
        RankFailure.of(3, "load_model", error).write(tmp_path)
    content = json.loads((tmp_path / "failure.3.json").read_text())
    assert (content["rank"], content["phase"], content["error"]) == (
        3,
        "load_model",
        "KeyError: 'k'",
    )
    assert (content["type"], content["message"]) == ("KeyError", "'k'")
    assert content["place"] == f"{content['file']}:{content['line']}"
    assert content["file"].endswith("tests/engine/test_rank_failures.py")


def trace(*frames):
    """A traceback with these (file, function), the innermost last."""
    lines = (f'  File "{file}", line 3, in {name}\n    x\n' for file, name in frames)
    return f"Traceback (most recent call last):\n{''.join(lines)}ValueError: no\n"


def hook(file, function="f"):
    return f"/x/harness/engine/hooks/{file}", function


MODEL = ("/site-packages/vllm/model.py", "forward")
PARAMETER = ("/site-packages/vllm/parameter.py", "__torch_function__")
TORCH = ("/site-packages/torch/tensor.py", "add")


@pytest.mark.parametrize(
    ("frames", "ours"),
    [
        ((hook("workers.py"), MODEL), False),
        ((hook("workers.py"), MODEL, TORCH), False),
        ((MODEL, hook("model.py")), True),
        ((MODEL, hook("model.py"), TORCH), True),
        ((MODEL, hook("tensors.py", "__getitem__")), False),
        ((MODEL, hook("tensors.py", "get"), hook("tracer.py", "note")), True),
        ((MODEL, hook("extent.py"), hook("extent.py", "model_operation")), False),
        ((MODEL, hook("model.py", "compute_logits"), hook("step.py", "sampled_rows")), False),
        ((MODEL, hook("extent.py", "__torch_function__")), True),
        ((MODEL, hook("perturb.py"), PARAMETER, TORCH), True),
        ((hook("model.py"), MODEL, PARAMETER, TORCH), False),
        # A checkout of vLLM with an environment inside: its packages are not vLLM.
        ((hook("model.py"), ("/src/vllm/.venv/lib/site-packages/torch/tensor.py", "add")), True),
        ((("/usr/lib/python3.11/json/decoder.py", "decode"),), False),
        ((), False),
    ],
)
def test_the_innermost_frame_of_vllm_or_ours_tells_whose_code_it_was(frames, ours):
    """A library raises for its caller; what stands in the model's place is the model's."""
    assert is_ours(trace(*frames)) == ours


def test_only_the_last_exception_of_a_chain_counts():
    """What it was caused by stands before it in the traceback."""
    cause = trace(hook("model.py"))
    chain = "\nThe above exception was the direct cause of the following exception:\n\n"
    assert not is_ours(cause + chain + trace(MODEL))
    assert is_ours(trace(MODEL) + chain + cause)
