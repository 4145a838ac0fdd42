"""What waits for the device: on the CPU nothing does. The GPU's side runs in sweeps on GPUs."""

import pytest

pytest.importorskip("torch", reason="the hooks run inside the engine, which brings torch")

import torch

from harness.engine.hooks.outbox import Outbox


def test_on_the_cpu_all_can_be_read_at_once_and_in_order():
    """Nothing is written while a stage may wait, and all of it as soon as none does."""
    outbox, written = Outbox(), []
    for number in range(3):
        outbox.put(lambda number=number: written.append(number), torch.device("cpu"))
    assert written == []
    outbox.drain()
    assert written == [0, 1, 2]


class Event:
    """An event of a device that has passed it once `done` is set."""

    def __init__(self):
        self.done = False

    def record(self):
        """Nothing is queued behind it."""

    def query(self):
        """Whether the device has passed it."""
        return self.done

    def synchronize(self):
        """Wait until the device has passed it."""
        self.done = True


@pytest.fixture
def events(monkeypatch):
    """Return the events of a device that does not exist here, in order."""
    made = []

    def event():
        made.append(Event())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    return made


def test_nothing_is_read_before_the_device_has_passed_it(events):
    """A later step that is ready waits for an earlier one; nothing waits for the device."""
    outbox, written = Outbox(), []

    def put(name):
        outbox.put(lambda: written.append(name), torch.device("cuda"))
        outbox.drain()

    put("a")
    put("b")
    assert written == []
    events[1].done = True
    put("c")
    assert written == []
    events[0].done = True
    put("d")
    assert written == ["a", "b"]
    outbox.flush()
    assert written == ["a", "b", "c", "d"]
