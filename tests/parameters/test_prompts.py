"""What a prompt means in versions that read no text, and what is no prompt."""

import json
from dataclasses import replace

import pytest

from sgm.config import RELEASES, load_config
from sgm.errors import UserError
from sgm.parameters.motion_words import AROUND, SPEEDS, STRENGTHS
from sgm.parameters.request import make_request
from sgm.parameters.sampling import SamplingParameters, SamplingSettings

OF_PICTURES = [version for version in RELEASES if load_config(version).input == "picture"]
RELEASED = [version for version in OF_PICTURES if not load_config(version).takes_prompts]
READS_TEXT = replace(load_config("svd"), text=load_config("svd_tiny_next").text)


def settings(prompt: object, version: str = "svd", **given: object) -> SamplingSettings:
    return make_request({"version": version, "prompt": prompt, **given}).settings


@pytest.mark.parametrize(
    ("prompt", "motion_bucket_id", "fps_id"),
    [
        ("hold still", 0, 6),
        ("The camera doesn't move.", 0, 6),
        ("no motion", 0, 6),
        ("without any camera motion", 0, 6),
        ("gentle motion", 60, 6),
        ("STRONG motion", 200, 6),
        ("slow", 127, 12),
        ("move slowly", 127, 12),
        ("fast", 127, 4),
        ("slow, gentle movement", 60, 12),
        ("strong and fast", 200, 4),
    ],
)
def test_words_of_strength_and_speed_are_numbers(prompt: str, motion_bucket_id: int, fps_id: int) -> None:
    for version in RELEASED:
        found = settings(prompt, version)
        assert (found.motion_bucket_id, found.fps_id, found.prompt) == (motion_bucket_id, fps_id, prompt)


def test_a_speed_is_seen_at_the_rate_of_other_clips() -> None:
    """At 12 frames a second half as much moves from frame to frame; played at 6, it moves half as fast."""
    assert settings("slow").fps == settings("fast").fps == settings(None).fps == 6
    assert settings("slow", fps=24).fps == 24
    assert settings("gentle", fps_id=9).fps == 9


def test_stronger_is_more_and_faster_is_fewer_frames_a_second() -> None:
    still, gentle, strong = (STRENGTHS[name][0] for name in ("still", "gentle", "strong"))
    assert still < gentle < settings(None).motion_bucket_id < strong
    assert SPEEDS["slow"][0] > settings(None).fps_id > SPEEDS["fast"][0]


def test_every_word_says_one_thing() -> None:
    said = [word for kind in (STRENGTHS, SPEEDS) for _, words in kind.values() for word in words]
    assert len(said) == len({*said})
    assert not AROUND & {*said}


@pytest.mark.parametrize("version", RELEASED)
@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("pan left", "can't follow 'pan', 'left'"),
        ("zoom in slowly", "can't follow 'zoom'"),
        ("very slow", "can't follow 'very'"),
        ("a dog runs fast", "can't follow 'dog', 'runs'"),
        ("not fast", "can't follow 'not'"),
        ("the camera", "finds no motion"),
        ("!!!", "finds no motion"),
        ("slow and fast", "says both slow and fast: say one of them"),
        ("gentle but strong", "can't follow 'but'"),
        ("gentle, strong", "says both gentle and strong"),
        ("still, fast", "says both still and fast"),
    ],
)
def test_everything_else_is_refused(version: str, prompt: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        settings(prompt, version)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_refusal_says_what_is_allowed_and_what_would_help() -> None:
    with pytest.raises(UserError, match=r"only words of strength or speed \(still, gentle, strong, slow, fast\); for"):
        settings("pan left")


@pytest.mark.parametrize("version", ["sv3d_u", "sv3d_p", "sv3d_tiny"])
@pytest.mark.parametrize("prompt", ["slow", "pan left"])
def test_orbits_take_no_prompt(version: str, prompt: str) -> None:
    with pytest.raises(UserError, match=f"{version} takes no prompt .* its motion is an orbit: omit it"):
        settings(prompt, version)


def test_numbers_that_say_otherwise_are_refused() -> None:
    with pytest.raises(UserError, match="stands for fps_id 12 in svd, but fps_id is 6: omit one of the two"):
        settings("slow", fps_id=6)
    with pytest.raises(UserError, match="stands for motion_bucket_id 0 in svd, but motion_bucket_id is 127"):
        settings("hold still", motion_bucket_id=127)
    assert settings("slow", fps_id=12, motion_bucket_id=50).motion_bucket_id == 50


@pytest.mark.parametrize("prompt", ["slow", "strong and fast", None])
def test_recorded_settings_resolve_to_themselves(prompt: str | None) -> None:
    for config in (load_config("svd"), READS_TEXT):
        found = SamplingParameters(prompt=prompt).resolved_for(config)
        assert SamplingParameters(**json.loads(json.dumps(found.as_parameters()))).resolved_for(config) == found


def test_a_version_that_reads_text_takes_the_words_as_they_are() -> None:
    found = SamplingParameters(prompt="pan left slowly", motion_bucket_id=9).resolved_for(READS_TEXT)
    assert (found.prompt, found.motion_bucket_id, found.fps_id, found.fps) == ("pan left slowly", 9, 6, 6)


@pytest.mark.parametrize(
    "prompt", ["", "  ", "a\nb", "a\tb", "a\x1b[2Jb", "a\u202eb", "a\u200bb", "\ud800", "x" * 501, 5, True, ["slow"]]
)
def test_what_is_no_line_of_text_is_no_prompt(prompt: object) -> None:
    with pytest.raises(UserError, match=r"^prompt can't be .*: give one line of text, up to 500 characters$"):
        settings(prompt)


@pytest.mark.parametrize("prompt", ["  slow ", "\u00a0slow\u00a0"])
def test_spaces_around_it_are_not_part_of_it(prompt: str) -> None:
    assert settings(prompt).prompt == "slow"
