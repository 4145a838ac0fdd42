"""Row digests: any changed bit shows, and only bits count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="digests run inside the engine, which brings torch")

from harness.engine.hooks.digest import row_digests, row_norms  # noqa: E402 - needs torch

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def sample(dtype, *shape):
    """Return a tensor of random bits."""
    width = torch.empty(0, dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(1)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    raw = torch.randint(0, 256, (*shape, width), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


@given(
    dtype=st.sampled_from(DTYPES),
    row=st.integers(0, 3),
    column=st.integers(0, 10),
    bit=st.integers(0, 63),
)
def test_any_changed_bit_changes_its_row_and_no_other(dtype, row, column, bit):
    """One flipped bit in any element of any dtype changes the digest of that row alone."""
    tensor = sample(dtype, 4, 11)
    changed = tensor.clone()
    if dtype is torch.bool:
        changed[row, column] = ~changed[row, column]
    else:
        view = changed.view(INTEGERS[changed.element_size()])
        bits = 8 * changed.element_size()
        flip = 1 << (bit % bits)
        if dtype is not torch.uint8 and view.dtype is not torch.uint8 and bit % bits == bits - 1:
            flip = -flip  # the sign bit, as a signed integer
        view[row, column] ^= flip
    same = row_digests(tensor, 4) == row_digests(changed, 4)
    assert same.tolist() == [number != row for number in range(4)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_one_digest_a_row(dtype):
    """Each dtype that a boundary may carry gives one 64-bit number per row."""
    digests = row_digests(sample(dtype, 3, 2, 5), 3)
    assert digests.dtype is torch.int64
    assert digests.shape == (3,)


def test_minus_zero_and_nan_are_bits():
    """-0.0 is not 0.0, and a NaN equals itself but not a NaN of other bits."""
    zero = torch.zeros(1, 1)
    assert row_digests(zero, 1) != row_digests(-zero, 1)
    nan = torch.full((1, 1), float("nan"))
    assert row_digests(nan, 1) == row_digests(nan.clone(), 1)
    other = (nan.view(torch.int32) + 1).view(torch.float32)
    assert row_digests(nan, 1) != row_digests(other, 1)


def test_order_within_a_row_matters():
    """The same elements in another order are another row."""
    row = torch.arange(6.0).reshape(1, 6)
    assert row_digests(row, 1) != row_digests(row.flip(1), 1)


def test_order_of_rows_moves_digests_with_them():
    """A row's digest does not depend on where it stands or what stands beside it."""
    tensor = sample(torch.float32, 5, 7)
    order = [3, 0, 4, 1, 2]
    assert row_digests(tensor[order], 5).tolist() == row_digests(tensor, 5)[order].tolist()
    assert row_digests(tensor[2:3], 1).tolist() == row_digests(tensor, 5)[2:3].tolist()


def test_views_have_the_digest_of_their_content():
    """A transposed or strided view hashes as its contiguous copy."""
    tensor = sample(torch.float32, 6, 8)
    for view in (tensor.t(), tensor[::2], tensor[:, 1::3], tensor.reshape(6, 2, 4).transpose(1, 2)):
        rows = view.shape[0]
        assert row_digests(view, rows).tolist() == row_digests(view.contiguous(), rows).tolist()


def test_padding_rows_are_left_out():
    """Only the first `rows` rows count; what lies behind them may be anything."""
    tensor = sample(torch.bfloat16, 8, 4)
    padded = tensor.clone()
    padded[3:] = float("nan")
    assert row_digests(tensor, 3).tolist() == row_digests(padded, 3).tolist()


def test_digest_is_fixed():
    """The same bits give the same digest in every process: captures of other days compare."""
    weights = [1, 2, 3]
    first = row_digests(torch.tensor([weights], dtype=torch.int64), 1)
    unit = torch.eye(3, dtype=torch.int64)
    # Linear by construction: the digest of a row is the sum of those of its elements.
    parts = row_digests(unit, 3)
    assert int(first) == _signed(sum(w * int(p) for w, p in zip(weights, parts, strict=True)))
    assert all(int(part) % 2 for part in parts)


def _signed(value):
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def test_norms_are_euclidean():
    """The norm of a row is the root of the sum of its squares, in float32."""
    norms = row_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0], [9.0, 9.0]], dtype=torch.bfloat16), 2)
    assert norms.tolist() == [5.0, 2.0]
    assert norms.dtype is torch.float32
