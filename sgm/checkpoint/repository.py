"""Addresses of repositories of huggingface.co: `owner/name`, or `owner/name@revision`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .files import SUFFIXES

_ADDRESS = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w.-]*(/\w[\w.-]*)*))?", re.ASCII)
_MAX_LENGTH = 96  # of `owner/name`, as the hub allows
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A repository of models, `owner/name`, at a branch, tag or commit; by default at its main branch."""

    id: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.id if self.revision == "main" else f"{self.id}@{self.revision}"

    @property
    def page(self) -> str:
        """Where its licence is read and accepted."""
        return f"https://huggingface.co/{self.id}"

    @property
    def is_at_commit(self) -> bool:
        """Whether it always means the same files; a branch moves on."""
        return is_commit(self.revision)


def is_commit(text: str) -> bool:
    """Whether this is the full name of a commit."""
    return _COMMIT.fullmatch(text) is not None


def read_address(text: str) -> Repository | None:
    """The repository that `owner/name` or `owner/name@revision` names; None for anything else."""
    match = _ADDRESS.fullmatch(text)
    if match is None or text.lower().endswith(SUFFIXES):
        return None
    name = match["id"]
    if len(name) > _MAX_LENGTH or "--" in name or ".." in name or name.endswith((".", "-", ".git")):
        return None
    return Repository(name, match["revision"] or "main")
