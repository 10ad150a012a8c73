"""The Ray cluster of a batch: joining or starting it, and how many workers it has room for.

Ray is asked for quiet by the means that it documents. What it says all the same, as of a worker that died, goes to
stderr: stdout is for the lines of clips.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError, in_one_line
from ..parameters.parameter import kind_of_device
from ..parameters.request import Request
from .items import is_single

OBJECT_STORE_BYTES = 100 * 2**20  # of a cluster of this machine alone: only items and outcomes pass through it
SECONDS_TO_ANSWER = 5.0
# Ray reads these as it is imported and started. It reports to nobody, and tells the user only what --verbose asks for.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else 15: whatever else runs here would take nearly all of the time
}
QUIET = {"RAY_DATA_LOG_LEVEL": "CRITICAL", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_SCHEDULER_EVENTS": "0"}
JOINING = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # else it takes minutes to find out that what listens is no cluster


def prepared_for_ray(request: Request) -> Request:
    """The request with paths that hold on every machine. Raises UserError where Ray, or its cluster, isn't there."""
    if any(importlib.util.find_spec(package) is None for package in ("ray", "pyarrow", "pandas")):
        raise UserError("engine ray needs Ray, which is not installed: pip install 'ray[data]'")
    if is_single(request):
        raise UserError("engine ray is for batches: give a folder, a pattern or a list as input_path, or omit engine")
    if request.device is not None and ":" in request.device:
        raise UserError(f"device {request.device} is one machine's card, but Ray gives each worker its own: give cuda")
    if request.ray_address is not None:
        _check_answers(request.ray_address)
    paths = {name: getattr(request, name) for name in ("input_path", "output_folder", "config", "text_adapter")}
    absolute = {name: path.absolute() for name, path in paths.items() if path is not None}
    return replace(request, **absolute)


@dataclass(frozen=True)
class Workers:
    """How many workers there are, how many cores and graphics cards each has, its device, and machines without any."""

    count: int
    cpus: int
    gpus: float
    device: str
    left_out: tuple[str, ...] = ()


@contextmanager
def cluster(request: Request) -> Iterator[None]:
    """Inside, this process is the driver of a job on the request's cluster, or on its own of this machine alone.

    Raises UserError where it can't be joined.
    """
    os.environ |= ENVIRONMENT | ({} if request.verbose else QUIET) | ({} if request.ray_address is None else JOINING)
    import ray

    own = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    options: dict[str, Any] = own if request.ray_address is None else {}
    address, level = request.ray_address or "local", logging.INFO if request.verbose else logging.CRITICAL
    with redirect_stdout(sys.stderr):
        try:
            ray.init(address, logging_level=level, log_to_driver=request.verbose, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"can't join the Ray cluster at ray_address {address}: {in_one_line(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


def plan_workers(request: Request, num_items: int, left_out: Mapping[str, Exception]) -> Workers:
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
    return Workers(min(sum(room), num_items), cpus, gpus, device, tuple(left_out))


def _check_answers(address: str) -> None:
    """Raises UserError where nothing listens at HOST:PORT; Ray itself would try for long."""
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
