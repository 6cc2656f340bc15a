#!/usr/bin/env bash
# Every variant of the thesis, three seeds each, then the table and the page.
# usage: run.sh TREE [FLAGS]
#   TREE is an image tree (train/<class>/*, test/<class>/*); FLAGS go to every run and win over those below. Environment:
#   NETWORK=basiccnn   rows to run: configs/NETWORK_*.yaml (basiccnn, vgg11c, vgg16)
#   LENGTH=short       3 epochs on 10,000 images; with LENGTH=full what the configs say
#   SEEDS="0 1 2"
# On a GPU: LENGTH=full NETWORK=vgg11c run.sh data/cifar10 --device cuda:0
# Finished runs are not repeated, one that was stopped goes on, and several copies may work side by side.
set -euo pipefail
tree=$(realpath "$1")
shift
cd "$(dirname "$0")/../../.."
python=${PY:-.venv/bin/python}
network=${NETWORK:-basiccnn}
length=${LENGTH:-short}
runs=experiments/thesis-$network-$length
flags=(--dataset folder --data_dir "$tree" --precision bf16 --wandb disabled --path "$runs" --resume auto)
[ "$length" = full ] || flags+=(--train_size 10000 --epochs 3)
mkdir -p "$runs"

for seed in ${SEEDS:-0 1 2}; do
  for config in configs/"${network}"_*.yaml; do
    row=$(basename "$config" .yaml)
    row=${row#"${network}"_}
    ( # the lock is released when the process ends, however it ends
      flock --nonblock 9 || exit 0
      [ ! -e "$runs/$seed-$row.finished" ] || exit 0
      "$python" main.py --config "$config" "${flags[@]}" --seed "$seed" --name "$row" "$@"
      touch "$runs/$seed-$row.finished"
    ) 9> "$runs/$seed-$row.lock"
  done
done
"$python" main.py report "$runs" --out "$runs-report"

figure() { # figure NAME ROWS...: the curves of some rows
  local folders=() row
  for row in "${@:2}"; do
    for folder in "$runs"/*-[0-9][0-9]_"$row" "$runs"/*-[0-9][0-9]_"$row"_[0-9]; do
      [ ! -d "$folder" ] || folders+=("$folder")
    done
  done
  "$python" main.py report "${folders[@]}" --out "$runs-report/$1"
}
if [ "$network" = basiccnn ]; then
  figure signals bp dgl dni cdni fa dfa
  figure tasks bp dgl dgl_ssl dgl_ssl_shift dgl_ssl_rotate predsim
  figure alone bp dgl ssl ssl_shift ssl_rotate last_block
fi
