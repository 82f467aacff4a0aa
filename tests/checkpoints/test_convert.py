"""Weights in and out of every layout: names, bytes, outputs, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file, save_file

from tests.golden import load_golden
from tests.models.cases import DRAWN, SEEN, golden_model, make_batch, random_codes, small_model
from tests.rounding import assert_same_but_rounding
from tests.untrained import plain, text_tokenizer, write_run
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.dcp.folder import FolderWriter
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.cli import main
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.core.config import TokenIds
from vargpt_lightning.utils.errors import UserError

State = dict[str, torch.Tensor]


def golden_sections() -> dict[str, Any]:
    return load_golden("a3_vargpt_tiny_state").meta["config"]


def write_published(folder: Path, state: State, config: dict[str, Any] | None) -> Path:
    """A folder as published: two shards, their index, a config.json."""
    folder.mkdir(parents=True)
    names, half = list(state), len(state) // 2
    places = {key: f"model-0000{1 + (i >= half)}-of-00002.safetensors" for i, key in enumerate(names)}
    for name in set(places.values()):
        shard = {key: value.contiguous() for key, value in state.items() if places[key] == name}
        save_file(shard, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(folder: Path) -> State:
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def assert_same_bytes(one: State, two: State) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert value.dtype == two[key].dtype and value.shape == two[key].shape, key
        plain, other = (t.contiguous().flatten().view(torch.uint8) for t in (value, two[key]))
        assert torch.equal(plain, other), key


@pytest.fixture(scope="module")
def golden() -> VARGPT:
    return golden_model()


@pytest.fixture(scope="module")
def released(golden: VARGPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model as the authors publish theirs."""
    state = layouts.to_official(golden.state_dict(), "vargpt", golden.schedule)
    return write_published(tmp_path_factory.mktemp("in") / "released", state, golden_sections())


@pytest.fixture(scope="module")
def ours(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours") / "golden"
    convert(released, folder)
    return folder


def golden_outputs(model: VARGPT) -> list[torch.Tensor]:
    """What a model gives for a batch that sees and draws: losses, picture logits, text logits."""
    batch: dict[str, Any] = make_batch([[1, *SEEN, 5, *DRAWN, 6]])
    batch["pixel_values"] = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    batch["drawn_indices"] = random_codes(1, vocabulary=48)
    with torch.inference_mode():
        output = model.eval()(batch, return_text_logits=True)
    return [output.loss, output.image_logits, output.text_logits]


# The VARGPT layout


def test_vargpt_goes_in_and_out_with_equal_bytes(released: Path, ours: Path, tmp_path: Path) -> None:
    convert(ours, tmp_path / "back", "vargpt")
    assert_same_bytes(read(released), read(tmp_path / "back"))
    convert(tmp_path / "back", tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (ours / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_whole_release_in_half_precision_comes_back(golden: VARGPT, tmp_path: Path) -> None:
    """The constants too have the type that they have in the file."""
    state = layouts.to_official(golden.state_dict(), "vargpt", golden.schedule)
    half = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state.items()}
    convert(write_published(tmp_path / "in", half, golden_sections()), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "out", "vargpt")
    assert_same_bytes(half, read(tmp_path / "out"))
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_golden_model_gives_the_same_after_each_trip(golden: VARGPT, ours: Path, tmp_path: Path) -> None:
    expected = golden_outputs(golden)
    model = VARGPT.from_pretrained(ours)
    assert model.config == golden.config.from_dict(
        {**golden.config.to_dict(), "decoder": model.config.to_dict()["decoder"]}
    )
    convert(ours, tmp_path / "back", "vargpt")
    for path in (ours, tmp_path / "back"):
        found = golden_outputs(VARGPT.from_pretrained(path))
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_the_authors_config_comes_back(released: Path, ours: Path, tmp_path: Path) -> None:
    convert(ours, tmp_path / "back", "vargpt")
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (released, tmp_path / "back"))
    for key in ("special_tokens", "image_token_index", "pad_token_id", "hidden_size", "vocab_size", "model_type"):
        assert new[key] == old[key], key
    for part in ("text_config", "vision_config"):
        shared = new[part].keys() & old[part].keys() - {"torch_dtype", "architectures"}
        differing = {key for key in shared if new[part][key] != old[part][key]}
        assert len(shared) > 8 and differing <= {"projection_dim", "vocab_size"}, (part, differing)


# LLaVA


def tiny_llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=112, max_position_embeddings=64, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=100, image_seq_length=4)
    return LlavaForConditionalGeneration(config).eval()


def published_names(state: State) -> State:
    """What transformers 5 writes, under the names of the published file."""
    return {key.replace("vision_tower.", "vision_tower.vision_model."): value for key, value in state.items()}


def llava_logits(model: Any) -> torch.Tensor:
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, 100, 100, 100, 100, 7, 8, 9]])
    with torch.inference_mode():
        return model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).logits


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava") / "tiny"
    tiny_llava().save_pretrained(folder)
    return folder


def test_transformers_llava_comes_back_and_says_the_same(llava_folder: Path, tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    convert(llava_folder, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", "llava")
    assert_same_bytes(published_names(read(llava_folder)), read(tmp_path / "back"))
    convert(tmp_path / "back", tmp_path / "again")
    assert_same_bytes(read(tmp_path / "ours"), read(tmp_path / "again"))
    before, after = (LlavaForConditionalGeneration.from_pretrained(p) for p in (llava_folder, tmp_path / "back"))
    assert torch.equal(llava_logits(before.eval()), llava_logits(after.eval()))
    assert after.config.text_config.rope_parameters["rope_theta"] == 5000.0


def test_the_newer_names_in_memory_are_read_too(llava_folder: Path, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in tiny_llava().state_dict().items()}
    assert any(key.startswith("model.language_model.") for key in state)
    config = json.loads((llava_folder / "config.json").read_text())
    between = {key.replace("model.vision_tower.", "model.vision_tower.vision_model."): v for key, v in state.items()}
    for name, keys in (("new", state), ("between", between)):
        convert(write_published(tmp_path / name, keys, config), tmp_path / f"{name}-ours")
        convert(tmp_path / f"{name}-ours", tmp_path / f"{name}-back", "llava")
        assert_same_bytes(published_names(read(llava_folder)), read(tmp_path / f"{name}-back"))


def test_our_answering_part_is_transformers_llava(tmp_path: Path) -> None:
    """The same logits as the model it was cut out of."""
    from transformers import LlavaForConditionalGeneration

    model = small_model()
    model.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "llava", "llava")
    llava, report = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch: dict[str, Any] = make_batch([[1, *SEEN, 7, 8, 9]])
    batch["pixel_values"] = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = model(batch, return_text_logits=True).text_logits
    assert_same_but_rounding(llava_logits(llava.eval()), expected)


def test_the_processor_of_the_answering_part_loads(tmp_path: Path) -> None:
    from transformers import AutoProcessor

    tokenizer = TextTokenizer.train(["USER: what is it? ASSISTANT: a cat"], 300)
    ids = {name: tokenizer.token_ids()[name] for name in tokenizer.token_ids()}
    model = VARGPT.from_pretrained(_saved_with(tokenizer, ids, tmp_path / "ours"))
    convert(tmp_path / "ours", tmp_path / "llava", "llava")
    processor = AutoProcessor.from_pretrained(tmp_path / "llava")
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert prompt == "USER: <image>\nwhat is it? ASSISTANT:"
    from PIL import Image

    inputs = processor(text=prompt, images=Image.new("RGB", (40, 30), "red"), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    assert int((inputs["input_ids"] == model.tokens.image).sum()) == model.config.vision.patches


def _saved_with(tokenizer: TextTokenizer, ids: dict[str, int], folder: Path) -> Path:
    config = small_model().config
    language = replace(config.language, vocabulary=tokenizer.vocabulary)
    model = VARGPT(replace(config, language=language, tokens=TokenIds(**ids)))
    tokenizer.save(folder)
    model.tokenizer_files = {"tokenizer.json": (folder / "tokenizer.json").read_bytes()}
    model.save_pretrained(folder)
    return folder


def test_the_authors_names_of_tokens_come_and_go(tmp_path: Path) -> None:
    """Their ids stay, and text is cut as before."""
    tokenizer = TextTokenizer.train(["USER: what is it? ASSISTANT: a cat"], 300)
    _saved_with(tokenizer, tokenizer.token_ids(), tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "out", "vargpt")
    tree = json.loads((tmp_path / "out/tokenizer.json").read_text())
    named = {token["content"]: token["id"] for token in tree["added_tokens"]}
    special = json.loads((tmp_path / "out/config.json").read_text())["special_tokens"]
    for name in ("image_gen_start", "image_gen_end", "image_gen_pad"):
        assert named[special[name]] == special[f"{name}_token_id"]
    read_again = TextTokenizer.load(tmp_path / "out")
    assert read_again.token_ids() == tokenizer.token_ids() and read_again.added == 0
    assert read_again.encode("what is a cat?") == tokenizer.encode("what is a cat?")
    convert(tmp_path / "out", tmp_path / "again")
    assert TextTokenizer.load(tmp_path / "again").token_ids() == tokenizer.token_ids()


# VAR


@pytest.mark.parametrize(("name", "scales"), [("a2_var_l2norm_aln", None), ("a2_var_l2norm_sharedaln", None)])
def test_var_comes_back_as_a_pth(name: str, scales: Any, tmp_path: Path) -> None:
    gold = load_golden(name)
    state = gold.under("sd.")
    schedule = tuple(gold.meta["config"].get("patch_nums", (1, 2, 3, 4)))
    bare = {f"visual_decoder.{key}": value for key, value in state.items()}
    bare = {key: value for key, value in bare.items() if not layouts._DERIVED.search(key)}
    from vargpt_lightning.models.core.scales import ScaleSchedule

    state = layouts.to_official(bare, "var", ScaleSchedule(schedule))
    torch.save(state, tmp_path / "var_tiny.pth")
    convert(tmp_path / "var_tiny.pth", tmp_path / "ours")
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert config["parts"] == ["visual_decoder"] and config["model"]["tokenizer"]["scales"] == list(schedule)
    assert config["model"]["decoder"]["shared_adaln"] is ("shared" in name)
    convert(tmp_path / "ours", tmp_path / "back", "var")
    (file,) = (tmp_path / "back").iterdir()
    assert_same_bytes(state, torch.load(file, weights_only=True))


def test_the_image_tokenizer_comes_back_as_a_pth(golden: VARGPT, ours: Path, tmp_path: Path) -> None:
    state = golden.image_tokenizer.state_dict()
    torch.save(state, tmp_path / "vae.pth")
    with pytest.raises(UserError, match=r"vae\.pth: image_tokenizer: 4 scales are none of .*expected --scales"):
        convert(tmp_path / "vae.pth", tmp_path / "ours")
    convert(tmp_path / "vae.pth", tmp_path / "ours", scales=(1, 2, 3, 4))
    convert(tmp_path / "ours", tmp_path / "back", "var")
    assert_same_bytes(state, torch.load(tmp_path / "back/vae_ch32v64z8.pth", weights_only=True))
    lines = convert(ours, tmp_path / "both", "var")
    assert sorted(file.name for file in (tmp_path / "both").iterdir()) == ["vae_ch32v64z8.pth", "var_d2.pth"]
    assert "  var_d2.pth: visual_decoder" in lines
    assert_same_bytes(state, torch.load(tmp_path / "both/vae_ch32v64z8.pth", weights_only=True))


# Runs


def test_a_run_becomes_a_directory_that_speaks(finished_run: Path, tmp_path: Path) -> None:
    from vargpt_lightning.inference.load import load_run

    assert main(["convert", str(finished_run), "--out", str(tmp_path / "out"), "--shard", "100KB"]) == 0
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    model, run = VARGPT.from_pretrained(tmp_path / "out"), load_run(finished_run)
    expected = run.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert TextTokenizer.load(tmp_path / "out").token_ids() == run.tokenizer.token_ids()


def test_a_checkpoint_of_several_processes_becomes_a_directory(tmp_path: Path) -> None:
    """One of a stage on its way, without its frozen tower, which comes from the stage before."""
    run, model = write_run(tmp_path / "run"), small_model(4)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    tokens = text_tokenizer()
    sizes = replace(model.config, language=replace(model.config.language, vocabulary=tokens.vocabulary))
    sizes = replace(sizes, tokens=TokenIds(**tokens.token_ids()))
    config["model"] = plain(sizes.to_dict())
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    one, two = (VARGPT(sizes) for _ in range(2))
    save_file(one.state_dict(), run.stages()[0].weights)
    state = {f"vargpt.{key}": value for key, value in two.state_dict().items() if not key.startswith("vision_tower.")}
    folder = run.stages()[1].path / "last-00000003.dcp"
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        FolderWriter().save({"model": state, "optimizer_0": {"step": torch.ones(1)}}, {"global_step": 3}, folder)
    finally:
        dist.destroy_process_group()
    convert(folder, tmp_path / "out")
    for key, value in VARGPT.from_pretrained(tmp_path / "out").state_dict().items():
        assert torch.equal(value, (one if key.startswith("vision_tower.") else two).state_dict()[key]), key
    (folder / "complete.json").unlink()
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        convert(folder, tmp_path / "other")


# What is refused


def test_what_does_not_fit_is_refused(released: Path, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UserError, match=r"--out .*full: already exists"):
        convert(released, tmp_path / "full")
    with pytest.raises(UserError, match=r"--to llava: the vision tower is 'efficientnet_lite0'"):
        convert(finished_run, tmp_path / "out", "llava")
    with pytest.raises(UserError, match=r"nowhere: there is no such file"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: checkpoint: got keys such as encoder\.weight"):
        convert(tmp_path / "other.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_a_part_is_not_a_whole_model(llava_folder: Path, tmp_path: Path) -> None:
    convert(llava_folder, tmp_path / "ours")
    with pytest.raises(UserError, match=r"holds language_model, .*no image_tokenizer.*init_from"):
        VARGPT.from_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match=r"--to var: .* needs visual_decoder"):
        convert(tmp_path / "ours", tmp_path / "out", "var")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vargpt_gen.blocks.1.attn.proj.weight": None}, r"visual_decoder\.blocks\.1\.attn\.proj\.weight is missing"),
        ({"vargpt_gen.head.bias": torch.zeros(3)}, r"head\.bias has shape \(3,\), the model expects \(64,\)"),
        ({"vargpt_gen.tail": torch.zeros(3)}, r"visual_decoder\.tail of shape \(3,\) has no place"),
        ({"something.else": torch.zeros(3)}, r"something\.else.* no place in the layout vargpt"),
        ({"vargpt_gen.lvl_1L": torch.tensor([[0, 1, 1]])}, r"the scales have \[1, 2\] tokens; expected squares"),
        ({"vargpt_gen.attn_bias_for_masking": torch.zeros(1, 1, 30, 30)}, r"other values than the scales \(1, 2, 3"),
    ],
)
def test_a_broken_release_is_refused(change: dict[str, Any], message: str, released: Path, tmp_path: Path) -> None:
    state = {key: value for key, value in {**read(released), **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        convert(write_published(tmp_path / "in", state, golden_sections()), tmp_path / "out")


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("text_config", {"hidden_size": 65}, "text_config.hidden_size=65 but the weights say 64"),
        ("text_config", {"num_attention_heads": 7}, "num_attention_heads=7 do not divide the width 64"),
        ("text_config", {"rope_scaling": {"rope_type": "linear", "factor": 2}}, "type 'linear' is not built here"),
        ("vision_config", {"hidden_act": "gelu"}, "vision_config.hidden_act='gelu' is not built here"),
        (None, {"vision_feature_select_strategy": "full"}, "'full' is not built here; expected 'default'"),
    ],
)
def test_a_config_that_is_not_built_here_is_refused(
    section: str | None, change: dict[str, Any], message: str, released: Path, tmp_path: Path
) -> None:
    shutil.copytree(released, tmp_path / "in")
    config = golden_sections()
    (config[section] if section else config).update(change)
    (tmp_path / "in/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in", tmp_path / "out")
