"""Ranks that share a GPU: what crosses goes through host memory and arrives on the device."""

from functools import partial
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="runs inside the engine, which brings torch")

from harness.engine.hooks.share import receive_on_host, send_from_host  # noqa: E402

META = torch.device("meta")


class OnDevice(torch.Tensor):
    """A tensor that says where it was moved to."""

    def to(self, device):
        return ("moved", device)


def test_only_host_memory_is_sent():
    """Every tensor goes to the host, anything else as it is, other arguments untouched."""
    seen = []
    send = partial(
        send_from_host, lambda *args, **kwargs: seen.append((args, kwargs)) or ["handle"]
    )
    given = {"hidden_states": torch.ones(2).as_subclass(OnDevice), "count": 3, "none": None}
    assert send("group", given, 1, all_gather_group="tp") == ["handle"]
    ((group, sent, dst), kwargs), *_ = seen
    assert (group, dst, kwargs) == ("group", 1, {"all_gather_group": "tp"})
    assert sent == {"hidden_states": ("moved", torch.device("cpu")), "count": 3, "none": None}
    assert isinstance(given["hidden_states"], OnDevice)


def test_what_came_is_moved_after_the_waits():
    """Nothing moves before the group's own last step; then all of it is on the rank's device."""
    came = {"hidden_states": torch.empty(2), "count": 3}

    def gather():
        assert came["hidden_states"].device.type == "cpu"
        came["residual"] = torch.ones(2)

    receive = partial(receive_on_host, lambda *args, **kwargs: (came, ["handle"], [gather]))
    tensors, handles, after = receive(SimpleNamespace(device=META))
    assert (tensors is came, handles) == (True, ["handle"])
    for step in after:
        step()
    assert came["hidden_states"].device == came["residual"].device == META
    assert came["count"] == 3


def test_a_rank_without_neighbours_gets_nothing():
    """One stage receives nothing, as without sharing."""
    receive = partial(receive_on_host, lambda *args, **kwargs: (None, [], []))
    assert receive(SimpleNamespace(device=META)) == (None, [], [])
