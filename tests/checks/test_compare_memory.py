"""Logits are compared in chunks: memory does not grow with their number."""

import tracemalloc

import numpy as np

import harness.checks.logits.distance
from harness.capture.record import LogitTable
from harness.checks.logits.distance import distance

VOCABULARY, CHUNK_ROWS, CHUNKS = 1024, 64, 64
# Arrays of 8 bytes a value that a chunk may take at once: both sides, their softmax, differences.
ARRAYS = 24


def table(path, seed):
    """Write logits of `CHUNKS` chunks and return them memory-mapped, as a capture has them."""
    shape = (CHUNKS * CHUNK_ROWS, VOCABULARY)
    np.random.default_rng(seed).standard_normal(shape, np.float32).tofile(path)
    values = np.memmap(path, np.float32, mode="r", shape=shape)
    return LogitTable(values, {("r", row): row for row in range(len(values))})


def test_no_more_than_a_chunk_is_held(tmp_path, monkeypatch):
    """64 chunks are compared within the memory of one, and every row is."""
    chunk = CHUNK_ROWS * VOCABULARY
    monkeypatch.setattr(harness.checks.logits.distance, "_CHUNK_VALUES", chunk)
    tables = table(tmp_path / "a", 1), table(tmp_path / "b", 2)
    distance(*tables)  # what is imported and kept at the first call is not of the chunks
    tracemalloc.start()
    try:
        far = distance(*tables)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert far.rows == CHUNKS * CHUNK_ROWS
    assert far.equal_rows == 0
    assert chunk * 8 < peak < ARRAYS * chunk * 8 < tables[0].values.nbytes
