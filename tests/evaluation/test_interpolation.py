import json

import cv2
import numpy as np
import pytest

from sgm.data.photographs import HELD_OUT, load_photograph
from sgm.errors import UserError
from sgm.evaluation.interpolation import between, evaluate_interpolation
from sgm.outputs.provenance import Provenance
from sgm.outputs.video import read_video, write_video


def panned(num_frames: int) -> list[np.ndarray]:
    picture = np.asarray(load_photograph(HELD_OUT[0]))
    return [picture[100:228, 60 + 6 * k : 252 + 6 * k] for k in range(num_frames)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / "even.mp4", folder / "odd.mp4"]
    for path, count in zip(paths, (8, 9), strict=True):
        write_video(path, panned(count), 12, 95, Provenance("sgm", "test"))
    return paths


def test_the_scores_are_those_of_the_frames_left_out(videos):
    report = evaluate_interpolation(videos)
    assert [of.frames_made for of in report.scores] == [3, 4]
    frames = read_video(videos[1])
    made = {
        "repeat": frames[0:8:2],
        "average": np.ceil((frames[0:8:2].astype(float) + frames[2::2]) / 2).astype(np.uint8),
        "flow": np.stack([between(*pair) for pair in zip(frames[0:8:2], frames[2::2], strict=True)]),
    }
    for method, found in report.scores[1].psnr_db.items():
        expected = [cv2.PSNR(frame, truth) for frame, truth in zip(made[method], frames[1::2], strict=True)]
        assert found == pytest.approx(np.mean(expected), abs=1e-3)


def test_flow_beats_averaging_beats_repeating_where_the_camera_pans(videos):
    mean = evaluate_interpolation(videos).mean_psnr_db
    assert mean["flow"] > mean["average"] + 4 > mean["repeat"] + 4


def test_a_table_and_json(videos):
    report = evaluate_interpolation(videos, most_frames=5)
    header, _, even, _, mean = report.table().splitlines()
    assert [cell.strip() for cell in header.split("|")[4:7]] == ["repeat", "average", "flow"]
    assert [cell.strip() for cell in even.split("|")[1:4]] == ["even.mp4", "192x128", "2"]
    assert mean.split("|")[6].strip() == f"{report.mean_psnr_db['flow']:.2f}"
    kept = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert kept["videos"][1]["psnr_db"] == report.scores[1].psnr_db


def test_a_video_too_short_is_refused(videos):
    with pytest.raises(UserError, match="has fewer than three frames"):
        evaluate_interpolation(videos, most_frames=2)
