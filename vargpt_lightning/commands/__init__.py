"""The `vargpt` commands: each parses arguments, calls a room below, and prints.

Work that somebody may want from Python belongs in the rooms below; options that several commands share in `options`.
"""

from __future__ import annotations

COMMANDS = {
    "fit": "train the stages of an experiment file, evaluate the result, write the report",
    "sweep": "train many variants of an experiment, and show a table of the results",
    "plan": "estimate memory and hours of an experiment on given GPUs, and whether it fits",
    "evaluate": "evaluate a run again; run public benchmarks on any model, or measure the pictures it draws",
    "compare": "compare finished evaluations over the same questions, with intervals and p values",
    "score": "score outputs of a benchmark without the model: a file of predictions, or outputs that evaluate saved",
    "generate": "answer a prompt with a trained run, and save its drawings",
    "chat": "talk with a trained run in the terminal, with pictures in both directions",
    "serve": "try a run in the browser, or from programs that speak OpenAI's API",
    "convert": "convert weights to another format: ours, VARGPT's, LLaVA's (transformers) or VAR's",
    "doctor": "find out what this machine can do, and whether prompt, guidance and seed act",
    "runs": "list the runs in a folder",
    "data": "pack corpora into shards, check and view them, write instructions",
    "completion": "print a script that lets bash, zsh or fish complete commands, options and names of runs",
}
