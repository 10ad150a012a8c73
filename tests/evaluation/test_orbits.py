from dataclasses import replace

import numpy as np
import pytest

from sgm.config import load_config
from sgm.data import objects
from sgm.evaluation.orbits import (
    evaluate_orbits,
    held_out_orbit,
    mean_training_view,
    view_features,
    view_scores,
)
from sgm.metrics.likeness import psnr

CONFIG = replace(load_config("sv3d_tiny"), num_frames=7, width=32, height=32)
ORBITS = [held_out_orbit(number, CONFIG) for number in range(3)]


def repeat(views):
    return np.broadcast_to(views[-1], views.shape)


def evaluate(generate):
    return evaluate_orbits(generate, lambda views: views, CONFIG, len(ORBITS))


def test_objects_are_held_out_and_their_elevations_random_but_fixed():
    elevations = [held_out_orbit(number, CONFIG).orbit.elevations_deg[0] for number in range(32)]
    assert all(orbit.object_seed >= objects.HELD_OUT_SEED for orbit in ORBITS)
    assert -10 <= min(elevations) < 0
    assert 30 < max(elevations) <= 40
    assert len(set(elevations)) == 32
    np.testing.assert_array_equal(held_out_orbit(2, CONFIG).views, ORBITS[2].views)


def test_the_input_is_the_view_from_azimuth_0():
    orbit = ORBITS[0]
    assert orbit.orbit.azimuths_deg[-1] == 0
    front = objects.render_orbit(objects.random_object(orbit.object_seed), [orbit.orbit.elevations_deg[0]], [0], 32)[0]
    visible = front[..., 3] == 255
    np.testing.assert_allclose(orbit.views[-1][visible], front[visible][:, :3] / 255, atol=1e-6)
    assert (orbit.views[-1][front[..., 3] == 0] == 1).all()


def test_the_truth_gets_perfect_scores_and_is_asked_for_by_its_own_angles():
    asked = []

    def truth(picture, **sampling):
        asked.append(sampling)
        (orbit,) = [orbit for orbit in ORBITS if (orbit.views[-1] == picture).all()]
        assert sampling["elevations_deg"] == orbit.orbit.elevations_deg
        assert sampling["azimuths_deg"] == orbit.orbit.azimuths_deg
        return orbit.views

    scores = evaluate(truth).scores["generated"]
    assert [sampling["seed"] for sampling in asked] == [0, 1, 2]
    assert scores["psnr_db"] == scores["generated_psnr_db"] == 100
    assert scores["ssim"] == scores["generated_ssim"] == 1
    assert scores["views_right"] == scores["generated_views_right"] == 1


def test_a_model_that_repeats_its_input_gets_the_baselines_scores():
    report = evaluate(lambda picture, **_: np.repeat(picture[None], CONFIG.num_frames, axis=0))
    assert report.scores["generated"] == report.scores["repeat the input"]
    assert report.scores["generated"]["views_right"] >= 1 / CONFIG.num_frames
    assert report.scores["truth through the autoencoder"]["psnr_db"] == 100
    assert [line["object_seed"] for line in report.details] == [orbit.object_seed for orbit in ORBITS]


def test_a_model_that_turns_the_wrong_way_round_gets_few_views_right():
    def backwards(picture, **_):
        (orbit,) = [orbit for orbit in ORBITS if (orbit.views[-1] == picture).all()]
        return orbit.views[[*range(CONFIG.num_frames - 2, -1, -1), -1]]

    scores = evaluate(backwards).scores["generated"]
    assert scores["generated_views_right"] < 0.3
    assert scores["views_right"] > scores["generated_views_right"]


def test_the_given_view_makes_the_psnr_of_repeating_higher_by_its_share():
    """All T views have (T - 1) / T of the error of the T - 1 that are wrong: 10 log10(7 / 6) dB."""
    scores = view_scores([view_features(repeat(ORBITS[0].views), ORBITS[0].views)])
    assert scores["generated_psnr_db"] == pytest.approx(psnr(repeat(ORBITS[0].views)[:-1], ORBITS[0].views[:-1]))
    assert scores["psnr_db"] - scores["generated_psnr_db"] == pytest.approx(10 * np.log10(7 / 6))


def test_the_mean_view_is_of_training_objects_and_no_single_view_is_nearer_to_all(monkeypatch):
    drawn = []
    real = objects.random_object
    monkeypatch.setattr("sgm.evaluation.orbits.random_object", lambda seed: drawn.append(seed) or real(seed))
    mean = mean_training_view(40, 32)
    assert max(drawn) < objects.HELD_OUT_SEED
    assert mean.shape == (32, 32, 3)
    assert mean[0, 0] == pytest.approx(1, abs=0.01)  # corners are white in nearly every view
    everything = np.concatenate([orbit.views for orbit in ORBITS])
    assert psnr(np.broadcast_to(mean, everything.shape), everything) > psnr(
        np.broadcast_to(everything[0], everything.shape), everything
    )
