#!/usr/bin/env bash
# torchmetrics 1.9.0: CLIP-IQA with a model of transformers sees every picture as black: it is divided by 255 twice.
#
# `clip_image_quality_assessment` divides pictures by `data_range`, so that they lie between 0 and 1, and hands them to
# the model's processor, which divides by 255 once more. What the model gets of white differs from black by 0.015 where
# it should by 3.7, and all other pictures lie between. This holds for the four "openai/clip-vit-*" names and for both
# documented ways to give pictures, 0 to 1 and 0 to 255 with `data_range=255`; not for the default, "clip_iqa". All that is
# said is a warning of transformers, which asks for an option that torchmetrics does not hand on. Only pictures from 0
# to 255 with a `data_range` of 1 come out right.
#
# Output seen (a small random CLIP; the red values that the model gets):
#   black                            -1.79
#   white, 0 to 1                    -1.78
#   white, 0 to 255, data_range=255  -1.78
#   white, 0 to 255, data_range=1     1.93
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==4.57.6 \
    torchmetrics==1.9.0 pillow==12.3.0 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import json
import os
import sys

import torch
from torchmetrics.functional.multimodal import clip_image_quality_assessment
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

# A folder that has the documented models' form, and a name that torchmetrics takes for one of them.
folder = f"{sys.argv[1]}/openai/clip-small"
os.makedirs(folder)
letters = [chr(code) for code in range(33, 127)]
tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
with open(f"{folder}/vocab.json", "w") as file:
    json.dump({token: number for number, token in enumerate(tokens)}, file)
with open(f"{folder}/merges.txt", "w") as file:
    file.write("#version: 0.2\n")
tokenizer = CLIPTokenizer(f"{folder}/vocab.json", f"{folder}/merges.txt")
CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
text = {**sizes, "vocab_size": len(tokens), "bos_token_id": 0, "eos_token_id": 1}
CLIPModel(CLIPConfig(text_config=text, vision_config=sizes, projection_dim=32)).save_pretrained(folder)

got = []
features = CLIPModel.get_image_features


def watched(model, pixel_values, *rest, **settings):
    got.append(float(pixel_values[0, 0].mean()))
    return features(model, pixel_values, *rest, **settings)


CLIPModel.get_image_features = watched
white = torch.ones(1, 3, 224, 224)
for name, picture, data_range in (
    ("black", 0 * white, 1),
    ("white, 0 to 1", white, 1),
    ("white, 0 to 255, data_range=255", 255 * white, 255),
    ("white, 0 to 255, data_range=1", 255 * white, 1),
):
    clip_image_quality_assessment(picture, model_name_or_path=folder, data_range=float(data_range))
    print(f"{name:32} {got[-1]:5.2f}")
black, *twice, once = got
same = all(abs(value - black) < 0.02 for value in twice) and once - black > 3
sys.exit(0 if same else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
