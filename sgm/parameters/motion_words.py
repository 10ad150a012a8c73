"""Prompts for versions that read no text: words of stillness, strength and speed, as the numbers that these take.

Strength is `motion_bucket_id`. Speed is `fps_id`, the frame rate that the motion is made for: at twice the rate half as
much moves from frame to frame, so that, played at the rate of a clip without a prompt, everything moves half as fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..inputs.prompt import words_of

# What is said, by the word that stands for it in messages; beside it the value, and the words that say it.
STRENGTHS: Mapping[str, tuple[int, tuple[str, ...]]] = {  # motion_bucket_id
    "still": (0, ("still", "static", "motionless", "unmoving", "frozen", "fixed")),
    "gentle": (60, ("gentle", "gently", "subtle", "subtly", "slight", "slightly", "calm", "calmly", "soft", "softly",
                    "weak", "small", "little")),
    "strong": (200, ("strong", "strongly", "dynamic", "dramatic", "intense", "powerful", "big", "large", "much",
                     "lots")),
}  # fmt: skip
SPEEDS: Mapping[str, tuple[int, tuple[str, ...]]] = {  # fps_id
    "slow": (12, ("slow", "slowly", "leisurely")),
    "fast": (4, ("fast", "quick", "quickly", "rapid", "rapidly", "swift", "swiftly")),
}
# Words that say neither, and that a phrase may have around those that do.
_AROUND = """
a an and at be camera everything hold holds image in is it keep keeps let make motion motions move movement movements
moves moving of picture please scene shot speed stay stays the with
"""
AROUND = frozenset(_AROUND.split())
NO_MOTION = re.compile(
    r"\b(?:no|without)(?: any| camera)* (?:motion|movement|moving)\b|\b(?:don't|doesn't|do not|does not) move\b"
)


@dataclass(frozen=True)
class MotionWords:
    """What a text says of the motion: names of STRENGTHS and of SPEEDS, and the words that say anything else."""

    strengths: tuple[str, ...]
    speeds: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def values(self) -> dict[str, int]:
        """The parameters that the words stand for; of each kind the first counts."""
        kinds = {"motion_bucket_id": (STRENGTHS, self.strengths), "fps_id": (SPEEDS, self.speeds)}
        return {parameter: kind[said[0]][0] for parameter, (kind, said) in kinds.items() if said}


def read_motion_words(text: str) -> MotionWords:
    """What a text says, word by word, in small or capital letters."""
    words = NO_MOTION.sub("still", " ".join(words_of(text))).split()

    def said(kinds: Mapping[str, tuple[int, tuple[str, ...]]]) -> tuple[str, ...]:
        return tuple(name for name, (_, sayings) in kinds.items() if set(sayings) & set(words))

    known = AROUND.union(*(sayings for kinds in (STRENGTHS, SPEEDS) for _, sayings in kinds.values()))
    return MotionWords(said(STRENGTHS), said(SPEEDS), tuple(dict.fromkeys(word for word in words if word not in known)))
