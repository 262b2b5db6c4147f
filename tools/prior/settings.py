"""Everything a training run can be told, and three presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from headstudio.errors import HeadStudioError


@dataclass(frozen=True)
class Sizes:
    """Shapes of the networks. The defaults make 29.8 MiB of fp16 weights.

    ``attention_heads`` gives 32 channels to each head, a size the fused attention kernels like.
    """

    image: int = 128
    vocabulary: int = 2000
    text_hidden: int = 128
    text_layers: int = 4
    text_heads: int = 4
    autoencoder_channels: tuple[int, ...] = (32, 64, 64)
    latent_channels: int = 4
    unet_channels: tuple[int, ...] = (48, 96, 192)
    attention_heads: tuple[int, ...] = (3, 3, 6)
    control_channels: tuple[int, ...] = (16, 32, 64)
    norm_groups: int = 16

    @property
    def downsampling(self) -> int:
        """Pixels of the picture per cell of the latent grid, along one side."""
        return 2 ** (len(self.autoencoder_channels) - 1)

    @property
    def latent(self) -> int:
        """Cells along one side of the latent grid."""
        return self.image // self.downsampling


@dataclass(frozen=True)
class Phase:
    """How long and how fast one network is trained.

    A phase ends after ``minutes`` of training or ``steps`` steps, whichever comes first; the
    learning rate follows whichever is further along. Steps alone make a run reproducible bit for
    bit, minutes make it fit a machine that is lent by the hour.
    """

    minutes: float
    batch: int
    learning_rate: float
    steps: int | None = None
    warmup_steps: int = 200
    ema_decay: float = 0.999
    log_every: int = 50
    grid_minutes: float | None = None


@dataclass(frozen=True)
class Settings:
    """One training run."""

    seed: int = 0
    start_from: str | None = None  # folder of a finished prior to train on, instead of from scratch
    characters: int = 60_000
    held_out_characters: int = 512
    held_out_pictures: int = 1024
    chunk: int = 256  # pictures rendered, encoded and replaced together
    autoencoder_pictures: int = 16_384
    diffusion_pictures: int = 65_536
    refresh_every: int = 16  # diffusion steps between two replaced chunks; 0 = never
    sizes: Sizes = field(default_factory=Sizes)
    autoencoder: Phase = Phase(minutes=2.5, batch=64, learning_rate=1e-3)
    diffusion: Phase = Phase(minutes=11.0, batch=512, learning_rate=8e-4, warmup_steps=500)
    caption_dropout: float = 0.12
    # Rarely: to the ControlNet it looks like a view in which no landmark can be seen, and then
    # faces come up on the backs of heads.
    control_dropout: float = 0.04
    wordings: int = 4  # captions of each picture, so that the text encoder learns none by heart
    stray_words: float = 0.10  # share of the captions that get a word of no consequence
    min_snr_gamma: float = 5.0
    attribute_weight: float = 0.1
    kl_weight: float = 1e-3
    line_weight: float = 4.0  # how much more a pixel near a drawn line (eyes, lips) counts
    latent_line_weight: float = 2.0  # the same for the denoiser and its cells
    judge_steps: int = 600
    sampling_steps: int = 30
    sample_prompts: int = 8  # rows of a sample grid
    compile: str = "diffusion"  # "none", "diffusion" or "all"
    channels_last: bool = True  # only where compiled: eager group norm would copy every tensor
    checkpoint_minutes: float = 4.0

    def validate(self) -> None:
        """Raise HeadStudioError for values that cannot work together."""
        if self.compile not in ("none", "diffusion", "all"):
            raise HeadStudioError(
                f'compile is "{self.compile}"; expected "none", "diffusion" or "all"'
            )
        for name in ("autoencoder_pictures", "diffusion_pictures"):
            if getattr(self, name) < self.chunk:
                raise HeadStudioError(
                    f"{name} is {getattr(self, name)}, less than one chunk of {self.chunk}; "
                    "ask for more pictures or smaller chunks"
                )
        if self.sizes.image % (4 * self.sizes.downsampling):
            raise HeadStudioError(
                f"pictures of {self.sizes.image} px cannot be halved as often as the networks do; "
                f"use a multiple of {4 * self.sizes.downsampling}"
            )


_TINY_SIZES = Sizes(
    image=32,
    vocabulary=640,
    text_hidden=32,
    text_layers=1,
    text_heads=2,
    autoencoder_channels=(8, 16, 16),
    unet_channels=(16, 32, 32),
    attention_heads=(2, 2, 2),
    control_channels=(8, 8, 16),
    norm_groups=4,
)


def preset(name: str) -> Settings:
    """The settings called ``name``.

    ``full`` trains the bundled prior on a GPU, ``smoke`` measures the speed of its phases there
    (see :mod:`tools.prior.smoke`), ``tiny`` walks through every line in seconds on a CPU.

    Raises:
        HeadStudioError: for another name.
    """
    full = Settings()
    if name == "full":
        return full
    if name == "smoke":
        return replace(
            full,
            characters=256,
            held_out_pictures=256,
            autoencoder_pictures=2048,
            diffusion_pictures=2048,
            autoencoder=replace(full.autoencoder, minutes=0.12),
            diffusion=replace(full.diffusion, minutes=0.2),
            judge_steps=50,
            sample_prompts=2,
        )
    if name == "tiny":
        return replace(
            full,
            characters=16,
            held_out_characters=8,
            held_out_pictures=16,
            chunk=16,
            autoencoder_pictures=64,
            diffusion_pictures=64,
            refresh_every=2,
            sizes=_TINY_SIZES,
            autoencoder=Phase(60.0, 4, 2e-3, steps=4, warmup_steps=2, log_every=2),
            diffusion=Phase(60.0, 8, 2e-3, steps=6, warmup_steps=2, log_every=2),
            judge_steps=4,
            sampling_steps=2,
            sample_prompts=2,
            compile="none",
        )
    raise HeadStudioError(f'there is no preset "{name}"; choose full, smoke or tiny')
