"""Files of torch.save: read as torch.load reads them; hostile ones are refused soon, in a line, in little memory."""

import io
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgm.checkpoint.__main__ import main
from sgm.checkpoint.loading import open_weights

KEY = "model.diffusion_model.out.2.bias"  # one that a model has


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


class Storage:
    """Unpickled, it asks for numbers of the archive."""

    def __init__(self, kind: object = torch.FloatStorage, key: object = "0", count: object = 4, word: str = "storage"):
        self.id = word, kind, key, "cpu", count


class TorchPickler(pickle.Pickler):
    """As torch.save pickles."""

    def persistent_id(self, content: object) -> object:
        return content.id if isinstance(content, Storage) else None


def saved(content: object, *members: tuple[str, bytes], protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    TorchPickler(stream, protocol).dump(content)
    return archive(("a/data.pkl", stream.getvalue()), ("a/data/0", bytes(16)), *members)


def tensor(
    storage: object = None, offset: object = 0, shape: object = (4,), strides: object = (1,), *more: object
) -> Call:
    storage = Storage() if storage is None else storage
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict(), *more)


def program(text: bytes) -> bytes:
    return archive(("a/data.pkl", b"\x80\x02" + text), ("a/data/0", bytes(16)))


def of_tensor(**how: Any) -> bytes:
    return saved({KEY: tensor(**how)})


def on_three_disks(content: bytes) -> bytes:
    """As if the archive were the last of three disks, as zip64 tells it."""
    end = content.rindex(b"PK\x05\x06")
    return content[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 3) + content[end:]


def with_flag(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Other bytes at an offset from each of these signatures."""
    parts = content.split(signature)
    offset -= len(signature)
    return signature.join([parts[0], *(part[:offset] + value + part[offset + len(value) :] for part in parts[1:])])


PLAIN = of_tensor()
# The file, and a word of the reason that is given.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a bytearray of 1 GB": (saved({"a": Call(bytearray, 10**9)}), "bytearray"),
    "a bytearray beyond memory": (saved({"a": Call(bytearray, 2**60)}), "bytearray"),
    "bytes of a number": (saved({"a": Call(bytes, 10**9)}), "bytes"),
    "a set": (saved({"a": {1, 2}}), "set"),
    "a function": (saved({"a": Call(eval, "1")}), "eval"),
    "a quantised tensor": (
        saved(
            {
                KEY: Call(
                    torch._utils._rebuild_qtensor,
                    Storage(torch.QUInt8Storage),
                    0,
                    (4,),
                    (1,),
                    (torch.per_tensor_affine, 0.1, 0),
                    False,
                    OrderedDict(),
                )
            }
        ),
        "QUInt8Storage",
    ),
    "a complex tensor": (of_tensor(storage=Storage(torch.ComplexFloatStorage)), "ComplexFloatStorage"),
    "a storage of bytes": (of_tensor(storage=Storage(torch.UntypedStorage)), "UntypedStorage"),
    "conjugated numbers": (saved({KEY: tensor(None, 0, (4,), (1,), {"conj": True})}), "conjugated"),
    "three disks": (on_three_disks(PLAIN), "not what torch.save"),
    "an endless storage": (of_tensor(storage=Storage(count=10**12), shape=(10**12,)), "too short"),
    "a tensor beyond its storage": (of_tensor(shape=(10**12,)), "beyond its storage"),
    "strides beyond its storage": (of_tensor(strides=(10**12,)), "beyond its storage"),
    "an offset beyond its storage": (of_tensor(offset=10**12), "beyond its storage"),
    "a number too many": (of_tensor(shape=(5,)), "beyond its storage"),
    "a size of 300 digits": (of_tensor(shape=(10**300,), strides=(0,)), "a size"),
    "a negative size": (of_tensor(shape=(-4,)), "a size"),
    "a negative stride": (of_tensor(strides=(-1,)), "a size"),
    "a negative offset": (of_tensor(offset=-1), "a size"),
    "a truth for a size": (of_tensor(shape=(True,)), "a size"),
    "a fraction for a size": (of_tensor(shape=(1.5,)), "a size"),
    "words for a shape": (of_tensor(shape="abcd", strides="abcd"), "str"),
    "too few strides": (of_tensor(strides=()), "dimensions"),
    "a hundred dimensions": (of_tensor(shape=(1,) * 100, strides=(0,) * 100), "100 dimensions"),
    "a number for a storage": (saved({KEY: tensor(3)}), "int"),
    "a tensor in a tensor": (saved({KEY: tensor(tensor())}), "StoredTensor"),
    "no such storage": (of_tensor(storage=Storage(key="../0")), "has no data/../0"),
    "a number for a key of a storage": (of_tensor(storage=Storage(key=0)), "int"),
    "a storage of another kind": (of_tensor(storage=Storage(word="module")), "FloatStorage"),
    "a tuple as a key": (saved({(1, 2): 3}), "tuple"),
    "a bare name": (saved({"a": eval}), "plain tensor"),
    "pickled anew": (saved({KEY: tensor()}, protocol=4), "protocol 4"),
    "no instructions": (program(b""), "broken"),
    "an end at once": (program(b"."), "broken"),
    "nothing to call": (program(b"R."), "broken"),
    "no mark": (program(b"t."), "broken"),
    "takes what is below a mark": (program(b"NN(\x86."), "broken"),
    "an odd number of items": (program(b"}(Nu."), "broken"),
    "a memory that is empty": (program(b"h\x05."), "broken"),
    "a name that is no name": (program(b"cbuiltins\n\xff\n."), "broken"),
    "a string beyond the file": (program(b"X\xff\xff\xff\x7fa."), "broken"),
    "many lists": (program(b"]" * 3_000_000 + b"."), "instructions"),
    "a name that steers a terminal": (program(b"cos\nsystem\x1b[2J\n)R."), r"os system\x1b[2J"),
    "a compressed archive": (
        archive(("a/data.pkl", b"\x80\x02}."), ("a/data/0", bytes(1000)), compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "an encrypted member": (with_flag(PLAIN, b"PK\x01\x02", 8, b"\x01\x00"), "encrypted"),
    "a member elsewhere": (with_flag(PLAIN, b"PK\x01\x02", 42, struct.pack("<L", 7)), "broken"),
    "a member beyond the file": (with_flag(PLAIN, b"PK\x03\x04", 28, b"\xff\xff"), "broken"),
    "the other order of bytes": (saved({KEY: tensor()}, ("a/byteorder", b"big")), "the other order"),
    "an endless order of bytes": (saved({KEY: tensor()}, ("a/byteorder", b" " * 10_000)), "longer than 16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_line_soon_and_in_little_memory(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, reason = HOSTILE[name]
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    tracemalloc.start()
    start = time.monotonic()
    try:
        assert main(["inspect", str(path)]) == 2
        assert tracemalloc.get_traced_memory()[1] < 100e6 + 3 * len(content)
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 60
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {path} is not a readable checkpoint (")
    assert reason in said.err
    assert said.err.count("\n") == 1
    assert said.err.strip().isprintable()


def test_a_key_that_takes_for_ever_to_hash_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pair of pairs of pairs, a hundred deep, all of which are one: it is small, and to be hashed 2^100 times."""
    pairs = b"".join(b"q%ch%c\x86" % (index, index) for index in range(100))
    (tmp_path / "weights.ckpt").write_bytes(program(b"})" + pairs + b"Ns."))
    assert main(["inspect", str(tmp_path / "weights.ckpt")]) == 2
    assert "more than plain tensors: tuple" in capsys.readouterr().err


def test_a_tensor_of_a_million_millions_in_four_numbers_is_reported_as_of_another_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights.ckpt").write_bytes(of_tensor(shape=(10**12,), strides=(0,)))
    assert main(["inspect", str(tmp_path / "weights.ckpt")]) == 1
    assert f"{KEY} (1000000000000,) instead of" in capsys.readouterr().out


def state() -> dict[str, Tensor]:
    """Tensors of every kind that has a plain form."""
    torch.manual_seed(0)
    whole = torch.randn(6, 5, 4)
    return {
        "whole": whole,
        "transposed": whole.transpose(0, 2),
        "sliced": whole[1:4, ::2, 3],
        "expanded": torch.randn(3, 1).expand(3, 7),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "parameter": nn.Parameter(torch.randn(3)),
        "last of a storage": torch.arange(10.0)[9:],
        **{str(dtype): torch.randn(5).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)},
    }


def read(path: Path) -> dict[str, Tensor]:
    weights = open_weights(path)
    tensors = dict(zip(weights.shapes, weights.tensors(weights.shapes), strict=True))
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == weights.shapes
    return tensors


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        OrderedDict,
        lambda state: {"state_dict": state, "epoch": 3, "lr": 1e-3, "best": 2**100, "at": -70000, "done": True},
        lambda state: {"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}], "state_dict": state},
    ],
    ids=["dict", "ordered", "training", "optimizer"],
)
def test_it_reads_what_torch_reads(wrap: Callable[[dict[str, Tensor]], Any], tmp_path: Path) -> None:
    torch.save(wrap(state()), tmp_path / "weights.ckpt")
    theirs = torch.load(tmp_path / "weights.ckpt", weights_only=True)
    theirs = theirs.get("state_dict", theirs)
    ours = read(tmp_path / "weights.ckpt")
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype
        assert torch.equal(ours[key], tensor), key


def test_a_modules_own_state_is_read(tmp_path: Path) -> None:
    """Its dict carries attributes, and its buffers are whole numbers."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    weights = open_weights(tmp_path / "weights.pth")
    expected = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert weights.shapes == {key: tuple(tensor.shape) for key, tensor in expected.items()}
    assert weights.dtypes["1.num_batches_tracked"] == "I64"
    floats = [key for key in expected if expected[key].is_floating_point()]
    assert all(torch.equal(tensor, expected[key]) for key, tensor in zip(floats, weights.tensors(floats), strict=True))


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """That of a file with 40 tensors of 10 MB is never more than a few of them, measured in a process of its own."""
    torch.save({str(index): torch.ones(2_500_000) for index in range(40)}, tmp_path / "weights.ckpt")
    script = (
        "import sys, resource\nfrom pathlib import Path\nfrom sgm.checkpoint.loading import open_weights\n"
        "weights = open_weights(Path(sys.argv[1]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(float(tensor.sum()) for tensor in weights.tensors(weights.shapes)) == 1e8\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "weights.ckpt"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 100, "MiB"
