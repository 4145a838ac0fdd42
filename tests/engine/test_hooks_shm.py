"""No shared memory outlives its engine, and none of another engine stops one."""

from types import SimpleNamespace

import pytest

from harness.engine.hooks.workarounds import init_unnamed

ENDED = SimpleNamespace(group_name="4711-pp:0-[0-1]-cpushm", communicator=SimpleNamespace(rank=1))


def test_a_segment_is_gone_once_all_ranks_have_joined(tmp_path):
    """Whatever an ended engine left under the name is removed first; other names stay."""
    segment, other = (tmp_path / f"4711-pp:0-[0-1]-cpushm_{rank}" for rank in (1, 0))
    segment.touch()
    other.touch()

    def create(_self):
        segment.touch(exist_ok=False)
        return 42

    acted = []
    assert init_unnamed(lambda: acted.append(1), create, ENDED, tmp_path) == 42
    assert acted
    assert other.exists()
    assert not segment.exists()


def test_a_failed_start_leaves_nothing_either(tmp_path):
    """The engine's own error comes through."""
    segment = tmp_path / "4711-pp:0-[0-1]-cpushm_1"

    def create(_self):
        segment.touch()
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        init_unnamed(lambda: None, create, ENDED, tmp_path)
    assert not segment.exists()
