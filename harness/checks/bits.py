"""Where equal computation must give equal bits, for logits, layers and answers."""

from ..capture.record import Capture
from ..engine.settings import Device, Kernels, Mode, Profile
from ..plan.cell import Cell
from .layers import layer_rows


def bits_decide(baseline: Capture) -> bool:
    """Whether PP=N must have the bits of `baseline` (PP=1); never where code is compiled.

    Parity runs the same batches. In other batches kernels must be invariant, and PP=1 seen to
    repeat all its logits and layers in each floor pass: the setting alone is no evidence.
    """
    cell = baseline.cell
    if cell.mode is not Mode.EAGER:
        return False
    if cell.profile is Profile.PARITY:
        return True
    return cell.kernels is Kernels.INVARIANT and _repeats(baseline)


def adds_in_any_order(cell: Cell) -> bool:
    """Whether kernels of a cell add partial sums as they come: a repetition proves no other.

    vLLM's for adapters on a GPU do (atomic sums, `lora/ops/triton_ops/lora_shrink_op.py`): of two
    pairs of engines one had the same bits, one had them in 1096 of 1341 rows (0.33.0, H100).
    """
    default_gpu = cell.device is Device.CUDA and cell.kernels is Kernels.DEFAULT
    return default_gpu and cell.asks("enable_lora")


def _repeats(baseline: Capture) -> bool:
    """Whether every floor pass has the bits of the first, behind each layer and in the logits."""
    logits, floors = baseline.logits, baseline.floor_logits
    first = layer_rows(baseline, "digest")
    return bool(floors) and all(
        layer_rows(baseline, "digest", floor=number) == first
        and floor.index.keys() == logits.index.keys()
        and all(
            floor.values[floor.index[row]].tobytes() == logits.values[at].tobytes()
            for row, at in logits.index.items()
        )
        for number, floor in enumerate(floors)
    )
