#!/usr/bin/env bash
# The published comparisons, for a GPU (not run yet): every rule on VGGs block by block, and on ResNet-32 in K modules,
# next to back-propagation. Further flags go to every run.
#   bash experiments/studies/2026-11-21_local_rules/gaps.sh FOLDER --device cuda:0 --epochs 160
# NETS and MODULES choose: NETS=ResNet32 MODULES="4 16" bash ...
set -euo pipefail
cd "$(dirname "$0")/../../.."
folder=$1
shift
python=${PY:-.venv/bin/python}
data="--dataset folder --data_dir data/cifar10-jpeg --random_crop --random_horizontal_flip --batch_size 128"

train() { # name, flags
    "$python" main.py $data --wandb disabled --path "$folder" --name "$1" $2 "${@:3}"
}

for net in ${NETS:-VGG8b VGG11b VGG16 ResNet32}; do
    train "${net}_bp" "--model $net --bp" "$@"
    for k in $([ "$net" = ResNet32 ] && echo "${MODULES:-2 4 8 16}" || echo all); do
        for rule in dgl infopro "dgl --man" "dgl --pred_aux_type auglocal" predsim; do
            modules=$([ "$k" = all ] || echo "--num_modules $k")
            train "${net}_${rule##*[- ]}_$k" "--model $net --$rule $modules" "$@"
        done
    done
done
"$python" main.py report "$folder" --out "$folder/report"
