"""The text that a user gives beside an image: one line of bounded length, as words."""

from __future__ import annotations

import re
import unicodedata

MAX_PROMPT = 500  # characters; far fewer words than that are read of any


def read_line(text: str) -> str:
    """The text without spaces around it.

    Raises ValueError where nothing is left, and for a text that is too long, or has line breaks or other characters
    that can't be printed, which a terminal might act on.
    """
    if not all(letter.isprintable() or unicodedata.category(letter) == "Zs" for letter in text):
        raise ValueError
    if not (line := text.strip()) or len(line) > MAX_PROMPT:
        raise ValueError
    return line


def words_of(text: str) -> list[str]:
    """The words of a text in small letters: letters of any alphabet and digits, and what apostrophes join to them."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower().replace("\u2019", "'"))
