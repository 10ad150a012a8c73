"""The project's pages as tests read them: their tables, links, and the commands that they show."""

import re
import shlex
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("assets/*.md"), *PROJECT.glob("docs/**/*.md")])


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def tables(name: str, title: str) -> list[list[list[str]]]:
    """The tables under a heading, up to the next one: of each its rows' cells, without the two head lines."""
    section = re.split(r"\n#+ ", re.split(rf"\n#+ {re.escape(title)}\n", text_of(name))[1])[0]
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", section + "\n", re.MULTILINE):
        lines = block.splitlines()[2:]
        found.append([[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines])
    return found


def code_names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def code_spans(text: str) -> list[str]:
    """What stands in `code` within the sentences and tables."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def python_commands(text: str) -> list[list[str]]:
    """The words after `python` of every command, in blocks and within sentences, without where its output goes."""
    shown = [line for block in blocks(text, "bash") for line in block.splitlines()] + code_spans(text)
    found = []
    for command in (part.strip() for line in shown for part in line.split("&&")):
        if re.match(r"(\S+/)?python3? ", command):
            words = shlex.split(command.partition(" > ")[0])[1:]
            if words[:2] != ["-m", "venv"]:
                found.append(words)
    return found


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
