"""The help of `vargpt fit`: what most need; `--help all` has every key of an experiment. No torch."""

from __future__ import annotations

from collections.abc import Sequence

USAGE = "vargpt fit -c EXPERIMENT.yaml [--KEY VALUE ...] [--from STAGE]"
TEXT = f"""usage: {USAGE}

Train an experiment's stages, evaluate the result, and write the report. Running the same command again resumes the
run; finished stages are skipped.

options:
  -c, --config FILE          the experiment file; several are merged in their order
  --from STAGE               train this stage and the later ones again
  --run.name NAME            the run's folder in `runs` (the file's name)
  --run.root DIR             the folder of runs (runs)
  --seed S                   seed of all random choices (0)
  --print_config             print the whole configuration and exit
  -h, --help                 this text; `--help all` has every key
  --debug                    whole tracebacks, and all that Lightning says

Every key of an experiment file is an option too; after the file, it overrides it. Those set most often:
  --trainer.accelerator NAME     cpu, gpu or auto
  --trainer.devices N            processes; on GPUs one for each
  --trainer.precision NAME       32-true, bf16-mixed, 16-mixed or bf16-true
  --trainer.strategy NAME        single, ddp, fsdp or fsdp2
  --stages.NAME.KEY VALUE        of one stage: --stages.base.steps 100, --stages.base.optimizer.lr 1e-3
  --stages.NAME null             leave a stage out
  --data.init_args.KEY VALUE     of the data, such as batches read ahead: --data.init_args.workers 4
  --model.decoder.depth N        of the model; `--help all` has the rest
  --sampling.cfg W               guidance of drawings, in sample grids and the evaluation
  --evaluation.enabled false     end with the last stage

All keys with their meanings: docs/configuration.md, `vargpt fit --help all`, `vargpt fit --stages.help` (a stage's),
`vargpt fit --data.help Packed` (a source's).

examples:
  vargpt fit -c experiments/openmoji.yaml
  vargpt fit -c experiments/openmoji.yaml --seed 1 --run.name second
  vargpt fit -c experiments/openmoji.yaml --from generation --sampling.cfg 3
  vargpt fit -c experiments/openmoji.yaml --stages.base.steps 100 --run.name short
"""


def wanted(arguments: Sequence[str]) -> str | None:
    """Return which help the arguments ask for: "short", "all", or None where they ask for none of the two."""
    for place, word in enumerate(arguments):
        if word in ("-h", "--help"):
            return "all" if arguments[place + 1 : place + 2] == ["all"] else "short"
        if word == "--help=all":
            return "all"
    return None
