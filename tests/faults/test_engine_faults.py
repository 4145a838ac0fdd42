"""Faults inside one engine: who died or hung, in which phase, and that nothing is left of it."""

import signal
import time
from dataclasses import dataclass

import psutil
import pytest
from fault_tools import ENOUGH, hang_limit, short, wait_for

from harness.capture.children import ForkServers
from harness.capture.launch import started_phases
from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.registry import Comparison
from harness.engine.hooks.stacks import armed

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Fault:
    """An order (planted.py) and what has to be said of it; `cause` is a part of the cause line."""

    order: str
    pp: int
    rank: int | None
    phase: str
    cause: str
    hangs: bool = False
    status: str = "blocked"


KILLED = "was killed by SIGKILL in phase"
FAULTS = {
    "kill -9 of rank 0 at load": Fault(
        "kill 0 load", 2, 0, "load_model", f"rank 0 {KILLED} engine"
    ),
    "kill -9 of a middle rank in warm-up": Fault(
        "kill 1 warmup", 3, 1, "compile_or_warm_up_model", f"rank 1 {KILLED} engine"
    ),
    "kill -9 of rank 0 in mid-prefill, before it sends": Fault(
        "kill 0 send", 2, 0, "execute_model", f"rank 0 {KILLED} probes"
    ),
    "kill -9 of a middle rank in mid-prefill": Fault(
        "kill 1 prefill", 3, 1, "execute_model", f"rank 1 {KILLED} probes"
    ),
    "kill -9 of the last rank in decode": Fault(
        "kill 1 decode", 2, 1, "execute_model", f"rank 1 {KILLED} probes"
    ),
    "kill -9 of the last rank while it writes logits": Fault(
        "kill 2 sample", 3, 2, "sample_tokens", f"rank 2 {KILLED} probes"
    ),
    "a rank that ends without an exception": Fault(
        "exit 1 decode", 2, 1, "execute_model", "rank 1 ended with status 3 and no exception"
    ),
    "a rank that raises at load": Fault(
        "raise 1 load", 2, 1, "load_model", "ValueError: a planted fault", status="failed"
    ),
    "a middle rank that raises in prefill": Fault(
        "raise 1 prefill", 3, 1, "execute_model", "ValueError: a planted fault", status="failed"
    ),
    "memory limit (RLIMIT_AS) hit at load": Fault(
        "memory 1 load", 2, 1, "load_model", "can't allocate memory"
    ),
    "memory limit (RLIMIT_AS) hit in decode": Fault(
        "memory 0 decode", 2, 0, "execute_model", "can't allocate memory"
    ),
    "a rank that is stopped (SIGSTOP) in decode": Fault(
        "stop 0 decode",
        2,
        0,
        "probes",
        "rank 0 is stopped (SIGSTOP) in execute_model at vllm/pp_planted.py",
        hangs=True,
    ),
    "a rank that hangs in warm-up": Fault(
        "hang 1 warmup",
        2,
        None,
        "engine",
        "rank 1 is in compile_or_warm_up_model at vllm/pp_planted.py",
        hangs=True,
    ),
}


@pytest.mark.parametrize(
    "name",
    [short(name, ("decode" in name and "kill" in name) or "SIGSTOP" in name) for name in FAULTS],
)
def test_a_rank(run, healthy, tried, name):
    """The verdict is blocked, or failed for an exception; it names rank and phase; never a pass."""
    fault = FAULTS[name]
    limit = hang_limit(healthy) if fault.hangs else ENOUGH
    capture = run(fault.order, fault.pp, timeout=limit)
    failure = capture.failure
    assert capture.status == fault.status, failure
    late = f"no end of phase {fault.phase} within {limit} s: "
    assert failure.error.startswith(late) == fault.hangs
    assert fault.cause in failure.error
    assert (failure.rank, failure.phase) == (fault.rank, fault.phase)
    outcome = {"blocked": Outcome.BLOCKED, "failed": Outcome.FAIL}[fault.status]
    engine = judge("engine", Comparison(capture, capture))
    assert engine.outcome is outcome
    others = {
        check: judge(check, Comparison(capture, capture))
        for check in ("contract", "logits", "accuracy")
    }
    assert {one.outcome for one in others.values()} == {Outcome.BLOCKED}
    if fault.status == "blocked" and "memory" not in name:
        alive = {f"rank{rank}" for rank in range(fault.pp) if rank != fault.rank}
        stopped = {f"rank{fault.rank}"} if "SIGSTOP" in name else set()
        assert {"engine", *alive, *stopped} <= set(failure.stacks), "who lives says so"
        assert engine.findings[0].evidence["stacks"] == failure.stacks
    tried(
        name,
        engine.outcome.value,
        failure.phase if failure.rank is None else f"rank {failure.rank}, {failure.phase}",
        failure.error,
    )


HELD_BACK = {
    "contract deadlock: a stage sends nothing": (
        "mute 0 send",
        2,
        "'hidden_states', 'per_layer_inputs' is not sent over 0->1: stage 1 waits for it and the "
        "engine stands still (stage 0 ran step 1 and sent nothing)",
    ),
    "contract deadlock: a middle stage sends nothing": (
        "mute 1 send",
        3,
        "'hidden_states', 'per_layer_inputs' is not sent over 1->2: stage 2 waits for it and the "
        "engine stands still (stage 1 ran step 1 and sent nothing)",
    ),
    "contract deadlock: a stage sends fewer tensors than it announces": (
        "messages -1 start;fewer 0 send",
        2,
        "'per_layer_inputs' is not sent over 0->1: stage 1 waits for it and the engine stands "
        "still (stage 0 announced 2 tensors and sent 1 of them)",
    ),
}


@pytest.mark.parametrize("name", [short(name, "fewer" in name) for name in HELD_BACK])
def test_a_deadlock_is_a_contract_finding(run, healthy, tried, name):
    """What a stage holds back is named by key and boundary, beside the time-out."""
    order, pp, message = HELD_BACK[name]
    capture = run(order, pp, timeout=hang_limit(healthy))
    assert capture.status == "blocked"
    contract = judge("contract", Comparison(capture, capture))
    assert contract.outcome is Outcome.FAIL
    (finding,) = contract.findings
    assert (finding.code, finding.message) == ("CON002", message)
    assert finding.stage == pp - 1
    assert judge("engine", Comparison(capture, capture)).outcome is Outcome.BLOCKED
    assert judge("logits", Comparison(capture, capture)).outcome is Outcome.BLOCKED
    tried(name, "contract: fail", finding.boundary, f"CON002 {message}")


PHASES = {
    "kill -9 of the engine's process while it loads": "engine",
    "kill -9 of the engine's process in the probes": "probes",
    "kill -9 of the engine's process in GSM8K": "gsm8k",
}


@pytest.mark.parametrize("name", [short(name, "probes" in name) for name in PHASES])
def test_the_engine_core(run, tried, name):
    """The core runs in the engine's process: its death is named with the phase, and ends ranks."""
    phase = PHASES[name]

    def kill(folder):
        wait_for(lambda: phase in dict(started_phases(folder)) and "rank1" in armed(folder))
        psutil.Process(armed(folder)["engine"]).kill()

    capture = run(meanwhile=kill)
    assert capture.status == "blocked"
    assert capture.failure.error == "the engine's process was killed by SIGKILL"
    assert capture.failure.phase == phase
    assert judge("engine", Comparison(capture, capture)).outcome is Outcome.BLOCKED
    tried(name, "blocked", capture.failure.phase, capture.failure.error)


@pytest.mark.parametrize("name", [short("kill -9 of the fork server in the probes", False)])
def test_the_fork_server(run, tried, name):
    """The server takes its engine along, and the next engine gets a new server."""
    servers = ForkServers()
    try:

        def kill(folder):
            wait_for(lambda: "probes" in dict(started_phases(folder)))
            (server,) = servers._servers.values()
            server.process.send_signal(signal.SIGKILL)

        capture = run(meanwhile=kill, starter=servers)
        assert capture.status == "blocked"
        assert "SIGKILL" in capture.failure.error
        assert capture.failure.phase == "probes"
        assert run(starter=servers).status == "ok"
    finally:
        servers.close()
    tried(name, "blocked", capture.failure.phase, capture.failure.error)


@pytest.mark.parametrize("name", [short("kill -9 of the fork server while it imports", False)])
def test_the_fork_server_while_it_imports(run, tried, name):
    """No engine exists yet: the cell is blocked at its start."""
    servers = ForkServers()
    try:

        def kill(folder):
            (server,) = wait_for(servers._servers.values)
            time.sleep(1)
            server.process.kill()

        capture = run(meanwhile=kill, starter=servers, seen=False)
    finally:
        servers.close()
    assert (capture.status, capture.failure.phase) == ("blocked", "start")
    assert "SIGKILL" in capture.failure.error
    tried(name, "blocked", capture.failure.phase, capture.failure.error)


def test_a_healthy_engine_leaves_nothing_to_explain(healthy):
    """The same series without an order: whole, and without the files that serve to explain."""
    names = {path.name for path in healthy.folder.iterdir()}
    assert not [name for name in names if name.startswith(("stack.", "position.", "deaths"))]
