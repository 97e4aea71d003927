#!/bin/sh
# `segment` of a night in 64 shards on Slurm, then their merge:
#   merge_after=$(sbatch --parsable slurm.sh) && sbatch --dependency=afterok:"$merge_after" --array=0 slurm.sh --merge
#SBATCH --job-name=lookbook-segment
#SBATCH --array=0-63%16
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -eu
exec lookbook run --config /etc/lookbook.toml --only segment --threads "$SLURM_CPUS_PER_TASK" "${1:---shard=env}"
