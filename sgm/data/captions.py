"""What a prompt may say of a clip: the motions, and many wordings for each, some of which are never trained on.

All words speak of the camera, as on a film set: in a pan to the left the picture moves to the right. A caption names
everything that moves; what it doesn't name stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Rng = np.random.Generator


class Verb(NamedTuple):
    """A verb in its plain form, its third person and its participle."""

    plain: str
    third: str
    participle: str


def _verbs(*words: str) -> tuple[Verb, ...]:
    """Each word is `plain/third/participle`."""
    return tuple(Verb(*word.split("/")) for word in words)


_PAN = _verbs("pan/pans/panning", "move/moves/moving", "go/goes/going", "slide/slides/sliding", "drift/drifts/drifting")
_SIDEWAYS = (
    *_PAN,
    *_verbs("turn/turns/turning", "look/looks/looking", "track/tracks/tracking", "swing/swings/swinging"),
)
_UPWARDS = (*_PAN, *_verbs("tilt/tilts/tilting", "look/looks/looking", "rise/rises/rising", "crane/cranes/craning"))
_DOWNWARDS = (*_PAN, *_verbs("tilt/tilts/tilting", "look/looks/looking", "sink/sinks/sinking", "crane/cranes/craning"))
_ZOOM = _verbs("zoom/zooms/zooming", "move/moves/moving", "dolly/dollies/dollying", "go/goes/going")
_INTO = (*_ZOOM, *_verbs("push/pushes/pushing"))
_OUT = (*_ZOOM, *_verbs("pull/pulls/pulling"))
_ROLL = _verbs("roll/rolls/rolling", "rotate/rotates/rotating", "spin/spins/spinning", "twist/twists/twisting")
_TURN = _verbs("roll/rolls/rolling", "rotate/rotates/rotating", "turn/turns/turning")

# Of each camera motion: the verbs and the ways that follow them. Wordings that end in the last way are held out.
CAMERA_MOTIONS: dict[str, tuple[tuple[tuple[Verb, ...], tuple[str, ...]], ...]] = {
    "left": ((_SIDEWAYS, ("left", "to the left", "leftwards", "towards the left", "left across the scene")),),
    "right": ((_SIDEWAYS, ("right", "to the right", "rightwards", "towards the right", "right across the scene")),),
    "up": ((_UPWARDS, ("up", "upwards", "to the top", "upward", "up across the scene")),),
    "down": ((_DOWNWARDS, ("down", "downwards", "to the bottom", "downward", "down across the scene")),),
    "in": (
        (_INTO, ("in", "closer", "forward", "inwards", "in on the scene")),
        (_verbs("get/gets/getting", "come/comes/coming"), ("closer", "nearer", "closer to the scene")),
    ),
    "out": (
        (_OUT, ("out", "back", "away", "backwards", "outwards", "out from the scene")),
        (_verbs("get/gets/getting", "back/backs/backing"), ("away", "farther away", "away from the scene")),
    ),
    "clockwise": (
        (_ROLL, ("clockwise", "to the right side", "in clockwise direction")),
        (_TURN, ("clockwise", "clockwise around the view")),
    ),
    "anticlockwise": (
        (_ROLL, ("counter-clockwise", "anticlockwise", "to the left side", "in counter-clockwise direction")),
        (_TURN, ("anticlockwise", "counterclockwise", "counter-clockwise around the view")),
    ),
    "still": (),
}
OPPOSITES = {"left": "right", "up": "down", "in": "out", "clockwise": "anticlockwise"}
OPPOSITES |= {second: first for first, second in OPPOSITES.items()}

_CAMERA_FORMS = (
    "{plain} {way}",
    "{plain} {way}",
    "{participle} {way}",
    "the camera {third} {way}",
    "camera {third} {way}",
    "camera {participle} {way}",
    "{plain} the camera {way}",
    "a camera that {third} {way}",
    "the view {third} {way}",
)
_HELD_OUT_CAMERA_FORMS = ("let the camera {plain} {way}", "the shot is {participle} {way}", "a shot {participle} {way}")
_STILL = (
    "hold still",
    "stay still",
    "the camera stays still",
    "still camera",
    "static camera",
    "the camera doesn't move",
    "no camera motion",
    "a static shot",
    "fixed camera",
    "keep the camera still",
    "the camera holds still",
    "don't move",
)
_HELD_OUT_STILL = ("keep still", "a still shot", "hold the camera still", "no motion", "the camera is fixed")
_BRIEFLY = {  # the motion as a noun
    "left": ("pan left", "left pan", "leftward pan"),
    "right": ("pan right", "right pan", "rightward pan"),
    "up": ("tilt up", "upward pan"),
    "down": ("tilt down", "downward pan"),
    "in": ("zoom in", "zoom", "push in", "dolly in"),
    "out": ("zoom out", "pull out", "dolly out"),
    "clockwise": ("clockwise roll", "roll right"),
    "anticlockwise": ("counter-clockwise roll", "roll left"),
}

SPEEDS: dict[str, tuple[float, tuple[str, ...], tuple[str, ...]]] = {  # factor, adverbs, adjectives
    "slow": (0.5, ("slowly", "gently", "softly", "slow"), ("slow", "gentle")),
    "plain": (1.0, (), ()),
    "fast": (1.7, ("quickly", "fast", "rapidly", "swiftly"), ("fast", "quick", "rapid")),
}

SUBJECT_MOTIONS = ("left", "right", "up", "down")
_SUBJECT_WAYS = {
    "left": ("left", "to the left", "leftwards", "towards the left"),
    "right": ("right", "to the right", "rightwards", "towards the right"),
    "up": ("up", "upwards", "to the top", "upward"),
    "down": ("down", "downwards", "to the bottom", "downward"),
}
_ANY_SUBJECT = ("subject", "object", "figure", "thing")
_SUBJECT_NOUNS = {
    "car": ("car", "vehicle"),
    "house": ("house", "building"),
    "robot": ("robot", "figure", "person", "man", "woman"),
    "rocket": ("rocket", "spaceship"),
    "boat": ("boat", "ship"),
    "creature": ("animal", "creature", "dog", "cat", "figure"),
    "balloon": ("balloon", "cloud", "ball"),
}
_GOES = _verbs("move/moves/moving", "go/goes/going", "slide/slides/sliding", "drift/drifts/drifting")
_SUBJECT_VERBS = {
    "car": _verbs("drive/drives/driving", "roll/rolls/rolling"),
    "house": (),
    "robot": _verbs("walk/walks/walking", "run/runs/running", "step/steps/stepping"),
    "rocket": _verbs("fly/flies/flying"),
    "boat": _verbs("sail/sails/sailing", "float/floats/floating"),
    "creature": _verbs("walk/walks/walking", "run/runs/running", "jump/jumps/jumping"),
    "balloon": _verbs("float/floats/floating", "fly/flies/flying"),
}
_VERTICALLY = {
    "up": _verbs("rise/rises/rising", "climb/climbs/climbing"),
    "down": _verbs("sink/sinks/sinking", "fall/falls/falling"),
}
_SUBJECT_FORMS = (
    "the {noun} {third} {way}",
    "the {noun} {third} {way}",
    "{noun} {participle} {way}",
    "a {noun} {third} {way}",
    "make the {noun} {plain} {way}",
)
_HELD_OUT_SUBJECT_FORMS = (
    "the {noun} is {participle} {way}",
    "let the {noun} {plain} {way}",
    "a {noun} {participle} {way}",
)


@dataclass(frozen=True)
class Script:
    """What happens in a clip.

    camera: one of CAMERA_MOTIONS. subject: what stands in front of the scene, a key of `_SUBJECT_NOUNS`, or empty.
    subject_motion: one of SUBJECT_MOTIONS, or "still". speed: one of SPEEDS.
    """

    camera: str = "still"
    subject: str = ""
    subject_motion: str = "still"
    speed: str = "plain"


def random_script(rng: Rng, subject: str) -> Script:
    """A script that has nothing to do with the picture, in which the given subject, if there is one, may move."""
    motions = [motion for motion in CAMERA_MOTIONS if motion != "still"]
    speed = str(rng.choice(["slow", "plain", "fast"], p=[0.2, 0.6, 0.2]))
    moves = bool(subject) and rng.uniform() < 0.6
    camera_moves = rng.uniform() < (0.4 if moves else 0.92)
    return Script(
        camera=str(rng.choice(motions)) if camera_moves else "still",
        subject=subject,
        subject_motion=str(rng.choice(SUBJECT_MOTIONS)) if moves else "still",
        speed=speed if camera_moves or moves else "plain",
    )


def caption(rng: Rng, script: Script, held_out: bool = False) -> str:
    """A wording of the script: one that is trained on, or one that is held out."""
    adverbs = SPEEDS[script.speed][1]
    parts = []
    if script.subject_motion != "still":
        parts.append(_subject_words(rng, script.subject, script.subject_motion, held_out))
    if script.camera != "still":
        parts.append(_camera_words(rng, script, held_out))
    elif not parts:
        return _any(rng, _HELD_OUT_STILL if held_out else _STILL)
    elif rng.uniform() < 0.3:
        parts.append(_any(rng, _HELD_OUT_STILL if held_out else _STILL))
    if len(parts) == 2:
        joint = _any(rng, (", ", " and ", " while ", " as "))
        words = joint.join(parts if rng.uniform() < 0.5 else reversed(parts))
    else:
        (words,) = parts
    if adverbs and not _names_speed(words):
        adverb = _any(rng, adverbs)
        words = f"{adverb} {words}" if rng.uniform() < 0.4 else f"{words} {adverb}"
    return words


def _camera_words(rng: Rng, script: Script, held_out: bool) -> str:
    adjectives = SPEEDS[script.speed][2]
    if not held_out and rng.uniform() < 0.15:
        brief = _any(rng, _BRIEFLY[script.camera])
        return f"{_any(rng, adjectives)} {brief}" if adjectives else brief
    groups = CAMERA_MOTIONS[script.camera]
    verbs, ways = groups[0] if len(groups) == 1 or rng.uniform() < 0.75 else groups[1]
    held_out_forms = held_out and rng.uniform() < 0.5
    if held_out and not held_out_forms:
        verb, way = verbs[int(rng.integers(len(verbs) - 1))], ways[-1]
    else:
        verb = verbs[int(rng.integers(len(verbs)))] if rng.uniform() < 0.75 else verbs[0]
        way = ways[0] if verb == verbs[-1] else _any(rng, ways[:-1])
    form = _any(rng, _HELD_OUT_CAMERA_FORMS if held_out_forms else _CAMERA_FORMS)
    return form.format(**verb._asdict(), way=way)


def _subject_words(rng: Rng, subject: str, motion: str, held_out: bool) -> str:
    noun = _any(rng, _ANY_SUBJECT if rng.uniform() < 0.5 else _SUBJECT_NOUNS[subject])
    form = _any(rng, _HELD_OUT_SUBJECT_FORMS if held_out else _SUBJECT_FORMS)
    if motion in _VERTICALLY and rng.uniform() < 0.5:
        way = "" if rng.uniform() < 0.6 else _any(rng, _SUBJECT_WAYS[motion])
        verbs = _VERTICALLY[motion]
    else:
        way = _any(rng, _SUBJECT_WAYS[motion])
        verbs = (*_GOES, *_SUBJECT_VERBS[subject], *_SUBJECT_VERBS[subject])
    return form.format(noun=noun, way=way, **verbs[int(rng.integers(len(verbs)))]._asdict()).strip()


def _names_speed(words: str) -> bool:
    named = {word for _, adverbs, adjectives in SPEEDS.values() for word in (*adverbs, *adjectives)}
    return bool(named & set(words.split()))


def _any(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def words_in(text: str) -> list[str]:
    """The words of a text in lower case: letters, and what an apostrophe joins to them."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())
