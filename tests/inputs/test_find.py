import time
from pathlib import Path

import pytest

from sgm.errors import UserError
from sgm.inputs.find import check_image_path, fixed_part, images_in, images_like, is_folder, is_pattern


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def below(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_its_images_sorted_whatever_the_suffixs_case(tmp_path):
    images = ["B.Jpg", "a.jpeg", "c.PNG", "d.webp", "e.BMP", "f.tif", "g.TIFF", "h.gif", "k.HEIC", "l.avif", "m.jfif"]
    touch(tmp_path, *reversed(images), "notes.txt", "more.txt", "._c.png", "clip.mov", "i", "deeper/j.png")
    (tmp_path / "folder.png").mkdir()
    said = []
    assert below(tmp_path, images_in(tmp_path, warn=said.append)) == images
    assert said == [f"not taken from {tmp_path}, as they aren't images: 2 .txt, 1 .mov, 1 no suffix"]


@pytest.mark.parametrize("pattern", ["dir [v1]/*.png", "dir [[]v1]/*.png"])
def test_a_folder_whose_name_looks_like_a_pattern(tmp_path, pattern):
    touch(tmp_path, "dir [v1]/b.png", "dir v/c.png")
    pattern = tmp_path / pattern
    assert is_pattern(pattern)
    assert images_like(pattern) == [tmp_path / "dir [v1]" / "b.png"]
    assert fixed_part(pattern) == tmp_path / "dir [v1]"


def test_a_missing_file_whose_name_looks_like_a_pattern(tmp_path):
    with pytest.raises(UserError, match=r"a\[1\]\.png does not exist, and as a pattern it fits no image"):
        images_like(tmp_path / "a[1].png")


@pytest.mark.parametrize("pattern", ["**", "**/*.png", "**/**/*.png", "*/*.png"])
def test_a_search_of_far_too_many_files_is_ended(tmp_path, monkeypatch, pattern):
    touch(tmp_path, *(f"deeper/{number}.txt" for number in range(30)))
    monkeypatch.setattr("sgm.inputs.find.MAX_ENTRIES", 20)
    with pytest.raises(UserError, match="holds over 20 files: give a smaller folder"):
        images_like(tmp_path / pattern)
    with pytest.raises(UserError, match="holds over 20 files: give a smaller folder"):
        images_in(tmp_path, recursive=True)


def test_a_pattern_does_not_go_round_in_circles(tmp_path):
    touch(tmp_path, "a/b/x.png")
    for number in range(3):
        (tmp_path / "a" / "b" / f"circle{number}").symlink_to(tmp_path)
    start = time.monotonic()
    assert below(tmp_path, images_like(tmp_path / "**" / "x.png")) == ["a/b/x.png"]
    assert time.monotonic() - start < 1
    assert len(images_like(tmp_path / "a" / "b" / "circle?" / "a" / "b" / "x.png")) == 3, "a named link is followed"


def test_a_pattern_of_videos_gives_videos(tmp_path):
    touch(tmp_path, "a.mp4", "b.MP4", "b.png", "c.mov")
    assert below(tmp_path, images_like(tmp_path / "*.mp4")) == ["a.mp4"]
    assert below(tmp_path, images_like(tmp_path / "*")) == ["b.png"]


def test_a_pattern_of_any_depth_follows_no_links_in_circles(tmp_path):
    touch(tmp_path, "in/a/b.png", "in/a/c/d.png", "in/.hidden/e.png")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    for pattern in ("**", "**/*.png", "**/**", "**/a/**/*.png"):
        assert below(tmp_path / "in", images_like(tmp_path / "in" / pattern)) == ["a/b.png", "a/c/d.png"], pattern


def test_subfolders_are_taken_but_for_hidden_ones_outputs_and_links(tmp_path):
    touch(tmp_path, "in/b.png", "in/a/c.png", "in/a/d/e.jpg", "in/.hidden/f.png", "in/out/b/0000.jpg", "in/out/a.webp")
    touch(tmp_path, "elsewhere/g.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    found = images_in(tmp_path / "in", recursive=True, leave_out=tmp_path / "in" / "a" / ".." / "out")
    assert below(tmp_path / "in", found) == ["a/c.png", "a/d/e.jpg", "b.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("shot?/x.*", ["shot1/x.jpg", "shot2/x.png"]),
        ("**/x.*", ["shot1/deep/x.png", "shot1/x.jpg", "shot2/x.png"]),
        ("**/**/x.*", ["shot1/deep/x.png", "shot1/x.jpg", "shot2/x.png"]),
        ("[ab].png", ["a.png", "b.png"]),
        ("out/*", None),
        ("*.txt", None),
    ],
)
def test_a_pattern_gives_the_images_that_fit_it(tmp_path, pattern, expected):
    touch(tmp_path, "b.png", "a.png", ".c.png", "a.txt", "shot1/x.jpg", "shot2/x.png", "shot1/deep/x.png", "out/x.png")
    (tmp_path / "folder.png").mkdir()
    if expected is None:
        with pytest.raises(UserError, match="nothing fits the pattern"):
            images_like(tmp_path / pattern, leave_out=tmp_path / "out")
    else:
        assert below(tmp_path, images_like(tmp_path / pattern, leave_out=tmp_path / "out")) == expected


def test_what_is_a_pattern(tmp_path):
    touch(tmp_path, "photo[1].png")
    assert is_pattern(Path("a/*.png"))
    assert is_pattern(Path("a/photo[1].png"))
    assert not is_pattern(tmp_path / "photo[1].png"), "it is a file"
    assert not is_pattern(Path("a/photo.png"))
    assert fixed_part(Path("a/b/c*/d.png")) == Path("a/b")
    assert fixed_part(Path("*.png")) == Path()
    assert fixed_part(Path("/a/**/d.png")) == Path("/a")


def test_a_path_too_long_is_no_folder():
    assert not is_folder(Path("x" * 999))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.png", "does not exist"),
        ("notes.txt", "must end in"),
        ("folder.png", "does not exist"),
        ("x" * 999, "can't be read|does not exist"),
        ("a\0b.png", "can't be read|does not exist"),
    ],
)
def test_what_is_no_image_is_told(tmp_path, name, told):
    touch(tmp_path, "notes.txt")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=told) as error:
        check_image_path(tmp_path / name)
    assert name in str(error.value)


def test_a_folder_without_images_is_told(tmp_path):
    touch(tmp_path, "notes.txt", "deeper/a.png")
    with pytest.raises(UserError, match=r"no images in the folder .*\.jpg"):
        images_in(tmp_path)


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="gone can't be read"):
        images_in(tmp_path / "gone")
