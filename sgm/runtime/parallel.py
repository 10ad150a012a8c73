"""Several processes, one a device, that compute one clip together; all of their communication is here.

Rank 0 is the process that the user started: it alone reads, writes and speaks. The others, its helpers, carry out the
orders that it gives them with it, running the same code on the same numbers. What takes long is computed by one rank
and given to the others (`Ranks.share`).

Ranks speak through exchanges, in which each says something to all. A rank that failed, or that has left the work for a
new order, says so where the others expect its result: so an error on one ends the work on all, and all go on together.
Messages and tensors go through main memory (gloo), on the loopback interface alone: in a step they are a few megabytes,
and the death of a process shows at once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UserError, in_one_line, is_out_of_memory

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
LOOPBACK_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"
FOR_EVER = timedelta(days=365)  # helpers may wait for their next order as long as they like
SECONDS_TO_END = 10.0
LEFT_ALONE = 3  # the exit code of a helper that lost the others


class SharedError(RuntimeError):
    """What failed on some rank, raised on all of them, so that all may try something else together."""


class LostRankError(ChildProcessError):
    """A helper's process has ended, and the work of all with it."""


class _NewOrder(BaseException):  # no error: it passes by whatever handles errors
    """Rank 0 has left the work that a helper is still at, and gives a new order."""

    def __init__(self, order: _Order):
        self.order = order


@dataclass(frozen=True)
class _Order:
    """From rank 0 to its helpers."""

    name: str
    given: tuple[Any, ...]


@dataclass(frozen=True)
class _Result:
    """What a rank has come to in a common piece of work: a value, or what went wrong."""

    value: Any = None
    error: str | None = None


class Ranks:
    """The processes that compute a clip, as one of them sees them: `rank` is its number, `size` how many there are."""

    def __init__(self, rank: int, size: int, helpers: Sequence[_Helper] = ()):
        self.rank, self.size = rank, size
        self._helpers = helpers
        self._close = weakref.finalize(self, _end, helpers)  # at the latest when the program ends

    @property
    def are_lost(self) -> bool:
        """Whether there is nothing more to be had of the helpers."""
        return not self._close.alive

    def close(self) -> None:
        """End the helpers."""
        if self._close.alive:
            self._close()
            dist.destroy_process_group()

    def order(self, name: str, *given: Any) -> None:
        """Have the helpers do what has this name (see `help_out`), with tensors on the CPU; a helper orders nothing.

        Rank 0 then does the same itself.
        """
        if self.rank == 0:
            self._exchange(_Order(name, given))

    def gather(self, work: Callable[[], T]) -> list[T]:
        """What the work returns on each rank, by rank, on all of them.

        Raises SharedError on every rank if it fails on one.
        """
        try:
            result = _Result(work())
        except Exception as error:
            result = _Result(error=in_one_line(error))
        results = self._exchange(result)
        if isinstance(results[0], _Order):
            raise _NewOrder(results[0])
        for one in results:
            if one.error is not None:
                raise SharedError(one.error)
        return [one.value for one in results]

    def meet(self) -> None:
        """Go on when all ranks have come as far; raises SharedError on every rank if one has failed before."""
        self.gather(lambda: None)

    def share(self, compute: Callable[[int], Tensor], count: int) -> list[Tensor]:
        """compute(0), ..., compute(count - 1), each computed by one rank, on all of them.

        Those of other ranks are on the CPU. Raises SharedError on every rank if one fails.
        """
        owners = [index % self.size for index in range(count)]
        mine, kinds = self._compute(compute, owners)
        with self._closing_on_errors():
            tensors = [mine[i].cpu() if owners[i] == self.rank else kinds[i].empty() for i in range(count)]
            for tensor, owner in zip(tensors, owners, strict=True):
                dist.broadcast(tensor, owner)
        return [mine.get(index, tensor) for index, tensor in enumerate(tensors)]

    def collect(self, compute: Callable[[int], Tensor], count: int) -> list[Tensor]:
        """The same for tensors on the CPU that only rank 0 needs; on the others, none."""
        owners = [index % self.size for index in range(count)]
        mine, kinds = self._compute(compute, owners)
        with self._closing_on_errors():
            if self.rank > 0:
                for tensor in mine.values():
                    dist.send(tensor, 0)
                return []
            tensors = [mine[i] if owners[i] == 0 else kinds[i].empty() for i in range(count)]
            for tensor, owner in zip(tensors, owners, strict=True):
                if owner > 0:
                    dist.recv(tensor, owner)
        return tensors

    @contextmanager
    def waiting_for_each_other(self) -> Iterator[None]:
        """Inside, ranks need each other to go on, and none is heard: an error on one ends all. They `meet` first."""
        try:
            yield
        except BaseException as error:
            failed = not isinstance(error, RuntimeError) or is_out_of_memory(error)  # or the others are gone
            if self.rank > 0 and failed:
                print(in_one_line(error) if isinstance(error, Exception) else error, file=sys.stderr)  # noqa: T201
                sys.stderr.flush()
                os._exit(1)
            if not failed:
                raise self._lost() from error
            self.close()
            raise

    def _compute(
        self, compute: Callable[[int], Tensor], owners: Sequence[int]
    ) -> tuple[dict[int, Tensor], list[_Kind]]:
        """Tensors of this rank's own, by index, and the kinds of all."""
        mine: dict[int, Tensor] = {}

        def compute_mine() -> dict[int, _Kind]:
            mine.update({i: compute(i).contiguous() for i, owner in enumerate(owners) if owner == self.rank})
            return {index: _Kind(tensor.shape, tensor.dtype) for index, tensor in mine.items()}

        by_rank = self.gather(compute_mine)
        return mine, [by_rank[owner][index] for index, owner in enumerate(owners)]

    def hear(self, complaint: str | None) -> _Order:
        """Rank 0's next order; `complaint` is why the helper didn't carry out the last one, if it failed."""
        while True:
            order = self._exchange(_Result(error=complaint or "a helper was waiting for an order"))[0]
            if isinstance(order, _Order):
                return order

    def _exchange(self, message: _Order | _Result) -> list[Any]:
        if self.are_lost:
            raise LostRankError("the processes on the other devices have ended: load the model again")
        messages: list[Any] = [None] * self.size
        with self._closing_on_errors():
            dist.all_gather_object(messages, message)
        return messages

    @contextmanager
    def _closing_on_errors(self) -> Iterator[None]:
        """Inside, ranks wait for each other: if one is gone, or is interrupted there, they can't go on together."""
        try:
            yield
        except RuntimeError as error:
            raise self._lost() from error
        except BaseException:
            self.close()
            raise

    def _lost(self) -> LostRankError:
        if self.rank > 0:
            _leave()
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline:
            reasons = [f"{helper.name} {why}" for helper in self._helpers if (why := helper.why_it_ended())]
            if reasons or all(helper.process.poll() is not None for helper in self._helpers):
                break
            time.sleep(0.05)
        self.close()
        found = "; ".join(reasons) or "the processes on the other devices ended"
        return LostRankError(f"{found}, and the clip can't be finished without it: run the command again")


@dataclass(frozen=True)
class _Kind:
    shape: torch.Size
    dtype: torch.dtype

    def empty(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class _Helper:
    """A helper's process, as rank 0 knows it: its name for messages, and what it writes on stderr."""

    name: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def why_it_ended(self) -> str | None:
        """In words; None for one that runs, or that only lost the others."""
        code = self.process.poll()
        if code is None or code == LEFT_ALONE:
            return None
        if code < 0:
            return f"was killed ({signal.Signals(-code).name})"
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        return f"ended with exit code {code}" + (f" ({said.strip()})" if said else "")


def start_ranks(module: str, devices: Sequence[str]) -> Ranks:
    """Rank 0 of as many ranks as devices, after starting a process for each further one.

    module: what a helper runs, `python -m module RANK SIZE PORT DEVICE`: it calls `help_out`. Raises UserError where
    torch can't do it, or is doing it already in this process.
    """
    if not (dist.is_available() and dist.is_gloo_available()):
        raise UserError("this build of torch has no torch.distributed with gloo: give one device")
    if dist.is_initialized():
        raise UserError("this process already has a torch.distributed process group: close it, or give one device")
    size = len(devices)
    with socket.create_server((LOOPBACK, 0)) as listener:  # TCPStore's own would listen on every interface
        port = listener.getsockname()[1]
        store = dist.TCPStore(
            LOOPBACK, port, size, is_master=True, wait_for_workers=False, master_listen_fd=os.dup(listener.fileno())
        )
    helpers = [_start(module, rank, size, port, device) for rank, device in enumerate(devices) if rank > 0]
    ranks = Ranks(0, size, helpers)
    try:
        for helper in helpers:
            assert helper.process.stdout is not None
            if not helper.process.stdout.readline():
                helper.process.wait()
                raise LostRankError(f"{helper.name} {helper.why_it_ended()}")
        _join(store, 0, size)
    except BaseException:
        _end(helpers)
        raise
    return ranks


def help_out(words: Sequence[str], orders: Mapping[str, Callable[..., object]]) -> NoReturn:
    """The life of a helper, started with these words by `start_ranks`: it carries out orders until rank 0 ends.

    orders: each is called with the helper's ranks and what was ordered.
    """
    rank, size, port = (int(word) for word in words[:3])
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    print("ready", flush=True)  # noqa: T201  # for `start_ranks`
    _join(dist.TCPStore(LOOPBACK, port, size, is_master=False), rank, size)
    ranks = Ranks(rank, size)
    order = ranks.hear(None)
    while True:
        order = _carry_out(order, orders, ranks)


def _carry_out(order: _Order, orders: Mapping[str, Callable[..., object]], ranks: Ranks) -> _Order:
    """Carry out an order, unless it fails or rank 0 gives it up; returns the next one."""
    complaint = None
    try:
        orders[order.name](ranks, *order.given)
    except _NewOrder as new:
        return new.order
    except Exception as error:
        complaint = in_one_line(error)
    return ranks.hear(complaint)


def _start(module: str, rank: int, size: int, port: int, device: str) -> _Helper:
    """Start a helper in a session of its own, where Ctrl-C in the terminal doesn't reach it."""
    project = str(Path(__file__).parents[2])
    paths = [project, *filter(None, [os.environ.get("PYTHONPATH")])]
    errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, (rank, size, port)), device],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )
    return _Helper(f"the process on {device} (rank {rank})", process, errors)


def _join(store: dist.Store, rank: int, size: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK_INTERFACE)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=FOR_EVER)


def _end(helpers: Sequence[_Helper]) -> None:
    """End the helpers, which have nothing to lose."""
    for helper in helpers:
        helper.process.kill()
    for helper in helpers:
        helper.process.communicate()  # and closes its pipes
        helper.errors.close()


def _end_with_rank_0() -> None:
    sys.stdin.buffer.read()  # nothing is written there: it ends as rank 0 does, however that ends
    _leave()


def _leave() -> NoReturn:
    os._exit(LEFT_ALONE)  # at once, whatever else the process waits for
