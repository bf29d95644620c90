#!/bin/bash
# 1e5-RUNID01234: a batch script of SLURM, by `runner export slurm ...`
#
# submit   sbatch one.slurm.sh (in the folder where this was exported; with what your cluster wants, as --account=...)
# watch    squeue --me; tail -f 1e5-RUNID01234-JOBID.log
# stop     scancel JOBID
# go on    sbatch one.slurm.sh
# results  runner fetch s3://fernhill/runs/tickets runs/tickets
#
# A file for each key in the folder of keys below, which only you may read: JUDGE_KEY; if you have them, HF_TOKEN,
# WANDB_API_KEY, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
#
# Apptainer makes a .sif file of the image when it is first used: do that once, with `apptainer pull runner.sif
# docker://...` on the shared disk, and name the file as resources.image.
#SBATCH --job-name=1e5-RUNID01234
#SBATCH --output=1e5-RUNID01234-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=h100:1
#SBATCH --time=720
#SBATCH --partition=gpu
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -uo pipefail

image=docker://registry.example.com/team/runner:0.1.0
folder="$SLURM_SUBMIT_DIR"
volume="$SLURM_SUBMIT_DIR"
max_attempts=5
keys="$HOME"/.runner-keys
mkdir -p "$volume/runs" "$volume/cache"
mkdir -p "$keys" && chmod 700 "$keys"
[ -r "$keys/JUDGE_KEY" ] || { echo "no key: $keys/JUDGE_KEY" >&2; exit 77; }
export JUDGE_KEY_FILE=/run/secrets/JUDGE_KEY
if [ -r "$keys/HF_TOKEN" ]; then export HF_TOKEN_FILE=/run/secrets/HF_TOKEN; fi
if [ -r "$keys/WANDB_API_KEY" ]; then export WANDB_API_KEY_FILE=/run/secrets/WANDB_API_KEY; fi
if [ -r "$keys/AWS_ACCESS_KEY_ID" ]; then export AWS_ACCESS_KEY_ID_FILE=/run/secrets/AWS_ACCESS_KEY_ID; fi
if [ -r "$keys/AWS_SECRET_ACCESS_KEY" ]; then export AWS_SECRET_ACCESS_KEY_FILE=/run/secrets/AWS_SECRET_ACCESS_KEY; fi

trap : TERM # the steps are told too; this shell waits for them
srun --kill-on-bad-exit=1 apptainer run --nv --pwd /work \
  --home "$volume/cache:/cache" --bind "$volume/runs:/out" --bind "$folder:/work/job:ro" --bind "$keys:/run/secrets:ro" \
  "$image" run /work/job/tickets.yaml --set 'data.system='"'"'it'"'"''"'"'s "so": $HOME, `x`, yes & no'"'"'' --set 'name='"'"'1e5'"'"'' --out s3://fernhill/runs/tickets
code=$?

# What may pass is tried again; SLURM itself starts a job again whose machine was taken away or lost.
attempt=$((${SLURM_RESTART_COUNT:-0} + 1))
case $code in
  69|74|75|137|143)
    if [ "$attempt" -lt "$max_attempts" ]; then
      echo "attempt $attempt of $max_attempts ended with $code; the job is queued again" >&2
      scontrol requeue "$SLURM_JOB_ID" && exit "$code"
    fi
    echo "attempt $attempt of $max_attempts ended with $code; that was the last" >&2
    ;;
esac
exit "$code"
