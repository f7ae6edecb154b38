"""Model hyper-parameters as plain frozen dataclasses.

Plain, so that the model runs where pydantic is not installed; the ``__pydantic_config__`` marks make the
configuration tree in ``pipelines.config`` refuse unknown keys here too. Defaults are the paper's model.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_FORBID: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class VisionConfig:
    """Swin Transformer (Liu et al. 2021), the defaults are Swin-B with window 12; or a timm backbone."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    embed_dim: int = 128
    depths: tuple[int, int, int, int] = (2, 2, 18, 2)
    heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    window: int = 12
    patch: int = 4
    #: Frozen encoders run in eval mode and without autograd.
    frozen: bool = True
    #: Adds two channels (x, y in [-1, 1]) to the image before the patch embedding. Ours, not the paper's:
    #: it lets an encoder that is trained from scratch know where a patch is.
    coordinate_channels: bool = False
    #: Keeps the window's size on every map and pads the map to multiples of it, as Mask2Former and the
    #: released code do; otherwise (timm) the window shrinks to a smaller map. `released` mode always pads.
    padded_windows: bool = False
    #: A timm model with features at strides 4, 8, 16 and 32, by name, in place of Swin: the sizes above then
    #: count for nothing. Its weights: `init.vision`.
    backbone: str = ""


@dataclass(frozen=True)
class ConnectorConfig:
    """Image features to language-model tokens: 3x3 s1, LN, 3x3 s2, LN, 1x1 ("SparseConv_1")."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    #: Stride of the second convolution; 1 keeps every res5 position (small images have few).
    stride: int = 2
    #: Adds a learned linear map of the token's (x, y) to each image token. Ours, off in the paper's model.
    coordinates: bool = False


@dataclass(frozen=True)
class TATEConfig:
    """Task-adaptive text enhancement (paper eqs. 1-5); ``branches`` is the switch of Table 7."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    branches: Literal["adaptive", "none", "referring", "reasoning"] = "adaptive"
    #: Number of pooling queries h of the reasoning branch.
    reasoning_queries: int = 4
    dropout: float = 0.1
    #: "sequence" keeps the tokens, E_i * L * a_i; "pooled" is equation 2 as printed, broadcast.
    referring_form: Literal["sequence", "pooled"] = "sequence"


@dataclass(frozen=True)
class LanguageConfig:
    """A causal language model: Phi architecture by size, or any Hugging Face causal LM by ``path``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    path: str | None = None
    hidden_size: int = 2048
    layers: int = 24
    heads: int = 32
    intermediate_size: int = 8192
    max_positions: int = 2048
    initializer_range: float = 0.02
    #: Share of a head's width that rotary position codes turn.
    rotary_share: float = 0.5
    rope_theta: float = 10000.0
    #: At least so many rows of the embedding; a checkpoint may have more than its tokenizer has ids.
    embedding_rows: int = 0
    norm_eps: float = 1e-5
    #: Whether the output layer has a bias, as Phi's in Hugging Face form; the released code has none.
    head_bias: bool = True


@dataclass(frozen=True)
class LKMConfig:
    """Latent knowledge memory (paper eqs. 6-7); ``slots`` N and ``weight`` lambda are Table 8."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    slots: int = 4
    weight: float = 0.2
    #: Makes lambda a learned gate that starts at ``weight``. Ours, not the paper's.
    learned: bool = False
    #: In `released` mode: whose task sets lambda. "first" is the released code, in which the first sample of
    #: a batch decides for all of it; "own" takes each sample's task.
    task_of: Literal["first", "own"] = "first"


@dataclass(frozen=True)
class DecoderConfig:
    """Mask2Former's pixel decoder and masked-attention decoder (Cheng et al. 2022)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    hidden: int = 256
    heads: int = 8
    pixel_layers: int = 6
    pixel_ffn: int = 1024
    mask_layers: int = 9
    mask_ffn: int = 2048
    #: ReLU after the lateral convolution, as in the released code; Mask2Former itself has none.
    lateral_relu: bool = True
    #: Width of the query's two halves, A(s) and D(B(s), V).
    query_width: int = 512
    #: Adds a learned function of the position (x, y) to the mask features, so that a query can say where,
    #: whatever the encoder. Ours, off in the paper's model.
    coordinates: bool = False
    #: Boxes and points are drawn as maps that are added to the mask's logits, weighed by the query (see
    #: `unigeoseg.modules.prompt_maps`). Ours, off in the paper's model.
    prompt_maps: bool = False
    #: Share of foreground that the first predictions start from (a learned bias of the mask logits begins at
    #: its log-odds); 0: no bias, as in Mask2Former.
    prior: float = 0.0


@dataclass(frozen=True)
class LossConfig:
    """Weights and places of the losses (the defaults are Mask2Former's, with one query and one target)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    #: Where mask losses are taken: "uncertain" (Mask2Former's points), "uniform" points, or "dense" (every
    #: cell of the prediction's grid against its share of foreground; the point settings do not count).
    sampling: Literal["uncertain", "uniform", "dense"] = "uncertain"
    bce: float = 5.0
    dice: float = 5.0
    language: float = 1.0
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75


@dataclass(frozen=True)
class BaselineConfig:
    """Another model on the same parts, to compare with (see `unigeoseg.baselines`)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    #: "psalm": learned mask queries classified by the [SEG] embedding; "segearth": the description's
    #: embedding as the only query. Both without TATE and LKM.
    kind: Literal["none", "psalm", "segearth"] = "none"
    #: Mask queries of "psalm".
    queries: int = 100
    #: Weight of the loss that names the matched query of "psalm" (Mask2Former's).
    class_weight: float = 2.0


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the model's shape and mathematics."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID
    #: The paper's equations, or what the released code computes (see `unigeoseg.released`).
    mode: Literal["paper", "released"] = "paper"
    #: Side S of the letterboxed square input, in pixels.
    image_size: int = 512
    vision: VisionConfig = field(default_factory=VisionConfig)
    connector: ConnectorConfig = field(default_factory=ConnectorConfig)
    tate: TATEConfig = field(default_factory=TATEConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    lkm: LKMConfig = field(default_factory=LKMConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    #: Probability above which a pixel is foreground wherever evaluation, prediction and maps are given none.
    threshold: float = 0.5
    #: System sentence of the prompt template.
    system_prompt: str = (
        "You are a helpful language and vision assistant. You are able to understand the visual content that "
        "the user provides, and assist the user with a variety of tasks using natural language."
    )

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"model.threshold {self.threshold} is no probability between 0 and 1")

    @property
    def image_tokens(self) -> int:
        """Number of image tokens that the language model reads."""
        side = -(-self.image_size // (self.vision.patch * 8))
        return (-(-side // self.connector.stride)) ** 2

    def to_dict(self) -> dict[str, Any]:
        """A plain nested dictionary, as written to ``config.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of :meth:`to_dict`; unknown keys raise ``TypeError``."""
        parts: dict[str, Any] = {
            "vision": VisionConfig,
            "connector": ConnectorConfig,
            "tate": TATEConfig,
            "language": LanguageConfig,
            "lkm": LKMConfig,
            "decoder": DecoderConfig,
            "loss": LossConfig,
            "baseline": BaselineConfig,
        }
        built = {
            key: parts[key](**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
            if key in parts
            else value
            for key, value in values.items()
        }
        return cls(**built)
