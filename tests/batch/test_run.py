"""Batches from their words to their files, in this process and in others, with the faults really caused."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sgm.batch import make, run
from sgm.batch.outcome import Outcome
from sgm.batch.resume import Records
from sgm.generation import pipeline
from sgm.generation.pipeline import Pipeline
from sgm.outputs.video import read_video
from sgm.runtime.devices import choose_device, keep_to_share


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def statuses(out: Path) -> dict[str, str]:
    return {entry["name"]: entry["status"] for entry in report_of(out)["items"]}


def clips_in(out: Path) -> list[str]:
    """Clips that have their final name, with their folder below `out`, be it in the midst of a run."""
    found = []
    for folder, _, names in os.walk(out):  # unlike a glob it takes no notice of folders that vanish meanwhile
        place = Path(folder).relative_to(out)
        if not place.name.startswith("."):
            found += [place / name for name in names if name.endswith(".json") and name != "report.json"]
    return sorted(path.with_suffix("").as_posix() for path in found)


def hidden_in(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*")]


def contents(out: Path) -> dict[Path, tuple[int, bytes]]:
    clips = (path for path in out.rglob("*") if path.is_file() and path.name not in ("report.json", "index.html"))
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in clips}


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def no_loading(monkeypatch):
    """A function after which loading a model is an error."""

    def refuse(*args, **more):
        raise AssertionError("the model was loaded")

    return lambda: monkeypatch.setattr("sgm.generation.pipeline.load", refuse)


def test_a_rerun_makes_only_what_is_missing(images, out, run_here, no_loading, capsys):
    assert run_here(images) == 0
    first = contents(out)
    assert clips_in(out) == ["a", "b", "c"]
    assert capsys.readouterr().out.count("2 frames, 32x32") == 3
    (out / "b.mp4").write_bytes((out / "b.mp4").read_bytes()[:-9])
    shutil.rmtree(out / "c")

    assert run_here(images) == 0
    assert clips_in(out) == ["a", "b", "b-1", "c", "c-1"], "nothing is overwritten, be it damaged"
    second = contents(out)
    assert {path: second[path] for path in first if path in second and path.name != "b.mp4"} == {
        path: content for path, content in first.items() if path in second and path.name != "b.mp4"
    }
    assert (out / "b-1" / "0001.jpg").read_bytes() == (out / "b" / "0001.jpg").read_bytes()
    assert statuses(out) == {"a": "there", "b": "made", "c": "made"}

    no_loading()
    assert run_here(images) == 0
    assert contents(out) == second
    assert "     3  there already" in capsys.readouterr().err
    assert hidden_in(out) == []


def test_changed_parameters_make_new_clips_and_the_old_ones_still_count(images, out, run_here, no_loading):
    assert run_here(images) == 0
    assert run_here(images, "--seed", "1") == 0
    assert clips_in(out) == ["a", "a-1", "b", "b-1", "c", "c-1"]
    no_loading()
    assert run_here(images) == 0
    assert run_here(images, "--seed", "1") == 0
    assert [entry["record"] for entry in report_of(out)["items"]] == ["a-1.json", "b-1.json", "c-1.json"]


def test_the_pages_are_about_the_folder(images, out, run_here):
    assert run_here(images / "[bc].png") == 0
    assert run_here(images / "[ab].png") == 0, "a is made last"
    assert re.findall(r'src="(\w+).mp4"', (out / "index.html").read_text()) == ["a", "b", "c"]
    assert statuses(out) == {"a": "made", "b": "there"}
    assert [(entry["name"], entry["status"]) for entry in report_of(out)["earlier"]] == [("c", "made")]


def test_a_folder_loads_the_model_once_and_says_on_what(images, out, run_here, monkeypatch, capsys):
    load, loaded = pipeline.load, []
    monkeypatch.setattr(pipeline, "load", lambda *args, **more: loaded.append(args) or load(*args, **more))
    assert run_here(images, device=None) == 0
    assert len(loaded) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "computing on" in line]
    there = choose_device(None).type
    assert said == ([] if there == "cuda" else [f"no CUDA device was found: computing on {there} in fp32"])


def test_a_list_makes_what_its_lines_say(images, out, run_here, no_loading):
    lines = [
        {"input_path": "a.png", "seed": 1},
        {"input_path": "a.png", "seed": 2},
        {"input_path": "a.png", "output_name": "long/a", "num_frames": 3, "fps": 12},
        {"input_path": "a.png", "seed": 1},
    ]
    (images / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run_here(images / "list.jsonl") == 0
    assert clips_in(out) == ["a", "a-1", "long/a"]
    assert [entry["status"] for entry in report_of(out)["items"]] == ["made", "made", "made", "there"]
    records = {name: json.loads((out / f"{name}.json").read_text()) for name in clips_in(out)}
    assert [records[name]["parameters"]["seed"] for name in ("a", "a-1")] == [1, 2]
    assert (records["long/a"]["output"]["fps"], len(read_video(out / "long" / "a.mp4"))) == (12.0, 3)
    no_loading()
    assert run_here(images / "list.jsonl") == 0


def test_clips_of_subfolders_do_not_meet_and_equal_single_runs(tmp_path, out, make_image, run_here):
    for seed, shot in enumerate(("one", "two")):
        make_image(tmp_path / "in" / shot / "frame.png", seed)
    assert run_here(tmp_path / "in", "--recursive", "--formats", "frames") == 0
    assert clips_in(out) == ["one/frame", "two/frame"]
    assert run_here(tmp_path / "in" / "two" / "frame.png", "--formats", "frames") == 0
    assert clips_in(out) == ["frame", "one/frame", "two/frame"]
    frames = {name: (out / name / "0001.jpg").read_bytes() for name in clips_in(out)}
    assert frames["frame"] == frames["two/frame"] != frames["one/frame"]


def test_a_single_image_is_always_made_anew(images, out, run_here):
    for names in (["a"], ["a", "a-1"]):
        assert run_here(images / "a.png") == 0
        assert clips_in(out) == names
    assert not (out / "report.json").exists()


def test_what_is_wrong_with_a_single_image_is_said_before_loading_and_leaves_nothing(
    images, out, run_here, no_loading, capsys
):
    no_loading()
    (images / "a.png").write_bytes(b"no picture")
    assert run_here(images / "a.png") == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert "no known image format" in line
    assert said.out == ""
    assert not out.exists()


def test_a_batch_of_bad_images_loads_no_model(images, out, run_here, no_loading):
    no_loading()
    for image in images.iterdir():
        image.write_bytes(b"no picture")
    assert run_here(images) == 1
    assert report_of(out)["counts"]["failed"] == 3


def test_a_single_images_failure_is_the_runs_own(images, out, run_here, failing, capsys):
    failing([ZeroDivisionError("of our own")])
    assert run_here(images / "a.png") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: ZeroDivisionError: of our own (--verbose shows where)"
    assert clips_in(out) == hidden_in(out) == []


def test_a_single_image_says_where_its_clip_is(images, out, run_here, capsys):
    assert run_here(images / "a.png") == 0
    assert re.fullmatch(rf"{out}/a.mp4: 2 frames, 32x32, \d+\.\d s\n", capsys.readouterr().out)
    assert sorted(path.name for path in out.iterdir()) == ["a", "a.json", "a.mp4"]


def test_mistakes_of_a_list_are_told_before_torch_is_loaded_and_leave_nothing(images, out, start):
    (images / "list.jsonl").write_text('{"input_path": "a.png"}\n{"input_path": "a.png", "seed": 1.5}\nnonsense\n')
    watch = "import sys, runpy; sys.argv[0] = sys.argv.pop(1)\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    watch += "finally: print('torch' in sys.modules)"
    process = start(images / "list.jsonl", python=("-c", watch))
    said = process.communicate()
    assert process.returncode == 2
    assert said[0] == "False\n"
    assert [line.split(":")[0] for line in said[1].splitlines()] == ["error", "  line 2", "  line 3"]
    assert not out.exists()


def test_names_that_are_no_unicode(images, out, run_here, no_loading):
    (images / "a.png").rename(images / os.fsdecode(b"a\xff.png"))
    assert run_here(images) == 0
    assert (out / os.fsdecode(b"a\xff.mp4")).is_file()
    assert statuses(out)[os.fsdecode(b"a\xff")] == "made"
    assert "a%FF.mp4" in (out / "index.html").read_text(encoding="utf-8")
    no_loading()
    assert run_here(images) == 0


# ---- one bad item never ends the run


def test_a_broken_and_a_vanished_image(tmp_path, out, make_image, start):
    for seed in range(6):
        make_image(tmp_path / "in" / f"{seed}.png", seed)
    (tmp_path / "in" / "1.png").write_bytes(b"no picture")
    (tmp_path / "in" / "2.png").write_bytes((tmp_path / "in" / "3.png").read_bytes()[:-500])
    process = start(tmp_path / "in")
    wait_for(lambda: (out / "0.json").exists() or process.poll() is not None)
    (tmp_path / "in" / "5.png").unlink()
    _, said = process.communicate()
    assert process.returncode == 1
    assert statuses(out) == {"0": "made", "1": "failed", "2": "failed", "3": "made", "4": "made", "5": "failed"}
    reasons = [entry.get("reason", "") for entry in report_of(out)["items"]]
    assert "no known image format" in reasons[1]
    assert "truncated" in reasons[2]
    assert "does not exist" in reasons[5]
    assert "Traceback" not in said
    table = said[said.index("     3  made now") :]
    assert "     3  failed" in table
    assert all(f"{number}.png" in table for number in (1, 2, 5))
    assert hidden_in(out) == []


@pytest.fixture
def failing(monkeypatch):
    """A function: whatever generates, once for each error of a list, raises that; None lets it work. Gives a count."""
    take, calls = Pipeline.take, []

    def use(errors):
        def take_or_fail(self, shots, watch=None):
            calls.append(len(shots))
            error = errors.pop(0) if errors else None
            if error is not None:
                raise error
            return take(self, shots, watch)

        monkeypatch.setattr(Pipeline, "take", take_or_fail)
        monkeypatch.setattr(make, "SECONDS_BEFORE_RETRY", 0.0)
        return calls

    return use


def test_lines_tell_how_many_are_left_and_for_how_long(images, out, run_here, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])

    def take_a_minute(items, **_):
        for item in items:
            now[0] += 60
            yield Outcome(item, "failed", reason="none", seconds=60.0)

    monkeypatch.setattr("sgm.__main__.make_here", take_a_minute)
    assert run_here(images) == 1
    positions = re.findall(r"failed \((.*)\)", capsys.readouterr().err)
    assert positions == ["1 of 3, 02:00 left", "2 of 3, 01:00 left", "3 of 3, 00:00 left"]


def test_memory_that_ran_out_is_tried_once_more(images, out, run_here, failing, capsys):
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
    calls = failing([full, None, full, full, None])
    assert run_here(images) == 1
    assert len(calls) == 5
    assert statuses(out) == {"a": "made", "b": "failed", "c": "made"}
    assert "--decoding_t 1" in report_of(out)["items"][1]["reason"]
    assert capsys.readouterr().err.count("trying again: out of memory") == 2
    assert run_here(images) == 0, "the rerun makes what failed"
    assert statuses(out) == {"a": "there", "b": "made", "c": "there"}


@pytest.fixture
def too_large_within(images):
    """A list of a.png, b.png and c.png, of which b's clip needs far more memory than the others."""
    lines = [{"input_path": f"{name}.png"} for name in "abc"]
    lines[1] |= {"num_frames": 900, "width": 256, "height": 256}
    (images / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return images / "list.jsonl"


def check_that_b_alone_failed(out: Path, said: str) -> None:
    assert statuses(out) == {"a": "made", "b": "failed", "c": "made"}
    assert report_of(out)["items"][1]["reason"].startswith("out of memory: try --memory lowest")
    assert [said.count(f"retrying with --memory {mode}\n") for mode in ("low", "lowest")] == [1, 1]
    assert said.count("trying again: out of memory") == 1
    assert "Traceback" not in said
    assert hidden_in(out) == []


def check_same_frames(limited: Path, free: Path) -> None:
    """Other memory modes add up in another order."""
    frames = list(free.glob("*/*.jpg"))
    assert len(frames) == 4
    for path in frames:
        with Image.open(path) as one, Image.open(limited / path.relative_to(free)) as other:
            assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 3, "to rounding, before JPEG"


def data_of_libraries() -> int:
    """What RLIMIT_DATA counts of a process that has only imported: torch for graphics cards takes 550 MB of it more."""
    code = "import sgm.generation.pipeline, pathlib; print(pathlib.Path('/proc/self/status').read_text())"
    command, project = [sys.executable, "-c", code], Path(__file__).parents[2]
    status = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    (kilobytes,) = re.findall(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no limit counts what a process allocates")
def test_memory_that_really_runs_out_fails_its_item_alone(tmp_path, images, too_large_within, out, run_here, start):
    """In a process that is given 410 MB more than the libraries take, twice what a small clip does."""
    import resource

    limits = (data_of_libraries() + 410 * 2**20,) * 2
    process = start(too_large_within, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, limits))
    _, said = process.communicate()
    assert process.returncode == 1
    check_that_b_alone_failed(out, said)
    out.rename(tmp_path / "limited")
    assert run_here(images / "[ac].png") == 0
    check_same_frames(tmp_path / "limited", out)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no cuda")
def test_a_cards_memory_that_really_runs_out_fails_its_item_alone(
    tmp_path, images, too_large_within, out, run_here, capsys
):
    """In a process that is given 400 MB of the card."""
    _, total = torch.cuda.mem_get_info()
    keep_to_share(400 * 2**20 / total)
    try:
        assert run_here(too_large_within, "--memory", "high", device="cuda") == 1
    finally:
        keep_to_share(1.0)
    check_that_b_alone_failed(out, capsys.readouterr().err)
    out.rename(tmp_path / "limited")
    assert run_here(images / "[ac].png", device="cuda") == 0
    check_same_frames(tmp_path / "limited", out)


def test_several_at_once_are_the_clips_made_alone(tmp_path, images, out, make_image, run_here, failing):
    make_image(images / "d.png", 3).write_bytes(b"no picture")
    make_image(images / "e.png", 4)
    lines = [{"input_path": f"{name}.png", "seed": seed} for seed, name in enumerate("abce")]
    lines[2] |= {"num_frames": 3}
    (images / "list.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"input_path": "d.png"}')
    calls = failing([])
    assert run_here(images / "list.jsonl", "--batch_size", "5") == 1
    assert sorted(calls) == [1, 3], "c has another number of frames, d is no picture"
    assert statuses(out) == {"a": "made", "b": "made", "c": "made", "d": "failed", "e": "made"}
    assert json.loads((out / "a.json").read_text())["clips_at_once"] == 3
    out.rename(tmp_path / "together")
    assert run_here(images / "list.jsonl") == 1
    assert sorted(calls) == [1, 1, 1, 1, 1, 3]
    for path in out.glob("*/*.jpg"):
        with Image.open(path) as alone, Image.open(tmp_path / "together" / path.relative_to(out)) as together:
            difference = np.asarray(alone, int) - np.asarray(together, int)
        assert np.abs(difference).max() <= 3, "to rounding, before JPEG"
        assert np.asarray(alone).std() > 0


def test_what_fails_together_is_made_by_halves(images, out, make_image, run_here, failing, capsys):
    make_image(images / "d.png", 3)
    full, bug = torch.OutOfMemoryError("CUDA out of memory"), ZeroDivisionError("c")
    calls = failing([full, None, bug, bug, None])
    assert run_here(images, "--batch_size", "4") == 1
    assert calls == [4, 2, 2, 1, 1]
    assert statuses(out) == {"a": "made", "b": "made", "c": "failed", "d": "made"}
    assert [json.loads((out / f"{name}.json").read_text())["clips_at_once"] for name in "abd"] == [2, 2, 1]
    said = capsys.readouterr().err
    assert "4 clips at once failed, now half as many: out of memory" in said
    assert "2 clips at once failed, now half as many: ZeroDivisionError" in said


def test_what_a_failed_try_held_is_free_before_the_next(images, out, run_here, monkeypatch):
    take, tried, still_held = Pipeline.take, [], []

    def fill_up(self, shots, watch=None):
        still_held.extend(activation() is not None for activation in tried)
        if len(tried) == 3:
            return take(self, shots, watch)
        activation = torch.zeros(9)
        tried.append(weakref.ref(activation))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Pipeline, "take", fill_up)
    monkeypatch.setattr(make, "SECONDS_BEFORE_RETRY", 0.0)
    assert run_here(images / "[ab].png", "--batch_size", "2") == 1
    assert statuses(out) == {"a": "failed", "b": "made"}, "two at once, a alone, a once more, b"
    assert still_held == [False] * (1 + 2 + 3)


def test_a_lost_graphics_card_ends_the_run(images, out, run_here, failing, monkeypatch, capsys):
    lost = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    calls = failing([None, lost])
    monkeypatch.setattr(make, "is_lost", lambda device: len(calls) > 1)
    assert run_here(images) == 1
    assert len(calls) == 2, "nor is it tried again"
    assert statuses(out) == {"a": "made", "b": "failed", "c": "left"}
    assert "error: ended early, for the rest would fail too: AcceleratorError: CUDA" in capsys.readouterr().err
    assert run_here(images) == 0


def test_a_card_is_lost_where_it_answers_no_more(monkeypatch):
    def answer(device):
        if device.index == 1:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", answer)
    assert [make.is_lost(torch.device(name)) for name in ("cuda:0", "cuda:1", "cpu")] == [False, True, False]


def test_a_bug_is_recorded_with_its_kind_and_not_tried_again(images, out, run_here, failing, capsys):
    calls = failing([ZeroDivisionError("of our own")])
    assert run_here(images) == 1
    assert len(calls) == 3
    assert report_of(out)["items"][0]["reason"] == "ZeroDivisionError: of our own"
    assert "Traceback" not in capsys.readouterr().err
    failing([ZeroDivisionError("again")])
    assert run_here(images, "--verbose") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_moments_trouble_of_the_file_system_is_tried_once_more(images, out, run_here, failing, monkeypatch):
    failing([])
    read, save, claim = make.read_image, make.save_clip, make.workplace
    stale = OSError(errno.ESTALE, "Stale file handle")
    troubles = {"read": [stale], "save": [OSError(errno.EIO, "I/O error")] * 3, "claim": [stale]}

    def troubled(work, kind):
        def work_or_fail(*args):
            if troubles[kind]:
                raise troubles[kind].pop()
            return work(*args)

        return work_or_fail

    monkeypatch.setattr(make, "read_image", troubled(read, "read"))
    monkeypatch.setattr(make, "save_clip", troubled(save, "save"))
    monkeypatch.setattr(make, "workplace", troubled(claim, "claim"))
    assert run_here(images) == 1
    assert not any(troubles.values())
    assert statuses(out) == {"a": "failed", "b": "made", "c": "made"}
    assert hidden_in(out) == []


@pytest.mark.parametrize("formats", ["mp4", "mp4,frames"])
def test_a_full_disk_ends_the_run_at_once(tmp_path, out, make_image, run_here, mounted, failing, capsys, formats):
    for seed in range(12):
        make_image(tmp_path / "in" / f"{seed:02d}.png", seed)
    calls = failing([])
    with mounted(out, f"size={'50k' if formats == 'mp4' else '100k'}"):
        assert run_here(tmp_path / "in", "--formats", formats) == 1
        said = capsys.readouterr().err
        made = clips_in(out)
        assert 1 <= len(made) < 11
        assert len(calls) <= len(made) + 1, "no time is lost on what can't be written"
        assert report_of(out)["counts"] == {"made": len(made), "there": 0, "failed": 1, "left": 11 - len(made)}
        assert said.splitlines()[-1].startswith("error: ended early, for the rest would fail too: ")
        assert "No space left on device" in said.splitlines()[-1]
        assert "Traceback" not in said
        assert hidden_in(out) == []
        for name in made:
            assert len(read_video(out / f"{name}.mp4")) == 2
        subprocess.run(["mount", "-o", "remount,size=10m", out], check=True)
        assert run_here(tmp_path / "in", "--formats", formats) == 0
        assert clips_in(out) == [f"{seed:02d}" for seed in range(12)]
        assert [statuses(out)[name] for name in made] == ["there"] * len(made)


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EROFS])
def test_a_full_quota_or_a_disk_that_turned_read_only_ends_the_run(images, out, run_here, failing, monkeypatch, code):
    calls, save = failing([]), make.save_clip

    def save_once(*args):
        if len(calls) > 1:
            raise OSError(code, os.strerror(code))
        return save(*args)

    monkeypatch.setattr(make, "save_clip", save_once)
    assert run_here(images) == 1
    assert len(calls) == 2
    assert statuses(out) == {"a": "made", "b": "failed", "c": "left"}


def test_a_disk_too_full_for_a_subfolder_ends_the_run(tmp_path, out, make_image, run_here, mounted, capsys):
    for name in "ab":
        make_image(tmp_path / "in" / "sub" / f"{name}.png")
    with mounted(out, "size=1m,nr_inodes=1"):
        assert run_here(tmp_path / "in", "--recursive") == 1
    said = capsys.readouterr().err
    assert said.count("failed (") == 1
    assert re.search(r"ended early, .*: can't write to output_folder .*sub \(No space left on device\)", said)


def test_what_was_made_beside_the_last_failure_is_told_of(images, out, run_here, monkeypatch):
    save = make.save_clip

    def save_but_a(chunks, record, aside, name, *more):
        if name == "a":
            raise OSError(errno.ENOSPC, "full")
        return save(chunks, record, aside, name, *more)

    monkeypatch.setattr(make, "save_clip", save_but_a)
    assert run_here(images, "--batch_size", "3") == 1
    assert statuses(out) == {"a": "failed", "b": "made", "c": "made"}


def test_files_that_may_not_grow(images, out, start):
    resource = pytest.importorskip("resource", reason="limits are not for Windows")
    process = start(images, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500)))
    _, said = process.communicate()
    assert process.returncode == 1
    assert statuses(out) == {"a": "failed", "b": "failed", "c": "failed"}
    assert said.count("failed (") == 3
    assert clips_in(out) == hidden_in(out) == []


def test_a_read_only_output_folder_is_told_before_anything(images, out, run_here, mounted, no_loading, capsys):
    no_loading()
    with mounted(out, "size=1m,ro"):
        assert run_here(images) == 2
    assert "can't write to output_folder" in capsys.readouterr().err


def test_a_read_only_subfolder_fails_its_clips_alone(images, out, make_image, run_here, mounted):
    make_image(images / "sub" / "d.png")
    with mounted(out / "sub", "size=1m,ro"):
        assert run_here(images, "--recursive") == 1
        assert statuses(out) == {"a": "made", "b": "made", "c": "made", "sub/d": "failed"}
        assert "can't write" in report_of(out)["items"][3]["reason"]


def test_others_files_of_the_pages_names_are_not_replaced(images, out, run_here, no_loading, capsys):
    no_loading()
    out.mkdir()
    for name in ("report.json", "index.html"):
        (out / name).write_text("mine")
        assert run_here(images) == 2
        assert f"{name} is not a" in capsys.readouterr().err
        assert (out / name).read_text() == "mine"
        (out / name).unlink()


def test_a_finished_clip_may_be_moved_while_a_batch_runs(tmp_path, images, out, run_here, monkeypatch, capsys):
    save = make.save_clip

    def save_and_move(frames, record, aside, name, *more):
        paths = save(frames, record, aside, name, *more)
        if name == "a" and not (tmp_path / "a.json").exists():
            for path in (paths.record, *paths.formats.values()):
                path.rename(tmp_path / path.name)
        return paths

    monkeypatch.setattr(make, "save_clip", save_and_move)
    assert run_here(images) == 0
    assert statuses(out) == {"a": "made", "b": "made", "c": "made"}
    assert clips_in(out) == ["b", "c"]
    assert capsys.readouterr().out.count("2 frames, 32x32") == 3
    assert run_here(images) == 0, "the next run makes it again"
    assert clips_in(out) == ["a", "b", "c"]


@pytest.mark.parametrize("engine", ["one by one", "at once"])
def test_a_renamed_output_folder_ends_the_run_with_a_line(tmp_path, images, out, run_here, failing, capsys, engine):
    calls, take = failing([]), Pipeline.take

    def take_and_rename(self, *more):
        if len(calls) == (0 if engine == "at once" else 1):
            out.rename(tmp_path / "renamed")
        return take(self, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "take", take_and_rename)
        assert run_here(images, "--batch_size", "3" if engine == "at once" else "1") == 1
    said = capsys.readouterr().err
    reason = f"output_folder {out} was moved or removed meanwhile"
    assert said.splitlines()[-1].startswith(f"error: ended early, for the rest would fail too: {reason}")
    assert "can't be written" not in said
    assert "Traceback" not in said
    assert not out.exists()
    assert len(calls) == (1 if engine == "at once" else 2)
    (tmp_path / "renamed").rename(out)
    assert run_here(images) == 0
    assert clips_in(out) == ["a", "b", "c"]
    assert hidden_in(out) == []


@pytest.mark.skipif(os.name == "nt", reason="a shell's redirections")
@pytest.mark.parametrize("redirection", ["| head -1", "2>&-", ">&-", "> /dev/full"])
def test_a_console_never_ends_a_batch(images, out, start, redirection):
    (images / "a.png").rename(images / "\u5317\u4eac.png")
    words = ("-c", "import os, sys; os.execvp('bash', ['bash', '-c', sys.argv[1], *sys.argv[2:]])")
    command = f'set -o pipefail; "{sys.executable}" "$0" "$@" {redirection}'
    process = start(images, python=(*words, command), environment={"PYTHONIOENCODING": "cp1252"})
    said = process.communicate()
    assert process.returncode == 0, said
    assert clips_in(out) == ["b", "c", "\u5317\u4eac"]
    assert "Error" not in said[1]


# ---- stopped, killed, side by side


def test_ctrl_c_drops_the_current_clip_and_says_what_is_left(tmp_path, out, make_image, start):
    for seed in range(40):
        make_image(tmp_path / "in" / f"{seed:02d}.png", seed)
    process = start(tmp_path / "in")
    wait_for(lambda: len(clips_in(out)) >= 3)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    made = len(clips_in(out))
    assert 3 <= made < 40
    assert re.search(rf"^ +{made}  made now$", said, flags=re.MULTILINE)
    assert re.search(rf"^ +{40 - made}  left to make$", said, flags=re.MULTILINE)
    assert said.endswith("stopped by Ctrl-C; finished clips are kept\n")
    assert "Traceback" not in said
    assert report_of(out)["counts"] == {"made": made, "there": 0, "failed": 0, "left": 40 - made}
    assert hidden_in(out) == []


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1])
def test_two_quick_ctrl_c_still_say_what_is_left(tmp_path, out, make_image, start, pause):
    for seed in range(40):
        make_image(tmp_path / "in" / f"{seed:02d}.png", seed)
    process = start(tmp_path / "in")
    wait_for(lambda: len(clips_in(out)) >= 2)
    process.send_signal(signal.SIGINT)
    time.sleep(pause)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode in (130, -signal.SIGINT), "which is 130 to a shell: the second came as Python ended"
    assert re.search(r"^ +\d+  left to make$", said, flags=re.MULTILINE)
    assert said.endswith("stopped by Ctrl-C; finished clips are kept\n")
    assert "Traceback" not in said
    assert hidden_in(out) == []


@pytest.mark.parametrize("moment", ["looking", "loading"])
def test_ctrl_c_before_the_first_clip(images, out, run_here, monkeypatch, capsys, moment):
    assert run_here(images / "*[ab].png") == 0
    looked, find = [], Records.find

    def find_or_stop(self, item):
        looked.append(item.name)
        if moment == "looking" and len(looked) == 2:
            raise KeyboardInterrupt
        return find(self, item)

    def load_or_stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(Records, "find", find_or_stop)
    monkeypatch.setattr("sgm.generation.pipeline.load", load_or_stop)
    capsys.readouterr()
    assert run_here(images) == 130
    there = 1 if moment == "looking" else 2
    assert report_of(out)["counts"] == {"made": 0, "there": there, "failed": 0, "left": 3 - there}
    assert looked == (["a", "b"] if moment == "looking" else ["a", "b", "c", "c", "c"]), "nothing more is looked for"
    assert f"{3 - there}  left to make" in capsys.readouterr().err
    assert hidden_in(out) == []


def test_ctrl_c_while_a_clip_is_written(images, out, run_here, monkeypatch):
    save = make.save_clip

    def save_or_stop(frames, record, aside, name, *more):
        if name == "b":
            (aside / "clip.mp4").write_bytes(b"half of it")
            raise KeyboardInterrupt
        return save(frames, record, aside, name, *more)

    monkeypatch.setattr(make, "save_clip", save_or_stop)
    assert run_here(images) == 130
    assert statuses(out) == {"a": "made", "b": "left", "c": "left"}
    assert sorted(path.name for path in out.iterdir()) == ["a", "a.json", "a.mp4", "index.html", "report.json"]


def test_a_killed_run_is_completed_by_the_next(tmp_path, out, make_image, start, run_here):
    for seed in range(12):
        make_image(tmp_path / "in" / f"{seed:02d}.png", seed)
    process = start(tmp_path / "in")
    wait_for(lambda: len(clips_in(out)) >= 3)
    wait_for(lambda: [path for path in out.glob(".claim-*") if path.is_dir()])
    process.kill()
    process.communicate()
    before = contents(out)
    assert run_here(tmp_path / "in") == 0
    assert clips_in(out) == [f"{seed:02d}" for seed in range(12)]
    assert {path: contents(out)[path] for path in before if ".claim-" not in str(path)} == {
        path: content for path, content in before.items() if ".claim-" not in str(path)
    }
    assert hidden_in(out) == []


def test_what_was_begun_when_a_run_was_killed_comes_last(images, out, start, run_here, capsys):
    lines = [{"input_path": "a.png", "num_steps": 60}, {"input_path": "b.png"}, {"input_path": "c.png"}]
    (images / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    process = start(images / "list.jsonl")
    wait_for(lambda: [path for path in out.glob(".claim-*") if path.is_dir()])
    process.kill()
    process.communicate()
    assert run_here(images / "list.jsonl") == 0
    assert [Path(line.split(":")[0]).stem for line in capsys.readouterr().out.splitlines()] == ["b", "c", "a"]


def test_two_runs_at_once_share_the_work(tmp_path, out, make_image, start):
    for seed in range(16):
        make_image(tmp_path / "in" / f"{seed:02d}.png", seed)
    processes = [start(tmp_path / "in") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    lines = [line for out_text, _ in said for line in out_text.splitlines()]
    assert sorted(Path(line.split(":")[0]).name for line in lines) == [f"{seed:02d}.mp4" for seed in range(16)]
    assert clips_in(out) == [f"{seed:02d}" for seed in range(16)]
    assert set(statuses(out).values()) <= {"made", "there"}
    assert hidden_in(out) == []
