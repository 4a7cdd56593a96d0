#!/bin/sh
# SPDX-License-Identifier: MIT
# A job array of eight parts of one experiment. Submit it again to continue; then report.
#
#     sbatch --array=1-8 experiments/slurm.sh experiments/pyramid.json
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
# Two minutes before the time is up, the runs get SIGTERM and save themselves. exec: the signal
# reaches retain-compare, not a shell that would wait.
exec retain-compare "${2:-run}" "$1" --jobs "$SLURM_CPUS_PER_TASK" --grace 100 \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
