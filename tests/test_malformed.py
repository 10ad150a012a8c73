"""Malformed images, configurations, lines and flags, made by a seeded fuzzer: each told in plain words, none half done.

Everything here must be refused before the weights are read.
"""

import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sgm.__main__ import sample
from sgm.parameters.parameter import NAME, PATH, TRUTH
from sgm.parameters.sample_command import SAMPLE, run
from sgm.parameters.sampling import SamplingParameters

PROJECT = Path(__file__).parent.parent
RANDOM = random.Random(20)
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
VERSION = ("--version", "svd_tiny")


def encoded(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).resize(size).save(buffer, kind)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes don't keep."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bad_images() -> Iterator[bytes]:
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        whole = encoded(kind)
        for _ in range(4):
            yield whole[: RANDOM.randint(1, int(0.7 * len(whole)))]
        yield RANDOM.randbytes(8) + whole[8:]
    yield from (b"", b"\0" * 100, b"no picture", b"%PDF-1.4", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    yield from (png_of_size(60_000, 60_000), png_of_size(0, 10), png_of_size(2**31 - 1, 1))
    yield from (encoded("PNG", (3, 3)), encoded("PNG", (900, 20)), RANDOM.randbytes(5000))


def leaves(values: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    else:
        yield path


def changed(values: dict, path: tuple[object, ...], value: object) -> str:
    copy = json.loads(json.dumps(values))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return yaml.safe_dump(copy)


def bad_configs() -> Iterator[bytes]:
    path = PROJECT / "configs" / "svd_tiny.yaml"
    values = yaml.safe_load(path.read_text())
    values = (
        yaml.safe_load((PROJECT / "configs" / f"{values.pop('base')}.yaml").read_text()) if "base" in values else values
    )
    places = list(leaves(values))
    for _ in range(18):
        wrong = RANDOM.choice(["text", {"a": 1}, True, [[]], "1", float("nan")])
        place = RANDOM.choice(
            [place for place in places if not (isinstance(wrong, float) and "scale" in str(place[-1]))]
        )
        yield changed(values, place, wrong).encode()
    for _ in range(4):
        yield changed(values, RANDOM.choice(places), None).encode()
        yield changed(values, (f"key{RANDOM.random()}",), 1).encode()
    yield from (b"", b"- 1\n- 2\n", b"text", b"\xff\xfe\x00", b"a: [", b"base: ../../etc/passwd\n", b"base: [1]\n")
    yield b"!!python/object/apply:os.system ['touch hacked']\n"
    yield b"input: !!python/name:os.system\n" + yaml.safe_dump(values).encode()
    yield b"a: " + b"[" * 5000
    yield path.read_bytes()[: path.stat().st_size // 3]


WRONG_VALUES = ["x", "", -1, 10**30, [], [1, [2]], {"a": 1}, True, False, 1.5e308, "1e999", "٣x", "\x00", ["a"]]
DECLARED = {name: declared for name, (declared, _) in SAMPLE.parameters.items()}
NUMERIC = [name for name, declared in DECLARED.items() if declared.high is not None]
BAD_NAMES = [
    "..",
    ".",
    "",
    "/",
    "/etc/x",
    "../x",
    "a/../x",
    "a//b",
    "a/",
    "a\\b",
    "\x00",
    "\n",
    ".a",
    "a/.b",
    "é" * 150,
    "a\u202eb",
]


def bad_lines() -> Iterator[str]:
    for name in RANDOM.sample([name for name in NUMERIC if hasattr(SamplingParameters, name)], k=9):
        for wrong in RANDOM.sample([-1000, 10**30, {"a": 1}, "x", [[1]], True], k=2):
            yield json.dumps({"input_path": "good.png", name: wrong})
    for name in BAD_NAMES:
        yield json.dumps({"input_path": "good.png", "output_name": name})
    whole = json.dumps({"input_path": "good.png", "seed": 3})
    for _ in range(4):
        yield whole[: RANDOM.randint(1, len(whole) - 1)]
    for wrong in (3, None, [], {}, "", "\x00", "gone.png", "~nobody-of-this-name/x.png", "x" * 5000, "\ud800.png"):
        yield json.dumps({"input_path": wrong})
    yield from ("[", "null", "3", '"good.png"', "{}", '{"input_path": "good.png", "input_path": "good.png"}', "NaN")
    yield from ('{"input_path": "good.png", "seed": 1e400}', '{"input_path": "good.png", "seed": ' + "9" * 5000 + "}")
    yield "{" * 3000


def bad_flags() -> Iterator[list[str]]:
    for name in RANDOM.sample(NUMERIC, k=12):
        yield [
            f"--{name}",
            str(RANDOM.choice(["x", "-1000", "1e400", "nan", "[1", "[]", "1,,2", "0x", "--5", "9" * 5000])),
        ]
    for name in (
        name
        for name, (declared, _) in SAMPLE.parameters.items()
        if declared.kind in (NAME, TRUTH) and not declared.choices
    ):
        yield [f"--{name}", "perhaps"]
    for name in [
        name for name, (declared, _) in SAMPLE.parameters.items() if declared.choices or declared.kind is PATH
    ]:
        yield [f"--{name}"]  # without a value
    yield from (
        ["--sede", "3"],
        ["--seed", "3", "--seed", "4"],
        ["-x"],
        ["--", "x"],
        ["word"],
        ["--=3"],
        ["--formats", "avi"],
    )
    yield from (
        ["--formats", ""],
        ["--formats", "mp4,,gif"],
        ["--device", "cuda:x"],
        ["--width", "33"],
        ["--quality", "101"],
    )
    yield from (
        ["--input_path", "\x00"],
        ["--input_path", "y" * 5000],
        ["--input_path", "z" + "*" * 300],
        ["--config", "/"],
    )
    yield from (
        ["--checkpoint", "/dev/null"],
        ["--from_record", "/"],
        ["--input_path", "/dev/zero"],
        ["--input_path", " "],
    )


IMAGES, CONFIGS, LINES, FLAGS = list(bad_images()), list(bad_configs()), list(bad_lines()), list(bad_flags())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with good.png, which is where words are run; loading a model there is an error."""
    Image.fromarray(PIXELS).save(tmp_path / "good.png")
    monkeypatch.chdir(tmp_path)

    def refuse(*args, **more):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("sgm.generation.pipeline.load", refuse)
    return tmp_path


def refused(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said; asserts that the words are refused in plain words and that nothing is written."""
    before = sorted(folder.rglob("*"))
    code = run(sample, words)
    said = capsys.readouterr()
    assert code == 2, said
    assert said.out == ""
    assert re.search("^error: ", said.err, flags=re.MULTILINE)
    assert not re.search("Traceback|Error:", said.err)
    assert sorted(folder.rglob("*")) == before
    return said.err


def test_there_are_enough_of_them():
    assert len(IMAGES) + len(CONFIGS) + len(LINES) + len(FLAGS) >= 160


@pytest.mark.parametrize("index", range(len(IMAGES)))
def test_an_image(index, folder, capsys):
    (folder / "bad.png").write_bytes(IMAGES[index])
    refused([*VERSION, "--input_path", "bad.png"], folder, capsys)


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_a_configuration(index, folder, capsys):
    (folder / "bad.yaml").write_bytes(CONFIGS[index])
    refused([*VERSION, "--input_path", "good.png", "--config", "bad.yaml"], folder, capsys)


@pytest.mark.parametrize("index", range(len(LINES)))
def test_a_line(index, folder, capsys):
    (folder / "list.jsonl").write_text('{"input_path": "good.png"}\n' + LINES[index] + "\n", errors="surrogatepass")
    assert "\n  line 2: " in refused([*VERSION, "--input_path", "list.jsonl"], folder, capsys)


@pytest.mark.parametrize("index", range(len(FLAGS)))
def test_flags(index, folder, capsys):
    given = FLAGS[index]
    image = () if "--input_path" in given else ("--input_path", "good.png")
    version = () if "--version" in given else VERSION
    refused([*version, *image, *given], folder, capsys)


def test_all_bad_images_together_are_a_batch_that_ends(folder, capsys, monkeypatch):
    monkeypatch.undo()
    for index, content in enumerate(IMAGES):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / f"{index}.png").write_bytes(content)
    words = [
        *VERSION,
        "--input_path",
        str(folder / "images"),
        "--output_folder",
        str(folder / "out"),
        "--device",
        "cpu",
    ]
    assert run(sample, words) == 1
    assert "Traceback" not in capsys.readouterr().err
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["counts"] == {"made": 0, "there": 0, "failed": len(IMAGES), "left": 0}
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["index.html", "report.json"]


@pytest.mark.parametrize(
    ("name", "content", "flag"),
    [
        ("bad.png", IMAGES[3], "--input_path"),
        ("bad.yaml", CONFIGS[-2], "--config"),
        ("bad.jsonl", LINES[-1].encode(), "--input_path"),
        ("bad.txt", b"\xff\xfe\x00", "--input_path"),
    ],
)
def test_as_a_user_runs_it(name, content, flag, tmp_path):
    (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-W", "error", PROJECT / "sample.py", *VERSION, flag, name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
