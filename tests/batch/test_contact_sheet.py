"""The contact sheet, parsed as a browser would, with names that try to be markup."""

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from sgm.batch.contact_sheet import check_contact_sheet_is_ours, write_contact_sheet
from sgm.batch.items import Item
from sgm.batch.make import Outcome
from sgm.errors import UserError
from sgm.outputs.clip_files import new_key, save_clip
from sgm.outputs.publishing import workplace
from sgm.parameters.sampling import SamplingParameters

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
        paths = save_clip(np.zeros((2, 16, 16, 3), np.uint8), record, aside, name.replace("/", "_"), formats)
    return Outcome(item(name), "made", paths.record)


def item(name: str, line=None) -> Item:
    return Item(Path(f"in/{name}.png"), name, SamplingParameters(), 7.5, line)


def page_of(folder, outcomes, formats=("mp4", "frames")):
    write_contact_sheet(folder / "index.html", outcomes, formats)
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_every_clip_plays_with_its_settings(tmp_path):
    outcomes = [
        make_clip(tmp_path, "a", motion_bucket_id=99),
        make_clip(tmp_path / "sub", "b", elevations_deg=[5, 0.5]),
        make_clip(
            tmp_path, "c", preset="fast", num_steps=3, sampler="heun", guidance_interval=[0.1, 100], cache_interval=2
        ),
    ]
    page = page_of(tmp_path, outcomes)
    videos = page.all("video")
    assert [video["src"] for video in videos] == ["a.mp4", "sub/b.mp4", "c.mp4"]
    assert [video["poster"] for video in videos] == ["a/0000.jpg", "sub/b/0000.jpg", "c/0000.jpg"]
    assert all("controls" in video and "loop" in video for video in videos)
    text = " ".join(page.text)
    assert "2 frames, 16x16, 7.5 a second; version svd_tiny, seed 23, motion_bucket_id 99" in text
    assert "elevations_deg 5,0.5" in text
    assert "preset fast, num_steps 3, sampler heun, guidance_interval 0.1,100, cache_interval 2" in text


def test_links_lead_to_the_files_and_text_stays_text(tmp_path):
    page = page_of(tmp_path, [make_clip(tmp_path, ODD)])
    (video,) = page.all("video")
    assert (tmp_path / unquote(video["src"])).is_file()
    assert (tmp_path / unquote(video["poster"])).is_file()
    assert page.all("script") == []
    assert ODD.replace("/", "_") in "".join(page.text)


def test_nothing_comes_from_elsewhere_or_runs(tmp_path):
    page = page_of(tmp_path, [make_clip(tmp_path, "a"), Outcome(item("b"), "failed", reason="<img src=x onerror=y>")])
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "poster"):
            assert ":" not in attributes.get(name, "")
    assert "url(" not in (tmp_path / "index.html").read_text()
    assert "<img src=x onerror=y>" in page.text


@pytest.mark.parametrize(
    ("formats", "shown"),
    [(("webp", "frames"), "a.webp"), (("gif",), "a.gif"), (("frames",), "a/0000.jpg"), (("gif", "mp4"), None)],
)
def test_what_is_shown_where_there_is_no_video(tmp_path, formats, shown):
    page = page_of(tmp_path, [make_clip(tmp_path, "a", formats)], formats)
    assert [image["src"] for image in page.all("img")] == ([shown] if shown else [])
    assert len(page.all("video")) == (shown is None)


def test_only_a_contact_sheet_is_replaced(tmp_path):
    check_contact_sheet_is_ours(tmp_path)
    page_of(tmp_path, [])
    check_contact_sheet_is_ours(tmp_path)
    (tmp_path / "index.html").write_text("<html>mine</html>")
    with pytest.raises(UserError, match="would be replaced"):
        check_contact_sheet_is_ours(tmp_path)


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    failed = Outcome(Item(Path("in/a\udcff.png"), "a\udcff", SamplingParameters(), 6.0), "failed", reason="bad \udcff")
    assert json.dumps(page_of(tmp_path, [failed]).text)
