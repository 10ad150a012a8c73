"""A batch on many machines: Ray Data sends the items to workers, each a process with a model of its own.

A worker makes an item as one process alone does, and what is done is known from the files alone, so everything that may
happen here has one answer: make what is missing. Ray starts a worker that died, or whose machine was lost, anew, where
there is room, and gives it the item again. The machines share inputs, outputs, weights and the project by their paths.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.files import Checkpoint
from ..errors import UserError, in_one_line
from ..outputs.publishing import clear_leftovers, workplace
from ..parameters.parameter import kind_of_device
from ..parameters.request import Request
from ..progress import Progress
from .items import Item, is_single
from .make import Outcome, is_lost, load_pipeline, make_items
from .resume import claim_key

if TYPE_CHECKING:
    from ..generation.pipeline import Pipeline

MAX_DEATHS = 3  # of workers at an item
MOST_ITEMS_A_TASK = 8
OBJECT_STORE_BYTES = 100 * 2**20  # of a cluster of this machine alone: only items and outcomes pass through it
SECONDS_TO_ANSWER = 5.0
SECONDS_BETWEEN_LOOKS = 0.5
# Ray reads these as it is imported and started. It reports to nobody, and tells the user only what --verbose asks for.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else 15: whatever else runs here would take nearly all of the time
}
QUIET = {"RAY_DATA_LOG_LEVEL": "CRITICAL", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def prepared_for_ray(request: Request) -> Request:
    """The request with paths that hold on every machine. Raises UserError where Ray, or its cluster, isn't there."""
    if any(importlib.util.find_spec(package) is None for package in ("ray", "pyarrow", "pandas")):
        raise UserError("engine ray needs Ray, which is not installed: pip install 'ray[data]'")
    if is_single(request):
        raise UserError("engine ray is for batches: give a folder, a pattern or a list as input_path, or leave it away")
    if request.device is not None and ":" in request.device:
        raise UserError(f"device {request.device} is one machine's card, but Ray gives each worker its own: give cuda")
    if request.ray_address is not None:
        _check_answers(request.ray_address)
    paths = {name: getattr(request, name) for name in ("input_path", "output_folder", "config")}
    absolute = {name: path.absolute() for name, path in paths.items() if path is not None}
    return replace(request, **absolute)


def make_on_ray(
    items: Sequence[Item], request: Request, checkpoint: Checkpoint, progress: Progress
) -> Generator[Outcome]:
    """Make the items on the cluster of the request, or on one of this machine alone; outcomes in the order they come.

    What another run is making comes last, and is made here if it isn't done by then. A machine that can't load the
    model is left out; where none is left, what it said is raised, and UserError where the cluster can't be joined or
    has no room for a worker.
    """
    checkpoint = replace(checkpoint, path=checkpoint.path.absolute())
    try:
        with _cluster(request):
            left, left_out = items, dict[str, Exception]()
            while left:
                workers = _plan_workers(request, len(left), left_out)
                each = f"cores: {workers.cpus}, graphics cards: {workers.gpus:g}"
                progress.say(f"starting workers: {workers.count}, each with {each}")
                back = []
                with closing(_send(left, workers, request, checkpoint)) as tasks:
                    for task in tasks:
                        back.append(task)
                        yield from filter(None, task.outcomes)
                useful = {task.machine for task in back if task.error is None}
                unable = {task.machine: task.error for task in back if task.error and task.machine not in useful}
                for error in unable.values():
                    progress.say(f"a machine is left out from here on: {in_one_line(error)}")
                left_out |= unable
                left = [item for task in back for item in task.unmade]
                if left and all(task.error is None for task in back):
                    progress.say(f"another run is making what is left here ({len(left)}): waiting for it")
                    _wait_for_any(left, request, checkpoint)
    finally:  # the workers are gone: what those that died or were stopped had begun is nobody's
        for folder in sorted({item.folder(request.output_folder) for item in items}):
            clear_leftovers(folder)


@dataclass(frozen=True)
class _Workers:
    """How many workers there are, how many cores and graphics cards each has, its device, and machines without any."""

    count: int
    cpus: int
    gpus: float
    device: str
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Task:
    """Items for a worker; once it is back, what came of each (None is what another run is making), or one error.

    machine: Ray's name of that which it was done on.
    """

    items: Sequence[Item]
    outcomes: Sequence[Outcome | None] = ()
    error: Exception | None = None
    machine: str = ""

    @property
    def unmade(self) -> list[Item]:
        """The items without an outcome."""
        if self.error is not None:
            return list(self.items)
        return [item for item, outcome in zip(self.items, self.outcomes, strict=True) if outcome is None]


class _Worker:
    """Makes items in a process of its own, which Ray starts."""

    def __init__(self, request: Request, checkpoint: Checkpoint, workers: _Workers, attempts: Any):
        self._request, self._checkpoint, self._kind, self._attempts = request, checkpoint, workers, attempts
        self._pipeline: Pipeline | None = None
        self._error: Exception | None = None

    def __call__(self, row: Mapping[str, _Task]) -> dict[str, _Task]:
        """The task done, or given back by a worker that can't load the model."""
        import ray

        task = replace(row["task"], machine=ray.get_runtime_context().get_node_id())
        if self._error is not None:
            return {"task": replace(task, error=self._error)}
        try:
            pipeline = self._load()
        except Exception as error:
            kind = UserError if isinstance(error, UserError) else RuntimeError
            self._error = kind(f"on {socket.gethostname()}: {in_one_line(error)}")
            return {"task": replace(task, error=self._error)}
        outcomes = dict(self._make(pipeline, task.items))
        return {"task": replace(task, outcomes=[outcomes[item] for item in task.items])}

    def _load(self) -> Pipeline:
        if self._pipeline is None:
            request = replace(self._request, device=self._kind.device)
            if self._kind.device == "cuda" and self._kind.gpus < 1:
                from ..runtime.devices import keep_to_share  # with torch, which the driver has no need of

                keep_to_share(self._kind.gpus)
            self._pipeline = load_pipeline(request, self._checkpoint, Progress(quiet=True))
        return self._pipeline

    def _make(self, pipeline: Pipeline, items: Sequence[Item]) -> Iterator[tuple[Item, Outcome | None]]:
        """Items at which a worker has died are made alone, so that none fails for another's fault."""
        import ray

        deaths = dict(zip(items, ray.get(self._attempts.deaths.remote(items)), strict=True))
        at_once = pipeline.clips_with_room() if self._request.batch_size == "auto" else int(self._request.batch_size)
        new = [item for item in items if deaths[item] == 0]
        portions = [new[start : start + at_once] for start in range(0, len(new), at_once)]
        portions += [[item] for item in items if 0 < deaths[item] < MAX_DEATHS]
        for portion in portions:
            ray.get(self._attempts.begin.remote(portion))
            outcomes = make_items(pipeline, portion, self._request, self._checkpoint)
            if is_lost(pipeline.device):
                os._exit(1)  # a death like any other: in a new process the card may answer
            ray.get(self._attempts.end.remote(portion))
            yield from zip(portion, outcomes, strict=True)
        reason = f"its worker died {MAX_DEATHS} times, perhaps for want of memory"
        yield from ((item, Outcome(item, "failed", reason=reason)) for item in items if deaths[item] >= MAX_DEATHS)


class _Attempts:
    """Knows at which items workers died: Ray would give a deadly one to worker after worker for ever."""

    def __init__(self) -> None:
        self._unended: Counter[Item] = Counter()

    def deaths(self, items: Sequence[Item]) -> list[int]:
        """How many attempts at each item were begun and not ended; to be asked before another one begins."""
        return [self._unended[item] for item in items]

    def begin(self, items: Sequence[Item]) -> None:
        self._unended.update(items)

    def end(self, items: Sequence[Item]) -> None:
        self._unended.subtract(items)


def _send(items: Sequence[Item], workers: _Workers, request: Request, checkpoint: Checkpoint) -> Generator[_Task]:
    """Tasks with all of the items, each when its worker is done with it."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
    size = _items_a_task(request, workers, len(items))
    tasks = [{"task": _Task(items[start : start + size])} for start in range(0, len(items), size)]
    done = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
        _Worker,
        fn_constructor_args=(request, checkpoint, workers, attempts),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
        label_selector={"ray.io/node-id": f"!in({', '.join(workers.left_out)})"} if workers.left_out else None,
        compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(tasks)), max_tasks_in_flight_per_actor=1),
    )
    yield from (row["task"] for row in done.iter_rows())


def _items_a_task(request: Request, workers: _Workers, num_items: int) -> int:
    """So many that a worker can make them at once; where only it knows how many, few enough to share them evenly."""
    if request.batch_size == "auto":
        return max(1, min(MOST_ITEMS_A_TASK, num_items // (4 * workers.count)))
    return int(request.batch_size)


@contextmanager
def _cluster(request: Request) -> Iterator[None]:
    """Inside, this process is the driver of a job on the request's cluster, or on its own of this machine alone."""
    os.environ |= ENVIRONMENT if request.verbose else ENVIRONMENT | QUIET
    import ray
    from ray._private import worker as core

    own = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    options: dict[str, Any] = own if request.ray_address is None else {}
    if not request.verbose:  # its messages of workers that died, on stdout among the lines of clips
        core.print_to_stdstream = lambda *_, **__: None
    level = logging.INFO if request.verbose else logging.CRITICAL
    try:
        with nullcontext() if request.verbose else _hushed():
            ray.init(request.ray_address or "local", logging_level=level, log_to_driver=request.verbose, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = request.ray_address or "local"
        raise UserError(f"can't join the Ray cluster at ray_address {where}: {in_one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _hushed() -> Iterator[None]:
    """Inside, nothing gets to stderr: Ray's core says there that it was told to be quiet."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _plan_workers(request: Request, num_items: int, left_out: Mapping[str, Exception]) -> _Workers:
    """As many workers as the cluster has room for, and items.

    left_out: machines that are not used, and why. Raises UserError where there is room for none, or one such reason.
    """
    import ray

    alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    kind = kind_of_device(request.device)
    gpus = request.gpus_per_worker
    if gpus is None:
        has_cards = any(machine.get("GPU") for machine in alive.values())
        gpus = 1.0 if kind == "cuda" or (kind is None and has_cards) else 0.0
    machines = [machine for name, machine in alive.items() if name not in left_out]
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    cards = [machine.get("GPU", 0.0) for machine in machines]
    if kind == "cuda" and not gpus:
        raise UserError("device cuda needs graphics cards: give another gpus_per_worker than 0")
    cpus = request.cpus_per_worker or (1 if gpus else min(filter(None, cores), default=1))
    room = [
        min(own_cores // cpus, int(own_cards) * int(1 / gpus) if gpus else num_items)
        for own_cores, own_cards in zip(cores, cards, strict=True)
    ]
    if not any(room):
        for reason in left_out.values():
            raise reason
        raise UserError(
            f"no machine of the cluster has room for a worker with {cpus} cores and {gpus:g} graphics cards"
            f" (they have {cores} and {cards}): give other --cpus_per_worker and --gpus_per_worker"
        )
    device = request.device or ("cuda" if gpus else "cpu")  # said, for Ray doesn't hide the cards of others everywhere
    return _Workers(min(sum(room), num_items), cpus, gpus, device, tuple(left_out))


def _check_answers(address: str) -> None:
    """Raises UserError where no cluster's head listens at HOST:PORT; Ray itself would try for minutes."""
    if address == "auto":
        return
    match = re.fullmatch(r"(?P<host>[^:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if match is None:
        raise UserError(f"ray_address can't be {address!r}: give HOST:PORT of the cluster's head, or auto")
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), SECONDS_TO_ANSWER) as connection:
            answered = os.environ.get("RAY_USE_TLS") == "1" or _speaks_http2(connection)
    except (OSError, OverflowError) as error:
        raise _nobody_answers(address, str(error)) from error
    if not answered:
        raise _nobody_answers(address, "something else listens there")


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether a greeting is answered as by a gRPC server, such as Ray's head: with a SETTINGS frame (RFC 9113, 3.4)."""
    empty_settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
    header = connection.recv(9)
    return len(header) == 9 and header[3] == 4


def _nobody_answers(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at ray_address {address} ({reason}): give the address that `ray start --head` says"
    )


def _wait_for_any(items: Iterable[Item], request: Request, checkpoint: Checkpoint) -> None:
    """Wait until no other process holds the claim of one of the items."""
    while True:
        for item in items:
            with workplace(item.folder(request.output_folder), claim_key(item, request, checkpoint)) as aside:
                if aside is not None:
                    return
        time.sleep(SECONDS_BETWEEN_LOOKS)
