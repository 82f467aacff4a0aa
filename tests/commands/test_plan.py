"""`vargpt plan`: what it prints and writes, what it refuses, and that it knows the shipped recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vargpt_lightning.commands.plan import main
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.planning import tables as plan_tables
from vargpt_lightning.planning.stage_plan import Choice, StagePlanner
from vargpt_lightning.planning.steps import build_empty
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.gpus import catalogue, flops_of, parse_cluster

ROOT = Path(__file__).resolve().parents[2]
PEAKS = {
    "vargpt_7b": (11.3, 24.3, 16.4),
    "vargpt_7b_64gpus": (9.6, 20.8, 12.8),
    "vargpt_7b_4x24gb": (9.6, 10.9, 12.4),
    "vargpt_smollm_1gpu": (9.5, 12.9, 12.9),
    "vargpt_qwen2_5_siglip2": (14.5, 29.1, 18.9),
}
"""GB of a rank in the three stages, as docs/plan.md has them."""
KNOWN = {
    *(
        "A100",
        "H100",
        "H200",
        "B200",
        "MI300X",
        "GH200",
        "H20",
        "H800",
        "A800",
        "L40S",
        "L40",
        "L4",
        "A40",
        "A10",
        "A10G",
    ),
    *("A6000", "RTX6000Ada", "RTX3090", "RTX4090", "RTX5090", "V100", "T4"),
}
FULL = str(ROOT / "experiments" / "vargpt_7b.yaml")


def test_the_papers_second_stage_does_not_fit_whole_and_the_plan_says_what_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [FULL, "--gpus", "8xH100", "--stage", "understanding", "--out", str(tmp_path)]
    assert main([*words, "--trainer.strategy", "ddp"]) == 1
    told = capsys.readouterr().out
    assert "does not fit" in told and "trainer.strategy: fsdp2" in told
    plan = json.loads((tmp_path / "plan.json").read_text())["stages"][0]
    assert plan["trained_parameters"] == 6_738_939_904 + 20_979_712
    # weights, gradients, two states, each of 32 bits
    assert plan["memory"]["at_peak"]["optimizer"] == pytest.approx(2 * 4 * plan["trained_parameters"], rel=0.001)
    assert plan["memory"]["peak"] > 100e9 and not plan["fits"]
    assert all(way["peak"] <= 80e9 for way in plan["ways_to_fit"]) and plan["ways_to_fit"]
    # 2 for a product and a sum, 3 for the passes, one more for what is computed again
    by_hand = 2 * 4 * 6.6e9 * plan["tokens_per_step"]
    assert plan["flops_per_step"] == pytest.approx(by_hand, rel=0.15)
    with Image.open(tmp_path / "memory-understanding.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize(("name", "peaks"), PEAKS.items())
def test_every_stage_of_the_recipe_fits_its_gpus(name: str, peaks: tuple[float, ...]) -> None:
    experiment = load_experiment(["-c", str(ROOT / "experiments" / f"{name}.yaml")])
    trainer, cluster = experiment.trainer, parse_cluster(experiment.plan.gpus or "")
    samples, found, planners = [], [], {}
    for stage in experiment.stages:
        model = build_empty(experiment.model)
        planner = StagePlanner(model, stage, experiment.plan, cluster, trainer.precision)
        choice = Choice(trainer.strategy, trainer.sharding, stage.batch_size, stage.accumulate)
        found.append(planner.peak(choice))
        samples.append(stage.batch_size * stage.accumulate * cluster.count)
        planners[stage.name] = planner
    assert samples == [256, 128, 128], "as many in each"
    assert max(found) < cluster.gpu.memory
    assert found == pytest.approx([peak * 1e9 for peak in peaks], abs=6e7), "as the page says"
    if name == "vargpt_7b_4x24gb":  # adapters of rank 128, the rows of the vocabulary, the projector
        adapters = 32 * 128 * (4 * 2 * 4096 + 3 * (4096 + 11008))
        assert planners["understanding"].trained == 2 * 32064 * 4096 + adapters + 20_979_712
        language = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
        tower = 24 * 12 * 1024**2
        packed = language * (4 + 32 / 64) / 8 + tower * (8 + 32 / 256) / 8
        assert planners["generation"].low_bits == packed


def test_drawing_is_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [str(ROOT / "experiments" / "debug.yaml"), "--gpus", "H100", "--generate", "--batch", "2", "--batch", "4"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    one, two = json.loads((tmp_path / "generation.json").read_text())
    assert two["caches"] == 2 * one["caches"] and one["parameters"] == two["parameters"]
    assert two["flops"] == pytest.approx(2 * one["flops"], rel=0.02)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpus", "8xH1000"], "'H1000' is none of the known GPUs: A100-40GB"),
        (["--gpus", "A100"], "'A100' is several of the known GPUs"),
        (["--gpus", "0xH100"], "0 GPUs; expected a whole number from 1 to"),
        (["--gpus", "H100", "--stage", "pretrian"], "--stage: 'pretrian' is not a stage; .*did you mean 'pretrain'"),
        (["--gpus", "H100", "--efficiency", "40"], "--efficiency: .40.; expected a number above 0 and at most 1"),
        (["--gpus", "2xH100", "--trainer.strategy", "single"], "expected ddp, fsdp or fsdp2"),
    ],
)
def test_mistakes_are_told_in_one_line(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        main([FULL, *words])


def test_the_catalogue_has_a_source_for_every_gpu(tmp_path: Path) -> None:
    known = catalogue()
    assert {name.split("-")[0] for name in known} >= KNOWN
    assert all(gpu.source and gpu.memory >= 16e9 and gpu.flops >= 65e12 for gpu in known.values())
    assert parse_cluster("8xH100-80GB").count == 8 and parse_cluster("h200").gpu.memory == 141e9
    assert parse_cluster("H100").gpu.flops == 989e12 and parse_cluster("h100-pcie").gpu.flops == 756e12
    assert parse_cluster("4x4090").gpu.name == "RTX4090-24GB"
    called = {
        **{"NVIDIA H100 PCIe": 756e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA GeForce RTX 4090": 165.2e12},
        **{"NVIDIA A10G": 70e12, "NVIDIA A10": 125e12, "NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA L40S": 362.05e12},
        **{"NVIDIA RTX 6000 Ada Generation": 364.2e12, "NVIDIA RTX A6000": 154.8e12, "NVIDIA H20": 148e12},
        **{"NVIDIA GeForce RTX 3090": 71e12, "NVIDIA L4": 121e12, "NVIDIA H200": 989e12, "NVIDIA GH200 480GB": 989e12},
    }
    assert {name: flops_of(name) for name in called} == called
    assert flops_of("NVIDIA T400") is None and flops_of("Tesla T4") is None, (
        "the one is not known, the other has no bf16"
    )
    assert parse_cluster("4xV100-32GB").gpu.bf16 is False and parse_cluster("A10").gpu.name == "A10-24GB"
    with pytest.raises(UserError, match=r"'L40SS' is none .*--catalogue FILE; did you mean 'L40S-48GB'"):
        parse_cluster("L40SS")
    file = tmp_path / "own.yaml"
    file.write_text("X-1GB: {memory: 1, tflops: 1, bandwidth: 1}")
    with pytest.raises(UserError, match=r"X-1GB\.source is missing"):
        catalogue(file)
    for text, told in (
        ("X-1GB: {memory: big, tflops: 1, bandwidth: 1, source: s}", "memory='big'"),
        ("- a", "own.yaml"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=told):
            catalogue(file)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (485, "485"), (191_500, "192 k"), (6.76e9, "6.76 G"), (1.5e15, "1.5 P")]
)
def test_numbers_are_told_in_units_of_their_magnitude(number: float, text: str) -> None:
    assert plan_tables._scaled(number) == text


def test_nothing_that_is_something_reads_as_nothing() -> None:
    assert [plan_tables._bytes(size) for size in (0, 33, 8.91e4, 1.64e7, 1.75e9, 1.1e11)] == [
        *("0", "33 bytes", "89.1 KB", "16.4 MB", "1.8 GB", "110.0 GB")
    ]
    assert [plan_tables._time(seconds) for seconds in (5e-6, 0.004, 12.3, 300, 36_000)] == [
        *("5 us", "4 ms", "12.3 s", "5 min", "10 h")
    ]
