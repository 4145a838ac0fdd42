"""The fork server of one variant: imports vLLM once, then forks a child for each cell.

Run as `python -m harness.engine.server cpu|cuda`. Lines of JSON: on stdin
`{"id", "request", "env", "log"}`, on stdout `{"id", "pid"}` as the child starts and
`{"id", "status"}` when it has ended. The end of stdin ends the server and all its children.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import main
from .devices import KINDS
from .manifest import Request, from_json
from .process_groups import end_group, end_with_parent
from .settings import Device


def _import_everything(device: Device) -> None:
    """Import what every cell needs, and what vLLM would import in each rank while it loads."""
    modules = [
        *KINDS[device].first_imports,
        "lm_eval.evaluator",
        "lm_eval.models.vllm_causallms",
        # Any model that supports torch.compile imports this, and inductor with it, even in
        # eager mode: 2 s in every rank.
        "vllm.compilation.backends",
        "vllm.v1.executor.multiproc_executor",
        "vllm.v1.worker.gpu_worker",
    ]
    for module in modules:
        importlib.import_module(module)


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """What is made within is passed over by the garbage collector, here and in all children.

    vLLM collects twice as it loads a model: in each rank a walk over two million objects, which
    copies the memory that forks share. Once more as a rank ends, behind `gc.unfreeze`: the end of
    its process does that for it.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _import_model(request: Path) -> None:
    """Import the model's module here, once for all its cells."""
    # What cannot be imported is the child's to report, in its own log.
    with _without_collecting(), contextlib.suppress(Exception):
        main.import_model_class(from_json(Request, request.read_bytes()).model_path)


def _child(task: dict[str, Any], *, spawn: bool) -> None:
    """Become the process of one cell; never returns."""
    status = 1
    try:
        os.setsid()
        # A server that is killed takes its children along; a normal end does not come this way.
        end_with_parent()
        with Path(os.devnull).open() as nothing, Path(task["log"]).open("ab") as log:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.update(task["env"])
        if spawn:
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        os.chdir(Path(task["request"]).parent)
        status = main.main(task["request"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Interpreter teardown of a large process takes seconds and changes nothing on disk.
        os._exit(status)


def serve(device: Device) -> None:
    """Import, then fork and reap until stdin ends."""
    reply_to = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with replies
    gc.unfreeze = lambda: None
    with _without_collecting():
        _import_everything(device)

    def reply(content: dict[str, Any]) -> None:
        os.write(reply_to, json.dumps(content).encode() + b"\n")

    children: dict[int, tuple[int, int]] = {}  # pidfd -> (task id, pid)
    rest = b""  # of a line that has not arrived whole
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fd == 0:
                        if not (chunk := os.read(0, 1 << 16)):
                            raise EOFError
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            task = json.loads(line)
                            _import_model(Path(task["request"]))
                            spawn = KINDS[device].must_spawn()
                            pid = os.fork()
                            if pid == 0:
                                _child(task, spawn=spawn)
                            watch = os.pidfd_open(pid)
                            children[watch] = (task["id"], pid)
                            selector.register(watch, selectors.EVENT_READ)
                            reply({"id": task["id"], "pid": pid})
                    else:
                        task_id, pid = children.pop(key.fd)
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        _, status = os.waitpid(pid, 0)
                        reply({"id": task_id, "status": os.waitstatus_to_exitcode(status)})
        except (EOFError, BrokenPipeError):
            for _, pid in children.values():
                end_group(pid)
    os._exit(0)  # as for a child: nothing is left to do that teardown would do


if __name__ == "__main__":
    serve(Device(sys.argv[1]))
