"""The closed-form encoder against principal components computed by numpy."""

import numpy as np
import pytest
import torch

from sgm.config import load_config
from sgm.data.clips import to_tensor, training_still
from sgm.models.vae import Autoencoder
from sgm.training import encoder

SIZE, SEED, NUM_PICTURES = 64, 5, 60


@pytest.fixture(scope="module")
def fitted() -> Autoencoder:
    vae = Autoencoder(load_config("sv3d_tiny").vae, encoder=True, decoder=False, quant_convs=True, temporal=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "NUM_PICTURES", NUM_PICTURES)
        encoder.fit_encoder(vae, load_config("sv3d_tiny"), "stills", SIZE, SEED)
    return vae.requires_grad_(False)


def patches_of(pictures: np.ndarray) -> np.ndarray:
    """8x8 patches (n, 192) in reading order, in [-1, 1]."""
    n, cells = len(pictures), SIZE // 8
    split = (pictures / 127.5 - 1).reshape(n, cells, 8, cells, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    return split.reshape(-1, 192)


def test_the_latents_explain_as_much_as_the_principal_components(fitted: Autoencoder) -> None:
    pictures = np.stack([training_still(number, SIZE, SEED).frames[0] for number in range(NUM_PICTURES)])
    patches = patches_of(pictures)
    variances = np.linalg.eigvalsh(np.cov(patches.T, bias=True))
    unexplained_at_best = variances[:-16].sum()

    latents = fitted.encode(to_tensor(pictures)).permute(0, 2, 3, 1).reshape(-1, 16).double().numpy()
    design = np.hstack([latents, np.ones((len(latents), 1))])
    solution, *_ = np.linalg.lstsq(design, patches, rcond=None)
    unexplained = ((design @ solution - patches) ** 2).mean(axis=0).sum()
    assert unexplained == pytest.approx(unexplained_at_best, rel=0.01)


def test_the_latents_are_uncorrelated_and_of_mean_square_one(fitted: Autoencoder) -> None:
    pictures = np.stack([training_still(number, SIZE, SEED).frames[0] for number in range(NUM_PICTURES)])
    latents = fitted.encode(to_tensor(pictures)).permute(1, 0, 2, 3).flatten(1).double()
    assert latents.pow(2).mean().item() == pytest.approx(1, rel=0.02)
    correlations = torch.corrcoef(latents) - torch.eye(16)
    assert correlations.abs().max() < 0.05


def test_the_encoder_is_linear(fitted: Autoencoder) -> None:
    first, second = (to_tensor(training_still(number, SIZE, 9).frames) for number in (0, 1))
    mixed = fitted.encode((first + second) / 2)
    between = (fitted.encode(first) + fitted.encode(second)) / 2
    assert (mixed - between).norm() / between.norm() < 0.01
