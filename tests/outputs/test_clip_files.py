"""Saving clips: one name for all outputs, nothing overwritten, nothing half-written, many processes at once."""

import hashlib
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
from sgm.outputs import clip_files, publishing
from sgm.outputs.clip_files import is_whole, make_output_folder, new_key, save_clip
from sgm.outputs.publishing import clear_leftovers, workplace
from sgm.outputs.video import read_video

REPOSITORY = Path(__file__).parents[2]
RECORD = {
    "program": {"name": "sgm", "version": "1"},
    "parameters": {"version": "svd_tiny"},
    "output": {"frames": 5, "fps": 6},
    "stages": {},
}


def save(frames, folder, name="photo", formats=("mp4", "frames"), **more):
    with workplace(folder, new_key()) as aside:
        return save_clip(
            [frames[:2], frames[2:]] if len(frames) > 2 else [frames], lambda: RECORD | more, aside, name, formats
        )


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_layout(tmp_path, small_clip):
    paths = save(small_clip, tmp_path, seed=23)
    assert paths.record == tmp_path / "photo.json"
    assert paths.formats == {"mp4": tmp_path / "photo.mp4", "frames": tmp_path / "photo"}
    assert paths.main == tmp_path / "photo.mp4"
    assert listing(tmp_path) == ["photo", "photo.json", "photo.mp4"]
    assert listing(tmp_path / "photo") == [f"{index:04d}.jpg" for index in range(5)]
    record = json.loads(paths.record.read_text())
    assert record["seed"] == 23
    assert record["stages"]["writing"]["seconds"] > 0
    assert record["output"] == {"frames": 5, "fps": 6, "formats": ["mp4", "frames"], "quality": 95}
    assert read_video(tmp_path / "photo.mp4").shape == small_clip.shape


@pytest.mark.parametrize(
    ("formats", "names"),
    [
        (["mp4"], ["photo.json", "photo.mp4"]),
        (["frames"], ["photo", "photo.json"]),
        (["mp4", "gif", "webp", "frames"], ["photo", "photo.gif", "photo.json", "photo.mp4", "photo.webp"]),
    ],
)
def test_the_formats_that_are_asked_for(tmp_path, small_clip, formats, names):
    save(small_clip, tmp_path, formats=formats)
    assert listing(tmp_path) == names
    save(small_clip, tmp_path, formats=formats)
    assert listing(tmp_path) == sorted([*names, *(name.replace("photo", "photo-1") for name in names)])


def test_the_record_names_the_bytes_of_every_file(tmp_path, small_clip):
    path = save(small_clip, tmp_path).record
    files = json.loads(path.read_text())["files"]
    assert sorted(files) == [".mp4", *(f"/{index:04d}.jpg" for index in range(5))]
    for suffix, sha256 in files.items():
        assert hashlib.sha256(Path(f"{tmp_path}/photo{suffix}").read_bytes()).hexdigest() == sha256
    assert len(files) == 6


@pytest.mark.parametrize("name", ["photo.mp4", "photo/0003.jpg"])
def test_a_clip_is_whole_while_all_its_bytes_are_there(tmp_path, small_clip, name):
    path = save(small_clip, tmp_path).record
    assert is_whole(path, read_clip_record(path))
    content = (tmp_path / name).read_bytes()
    for damaged in (content[:-1], bytes(len(content)), b""):
        (tmp_path / name).write_bytes(damaged)
        assert not is_whole(path, read_clip_record(path))
    (tmp_path / name).unlink()
    assert not is_whole(path, read_clip_record(path))


@pytest.mark.parametrize("files", [None, {}, [], {"\0": "x"}, {"/../photo.mp4": 3}])
def test_a_record_that_names_no_files_is_not_of_a_whole_clip(tmp_path, small_clip, files):
    path = save(small_clip, tmp_path).record
    assert not is_whole(path, read_clip_record(path) | {"files": files})


@pytest.mark.parametrize("planted", ["fifo", "/dev/zero", "mine.mp4"])
def test_links_and_fifos_in_the_place_of_files_are_not_read(tmp_path, small_clip, planted):
    path = save(small_clip, tmp_path).record
    video = (tmp_path / "photo.mp4").rename(tmp_path / "mine.mp4")
    if planted == "fifo":
        os.mkfifo(tmp_path / "photo.mp4")
    else:
        (tmp_path / "photo.mp4").symlink_to(tmp_path / planted)
    assert not is_whole(path, read_clip_record(path))
    assert not is_whole(path, read_clip_record(path) | {"files": {"/../mine.mp4": hashlib.sha256(video.read_bytes())}})


def read_clip_record(path):
    return json.loads(path.read_text())


def test_later_clips_take_the_next_name(tmp_path, small_clip):
    saved = [save(small_clip[:1], tmp_path, run=run) for run in range(3)]
    assert [paths.main.name for paths in saved] == ["photo.mp4", "photo-1.mp4", "photo-2.mp4"]
    assert [paths.formats["frames"].name for paths in saved] == ["photo", "photo-1", "photo-2"]
    assert [json.loads(paths.record.read_text())["run"] for paths in saved] == [0, 1, 2]


@pytest.mark.parametrize("taken", ["photo.mp4", "photo.json", "photo"])
def test_one_taken_name_moves_all(tmp_path, small_clip, taken):
    (tmp_path / taken).write_text("mine")
    assert save(small_clip[:1], tmp_path).record.name == "photo-1.json"
    assert listing(tmp_path) == sorted([taken, "photo-1", "photo-1.json", "photo-1.mp4"])
    assert (tmp_path / taken).read_text() == "mine"


def test_an_empty_folder_or_a_broken_link_is_taken_too(tmp_path, small_clip):
    (tmp_path / "photo").mkdir()
    (tmp_path / "photo-1.mp4").symlink_to(tmp_path / "nowhere")
    assert save(small_clip[:1], tmp_path).main.name == "photo-2.mp4"
    assert listing(tmp_path / "photo") == []


@pytest.mark.parametrize(("name", "instead"), [("report", "report-1.json"), ("index.html", "index.html-1.json")])
def test_no_clip_takes_the_names_of_a_batchs_pages(tmp_path, small_clip, name, instead):
    assert save(small_clip[:1], tmp_path, name).record.name == instead


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "..\\x", "a\0b"])
def test_names_stay_inside_the_folder(tmp_path, small_clip, name):
    with pytest.raises(UserError, match="can't name a clip"):
        save(small_clip[:1], tmp_path, name)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["my photo.v2", "-y", ".hidden", "été %04d", "a:b"])
def test_unusual_names_are_kept(tmp_path, small_clip, name):
    paths = save(small_clip[:1], tmp_path, name)
    assert listing(tmp_path) == sorted([name, f"{name}.json", f"{name}.mp4"])
    assert len(read_video(paths.main)) == 1
    assert is_whole(paths.record, read_clip_record(paths.record))


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_a_failure_half_way_leaves_nothing(tmp_path, small_clip, error, chunks):
    def failing():
        yield from [small_clip[:2], small_clip[2:]][:chunks]
        raise error

    with pytest.raises(type(error)), workplace(tmp_path, new_key()) as aside:
        save_clip(failing(), lambda: RECORD, aside, "photo")
    assert listing(tmp_path) == []


def test_a_record_that_can_not_be_written_leaves_nothing(tmp_path, small_clip, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(clip_files, "write_record", full)
    with pytest.raises(OSError, match="No space"):
        save(small_clip, tmp_path)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("part", ["clip", "clip.mp4", "clip.json"])
def test_a_failure_between_the_renames_leaves_nothing(tmp_path, small_clip, monkeypatch, part):
    rename = publishing.Path.rename

    def failing(path, target):
        if path.name == part:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(publishing.Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        save(small_clip, tmp_path)
    assert listing(tmp_path) == []


def test_no_final_name_appears_before_everything_is_written(tmp_path, small_clip, monkeypatch):
    seen = []

    def looked_at():
        for chunk in (small_clip[:2], small_clip[2:]):
            yield chunk
            seen.append([name for name in listing(tmp_path) if not name.startswith(".")])

    with workplace(tmp_path, new_key()) as aside:
        save_clip(looked_at(), lambda: RECORD, aside, "photo")
    assert seen == [[], []]
    assert listing(tmp_path) == ["photo", "photo.json", "photo.mp4"]


def test_frames_are_written_as_they_come(tmp_path, small_clip):
    written = []

    def looked_at():
        for number in range(5):
            yield small_clip[number : number + 1]
            written.append(len(list(tmp_path.glob(".claim-*/clip/*.jpg"))))

    with workplace(tmp_path, new_key()) as aside:
        save_clip(looked_at(), lambda: RECORD, aside, "photo")
    assert written == [1, 2, 3, 4, 5]


SAVE_IN_A_PROCESS = f"""
import sys, pathlib, numpy as np
from sgm.outputs import publishing
from sgm.outputs.clip_files import save_clip
from sgm.outputs.publishing import workplace
frames = np.random.default_rng(0).integers(0, 256, (int(sys.argv[2]), 576, 1024, 3), np.uint8)
with workplace(pathlib.Path(sys.argv[1]), "key") as aside:
    save_clip([frames], lambda: {RECORD}, aside, "photo")
"""


def saving_process(folder, frames=60, before=""):
    """A process that saves a clip; `before` is done first in it."""
    program = SAVE_IN_A_PROCESS.replace("frames =", f"{before}\nframes =")
    command = [sys.executable, "-c", program, str(folder), str(frames)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_in_a_real_process_leaves_nothing(tmp_path):
    process = saving_process(tmp_path)
    wait_for(lambda: (tmp_path / ".claim-key" / "clip" / "0000.jpg").exists())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert listing(tmp_path) == []


def test_a_killed_process_leaves_no_final_name_and_its_leftovers_are_cleared(tmp_path):
    process = saving_process(tmp_path)
    wait_for(lambda: (tmp_path / ".claim-key" / "clip" / "0000.jpg").exists())
    with workplace(tmp_path, "key") as aside:
        assert aside is None, "it is another's while that lives"
    clear_leftovers(tmp_path)
    assert (tmp_path / ".claim-key" / "clip").exists(), "the living are left alone"
    process.kill()
    process.communicate()
    assert listing(tmp_path) == [".claim-key", ".claim-key.lock"]
    clear_leftovers(tmp_path)
    assert listing(tmp_path) == []


DIE_AFTER_RENAMES = """
import os, signal
rename, left = pathlib.Path.rename, [{renames}]
def dying(path, target):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return rename(path, target)
pathlib.Path.rename = dying
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_process_killed_between_the_renames_loses_nothing(tmp_path, renames):
    process = saving_process(tmp_path, frames=2, before=DIE_AFTER_RENAMES.format(renames=renames))
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    names = ["photo", "photo.mp4"][:renames]
    assert [name for name in listing(tmp_path) if not name.startswith(".")] == names, "the record comes last"
    clear_leftovers(tmp_path)
    assert listing(tmp_path) == ["photo", "photo.json", "photo.mp4"]
    assert is_whole(tmp_path / "photo.json", read_clip_record(tmp_path / "photo.json"))


def test_what_a_killed_process_had_begun_never_replaces_what_came_since(tmp_path):
    process = saving_process(tmp_path, frames=2, before=DIE_AFTER_RENAMES.format(renames=1))
    process.communicate(timeout=30)
    (tmp_path / "photo.mp4").write_text("mine")
    clear_leftovers(tmp_path)
    assert (tmp_path / "photo.mp4").read_text() == "mine"
    assert not (tmp_path / "photo.json").exists()


def _save_several(folder, worker, start):
    start.wait()
    for run in range(4):
        save(np.full((1, 16, 16, 3), 10 * worker + run, np.uint8), folder, shade=10 * worker + run, formats=FORMATS)


FORMATS = ("mp4",)  # without the folder of frames, which by itself can't be renamed onto a full one


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
    assert listing(tmp_path) == sorted([*(f"{name}.json" for name in names), *(f"{name}.mp4" for name in names)])
    shades = []
    for name in names:
        shade = json.loads((tmp_path / f"{name}.json").read_text())["shade"]
        assert abs(int(read_video(tmp_path / f"{name}.mp4").mean()) - shade) <= 2, "video and record belong together"
        shades.append(shade)
    assert sorted(shades) == sorted(10 * worker + run for worker in range(4) for run in range(4))


def test_output_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file: give another folder"):
        make_output_folder(tmp_path / "file")
    for folder in (tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(UserError, match="can't write to output_folder"):
            make_output_folder(folder)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_output_folder_of_someone_else(tmp_path):
    tmp_path.chmod(0o500)
    for folder in (tmp_path, tmp_path / "below"):
        with pytest.raises(UserError, match="can't write to output_folder"):
            make_output_folder(folder)


def test_importing_the_outputs_loads_nothing_heavy_and_no_model():
    program = "import sys, sgm.outputs.video, sgm.outputs.clip_files, sgm.outputs.record;print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert not modules & {"torch", "PIL", "imageio", "imageio_ffmpeg", "cv2", "pywt", "imwatermark"}
    ours = {module for module in modules if module.startswith("sgm.")}
    assert all(module.startswith(("sgm.outputs", "sgm.storage", "sgm.stages", "sgm.errors")) for module in ours)
