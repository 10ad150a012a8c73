"""A batch on many machines: Ray Data sends the items to workers, each a process with a model of its own.

A worker makes an item as one process alone does, and what is done is known from the files alone, so everything that may
happen here has one answer: make what is missing. Ray starts a worker that died, or whose machine was lost, anew, where
there is room, and gives it the item again. The machines share inputs, outputs, weights and the project by their paths.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from ..checkpoint.files import Checkpoint
from ..errors import UserError, in_one_line
from ..outputs.publishing import clear_leftovers, workplace
from ..parameters.request import Request
from ..progress import Progress
from .items import Item
from .make import Maker, load_pipeline
from .outcome import Outcome
from .ray_cluster import Workers, cluster, plan_workers
from .resume import claim_key

MAX_DEATHS = 3  # of workers at an item
MOST_ITEMS_A_TASK = 8
SECONDS_BETWEEN_LOOKS = 0.5


def make_on_ray(
    items: Sequence[Item], request: Request, checkpoint: Checkpoint, progress: Progress
) -> Generator[Outcome]:
    """Make the items on the cluster of the request, or on one of this machine alone; outcomes in the order they come.

    What another run is making comes last, and is made here if it isn't done by then. A machine that can't load the
    model is left out; where none is left, what it said is raised, and UserError where the cluster can't be joined or
    has no room for a worker.
    """
    checkpoint = checkpoint.absolute()
    try:
        with cluster(request):
            left, left_out = items, dict[str, Exception]()
            while left:
                workers = plan_workers(request, len(left), left_out)
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

    def __init__(self, request: Request, checkpoint: Checkpoint, workers: Workers, attempts: Any):
        self._request, self._checkpoint, self._kind, self._attempts = request, checkpoint, workers, attempts
        self._maker: Maker | None = None
        self._error: Exception | None = None

    def __call__(self, row: Mapping[str, _Task]) -> dict[str, _Task]:
        """The task done, or given back by a worker that can't load the model."""
        import ray

        task = replace(row["task"], machine=ray.get_runtime_context().get_node_id())
        if self._error is not None:
            return {"task": replace(task, error=self._error)}
        try:
            maker = self._load()
        except Exception as error:
            kind = UserError if isinstance(error, UserError) else RuntimeError
            self._error = kind(f"on {socket.gethostname()}: {in_one_line(error)}")
            return {"task": replace(task, error=self._error)}
        outcomes = dict(self._make(maker, task.items))
        return {"task": replace(task, outcomes=[outcomes[item] for item in task.items])}

    def _load(self) -> Maker:
        """What makes the items, its model loaded. Raises what goes wrong with that."""
        if self._maker is None:
            request = replace(self._request, device=self._kind.device)
            if self._kind.device == "cuda" and self._kind.gpus < 1:
                from ..runtime.devices import keep_to_share  # with torch, which the driver has no need of

                keep_to_share(self._kind.gpus)
            progress = Progress(quiet=True)
            pipeline = load_pipeline(request, self._checkpoint, progress)
            self._maker = Maker(self._request, self._checkpoint, progress, pipeline)
        return self._maker

    def _make(self, maker: Maker, items: Sequence[Item]) -> Iterator[tuple[Item, Outcome | None]]:
        """Items at which a worker has died are made alone, so that none fails for another's fault."""
        import ray

        deaths = dict(zip(items, ray.get(self._attempts.deaths.remote(items)), strict=True))
        at_once = maker.at_once(len(items))
        new = [item for item in items if deaths[item] == 0]
        portions = [new[start : start + at_once] for start in range(0, len(new), at_once)]
        portions += [[item] for item in items if 0 < deaths[item] < MAX_DEATHS]
        for portion in portions:
            ray.get(self._attempts.begin.remote(portion))
            outcomes = maker.make(portion)
            if maker.has_lost_its_device():
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


def _send(items: Sequence[Item], workers: Workers, request: Request, checkpoint: Checkpoint) -> Generator[_Task]:
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


def _items_a_task(request: Request, workers: Workers, num_items: int) -> int:
    """So many that a worker can make them at once; where only it knows how many, few enough to share them evenly."""
    if request.batch_size == "auto":
        return max(1, min(MOST_ITEMS_A_TASK, num_items // (4 * workers.count)))
    return int(request.batch_size)


def _wait_for_any(items: Iterable[Item], request: Request, checkpoint: Checkpoint) -> None:
    """Wait until no other process holds the claim of one of the items."""
    while True:
        for item in items:
            with workplace(item.folder(request.output_folder), claim_key(item, request, checkpoint)) as aside:
                if aside is not None:
                    return
        time.sleep(SECONDS_BETWEEN_LOOKS)
