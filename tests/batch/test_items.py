import json
import os
import time
from pathlib import Path

import pytest

from sgm.batch.items import is_single, plan_items
from sgm.errors import UserError
from sgm.inputs.orbit import make_orbit
from sgm.parameters.request import make_request


def plan(path, out, said=None, **given):
    given = {"version": "svd_tiny"} | given
    said = [] if said is None else said
    return plan_items(make_request({"input_path": path, "output_folder": out, **given}), said.append)


def write_lines(path: Path, *lines) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_one_image_is_no_batch(images, out):
    request = make_request({"input_path": images / "a.png", "version": "svd_tiny", "output_folder": out})
    assert is_single(request)
    (item,) = plan_items(request, print)
    assert (item.image_path, item.name, item.settings.fps, item.line) == (images / "a.png", "a", 6.0, None)
    assert item.settings == request.settings


def test_a_folder_gives_its_images_in_order(images, out, make_image):
    make_image(images / "deeper" / "a.png")
    assert [item.name for item in plan(images, out)] == ["a", "b", "c"]
    assert [item.name for item in plan(images, out, recursive=True)] == ["a", "b", "c", "deeper/a"]


def test_a_pattern_keeps_the_folders_that_it_leaves_open(images, out, make_image):
    for shot in ("one", "two"):
        make_image(images / shot / "frame.png")
    assert [item.name for item in plan(images / "*" / "frame.png", out)] == ["one/frame", "two/frame"]
    assert [item.name for item in plan(images / "[ab].png", out)] == ["a", "b"]


def test_a_list_of_paths_is_relative_to_its_folder(images, out, make_image, tmp_path):
    make_image(images / "one" / "a.png")
    make_image(tmp_path / "elsewhere" / "e.png")
    lines = ["a.png", "", "one/a.png\r", f"{images}/b.png", "../elsewhere/e.png", f"{tmp_path}/elsewhere/e.png"]
    items = plan(write_lines(images / "list.txt", *lines), out)
    assert [(item.line, item.name) for item in items] == [(1, "a"), (3, "one/a"), (4, "b"), (5, "e"), (6, "e")]
    assert [item.image_path.resolve() for item in items][3:] == [tmp_path / "elsewhere" / "e.png"] * 2


def test_a_line_sets_what_it_likes(images, out):
    path = write_lines(
        images / "list.jsonl",
        {"input_path": "a.png"},
        {"input_path": "b.png", "seed": 7, "motion_bucket_id": 200, "output_name": "strong/b", "fps": 12.5},
        {"input_path": "c.png", "fps_id": 9, "width": 64},
        {"input_path": "c.png", "cond_aug": None, "num_frames": "3"},
    )
    first, second, third, fourth = plan(path, out, seed=5, num_frames=2, width=32, height=32)
    assert (first.settings.seed, first.settings.num_frames, first.settings.fps) == (5, 2, 6.0)
    assert (second.name, second.settings.seed, second.settings.motion_bucket_id) == ("strong/b", 7, 200)
    assert (second.settings.fps, second.settings.framing.width, second.settings.framing.height) == (12.5, 32, 32)
    assert (third.settings.fps_id, third.settings.fps) == (9, 9.0), "videos play at fps_id where nothing else is said"
    assert (third.settings.framing.width, third.settings.framing.height) == (64, 32)
    assert (fourth.settings.cond_aug, fourth.settings.num_frames, fourth.name) == (0.02, 3, "c")
    assert [item.settings.fps for item in plan(path, out, fps=24)] == [24.0, 12.5, 24.0, 24.0]


def test_videos_play_at_the_rate_asked_for_whatever_a_line_says_of_motion(images, out):
    path = write_lines(images / "list.jsonl", {"input_path": "a.png", "fps_id": 12}, {"input_path": "b.png"})
    assert [item.settings.fps for item in plan(path, out, fps=6)] == [6.0, 6.0]
    assert [item.settings.fps for item in plan(path, out)] == [12.0, 6.0]


def test_a_name_too_long_for_a_clips_files_is_cut(images, out, make_image):
    for name in ("n" * 250, "\u00e9" * 124, os.fsdecode(b"\xff" * 250)):
        make_image(images / f"{name}.png")
    names = [item.name for item in plan(images, out)]
    assert sorted(len(os.fsencode(name)) for name in names) == [1, 1, 1, 200, 200, 200]


def test_lines_of_orbits_are_resolved_for_the_version(images, out):
    path = write_lines(
        images / "list.jsonl",
        {"input_path": "a.png", "elevations_deg": [10, 20], "width": 32},
        {"input_path": "a.png", "elevations_deg": -5, "azimuths_deg": [0, 90, 180]},
    )
    first, second = plan(path, out, version="sv3d_tiny", num_frames=4)
    assert first.settings.orbit == make_orbit(4, (10.0, 20.0))
    assert (first.settings.framing.width, first.settings.framing.height) == (32, 32)
    assert second.settings.orbit == make_orbit(4, -5.0, (0.0, 90.0, 180.0))


def test_what_the_version_ignores_is_said_once_with_its_lines(images, out):
    lines = [{"input_path": "a.png", "elevations_deg": angle} for angle in (10, 20, 30)]
    said = []
    plan(write_lines(images / "list.jsonl", *lines), out, said)
    assert said == [
        "warning: svd_tiny ignores elevations_deg (of line 1, 2, 3): only sv3d_p and sv3d_tiny take camera angles"
    ]


BAD_LINES = {
    '{"input_path": "gone.png"}': "gone.png does not exist",
    '{"input_path": "list.jsonl"}': "not an image by its name",
    '{"input_path": 3}': "input_path can't be 3",
    '{"input_path": ""}': "input_path can't be ''",
    '{"seed": 3}': "input_path is missing",
    '{"input_path": "a.png", "sede": 3}': "did you mean seed",
    '{"input_path": "a.png", "version": "svd"}': "no parameter 'version'",
    '{"input_path": "a.png", "seed": 1.5}': "seed can't be 1.5",
    '{"input_path": "a.png", "seed": true}': "seed can't be True",
    '{"input_path": "a.png", "seed": null}': "seed can't be None",
    '{"input_path": "a.png", "motion_bucket_id": 256}': "from 0 to 255",
    '{"input_path": "a.png", "fps": NaN}': "fps can't be nan",
    '{"input_path": "a.png", "width": 33}': "divisible by 32",
    '{"input_path": "a.png", "seed": 1, "seed": 2}': "'seed' is given 2 times",
    "[1, 2]": "not an object",
    "a.png": "not JSON",
    "[" * 5000: "not JSON",
    '{"input_path": "a.png", "elevations_deg": [' + "10, " * 30_000 + "10]}": "characters: give 100000 at most",
    '{"input_path": "a.png", "output_name": "../a"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": "/tmp/a"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": "a/../../b"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": "a\\\\b"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": "a\\u0000b"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": "a\\nb"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": "\\ud800"}': "stays inside the output folder",
    '{"input_path": "a.png", "output_name": ".claim-x"}': "a leading dot",
    '{"input_path": "a.png", "output_name": ""}': "output_name can't be ''",
    '{"input_path": "a.png", "output_name": "' + "x" * 201 + '"}': "bytes",
    '{"input_path": "a.png", "output_name": "link/a"}': "leads out of output_folder",
    '{"input_path": "a.png", "output_name": "circle/a"}': "leads out of output_folder",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:60].encode("unicode_escape").decode())
def test_a_bad_line_is_told_with_its_number(images, out, line):
    out.mkdir()
    (out / "link").symlink_to(images)
    (out / "circle").symlink_to(out / "circle")
    path = write_lines(images / "list.jsonl", {"input_path": "a.png"}, "", line)
    with pytest.raises(UserError) as error:
        plan(path, out)
    first, told = str(error.value).split("\n")
    assert first == f"{path} has mistakes, so nothing was made:"
    assert told.startswith("  line 3: ")
    assert BAD_LINES[line] in told
    assert len(told) < 400


def test_all_bad_lines_are_told_in_their_order(images, out):
    good, named = {"input_path": "a.png"}, {"input_path": "b.png", "output_name": "x/y"}
    path = write_lines(images / "list.jsonl", named, {"input_path": "z.png"}, good, named, "nonsense")
    with pytest.raises(UserError) as error:
        plan(path, out)
    _, *told = str(error.value).split("\n")
    assert [line.split(":")[0] for line in told] == ["  line 2", "  line 4", "  line 5"]
    assert "output_name 'x/y' is that of line 1 already" in told[1]


def test_a_line_of_many_keys_takes_no_time(images, out):
    start = time.process_time()
    keys = ", ".join(f'"{number}":1' for number in range(9_000))
    with pytest.raises(UserError, match="no parameter '0'"):
        plan(write_lines(images / "list.jsonl", "{" + keys + "}"), out)
    assert time.process_time() - start < 0.5


def test_a_list_that_is_no_file_is_not_waited_for(images, out):
    if not hasattr(os, "mkfifo"):
        pytest.skip("pipes with a name are not for Windows")
    os.mkfifo(images / "list.txt")
    with pytest.raises(UserError, match="is not a file"):
        plan(images / "list.txt", out)


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "is empty"), (b"\n \n", "is empty"), (b"\xff\xfea", "UTF-8"), (b"gone.png", "line 1")]
)
def test_lists_that_cannot_be_used(images, out, content, told):
    (images / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=told):
        plan(images / "list.txt", out)


def test_a_byte_order_mark_is_no_part_of_the_first_path(images, out):
    (images / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\nb.png\r\n")
    assert [item.name for item in plan(images / "list.txt", out)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("a.png", {"recursive": True}, "recursive is for a folder"),
        ("gone.jsonl", {}, "can't be read"),
        ("gone.png", {}, "does not exist"),
        ("z*.png", {}, "nothing fits the pattern"),
        ("x" * 999, {}, "does not exist|can't be read"),
        ("..png", {}, "can't name a clip"),
    ],
)
def test_input_paths_that_give_no_plan(images, out, make_image, name, given, told):
    make_image(images / "..png")
    with pytest.raises(UserError, match=told):
        plan(images / name, out, **given)


def test_outputs_are_never_taken_for_inputs(images, make_image):
    make_image(images / "clips" / "a" / "0000.jpg")
    assert [item.name for item in plan(images, images / "clips", recursive=True)] == ["a", "b", "c"]
    assert [item.name for item in plan(images / "**" / "*", images / "clips")] == ["a", "b", "c"]
    assert [item.name for item in plan(images, images)] == ["a", "b", "c"]
    with pytest.raises(UserError, match="holds the images themselves"):
        plan(images / "*.png", images)
    for given in ({"recursive": True}, {"formats": "webp"}):
        with pytest.raises(UserError, match="holds the images themselves"):
            plan(images, images, **given)


def test_a_backslash_in_a_files_name_is_no_folder(images, out, make_image):
    make_image(images / "one" / "x\\y.png")
    assert [item.name for item in plan(images / "one", out)] == ["x_y"]
