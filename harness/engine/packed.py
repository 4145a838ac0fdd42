"""Arrays inside JSON lines, as the base64 of their bytes: text would cost more than the run."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt


def packed(array: npt.NDArray[Any]) -> str:
    """Return `DTYPE:SHAPE:BASE64`, e.g. `<i8:3x4:...`, little-endian wherever it is written."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    content = base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()
    return f"{little.dtype.str}:{'x'.join(map(str, array.shape))}:{content}"


def unpacked(text: str) -> list[Any]:
    """Return what `packed` was given, as nested lists of Python numbers."""
    dtype, shape, content = text.split(":")
    array = np.frombuffer(base64.b64decode(content), np.dtype(dtype))
    values: list[Any] = array.reshape([int(size) for size in shape.split("x")]).tolist()
    return values
