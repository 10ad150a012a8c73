"""Truncated, corrupt and hostile checkpoints: each is told in one line, none runs code, hangs or leaves anything."""

import io
import json
import os
import pickle
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sgm.__main__ import sample
from sgm.checkpoint.__main__ import main
from sgm.checkpoint.converting import convert
from sgm.parameters.sample_command import run

PROJECT = Path(__file__).parent.parent.parent
TINY = PROJECT / "checkpoints" / "svd_tiny.safetensors"
WHOLE = TINY.read_bytes()
HEADER_BYTES = 8 + int.from_bytes(WHOLE[:8], "little")
HEADER: dict[str, Any] = json.loads(WHOLE[8:HEADER_BYTES])
KEY = "model.diffusion_model.out.2.bias"
MARK = "a file that hostile code would write"


class _WritesAFile:
    """Unpickled without care, it runs code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return os.mkdir, (MARK,)  # type: ignore[return-value]


def with_header(header: object, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + WHOLE[HEADER_BYTES:]


def with_entry(**changes: object) -> bytes:
    return with_header(HEADER | {KEY: {**HEADER[KEY], **changes}})


START, END = HEADER[KEY]["data_offsets"]
SAFETENSORS = {
    "empty": b"",
    "seven bytes": WHOLE[:7],
    "length alone": WHOLE[:8],
    "half a header": WHOLE[: HEADER_BYTES // 2],
    "header alone": WHOLE[:HEADER_BYTES],
    "half": WHOLE[: len(WHOLE) // 2],
    "one byte short": WHOLE[:-1],
    "one byte long": WHOLE + b"\0",
    "a web page": b"<html>You must accept the licence first</html>" * 100,
    "a pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "length of nothing": struct.pack("<Q", 0) + WHOLE[8:],
    "length beyond the file": struct.pack("<Q", len(WHOLE) * 2) + WHOLE[8:],
    "length beyond memory": struct.pack("<Q", 2**63) + WHOLE[8:],
    "length of -1": b"\xff" * 8 + WHOLE[8:],
    "length a little short": with_header(WHOLE[8:HEADER_BYTES], HEADER_BYTES - 20),
    "header is no JSON": with_header(b"{" * 1000),
    "header is no UTF-8": with_header(b'{"\xff\xfe": 1}'),
    "header is a list": with_header([1, 2, 3]),
    "header nests deep": with_header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "header holds numbers": with_header({"a": 1}),
    "header with ten million spaces": with_header(json.dumps(HEADER).encode() + b" " * 11_000_000),
    "header holds nothing": with_header({}),
    "overlapping tensors": with_entry(data_offsets=[START - 2, END - 2]),
    "offsets beyond the file": with_entry(data_offsets=[START, END + 2**40]),
    "offsets backwards": with_entry(data_offsets=[END, START]),
    "negative offsets": with_entry(data_offsets=[-4, END]),
    "one offset": with_entry(data_offsets=[START]),
    "a hole": with_entry(data_offsets=[START + 2, END], shape=[(END - START) // 2 - 1]),
    "a shape of other size": with_entry(shape=[1000]),
    "an endless shape": with_entry(shape=[2**40, 2**40, 2**40]),
    "a hundred dimensions": with_entry(shape=[*HEADER[KEY]["shape"], *[1] * 100]),
    "a negative shape": with_entry(shape=[-1]),
    "an unknown type": with_entry(dtype="F12"),
    "keys that steer a terminal": with_header({"a\n\x1b[2J" + KEY: HEADER[KEY]}),
    "an odd key": with_header(
        {key + "\n\x1b[2J" * 100 * (key == KEY): entry for key, entry in HEADER.items()}  # all else is as it should be
    ),
    "whole numbers": with_entry(dtype="I16"),
    "metadata of numbers": with_header(HEADER | {"__metadata__": {"a": 1}}),
}


def pickled(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def endless() -> list[Any]:
    content: list[Any] = []
    content.append(content)
    return content


def with_wrong_bytes(content: bytes, mark: bytes, offset: int, wrong: bytes) -> bytes:
    """The content with other bytes at an offset from each mark."""
    parts = content.split(mark)
    changed = [part[: offset - len(mark)] + wrong + part[offset - len(mark) + len(wrong) :] for part in parts[1:]]
    return mark.join([parts[0], *changed])


STATE = {"a.weight": torch.zeros(4, 4), "b.bias": torch.zeros(4)}
PICKLE = pickled({"state_dict": STATE})
PICKLES = {
    "empty": b"",
    "a web page": b"<html></html>" * 100,
    "half": PICKLE[: len(PICKLE) // 2],
    "without its end": PICKLE[:-10],
    "code": pickled({"state_dict": STATE, "callbacks": _WritesAFile()}),
    "code without an archive": pickle.dumps(_WritesAFile()),
    "a tensor": pickled(torch.zeros(3)),
    "a list": pickled([1, 2]),
    "itself": pickled({"state_dict": endless()}),
    "numbers": pickled({"state_dict": {"a": 1}}),
    "numbers as keys": pickled({1: torch.zeros(3)}),
    "keys that steer a terminal": pickled({"a\nb\x1b[2J": torch.zeros(3)}),
    "a key that is no Unicode": pickled({"a\ud800": torch.zeros(3)}),
    "a key that is no Unicode, of a number": pickled({"a\ud800\n": 1}),
    "an endless key": pickled({"a" * 1_000_000: torch.zeros(3)}),
    "sparse": pickled({"a": torch.eye(3).to_sparse()}),
    "no memory": pickled({"a": torch.empty(2**20, 2**20, device="meta")}),
    "another structure": pickled(STATE),
    "an archive of pictures": archive(("picture.png", b"\x89PNG")),
    "an empty archive": archive(),
    "a bomb": archive(("a/data.pkl", b"\x80\x02" + b"\0" * 300_000_000), compression=zipfile.ZIP_DEFLATED),
    "a bomb of numbers": archive(
        ("a/data.pkl", b"\x80\x02}."), ("a/data/0", b"\0" * 300_000_000), compression=zipfile.ZIP_DEFLATED
    ),
    "members of one name": archive(("a/data.pkl", b"\x80\x02."), ("b/data.pkl", b"\x80\x02.")).replace(b"b/", b"a/"),
    "a name that is no Unicode": archive(("\N{LATIN SMALL LETTER E WITH ACUTE}", b"")).replace(
        b"\xc3\xa9", b"\xff\xfe"
    ),
    "a format of the future": with_wrong_bytes(archive(("a/data.pkl", b"\x80\x02.")), b"PK\x01\x02", 6, b"\x63"),
    "a pickle of garbage": archive(("a/data.pkl", b"\x80\x02" + bytes(range(256))), ("a/version", b"3")),
    "long instructions": archive(("a/data.pkl", b"\x80\x02" + b"N0" * 40_000_000 + b"."), ("a/version", b"3")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a whole folder."""
    path = tmp_path_factory.mktemp("folder") / "tiny"
    convert(TINY, path)
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*.*")}


UNET = "unet/diffusion_pytorch_model.safetensors"
INDEX = f"{UNET}.index.json"


def index_of(*names: str) -> bytes:
    return json.dumps({"weight_map": {f"key{number}": name for number, name in enumerate(names)}}).encode()


# What becomes of a folder's files: content by name, None where a file is gone.
FOLDERS: dict[str, dict[str, bytes | None]] = {
    "no unet": {UNET: None},
    "unet cut": {UNET: WHOLE[:1000]},
    "unet of another": {UNET: WHOLE},
    "index of nothing": {UNET: None, INDEX: b""},
    "index is no JSON": {UNET: None, INDEX: b"{"},
    "index is no UTF-8": {UNET: None, INDEX: b"\xff\xfe\xfd"},
    "index is a list": {UNET: None, INDEX: b"[]"},
    "index nests deep": {UNET: None, INDEX: b"[" * 100_000},
    "index too long": {UNET: None, INDEX: b" " * 11_000_000 + b"{}"},
    "index without a map": {UNET: None, INDEX: b"{}"},
    "map is a list": {UNET: None, INDEX: b'{"weight_map": ["a"]}'},
    "map of numbers": {UNET: None, INDEX: b'{"weight_map": {"a": 3}}'},
    "shard outside": {UNET: None, INDEX: index_of("../vae/diffusion_pytorch_model.safetensors")},
    "shard elsewhere": {UNET: None, INDEX: index_of("/etc/passwd.safetensors")},
    "shard on another disk": {UNET: None, INDEX: index_of("C:weights.safetensors")},
    "shard by a backslash": {UNET: None, INDEX: index_of("..\\x.safetensors")},
    "shard with a NUL": {UNET: None, INDEX: index_of("a\0.safetensors")},
    "shard hidden": {UNET: None, INDEX: index_of("..safetensors")},
    "shard of two lines": {UNET: None, INDEX: index_of("a\nb.safetensors")},
    "shard of a long name": {UNET: None, INDEX: index_of("a" * 300 + ".safetensors")},
    "shard of an endless name": {UNET: None, INDEX: index_of("a" * 100_000)},
    "shard without a name": {UNET: None, INDEX: index_of("")},
    "shard is a pickle": {UNET: None, INDEX: index_of("model.bin"), "unet/model.bin": PICKLE},
    "shard missing": {UNET: None, INDEX: index_of("a-00001-of-00001.safetensors")},
    "shards with one key": {
        UNET: None,
        INDEX: index_of("a.safetensors", "b.safetensors"),
        "unet/a.safetensors": WHOLE,
        "unet/b.safetensors": WHOLE,
    },
}


def refuse(path: Path, capsys: pytest.CaptureFixture[str], allowed: tuple[int, ...] = (2,)) -> None:
    """Inspecting, converting and sampling all tell it in one line and leave nothing."""
    before = sorted(str(file) for file in Path().rglob("*"))
    for words in (["inspect", str(path)], ["convert", str(path), "new"], ["convert", str(path), "new.safetensors"]):
        code = main(words)
        said = capsys.readouterr()
        assert all(letter.isprintable() or letter == "\n" for letter in said.out + said.err)
        (said.out + said.err).encode()  # as a terminal or a file asks for
        assert all(len(line) < 500 for line in said.out.splitlines())
        assert code in allowed or (code == 1 and words[0] == "inspect" and "version: none" in said.out), said
        if code == 2:
            assert said.out == ""
            assert said.err.startswith("error: ")
            assert said.err.count("\n") == 1, said.err
            assert len(said.err) < 1000
        for made in (Path("new.safetensors"), *Path("new").rglob("*.*")):
            assert code == 0 or not made.exists()
            made.unlink(missing_ok=True)
        for component in sorted(Path("new").rglob("*"), reverse=True):
            component.rmdir()
        if Path("new").exists():
            Path("new").rmdir()
    assert sorted(str(file) for file in Path().rglob("*")) == before


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("weights.safetensors").write_bytes(SAFETENSORS[name])
    refuse(Path("weights.safetensors"), capsys)


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("weights.ckpt").write_bytes(PICKLES[name])
    refuse(Path("weights.ckpt"), capsys)
    assert not Path(MARK).exists()


def test_the_code_would_have_run() -> None:
    pickle.loads(PICKLES["code without an archive"])
    assert Path(MARK).exists()


def test_a_tar(capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open("weights.ckpt", "w") as file:
        file.add(TINY, "storages")
    refuse(Path("weights.ckpt"), capsys)


def write_folder(files: dict[str, bytes], changes: dict[str, bytes | None]) -> Path:
    for name, content in (files | changes).items():
        if content is not None:
            Path("folder", name).parent.mkdir(parents=True, exist_ok=True)
            Path("folder", name).write_bytes(content)
    return Path("folder")


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, folder: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    refuse(write_folder(folder, FOLDERS[name]), capsys)


def test_folders_of_nonsense(folder: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    nonsense = Path("nonsense")
    nonsense.mkdir()
    refuse(nonsense, capsys)
    (nonsense / "words.txt").write_text("words")
    (nonsense / "unet").write_text("a file")
    refuse(nonsense, capsys)
    whole = write_folder(folder, {})
    (whole / UNET).unlink()
    (whole / UNET).mkdir()
    refuse(whole, capsys)
    (whole / UNET).rmdir()
    (whole / UNET).symlink_to(whole / UNET)
    refuse(whole, capsys)
    (whole / UNET).unlink()
    os.mkfifo(whole / UNET)  # opening it would wait forever
    refuse(whole, capsys)


def test_an_index_reaches_nothing_outside_its_folder(
    folder: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("outside.safetensors").write_bytes(folder[UNET])
    beside = write_folder(folder, {UNET: None, INDEX: index_of("x.safetensors"), "unet/x.safetensors": folder[UNET]})
    assert main(["inspect", str(beside)]) == 0, "what is beside the index is read"
    capsys.readouterr()
    for name in ("../../outside.safetensors", str(Path("outside.safetensors").absolute())):
        (beside / INDEX).write_bytes(index_of(name))
        assert main(["inspect", str(beside)]) == 2
        assert "is not a .safetensors file beside it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a bomb", "a bomb of numbers", "long instructions"])
def test_what_is_too_long_is_never_unpacked(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole, their contents have 80 MB and more."""
    Path("weights.ckpt").write_bytes(PICKLES[name])
    tracemalloc.start()
    try:
        assert main(["inspect", "weights.ckpt"]) == 2
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def garbled(content: bytes, end: int, chance: random.Random) -> bytes:
    """A few bytes changed, put in, or taken away, mostly before `end`; or the file cut off."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(min(end, len(damaged)) if chance.random() < 0.9 else len(damaged))
        kind = chance.randrange(4)
        if kind == 0:
            damaged[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[place : place + chance.randrange(20)] = chance.randbytes(chance.randrange(20))
        elif kind == 2:
            damaged[place : place + chance.randrange(200)] = b""
        else:
            del damaged[-chance.randrange(1, len(damaged) // 2) :]
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(30))
def test_garbled_safetensors(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(seed)
    end = 8 if seed % 3 == 0 else HEADER_BYTES
    Path("weights.safetensors").write_bytes(garbled(WHOLE, end, chance))
    refuse(Path("weights.safetensors"), capsys, allowed=(0, 2))


@pytest.mark.parametrize("seed", range(30))
def test_garbled_pickles(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(seed)
    if seed % 2:  # within the instructions, in an archive that is whole
        with zipfile.ZipFile(io.BytesIO(PICKLE)) as file:
            members = [(member.filename, file.read(member)) for member in file.infolist()]
        changed = [
            (name, garbled(content, len(content), chance) if name.endswith("data.pkl") else content)
            for name, content in members
        ]
        Path("weights.ckpt").write_bytes(archive(*changed))
    else:
        Path("weights.ckpt").write_bytes(garbled(PICKLE, len(PICKLE), chance))
    refuse(Path("weights.ckpt"), capsys)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", SAFETENSORS["half"]),
        ("weights.safetensors", SAFETENSORS["overlapping tensors"]),
        ("weights.ckpt", PICKLES["code"]),
        ("weights.ckpt", PICKLES["a bomb"]),
        ("weights.ckpt", PICKLES["another structure"]),
    ],
    ids=["half", "overlapping", "code", "bomb", "structure"],
)
def test_sampling_tells_it_too(name: str, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_bytes(content)
    Image.new("RGB", (128, 128)).save("photo.png")
    words = ["--input_path", "photo.png", "--version", "svd_tiny", "--checkpoint", name, "--device", "cpu"]
    assert run(sample, words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not [path for path in Path("outputs").rglob("*") if path.is_file()]
    assert not Path(MARK).exists()
