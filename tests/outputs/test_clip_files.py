"""Saving clips: one name for all three outputs, nothing overwritten, nothing half-written, many processes at once."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sgm.errors import UserError
from sgm.outputs import clip_files
from sgm.outputs.clip_files import make_output_folder, save_clip
from sgm.outputs.video import read_video

REPOSITORY = Path(__file__).parents[2]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_layout(tmp_path, small_clip):
    folder = tmp_path / "outputs" / "svd_tiny"
    paths = save_clip(small_clip, {"seed": 23}, folder, "photo", 6)
    assert paths == (folder / "photo.mp4", folder / "photo", folder / "photo.json")
    assert listing(folder) == ["photo", "photo.json", "photo.mp4"]
    assert listing(paths.frames) == [f"{index:04d}.jpg" for index in range(5)]
    record = json.loads(paths.record.read_text())
    assert record["seed"] == 23
    assert record["stages"]["writing"]["seconds"] > 0
    assert read_video(paths.video).shape == small_clip.shape


def test_later_clips_take_the_next_name(tmp_path, small_clip):
    saved = [save_clip(small_clip[:1], {"run": run}, tmp_path, "photo", 6) for run in range(3)]
    assert [paths.video.name for paths in saved] == ["photo.mp4", "photo-1.mp4", "photo-2.mp4"]
    assert [paths.frames.name for paths in saved] == ["photo", "photo-1", "photo-2"]
    assert [json.loads(paths.record.read_text())["run"] for paths in saved] == [0, 1, 2]


@pytest.mark.parametrize("taken", ["photo.mp4", "photo.json", "photo"])
def test_one_taken_name_moves_all_three(tmp_path, small_clip, taken):
    (tmp_path / taken).write_text("mine")
    paths = save_clip(small_clip[:1], {}, tmp_path, "photo", 6)
    assert {path.name for path in paths} == {"photo-1.mp4", "photo-1.json", "photo-1"}
    assert (tmp_path / taken).read_text() == "mine"


def test_an_empty_folder_or_a_broken_link_is_taken_too(tmp_path, small_clip):
    (tmp_path / "photo").mkdir()
    (tmp_path / "photo-1.mp4").symlink_to(tmp_path / "nowhere")
    assert save_clip(small_clip[:1], {}, tmp_path, "photo", 6).video.name == "photo-2.mp4"
    assert listing(tmp_path / "photo") == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "..\\x", "a\0b"])
def test_names_stay_inside_the_folder(tmp_path, small_clip, name):
    with pytest.raises(UserError, match="can't name a clip"):
        save_clip(small_clip[:1], {}, tmp_path / "outputs", name, 6)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["my photo.v2", "-y", ".hidden", "été %04d", "a:b"])
def test_unusual_names_are_kept(tmp_path, small_clip, name):
    paths = save_clip(small_clip[:1], {}, tmp_path, name, 6)
    assert listing(tmp_path) == sorted([name, f"{name}.json", f"{name}.mp4"])
    assert len(read_video(paths.video)) == 1


@pytest.mark.parametrize("writer", ["write_frames", "write_record", "write_video"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(tmp_path, small_clip, monkeypatch, writer, error):
    whole = getattr(clip_files, writer)

    def failing(*args):
        whole(*args)
        raise error

    monkeypatch.setattr(clip_files, writer, failing)
    with pytest.raises(type(error)):
        save_clip(small_clip, {}, tmp_path, "photo", 6)
    assert listing(tmp_path) == []


def test_a_failure_between_the_renames_leaves_nothing(tmp_path, small_clip, monkeypatch):
    rename = clip_files.Path.rename

    def failing(path, target):
        if path.suffix == ".mp4":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(clip_files.Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        save_clip(small_clip, {}, tmp_path, "photo", 6)
    assert listing(tmp_path) == []


def test_no_final_name_appears_before_everything_is_written(tmp_path, small_clip, monkeypatch):
    seen = []

    def then_look(write):
        def write_and_look(*args):
            write(*args)
            seen.append([name for name in listing(tmp_path) if not name.startswith(".")])

        return write_and_look

    for writer in ("write_frames", "write_record", "write_video"):
        monkeypatch.setattr(clip_files, writer, then_look(getattr(clip_files, writer)))
    save_clip(small_clip, {}, tmp_path, "photo", 6)
    assert seen == [[], [], []]


def test_ctrl_c_in_a_real_process_leaves_nothing(tmp_path):
    program = (
        "import sys, pathlib, numpy as np; from sgm.outputs.clip_files import save_clip;"
        "save_clip(np.random.default_rng(0).integers(0, 256, (60, 576, 1024, 3), np.uint8),"
        "{}, pathlib.Path(sys.argv[1]), 'photo', 6)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".partial-*/clip/0000.jpg")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert listing(tmp_path) == []


def _save_several(folder, worker, start):
    start.wait()
    for run in range(4):
        frames = np.full((1, 16, 16, 3), 10 * worker + run, np.uint8)
        save_clip(frames, {"shade": 10 * worker + run}, folder, "photo", 6)


def test_many_processes_share_a_folder_without_losing_or_mixing_clips(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    workers = [context.Process(target=_save_several, args=(tmp_path, worker, start)) for worker in range(4)]
    for process in workers:
        process.start()
    start.set()
    for process in workers:
        process.join(60)
        assert process.exitcode == 0
    names = ["photo", *(f"photo-{number}" for number in range(1, 16))]
    assert listing(tmp_path) == sorted(
        [*names, *(f"{name}.json" for name in names), *(f"{name}.mp4" for name in names)]
    )
    shades = []
    for name in names:
        shade = json.loads((tmp_path / f"{name}.json").read_text())["shade"]
        assert abs(int(read_video(tmp_path / f"{name}.mp4").mean()) - shade) <= 2, "video and record belong together"
        shades.append(shade)
    assert sorted(shades) == sorted(10 * worker + run for worker in range(4) for run in range(4))


def test_a_name_taken_at_the_last_moment_is_passed_over(tmp_path, small_clip, monkeypatch):
    rename = clip_files.Path.rename

    def slow(path, target):
        if target == tmp_path / "photo":  # another process is just quicker
            target.mkdir()
            (target / "0000.jpg").write_text("theirs")
        return rename(path, target)

    monkeypatch.setattr(clip_files.Path, "rename", slow)
    assert save_clip(small_clip[:1], {}, tmp_path, "photo", 6).frames.name == "photo-1"
    assert (tmp_path / "photo" / "0000.jpg").read_text() == "theirs"


def test_output_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(UserError, match="can't write in output_folder"):
            make_output_folder(folder)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_output_folder_of_someone_else(tmp_path):
    tmp_path.chmod(0o500)
    for folder in (tmp_path, tmp_path / "below"):
        with pytest.raises(UserError, match="can't write in output_folder"):
            make_output_folder(folder)


def test_importing_the_outputs_loads_nothing_heavy_and_no_model():
    program = (
        "import sys, sgm.outputs.watermark, sgm.outputs.video, sgm.outputs.clip_files, sgm.outputs.record;"
        "print(*sys.modules, sep='\\n')"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert not modules & {"torch", "PIL", "imageio", "imageio_ffmpeg", "cv2", "pywt", "imwatermark"}
    ours = {module for module in modules if module.startswith("sgm.")}
    assert all(module.startswith("sgm.outputs") or module == "sgm.errors" for module in ours)
