"""The calls of a worker by its executor: the rank's position while they run, and its failures."""

import inspect
from functools import partial
from typing import Any

from .position import Position
from .tracer import Tracer
from .wrap import wrap

# The worker is made by a call of its class.
_CREATE = "create_worker"
# A rank is told to end when something has failed already; what fails then is no cause.
_SHUTDOWN = "shutdown"


def watch_calls(tracer: Tracer, position: Position, worker_class: type) -> None:
    """Patch every public method of the class of this process's worker, those that it inherits too.

    A method that another one calls is part of that one's call. To be called last: then exceptions
    of our hooks in these methods are recorded as well.
    """
    is_inside = False

    def call(phase: str, method: Any, worker: Any, /, *args: Any, **kwargs: Any) -> Any:
        nonlocal is_inside
        if is_inside:
            return method(worker, *args, **kwargs)
        tokens = getattr(args[0], "total_num_scheduled_tokens", 0) if args else 0
        is_inside = True
        try:
            with position.phase(phase, passes=int(tokens > 0)):
                return method(worker, *args, **kwargs)
        except Exception as error:
            # A worker that could not be made has no rank of its own yet.
            tracer.fail(getattr(worker, "rank", kwargs.get("rank", -1)), phase, error)
            raise
        finally:
            is_inside = False

    for owner in worker_class.__mro__:
        for name, value in list(vars(owner).items()):
            is_called = name == "__init__" or not name.startswith("_")
            if is_called and inspect.isfunction(value) and name != _SHUTDOWN:
                wrap(owner, name, partial(call, _CREATE if name == "__init__" else name))


def record_failure(tracer: Tracer, phase: str, method: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Record the exception of a method that runs outside a worker's calls.

    Before the worker is made only an argument `rank` tells which one it is.
    """
    try:
        return method(*args, **kwargs)
    except Exception as error:
        tracer.fail(kwargs.get("rank", tracer.rank), phase, error)
        raise
