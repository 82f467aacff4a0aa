"""Low-rank adapters of the language model (LoRA, arXiv 2106.09685), by peft, and merged away again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from vargpt_lightning.models.language.llama import LanguageModel
from vargpt_lightning.models.language.quantization import quiet_bitsandbytes
from vargpt_lightning.utils.errors import UserError, install_hint


def attach_adapters(
    language_model: LanguageModel,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> None:
    """Put adapters beside the named matrices of the blocks, None for all, in place; as they begin they change nothing.

    Raises:
        UserError: peft is not installed, or a name is none of the blocks' matrices.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"lora: the package peft is not installed; {install_hint('lora')}") from error
    there = language_model.matrices
    targets = there if targets is None else targets
    if unknown := [name for name in targets if name not in there]:
        raise UserError(f"lora.targets: {unknown[0]!r}; expected some of {', '.join(there)}")
    config: Any = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))
    empty = next(language_model.parameters()).is_meta
    with quiet_bitsandbytes():  # which peft imports where it is installed
        inject_adapter_in_model(config, language_model, low_cpu_mem_usage=empty)


def merge_adapters(language_model: nn.Module) -> None:
    """Add what adapters have learned to the matrices they stand beside, and take them away."""
    for parent, name, layer in list(adapted(language_model)):
        layer.merge()
        setattr(parent, name, layer.get_base_layer())


def name_beside_adapters(name: str) -> str:
    """Return the name that a weight had before adapters were put beside it."""
    return name.replace(".base_layer.", ".")


def adapted(language_model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield each layer with an adapter: its parent, its name there, the layer."""
    for parent in list(language_model.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A") and hasattr(child, "get_base_layer"):
                yield parent, name, child


def freeze_beside_adapters(language_model: nn.Module, also: Sequence[str] = ()) -> None:
    """Freeze all but the adapters and the modules named in `also`, such as lm_head."""
    trained: dict[nn.Parameter, bool] = {}
    # a table that is tied has two names, and is trained when either is named
    for name, parameter in language_model.named_parameters(remove_duplicate=False):
        parts = name.split(".")
        own = any(part.startswith("lora_") for part in parts) or any(part in also for part in parts)
        trained[parameter] = trained.get(parameter, False) or own
    for parameter, own in trained.items():
        parameter.requires_grad_(own)
