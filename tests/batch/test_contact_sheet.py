"""The contact sheet, parsed as a browser would, with names that try to be markup."""

import hashlib
import json
import os
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from sgm.batch.contact_sheet import check_contact_sheet_is_ours, write_contact_sheet
from sgm.batch.items import Item
from sgm.batch.outcome import Outcome
from sgm.config import load_config
from sgm.errors import UserError
from sgm.outputs.clip_files import new_key, save_clip
from sgm.outputs.publishing import workplace
from sgm.parameters.sampling import SamplingParameters

SETTINGS = SamplingParameters().resolved_for(load_config("svd_tiny"))
ODD = """<script>alert('"&amp;')</script> #1?%20 é"""


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def make_clip(folder: Path, name: str, formats=("mp4", "frames"), **parameters) -> Outcome:
    record = {
        "program": {"name": "sgm", "version": "1"},
        "parameters": {"version": "svd_tiny", "seed": 23, **parameters},
        "input": {"path": None, "sha256": None, "width": 16, "height": 16},
        "checkpoint": {"path": None, "sha256": None},
        "model": {},
        "output": {"frames": 2, "width": 16, "height": 16, "fps": 7.5},
        "camera": {"elevations_deg": [5.0, 0.5], "azimuths_deg": [180.0, 0.0]},
        "packages": {},
        "stages": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with workplace(folder, new_key()) as aside:
        paths = save_clip([np.zeros((2, 16, 16, 3), np.uint8)], lambda: record, aside, name.replace("/", "_"), formats)
    return Outcome(item(name), "made", paths.record)


def item(name: str, line=None) -> Item:
    return Item(Path(f"in/{name}.png"), name, SETTINGS, line)


def page_of(folder, outcomes=()):
    write_contact_sheet(folder / "index.html", folder, outcomes)
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_every_clip_plays_with_its_settings(tmp_path):
    make_clip(tmp_path / "sub", "b", version="sv3d_p", motion_bucket_id=99, elevations_deg=[5, 0.5])
    make_clip(tmp_path, "c", preset="fast", num_steps=3, sampler="heun", guidance_interval=[0.1, 100], cache_interval=2)
    make_clip(tmp_path, "a-1", motion_bucket_id=98, elevations_deg=10.0)
    make_clip(tmp_path, "a", motion_bucket_id=99)
    page = page_of(tmp_path)
    videos = page.all("video")
    assert [video["src"] for video in videos] == ["a.mp4", "a-1.mp4", "c.mp4", "sub/b.mp4"]
    assert [video["poster"] for video in videos] == ["a/0000.jpg", "a-1/0000.jpg", "c/0000.jpg", "sub/b/0000.jpg"]
    assert all({"controls", "loop", "muted", "playsinline"} <= video.keys() for video in videos)
    text = " ".join(page.text)
    assert "2 frames, 16x16, 7.5 a second; version svd_tiny, seed 23, motion_bucket_id 99" in text
    assert "version sv3d_p, seed 23, elevations_deg 5,0.5" in text, "an orbit ignores motion_bucket_id"
    assert "elevations_deg 10" not in text, "svd_tiny ignores it"
    assert "preset fast, num_steps 3, sampler heun, guidance_interval 0.1,100, cache_interval 2" in text


def test_links_lead_to_the_files_and_text_stays_text(tmp_path):
    make_clip(tmp_path, ODD)
    page = page_of(tmp_path)
    (video,) = page.all("video")
    assert (tmp_path / unquote(video["src"])).is_file()
    assert (tmp_path / unquote(video["poster"])).is_file()
    assert len(page.all("script")) == 1, "the page's own"
    assert ODD.replace("/", "_") in "".join(page.text)


def test_nothing_comes_from_elsewhere_or_runs_but_what_plays_the_clips(tmp_path):
    make_clip(tmp_path, "a")
    page = page_of(tmp_path, [Outcome(item("b"), "failed", reason="<img src=x onerror=y>")])
    assert not {"link", "iframe", "object", "base", "img"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "poster"):
            assert ":" not in attributes.get(name, "")
    text = (tmp_path / "index.html").read_text()
    assert "url(" not in text
    assert "<img src=x onerror=y>" in page.text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert "IntersectionObserver" in script
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith(f"script-src 'sha256-{digest}';"), "a browser runs this script and no other"


def test_the_folders_clips_are_shown_whoever_made_them_but_not_what_has_gone(tmp_path):
    make_clip(tmp_path, "early")
    make_clip(tmp_path, "moved")
    (tmp_path / "moved.mp4").rename(tmp_path / "elsewhere.mp4")
    make_clip(tmp_path / ".hidden", "a")
    (tmp_path / "notes.json").write_text('{"mine": true}')
    (tmp_path / "link.json").symlink_to(tmp_path / "early.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
    page = page_of(tmp_path, [make_clip(tmp_path, "late")])
    assert [video["src"] for video in page.all("video")] == ["early.mp4", "late.mp4"]


@pytest.mark.parametrize(
    ("formats", "shown"),
    [(("webp", "frames"), "a.webp"), (("gif",), "a.gif"), (("frames",), "a/0000.jpg"), (("gif", "mp4"), None)],
)
def test_what_is_shown_where_there_is_no_video(tmp_path, formats, shown):
    make_clip(tmp_path, "a", formats)
    page = page_of(tmp_path)
    assert [image["src"] for image in page.all("img")] == ([shown] if shown else [])
    assert len(page.all("video")) == (shown is None)


def test_only_a_contact_sheet_is_replaced(tmp_path):
    check_contact_sheet_is_ours(tmp_path)
    page_of(tmp_path)
    check_contact_sheet_is_ours(tmp_path)
    (tmp_path / "index.html").write_text("<html>mine</html>")
    with pytest.raises(UserError, match="would be replaced"):
        check_contact_sheet_is_ours(tmp_path)


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    failed = Outcome(Item(Path("in/a\udcff.png"), "a\udcff", SETTINGS), "failed", reason="bad \udcff")
    assert json.dumps(page_of(tmp_path, [failed]).text)
