"""Arrays inside JSON lines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.engine.packed import packed, unpacked

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


@given(arrays.arrays(st.sampled_from(["<i8", "<f4", ">i8"]), SHAPES))
def test_values_come_back(array):
    """Whatever the values (NaN, infinity, the ends of int64), shape and byte order."""
    back = np.array(unpacked(packed(array)), array.dtype).reshape(array.shape)
    np.testing.assert_array_equal(back, array)
    assert packed(array) == packed(array.astype(array.dtype.newbyteorder("<")))


def test_views_are_packed_as_they_read():
    """Not as they lie in memory."""
    array = np.arange(12).reshape(3, 4)
    assert unpacked(packed(array[:, ::2])) == [[0, 2], [4, 6], [8, 10]]
    assert unpacked(packed(array.T)) == array.T.tolist()


@pytest.mark.parametrize("text", ["", "<i8:2", "<i8:2:AAAA", "<i8:x:AAAAAAAAAAA="])
def test_what_is_torn_is_refused(text):
    """Never read as fewer numbers."""
    with pytest.raises(ValueError, match=r"unpack|reshape|multiple|literal"):
        unpacked(text)
