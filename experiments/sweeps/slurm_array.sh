#!/bin/bash
# A sweep's workers as a Slurm array: plan it first, then let as many workers come as the cluster gives.
#
#   vargpt sweep experiments/sweeps/stages_left_out.yaml --plan
#   sbatch experiments/sweeps/slurm_array.sh sweeps/stages_left_out
#   vargpt sweep show sweeps/stages_left_out --live
#
# A job that Slurm ends, or a node that fails, loses nothing: submit the same array again.
#SBATCH --job-name=sweep
#SBATCH --array=0-7
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
set -euo pipefail
srun vargpt sweep worker "$1"
