"""The expected cost of a cell, from records, else from the model; and the schedule of cells."""

import dataclasses

import pytest

from harness.capture.devices import DevicePool
from harness.capture.manifest import Manifest, Status
from harness.capture.order import devices_needed, expected_seconds, plan_cells
from harness.engine.settings import Device, Mode
from harness.plan.cell import Load
from harness.plan.cost import expected_bytes, modelled_seconds
from harness.plan.hosts import KINDS

GIB = 2**30


def manifest(cell, total, start=0.0, status="ok"):
    seconds = {"start": start, "total": total}
    return Manifest(cell=cell, status=Status(status), seconds=seconds)


def test_records_of_the_same_cell_speak_first(cell):
    """The median over earlier captures of the same variant and shape, without vLLM's import."""
    other = dataclasses.replace(cell, variant="merged")
    known = [manifest(cell, t, start=10.0) for t in (20, 22, 90)] + [manifest(other, 500)] * 4
    expected = expected_seconds(cell, known)
    assert (expected.seconds, expected.source) == (12.0, "record")


def test_records_of_another_variant_are_better_than_none(cell):
    """A patch hardly changes what a cell costs."""
    known = [manifest(dataclasses.replace(cell, variant="merged"), 33)]
    assert expected_seconds(cell, known).seconds == 33


@pytest.mark.parametrize(
    "change", [{"pp": 4}, {"model_digest": "x"}, {"host": "x"}, {"tp": 2}, {"mode": Mode.COMPILED}]
)
def test_records_of_something_else_are_not_taken(cell, change):
    """Another shape, model or machine says nothing; the model speaks."""
    known = [manifest(dataclasses.replace(cell, **change), 33)]
    assert expected_seconds(cell, known).source == "model"


def test_blocked_records_are_not_taken(cell):
    """A cell that hung says nothing about how long it takes."""
    known = [manifest(cell, 600, status="blocked")]
    assert expected_seconds(cell, known).source == "model"


@pytest.mark.parametrize("device", list(Device))
def test_the_model_grows_with_what_costs(cell, device):
    """More ranks, more questions and larger weights take longer; a limit above all does not."""
    small = dataclasses.replace(cell, device=device, load=Load(10**6, 0, 100))
    larger = [
        dataclasses.replace(small, pp=4),
        dataclasses.replace(small, load=Load(10**10, 0, 100)),
        dataclasses.replace(small, gsm8k=dataclasses.replace(cell.gsm8k, limit=100)),
    ]
    assert all(modelled_seconds(each) > modelled_seconds(small) for each in larger)
    capped = dataclasses.replace(small, gsm8k=dataclasses.replace(cell.gsm8k, limit=10**6))
    assert modelled_seconds(capped) == modelled_seconds(larger[2])


def test_memory(cell):
    """Weights, KV cache and ranks take memory on the CPU; the memory of GPUs is not the host's."""
    heavy = dataclasses.replace(cell, load=Load(10 * GIB, 5 * GIB // 2, 1))
    assert expected_bytes(heavy) > 17 * GIB
    assert expected_bytes(dataclasses.replace(heavy, pp=4)) > expected_bytes(heavy)
    assert expected_bytes(dataclasses.replace(heavy, device=Device.CUDA)) == 0


def test_first_cell_of_a_tree_waits_for_the_import(cell, tmp_path):
    """Each variant's server imports vLLM once; the plan counts that once for each."""
    cells = [
        dataclasses.replace(cell, model_digest=str(n), tree=tmp_path / str(n % 2), host="unknown")
        for n in range(6)
    ]
    planned = plan_cells(cells, [], DevicePool("cpu", (0,)), 1)
    assert planned.makespan == pytest.approx(
        sum(map(modelled_seconds, cells)) + 2 * KINDS[Device.CPU].rates.imports
    )
    assert planned.bound == pytest.approx(planned.makespan)
    assert {each.job.name for each in planned.jobs} == {each.key for each in cells}


def test_a_cell_takes_the_devices_that_its_memory_comes_with(cell):
    """Memory counts on the CPU; a GPU cell takes a GPU for each rank."""
    heavy = dataclasses.replace(cell, load=Load(10 * GIB, 5 * GIB // 2, 1))
    assert devices_needed(heavy, DevicePool("cpu", (0, 1, 2), memory=10 * GIB)) == 2
    gpu = dataclasses.replace(heavy, device=Device.CUDA, tp=2)
    assert devices_needed(gpu, DevicePool("cuda", (0,), memory=GIB)) == gpu.pp * gpu.tp
