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
from ..progress import Progress
from ..remake import kind_of_device
from ..request import Request
from .done import claim_key
from .items import Item, is_single
from .make import Outcome, load_pipeline, make_item

if TYPE_CHECKING:
    from ..pipeline import Pipeline

MAX_ATTEMPTS = 3  # at an item, each ended by the death of its worker
OBJECT_STORE_BYTES = 100 * 2**20  # of a cluster of this machine alone: only items and outcomes pass through it
SECONDS_TO_ANSWER = 5.0
SECONDS_BETWEEN_LOOKS = 0.5
# Ray reads these as it is imported and started. It reports to nobody, and tells the user only what --verbose asks for.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a graphics card sees none
    "RAY_worker_niceness": "0",  # else 15: whatever else runs here would take nearly all of the time
}
QUIET = {"RAY_DATA_LOG_LEVEL": "CRITICAL", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def prepared_for_ray(request: Request) -> Request:
    """The request with paths that hold on every machine. Raises UserError where Ray, or its cluster, isn't there."""
    if any(importlib.util.find_spec(package) is None for package in ("ray", "pyarrow", "pandas")):
        raise UserError("engine ray needs Ray, which is not installed: pip install -r requirements-ray.txt")
    if is_single(request):
        raise UserError("engine ray is for batches: give a folder, a pattern or a list as input_path, or leave it away")
    if request.ray_address is not None:
        _check_answers(request.ray_address)
    paths = {name: getattr(request, name) for name in ("input_path", "output_folder", "config")}
    absolute = {name: path.absolute() for name, path in paths.items() if path is not None}
    return replace(request, **absolute, sampling=request.asked)


def make_on_ray(
    items: Sequence[Item], request: Request, checkpoint: Checkpoint, progress: Progress
) -> Generator[Outcome]:
    """Make the items on the cluster of the request, or on one of this machine alone; outcomes in the order they come.

    What another run is making comes last, and is made here if it isn't done by then. Raises UserError where the cluster
    can't be joined or has no room for a worker, and what a worker says that can't load the model.
    """
    checkpoint = replace(checkpoint, path=checkpoint.path.absolute())
    try:
        with _cluster(request):
            workers = _plan_workers(request, len(items))
            each = f"cores: {workers.cpus}, graphics cards: {workers.gpus:g}"
            progress.say(f"starting workers: {workers.count}, each with {each}")
            while items:
                busy = []
                with closing(_rows(items, workers, request, checkpoint)) as rows:
                    for row in rows:
                        if isinstance(row["outcome"], Exception):
                            raise row["outcome"]
                        if row["outcome"] is None:
                            busy.append(row["item"])
                        else:
                            yield row["outcome"]
                items = busy
                if busy:
                    progress.say(f"another run is making what is left here ({len(busy)}): waiting for it")
                    _wait_for_any(busy, request, checkpoint)
    finally:
        for folder in sorted({item.folder(request.output_folder) for item in items}):
            clear_leftovers(folder)


@dataclass(frozen=True)
class _Workers:
    """How many workers there are, and how many cores and graphics cards each has."""

    count: int
    cpus: int
    gpus: float


class _Worker:
    """Makes items in a process of its own, which Ray starts."""

    def __init__(self, request: Request, checkpoint: Checkpoint, attempts: Any):
        self._request, self._checkpoint, self._attempts = request, checkpoint, attempts
        self._pipeline: Pipeline | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with the item's outcome: None where another run is making it, an error where no model was loaded."""
        import ray

        item = row["item"]
        if ray.get(self._attempts.begin.remote(item)) > MAX_ATTEMPTS:
            reason = f"its worker died {MAX_ATTEMPTS} times, perhaps for want of memory"
            return {**row, "outcome": Outcome(item, "failed", reason=reason)}
        if self._pipeline is None:
            try:
                self._pipeline = load_pipeline(self._request, self._checkpoint, Progress(quiet=True))
            except Exception as error:  # it is the driver who ends the run
                kind = UserError if isinstance(error, UserError) else RuntimeError
                return {**row, "outcome": kind(f"on {socket.gethostname()}: {in_one_line(error)}")}
        return {**row, "outcome": make_item(self._pipeline, item, self._request, self._checkpoint)}


class _Attempts:
    """Counts how often each item was begun: Ray would give a deadly one to worker after worker for ever."""

    def __init__(self) -> None:
        self._counts: Counter[Item] = Counter()

    def begin(self, item: Item) -> int:
        self._counts[item] += 1
        return self._counts[item]


def _rows(
    items: Sequence[Item], workers: _Workers, request: Request, checkpoint: Checkpoint
) -> Generator[Mapping[str, Any]]:
    """Each item with what came of it, as soon as it is known."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
    plan = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))  # one a task
    made = plan.map(
        _Worker,
        fn_constructor_args=(request, checkpoint, attempts),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
        compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(items)), max_tasks_in_flight_per_actor=1),
    )
    yield from made.iter_rows()


@contextmanager
def _cluster(request: Request) -> Iterator[None]:
    """Inside, this process is the driver of a job on the request's cluster, or on its own of this machine alone."""
    os.environ |= ENVIRONMENT if request.verbose else ENVIRONMENT | QUIET
    import ray

    own = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    options: dict[str, Any] = own if request.ray_address is None else {}
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


def _plan_workers(request: Request, num_items: int) -> _Workers:
    """As many workers as the cluster has room for, and items. Raises UserError where there is room for none."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    cards = [machine.get("GPU", 0.0) for machine in machines]
    on_cards = kind_of_device(request.device) in (None, "cuda") and any(cards)
    gpus = request.gpus_per_worker if request.gpus_per_worker is not None else float(on_cards)
    cpus = request.cpus_per_worker or (1 if gpus else min(filter(None, cores), default=1))
    room = [
        min(own_cores // cpus, int(own_cards / gpus + 1e-6) if gpus else num_items)
        for own_cores, own_cards in zip(cores, cards, strict=True)
    ]
    if not any(room):
        raise UserError(
            f"no machine of the cluster has room for a worker with {cpus} cores and {gpus:g} graphics cards"
            f" (they have {cores} and {cards}): give other --cpus_per_worker and --gpus_per_worker"
        )
    return _Workers(min(sum(room), num_items), cpus, gpus)


def _check_answers(address: str) -> None:
    """Raises UserError where nothing listens at HOST:PORT; Ray itself would try for minutes."""
    if address == "auto":
        return
    match = re.fullmatch(r"(?P<host>[^:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})", address)
    if match is None:
        raise UserError(f"ray_address can't be {address!r}: give HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at ray_address {address} ({error}): give the address that `ray start --head` says"
        ) from error


def _wait_for_any(items: Iterable[Item], request: Request, checkpoint: Checkpoint) -> None:
    """Wait until no other process holds the claim of one of the items."""
    while True:
        for item in items:
            with workplace(item.folder(request.output_folder), claim_key(item, request, checkpoint)) as aside:
                if aside is not None:
                    return
        time.sleep(SECONDS_BETWEEN_LOOKS)
