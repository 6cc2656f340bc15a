#!/usr/bin/env bash
# Back-propagation and DGL with each of its heads on one network, three seeds, then the table and the figure.
# usage: run.sh TREE [FLAGS]   TREE is an image tree (train/<class>/*, test/<class>/*); FLAGS go to every run, for example
#   run.sh data/cifar10 --device cuda:0
# Finished runs are not repeated, and one that was stopped goes on, so the script can be started again.
set -euo pipefail
tree=$1
shift
cd "$(dirname "$0")/../../.."
python=${PY:-.venv/bin/python}
runs=experiments/heads
mkdir -p "$runs"
flags=(--dataset folder --data_dir "$tree" --train_size 10000 --epochs 3 --precision bf16 --wandb disabled
       --path "$runs" --resume auto "$@")

run() { # run SEED NAME FLAGS...
  [ -e "$runs/$1-$2.finished" ] && return
  "$python" main.py "${flags[@]}" --seed "$1" --name "$2" "${@:3}"
  touch "$runs/$1-$2.finished"
}

for seed in 0 1 2; do
  run "$seed" bp --bp
  for head in pooled mlp_sr cnn mlp linear; do
    run "$seed" "$head" --dgl --pred_aux_type "$head"
  done
done
"$python" main.py report "$runs" --out "$runs-report"
