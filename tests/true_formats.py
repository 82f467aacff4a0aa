"""The corpora of the paper's three stages in miniature: files of the formats that they are published in."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

LABELS = {"n01440764": 0, "n01443537": 1, "n02123045": 281, "n03445777": 574, "n07753592": 954}
LLAVA_FOLDERS = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K")


def picture(seed: int, width: int = 24, height: int = 20, kind: str = "JPEG") -> bytes:
    image = Image.new("RGB", (width, height), ((37 * seed) % 256, (91 * seed) % 256, (53 * seed) % 256))
    image.paste(((11 * seed) % 256, 30, 200), (0, 0, width // 2, height // 2))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_imagenet(folder: Path, count: int = 64) -> Path:
    """ImageNet as on the hub: parquet of `image` (`bytes`, `path`) and `label`, in two files of small row groups."""
    wnids = sorted(LABELS)
    rows = []
    for number in range(count):
        wnid = wnids[number % len(wnids)]
        name = f"{wnid}_{10000 + number}_{wnid}.JPEG"
        rows.append({"image": {"bytes": picture(number, 30, 26), "path": name}, "label": LABELS[wnid]})
    for part in range(2):
        write_parquet(folder / "data" / f"train-0000{part}-of-00002.parquet", rows[part::2])
    return folder


def write_instruct(file: Path, count: int, seed: int, pictures: int = 64) -> Path:
    """VARGPT's instruction data: messages and images, the pictures by their ImageNet names and in random order."""
    rng, wnids = random.Random(seed), sorted(LABELS)
    rows = []
    for _ in range(count):
        number = rng.randrange(pictures)
        wnid = wnids[number % len(wnids)]
        asked = rng.choice(["Can you draw", "Please paint", "I want to see"]) + f" number {number} of {wnid}?"
        said = rng.choice(["Here it is.", "Of course.", "This is what you asked for:"]) + " <image_gen>"
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        rows.append({"messages": messages, "images": [f"{wnid}_{10000 + number}.JPEG"]})
    return write_json(file, rows)


def write_llava(folder: Path, count: int = 66) -> Path:
    """LLaVA-1.5's JSON with its five folders of pictures, several turns, and rows of text alone."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        said = [
            {"from": "human", "value": f"What is in picture {number}?"},
            {"from": "gpt", "value": f"A thing {number}."},
        ]
        said += [{"from": "human", "value": "Is it large?"}, {"from": "gpt", "value": "No."}] * (number % 3)
        row: dict[str, Any] = {"id": f"{number:012d}", "conversations": said}
        if number % 6 != 5:
            row["image"] = f"{LLAVA_FOLDERS[number % 6]}/{number:012d}.jpg"
            said[0]["value"] = "<image>\n" + said[0]["value"]
            path = folder / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
        else:
            row["model"] = ""
        rows.append(row)
    return write_json(folder / "llava_v1_5_mix665k.json", rows)


def write_onevision(folder: Path, count: int = 50) -> Path:
    """LLaVA-OneVision's parquet: two configurations, one row without a picture."""
    for config in ("ai2d(cauldron)", "magpie_pro(l3_80b_st)"):
        rows = []
        for number in range(count // 2):
            said = [
                {"from": "human", "value": f"<image>\nWhich {number}?"},
                {"from": "gpt", "value": f"This {number}."},
            ]
            image: Any = {"bytes": picture(number, 20, 28, "PNG"), "path": f"{number}.png"}
            if number % 10 == 9:
                said[0]["value"], image = f"Which {number}?", None
            rows.append({"id": f"{config}-{number}", "image": image, "conversations": said, "data_source": config})
        write_parquet(folder / config / "train-00000-of-00001.parquet", rows)
    return folder


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of LLaVA-1.5's kind: sentencepiece as BPE with byte fallback, 320 entries, `<image>` and `<pad>`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [
        "USER: What is in picture 5? ASSISTANT: A thing.",
        "Please draw it. Here it is.",
        "Can you see? Of course.",
    ]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts * 4, trainer)
    value = json.loads(tokenizer.to_str())
    # the bytes are entries of the model, and no added tokens
    value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] in special[:3]]
    tokenizer = Tokenizer.from_str(json.dumps(value))
    assert tokenizer.get_vocab_size() == 320
    tokenizer.add_special_tokens(["<image>", "<pad>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 8) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
