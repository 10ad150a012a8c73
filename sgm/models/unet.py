"""The video UNet: the image model's UNet with a temporal path beside every residual block and transformer."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import NO_TEXT, TextConfig, UNetConfig
from .layers import (
    Blend,
    Conv3x3,
    FrameConv,
    SpatioTemporalTransformer,
    TimestepResBlock,
    Upsample,
    clips_to_frames,
    frames_to_clips,
    sinusoid,
)


class VideoResBlock(TimestepResBlock):
    """A spatial residual block, a temporal one over its result, and their blend."""

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int, norm_groups: int):
        super().__init__(Conv3x3, in_channels, out_channels, emb_channels, norm_groups)
        self.time_stack = TimestepResBlock(FrameConv, out_channels, out_channels, emb_channels, norm_groups)
        self.time_mixer = Blend()

    def forward(self, x: Tensor, emb: Tensor, num_frames: int) -> Tensor:  # type: ignore[override]
        """X (b t) c h w, emb (b t, emb_channels) -> (b t) c' h w."""
        spatial = super().forward(x, rearrange(self.emb_layers(emb), "n c -> n c 1 1"))
        shift = rearrange(self.time_stack.emb_layers(emb), "(b t) c -> b c t 1", t=num_frames)
        temporal = self.time_stack(frames_to_clips(spatial, num_frames), shift)
        return self.time_mixer(spatial, clips_to_frames(temporal, spatial.shape[2]))


class Downsample(nn.Module):
    """Half the size by a 3x3 convolution of stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """N c 2h 2w -> n c h w."""
        return self.op(x)


class Stage(nn.ModuleList):
    """Modules that run in sequence, each with the arguments that it takes; the result feeds one skip connection."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """X (b t) c h w -> (b t) c' h' w'."""
        for module in self:
            if isinstance(module, VideoResBlock):
                x = module(x, emb, num_frames)
            elif isinstance(module, SpatioTemporalTransformer):
                x = module(x, context, num_frames)
            else:
                x = module(x)
        return x


def _embedding_mlp(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, out_channels), nn.SiLU(), nn.Linear(out_channels, out_channels))


def compute_anew(compute: Callable[[], Tensor]) -> Tensor:
    """The deep features of this call itself."""
    return compute()


class VideoUNet(nn.Module):
    """Predicts v from noisy latents beside the input image's latents, for all frames of a clip at once.

    Built level by level from `config`; parameter names are those of the released checkpoints.
    """

    def __init__(self, config: UNetConfig, latent_channels: int, vector_width: int, text: TextConfig = NO_TEXT):
        super().__init__()
        widths = [config.model_channels * mult for mult in config.channel_mult]
        emb_channels = 4 * config.model_channels
        self.model_channels = config.model_channels
        self.time_embed = _embedding_mlp(config.model_channels, emb_channels)
        self.label_emb = nn.Sequential(_embedding_mlp(vector_width, emb_channels))

        def block(in_channels: int, out_channels: int, attention: bool) -> list[nn.Module]:
            modules: list[nn.Module] = [VideoResBlock(in_channels, out_channels, emb_channels, config.norm_groups)]
            if attention:
                modules.append(
                    SpatioTemporalTransformer(
                        out_channels, config.context_dim, config.head_channels, config.norm_groups, text
                    )
                )
            return modules

        channels = widths[0]
        skip_channels = [channels]
        self.input_blocks = nn.ModuleList([Stage([Conv3x3(2 * latent_channels, channels)])])
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(Stage(block(channels, width, level in config.attention_levels)))
                channels = width
                skip_channels.append(channels)
            if level < len(widths) - 1:
                self.input_blocks.append(Stage([Downsample(channels)]))
                skip_channels.append(channels)

        self.middle_block = Stage(
            [*block(channels, channels, attention=True), *block(channels, channels, attention=False)]
        )

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for index in range(config.num_res_blocks + 1):
                stage = block(channels + skip_channels.pop(), width, level in config.attention_levels)
                channels = width
                if level > 0 and index == config.num_res_blocks:
                    stage.append(Upsample(channels))
                self.output_blocks.append(Stage(stage))
        assert not skip_channels

        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_groups, channels, eps=1e-5), nn.SiLU(), Conv3x3(channels, latent_channels)
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type that the weights have and the network computes in."""
        return self.time_embed[0].weight.dtype  # type: ignore[return-value]

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        context: Tensor,
        vector: Tensor,
        num_frames: int,
        deep_features: Callable[[Callable[[], Tensor]], Tensor] = compute_anew,
    ) -> Tensor:
        """One call of the network, for `b` clips of `t` = num_frames frames.

        Args:
            x: (b t, 2 * latent_channels, h, w), the scaled noisy latents, then the input image's latents.
            noise: (b t,), EDM's c_noise.
            context: (b, m, context_dim), m tokens a clip: in the released models one, the CLIP embedding of the image.
            vector: (b t, vector_width), the embedded scalars.
            num_frames: frames of each clip.
            deep_features: returns what comes out of all stages but the first and the last, when given the function
                that computes it; may return what an earlier call left (see `FeatureCache`).

        Returns:
            (b t, latent_channels, h, w) in the network's type.
        """
        x = x.to(self.dtype, memory_format=torch.channels_last)
        context = context.to(self.dtype)
        emb = self.time_embed(sinusoid(noise, self.model_channels).to(self.dtype))
        emb = emb + self.label_emb(vector.to(self.dtype))
        first = self.input_blocks[0](x, emb, context, num_frames)
        deep = deep_features(lambda: self._deep_features(first, emb, context, num_frames))
        last = self.output_blocks[-1](torch.cat([deep, first], dim=1), emb, context, num_frames)
        return self.out(last)

    def _deep_features(self, x: Tensor, emb: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """What comes out of all stages but the first and the last, (b t, model_channels, h, w)."""
        skips = []
        for stage in self.input_blocks[1:]:
            x = stage(x, emb, context, num_frames)
            skips.append(x)
        x = self.middle_block(x, emb, context, num_frames)
        for stage in self.output_blocks[:-1]:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb, context, num_frames)
        return x
