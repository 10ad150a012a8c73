"""The words that the encoder of prompts knows; a word's place is its number, so new ones go to the end.

Needs no torch, so that a prompt is checked before anything heavy is imported.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from ..inputs.prompt import words_of

_LIST = """
a and animal anticlockwise as away back backing backs backwards ball balloon boat bottom building camera car
cat climb climbing climbs clockwise closer cloud come comes coming counter counterclockwise crane cranes
craning creature doesn't dog dollies dolly dollying don't down downward downwards drift drifting drifts drive
drives driving fall falling falls farther fast figure fixed flies float floating floats fly flying forward
gentle gently get gets getting go goes going hold holds house in inwards jump jumping jumps keep left leftward
leftwards look looking looks make man motion move moves moving nearer no object out outwards pan panning pans
person pull pulling pulls push pushes pushing quick quickly rapid rapidly right rightward rightwards rise
rises rising robot rocket roll rolling rolls rotate rotates rotating run running runs sail sailing sails ship
shot side sink sinking sinks slide slides sliding slow slowly softly spaceship spin spinning spins static stay
stays step stepping steps still subject swiftly swing swinging swings that the thing tilt tilting tilts to top
towards track tracking tracks turn turning turns twist twisting twists up upward upwards vehicle view walk
walking walks while woman zoom zooming zooms
"""
WORDS = tuple(_LIST.split())
MAX_WORDS = 32
_NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}  # 0 stands for no word


@dataclass(frozen=True)
class Prompt:
    """A text as an encoder reads it: the numbers of its known words, and those that are set aside.

    unknown: words that it doesn't know, each once. surplus: known ones beyond those that it has room for.
    """

    numbers: tuple[int, ...]
    unknown: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()


def read_prompt(text: str, num_words: int = len(WORDS)) -> Prompt:
    """The prompt that a text stands for, to an encoder of our own that has room for the first `num_words` words."""
    words = words_of(text)
    known = [word for word in words if 0 < _NUMBERS.get(word, 0) <= num_words]
    unknown = dict.fromkeys(word for word in words if word not in known)
    numbers = tuple(_NUMBERS[word] for word in known[:MAX_WORDS])
    return Prompt(numbers, tuple(unknown), tuple(known[MAX_WORDS:]))


def read_clip_prompt(text: str, length: int) -> Prompt:
    """The prompt that a text stands for, to CLIP's text tower of `length` tokens, which knows every word in pieces."""
    tokenizer = _clip_tokenizer()
    room = length - 2
    pieces = tokenizer.encode(text)
    surplus = tokenizer.decode(pieces[room:]).split()
    return Prompt((tokenizer.sot_token_id, *pieces[:room], tokenizer.eot_token_id), surplus=tuple(surplus))


@cache
def _clip_tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer  # with torch, only where an adapter asks for it

    return SimpleTokenizer()
