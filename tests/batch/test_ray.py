"""Batches on Ray clusters of two nodes, started here: what workers make is what one process makes, whoever dies."""

import json
import os
import signal
import socket
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import psutil
import pytest

from sgm.batch import ray_cluster, ray_engine
from sgm.batch.items import plan_items
from sgm.batch.make import Maker
from sgm.batch.resume import claim_key
from sgm.checkpoint.finding import find_checkpoint
from sgm.errors import UserError
from sgm.outputs.publishing import workplace
from sgm.parameters.sample_command import SAMPLE
from sgm.progress import Progress

WORDS = ["--engine", "ray", "--cpus_per_worker", "1"]
MANY = 8
# Of a machine whose share with the weights is gone: what its Python runs first.
STALE = """
import safetensors
def stale(*_, **__):
    raise OSError(116, "Stale file handle")
safetensors.safe_open = stale
"""
NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


SMALL = ["--version", "svd_tiny", "--device", "cpu", "--num_frames", "2", "--num_steps", "1"]
SMALL += ["--width", "32", "--height", "32", "--enhance", "none"]


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def statuses(out: Path) -> dict[str, str]:
    return {entry["name"]: entry["status"] for entry in report_of(out)["items"]}


def clips_in(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob("*.json") if path.name != "report.json")


def hidden_in(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*")]


def frames_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))}


def wait_for(condition, process: subprocess.Popen, seconds: float = 180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def workers() -> list[psutil.Process]:
    """The processes that make clips, of clusters that this process has started."""
    return [process for process in psutil.Process().children(recursive=True) if is_worker(process)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "MapWorker" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of two nodes, each with a core and what Ray takes for a graphics card; the driver is on the first."""
    for name, value in (ray_cluster.ENVIRONMENT | ray_cluster.QUIET).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from ray.cluster_utils import Cluster

    others = psutil.Process().children(recursive=True)  # such as one of multiprocessing's own
    started = Cluster(initialize_head=True, head_node_args=NODE)
    started.second = started.add_node(**NODE)
    yield started
    processes = [child for child in psutil.Process().children(recursive=True) if child not in others]
    started.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=30)
    for process in alive:
        process.kill()
    assert not alive


@pytest.fixture
def many(tmp_path, make_image):
    """A list of eight images, each with so many steps that something can happen before its clip is made."""
    for seed in range(MANY):
        make_image(tmp_path / "in" / f"{seed}.png", seed)
    lines = [{"input_path": f"{seed}.png", "num_steps": 60} for seed in range(MANY)]
    (tmp_path / "in" / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "in" / "list.jsonl"


@pytest.fixture
def local_frames(out, start, tmp_path):
    """A function that makes an input's clips in one process; gives their frames, and leaves nothing."""

    def make(input_path: Path) -> dict[str, bytes]:
        process = start(input_path)
        assert process.communicate()[0]
        out.rename(tmp_path / "local")
        return frames_below(tmp_path / "local")

    return make


def key_of(number: int, many: Path, out: Path) -> str:
    """By what a run of the list claims the clip of NUMBER.png."""
    request = SAMPLE.read(["--input_path", str(many), "--output_folder", str(out), *SMALL])
    return claim_key(plan_items(request, warn=print)[number], request, find_checkpoint("svd_tiny"))


def holds(process: psutil.Process, key: str) -> bool:
    """Whether a process holds a claim."""
    try:
        return any(file.path.endswith(f".claim-{key}.lock") for file in process.open_files())
    except psutil.Error:  # it has just ended
        return False


# ---- without a cluster


def test_without_ray_a_line_says_how_to_install_it_before_torch_is_loaded(images, out, start):
    hide = "import sys, runpy; sys.argv[0] = sys.argv.pop(1); sys.modules['ray'] = None\n"
    hide += "try: runpy.run_path(sys.argv[0], run_name='__main__')\nfinally: print('torch' in sys.modules)\n"
    process = start(images, *WORDS, python=("-c", hide))
    said = process.communicate()
    assert process.returncode == 2
    assert said[0] == "False\n"
    assert said[1] == "error: engine ray needs Ray, which is not installed: pip install 'ray[data]'\n"
    assert not out.exists()


@pytest.fixture
def closed_address():
    """HOST:PORT where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*taken.getsockname())


@pytest.fixture
def web_address():
    """HOST:PORT of a server that is no cluster."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_where_no_cluster_answers_is_told_within_seconds(images, out, run_here, capsys, closed_address):
    start = time.monotonic()
    assert run_here(images, *WORDS, "--ray_address", closed_address) == 2
    assert time.monotonic() - start < ray_cluster.SECONDS_TO_ANSWER + 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: no Ray cluster answers at ray_address {closed_address} (")
    assert not out.exists()


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:10001", "127.0.0.1:", "127.0.0.1:99999999"])
def test_what_is_no_address_is_told(images, out, run_here, capsys, address):
    assert run_here(images, *WORDS, "--ray_address", address) == 2
    assert f"ray_address can't be '{address}': give HOST:PORT" in capsys.readouterr().err
    assert not out.exists()


def test_what_does_not_go_with_an_engine_is_told(images, out, run_here, capsys):
    assert run_here(images, "--gpus_per_worker", "0.5") == 2
    assert "gpus_per_worker is for --engine ray" in capsys.readouterr().err
    assert run_here(images / "a.png", "--engine", "ray") == 2
    assert "engine ray is for batches" in capsys.readouterr().err
    request = SAMPLE.read(["--input_path", str(images), "--version", "svd_tiny", *WORDS, "--device", "cuda:1"])
    with pytest.raises(UserError, match="device cuda:1 is one machine's card"):
        ray_cluster.prepared_for_ray(request)
    assert not out.exists()


GPU_BOX, CPU_BOX, HEAD = {"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}, {"memory": 1.0}


def nodes(*machines: dict[str, float]) -> list[dict]:
    return [{"NodeID": f"node{number}", "Alive": True, "Resources": own} for number, own in enumerate(machines)]


@pytest.mark.parametrize(
    ("words", "machines", "planned"),
    [
        ("", [CPU_BOX, {"CPU": 6.0}, HEAD], (2, 6, 0.0, "cpu")),
        ("--cpus_per_worker 3", [CPU_BOX, {"CPU": 6.0}], (4, 3, 0.0, "cpu")),
        ("", [GPU_BOX, CPU_BOX], (2, 1, 1.0, "cuda")),
        ("--gpus_per_worker 0.5", [GPU_BOX, GPU_BOX], (8, 1, 0.5, "cuda")),
        ("--gpus_per_worker 0.4", [GPU_BOX], (4, 1, 0.4, "cuda")),
        ("--gpus_per_worker 0.5 --cpus_per_worker 8", [GPU_BOX], (2, 8, 0.5, "cuda")),
        ("--gpus_per_worker 0 --cpus_per_worker 8", [GPU_BOX, CPU_BOX], (3, 8, 0.0, "cpu")),
        ("--device cpu", [GPU_BOX], (1, 16, 0.0, "cpu")),
        ("--device cuda", [GPU_BOX], (2, 1, 1.0, "cuda")),
    ],
)
def test_a_cluster_has_as_many_workers_as_it_has_room_for(monkeypatch, images, words, machines, planned):
    monkeypatch.setattr("ray.nodes", lambda: nodes(*machines))
    request = SAMPLE.read(["--input_path", str(images), "--version", "svd_tiny", "--engine", "ray", *words.split()])
    workers = ray_cluster.plan_workers(request, 100, left_out={})
    assert (workers.count, workers.cpus, workers.gpus, workers.device) == planned
    assert ray_cluster.plan_workers(request, 1, left_out={}).count == 1


def test_a_cluster_without_the_machines_left_out(monkeypatch, images):
    monkeypatch.setattr("ray.nodes", lambda: nodes(GPU_BOX, GPU_BOX, CPU_BOX))
    request = SAMPLE.read(["--input_path", str(images), "--version", "svd_tiny", "--engine", "ray"])
    reasons = {"node0": UserError("on node0: no driver"), "node1": UserError("on node1: stale")}
    workers = ray_cluster.plan_workers(request, 100, {"node0": reasons["node0"]})
    assert (workers.count, workers.device, workers.left_out) == (2, "cuda", ("node0",))
    with pytest.raises(UserError, match="on node0: no driver"):  # nothing is made on a processor unasked
        ray_cluster.plan_workers(request, 100, reasons)


@pytest.mark.parametrize("words", ["--cpus_per_worker 17", "--device cuda", "--device cuda --gpus_per_worker 0"])
def test_a_cluster_without_room_is_told(monkeypatch, images, words):
    monkeypatch.setattr("ray.nodes", lambda: nodes(CPU_BOX))
    request = SAMPLE.read(["--input_path", str(images), "--version", "svd_tiny", "--engine", "ray", *words.split()])
    with pytest.raises(UserError, match=r"give (other|another)"):
        ray_cluster.plan_workers(request, 100, left_out={})


@pytest.mark.parametrize(("gpus", "device", "shares"), [(0.4, "cuda", [0.4]), (1.0, "cuda", []), (0.4, "cpu", [])])
def test_a_worker_keeps_to_its_share_of_a_card(monkeypatch, images, gpus, device, shares):
    done = []
    monkeypatch.setattr("sgm.runtime.devices.keep_to_share", done.append)
    monkeypatch.setattr(ray_engine, "load_pipeline", lambda request, *_: done.append(request.device))
    request = SAMPLE.read(["--input_path", str(images), "--version", "svd_tiny", "--engine", "ray"])
    worker = ray_engine._Worker(request, None, ray_cluster.Workers(1, 1, gpus, device), attempts=None)
    worker._load()
    assert done == [*shares, device], "before anything is loaded"


def test_a_worker_whose_card_is_lost_dies_for_another_to_make_its_item(monkeypatch, images, out):
    def die(code):
        raise SystemExit(code)

    monkeypatch.setattr("ray.get", lambda answer: answer)
    monkeypatch.setattr(os, "_exit", die)
    request = SAMPLE.read(["--input_path", str(images), "--output_folder", str(out), *SMALL, "--engine", "ray"])
    items, attempts = plan_items(request, warn=print), ray_engine._Attempts()
    calls = {name: SimpleNamespace(remote=getattr(attempts, name)) for name in ("deaths", "begin", "end")}
    worker = ray_engine._Worker(request, None, ray_cluster.Workers(1, 1, 1.0, "cuda"), SimpleNamespace(**calls))
    maker = Maker(request, None, Progress(quiet=True), pipeline=SimpleNamespace(device="cuda", is_lost=False))
    monkeypatch.setattr(maker, "make", lambda items: [None] * len(items))
    monkeypatch.setattr("sgm.batch.make.is_lost", lambda device: device == "cuda")
    with pytest.raises(SystemExit, match="1"):
        list(worker._make(maker, items))
    assert attempts.deaths(items) == [1, 0, 0]


# ---- on clusters


@pytest.mark.slow
def test_what_listens_without_being_a_cluster_is_reported_within_a_minute(images, out, start, web_address):
    process = start(images, *WORDS, "--ray_address", web_address)
    said = process.communicate(timeout=90)
    assert process.returncode == 2, said
    assert said[1].splitlines()[-1].startswith(f"error: can't join the Ray cluster at ray_address {web_address}: ")
    assert "Traceback" not in said[1]


def test_a_cluster_makes_the_clips_that_one_process_makes(cluster, images, out, start, local_frames):
    (images / "b.png").write_bytes(b"no picture")
    process = start(images, *WORDS, "--gpus_per_worker", "0.5", "--ray_address", cluster.address)
    said = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert statuses(out) == {"a": "made", "b": "failed", "c": "made"}
    assert "no known image format" in report_of(out)["items"][1]["reason"]
    assert "Traceback" not in said[1]
    assert "starting workers: 2, each with cores: 1, graphics cards: 0.5" in said[1]
    assert "clips a minute" in said[1]
    assert sorted(Path(line.split(":")[0]).name for line in said[0].splitlines()) == ["a.mp4", "c.mp4"]
    assert hidden_in(out) == []
    assert "a.mp4" in (out / "index.html").read_text()
    made = frames_below(out)
    out.rename(out.with_name("by_ray"))
    (images / "b.png").unlink()
    assert made == local_frames(images)
    assert len(made) == 4


def all_are_made_once(out: Path) -> bool:
    return clips_in(out) == list(statuses(out)) == [str(number) for number in range(MANY)]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_clip_made(cluster, many, out, start, local_frames):
    expected = local_frames(many)
    key = key_of(4, many, out)
    process = start(many, *WORDS, "--ray_address", cluster.address)
    victim = wait_for(lambda: next((worker for worker in workers() if holds(worker, key)), None), process)
    victim.kill()
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert all_are_made_once(out)
    assert frames_below(out) == expected
    assert set(statuses(out).values()) <= {"made", "there"}
    assert len(said[0].splitlines()) == list(statuses(out).values()).count("made")
    assert hidden_in(out) == []


@pytest.mark.slow
def test_a_killed_node_leaves_its_work_to_the_other(cluster, many, out, start, local_frames):
    expected = local_frames(many)
    process = start(many, *WORDS, "--ray_address", cluster.address)
    wait_for(lambda: len([worker for worker in workers() if worker.open_files()]) == 2 and clips_in(out), process)
    raylet = psutil.Process(cluster.second.all_processes["raylet"][0].process.pid)
    victims = [child for child in raylet.children(recursive=True) if child in workers()]
    assert len(victims) == 1
    wait_for(lambda: any(".claim-" in file.path for file in victims[0].open_files()), process)
    cluster.remove_node(cluster.second, allow_graceful=False)
    psutil.wait_procs(victims, timeout=20)
    assert len(clips_in(out)) < MANY
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert all_are_made_once(out)
    assert frames_below(out) == expected
    assert hidden_in(out) == []


@pytest.mark.slow
def test_a_killed_driver_is_completed_by_the_next_which_keeps_what_is_done(cluster, many, out, start, local_frames):
    expected = local_frames(many)
    first = start(many, *WORDS, "--ray_address", cluster.address)
    wait_for(lambda: len(clips_in(out)) >= 2, first)
    first.kill()
    first.communicate()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert 2 <= len(kept) < MANY
    second = start(many, *WORDS, "--ray_address", cluster.address)
    said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert all_are_made_once(out)
    assert frames_below(out) == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert list(statuses(out).values()).count("there") >= len(kept)
    assert hidden_in(out) == []


@pytest.mark.slow
def test_an_image_that_is_the_death_of_its_workers_fails_alone(cluster, many, out, start):
    key, killed = key_of(3, many, out), []
    process = start(many, *WORDS, "--batch_size", "2", "--ray_address", cluster.address)
    while process.poll() is None:
        for worker in workers():
            if holds(worker, key) and worker not in killed:
                worker.kill()
                killed.append(worker)
        time.sleep(0.02)
    said = process.communicate()
    assert process.returncode == 1, said
    assert len(killed) == ray_engine.MAX_DEATHS
    assert [name for name, status in statuses(out).items() if status == "failed"] == ["3"]
    assert "its worker died 3 times" in report_of(out)["items"][3]["reason"]
    assert clips_in(out) == [str(number) for number in range(MANY) if number != 3]
    assert hidden_in(out) == []


@pytest.mark.slow
def test_what_another_run_is_making_is_waited_for_and_made_where_it_dies(cluster, many, out, start):
    out.mkdir()
    with workplace(out, key_of(0, many, out)):
        process = start(many, *WORDS, "--ray_address", cluster.address)
        wait_for(lambda: len(clips_in(out)) == MANY - 1, process)
        time.sleep(3)
        assert process.poll() is None
        assert "0" not in clips_in(out)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "another run is making what is left here (1)" in said[1]
    assert all_are_made_once(out)


@pytest.mark.slow
def test_ctrl_c_ends_a_cluster_of_its_own_and_says_what_is_left(many, out, start):
    process = start(many, *WORDS, start_new_session=True)
    wait_for(lambda: len(clips_in(out)) >= 2, process)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    made = len(clips_in(out))
    assert 2 <= made < MANY
    assert report_of(out)["counts"] == {"made": made, "there": 0, "failed": 0, "left": MANY - made}
    assert said[1].endswith("stopped by Ctrl-C; finished clips are kept\n")
    assert "Traceback" not in said[1]
    assert hidden_in(out) == []
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_what_is_left_listed(many, out, start, mounted):
    with mounted(out, "size=60k"):
        process = start(many, *WORDS)
        said = process.communicate(timeout=300)
        assert process.returncode == 1, said
        made = len(clips_in(out))
        assert 1 <= made < MANY - 1
        assert report_of(out)["counts"] == {"made": made, "there": 0, "failed": 1, "left": MANY - made - 1}
        assert said[1].splitlines()[-1].startswith("error: ended early, for the rest would fail too: ")
        assert hidden_in(out) == []


@pytest.mark.slow
def test_a_machine_that_cannot_load_the_model_is_left_out(cluster, many, out, start, tmp_path):
    (tmp_path / "troubled").mkdir()
    (tmp_path / "troubled" / "sitecustomize.py").write_text(STALE)
    cluster.remove_node(cluster.second)
    cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(tmp_path / "troubled")})
    process = start(many, *WORDS, "--ray_address", cluster.address)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert all_are_made_once(out)
    assert said[1].count("a machine is left out from here on: on ") == 1
    assert "Stale file handle" in said[1]
    assert hidden_in(out) == []


@pytest.mark.slow
def test_weights_that_a_worker_cannot_load_end_the_run_with_its_words(images, out, start, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nonsense")
    process = start(images, *WORDS, "--checkpoint", bad)
    said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert said[1].splitlines()[-1].startswith(f"error: on {socket.gethostname()}: {bad} is not a readable checkpoint")
    assert "Traceback" not in said[1]
    assert statuses(out) == dict.fromkeys("abc", "left")
