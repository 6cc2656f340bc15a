"""The command line as a user meets it: in a process of its own, from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import cli
from cli.help import EXAMPLES
from consts import VERBS, VERSION
from schemas import SECTIONS, build_args, method_sections
from sections.fields import Composite, Section, fields_of, own_fields
from sections.task import Tasks
from sections.yaml_file import read_yaml
from utils import UsageError

ROOT = Path(__file__).parent.parent


# Runs main.py as a person does, and writes down which of the libraries were loaded that take tenths of seconds or more.
WATCHED = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].removesuffix("main.py")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    slow = {"torch", "torchvision", "pytorch_lightning", "wandb", "numpy", "matplotlib", "optuna", "ray", "PIL"}
    open("loaded.txt", "w").write(" ".join(slow & sys.modules.keys()))
"""


def main(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run main.py and see that it answers without loading what is slow to load; the time itself is the machine's."""
    command, environment = (
        [sys.executable, "-c", WATCHED, str(ROOT / "main.py"), *words],
        os.environ | {"COLUMNS": "100"},
    )
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert (cwd / "loaded.txt").read_text() == ""
    (cwd / "loaded.txt").unlink()
    return done


USAGE_ERRORS = {
    "--epoch 3": "unknown flag --epoch (did you mean --epochs?)",
    "--frobnicate": "unknown flag --frobnicate",
    "stray": "unknown argument stray",
    "--epochs ten": "--epochs 'ten': allowed is a whole number, at least 1",
    "--epochs 0": "--epochs '0': allowed is a whole number, at least 1",
    "--epochs": "argument --epochs: expected one argument",
    "--learning_rate inf": "--learning_rate 'inf': allowed is a number, above 0",
    "--dropout_prob 1": "--dropout_prob '1': allowed is a number, at least 0, below 1",
    "--model vgg16": "(did you mean VGG16?)",
    "--method dlg": "--method 'dlg': allowed is one of bp,",
    "--dgl maybe": "--dgl 'maybe': allowed is true or false",
    "--dgl --bp": "exclude each other",
    "--dgl --method bp": "exclude each other",
    "--no_bp": "name the method to use instead",
    "--is_direct_global": "--is_direct_global has no effect with --method bp; it belongs to: dgl",
    "--context": "--context has no effect with --method bp; it belongs to: cdni, dni",
    "--ssl": "--ssl has no effect with --method bp; it belongs to: critic, ",
    "--dgl --shift_ssl_labels": "--shift_ssl_labels has no effect: it needs --ssl",
    "--dgl --ssl --shift_ssl_labels": "--shift_ssl_labels needs --upsample: on a reduced image",
    "--dgl --ssl --ssl_task shift": "--shift_ssl_labels needs --upsample: on a reduced image",
    "--dgl --ssl --ssl_task rotate --upsample": "--upsample has no effect: it needs --ssl with --ssl_task colourise",
    "--dgl --ssl --upsample --ssl_task reconstruct --shift_ssl_labels": "contradict each other; give one of them",
    "--dgl --ssl --upsample_type bilinear": "--upsample_type has no effect: it needs --upsample",
    "--dgl --ssl --ssl_task inpainting": "inpaint, reconstruct, rotate, shift (did you mean inpaint?)",
    "--dgl --ssl --ssl_task rotate --rotate_loss_weight 1": "--ssl_task rotate and --rotate_loss_weight exclude each",
    "--dgl --shift_loss_weight 1": "--shift_loss_weight needs --upsample: on a reduced image",
    "--dgl --rotate_loss_weight 1 --pred_aux_type auglocal": "--rotate_loss_weight and --pred_aux_type auglocal",
    "--dgl --rotate_loss_weight 1 --is_direct_global": "--rotate_loss_weight and --is_direct_global exclude each other",
    "--dgl --num_modules 1 --pred_aux_type mlp": "--pred_aux_type has no effect: it needs more than one block that",
    "--layer_parallel threads": "--layer_parallel threads needs a rule whose blocks learn on their own",
    "--dgl --man --layer_parallel threads": "--man and --layer_parallel threads exclude each other: blocks then need",
    "--dgl --supcon_loss_weight 1 --pred_loss_weight 0": "--pred_loss_weight has no effect: it needs --ssl",
    "--dgl --layer_parallel streams --cuda_graph off": "streams run CUDA graphs side by side",
    "--dgl --layer_parallel threads --cuda_graph on": "layer-parallel layouts choose it themselves",
    "--infopro --num_modules 1 --label_weight_first 1": "--label_weight_first has no effect: it needs more than one",
    "--dgl --critic_rate_scale 2": "--critic_rate_scale has no effect with --method dgl; it belongs to: critic",
    "--dgl --ssl_task colourise": "--ssl_task has no effect: it needs --ssl",
    "--dgl --ssl --pred_loss_weight 0 --ssl_loss_weight 0": "leave the blocks nothing to learn from",
    "--dgl --ssl --pred_loss_weight=-1": "--pred_loss_weight '-1': allowed is a number, at least 0",
    "--dgl --ssl --is_direct_global": "--ssl and --is_direct_global exclude each other; give one",
    "--num_modules 2": "--num_modules has no effect with --method bp; it belongs to: critic, ",
    "--dgl --num_modules 0": "--num_modules '0': allowed is a whole number, at least 1",
    "--dgl --num_modules 4": "--num_modules 4: BasicCNN has 3 blocks, so it can be at most 3",
    "--dgl --num_modules 3 --first_trainable_block 1": "3 blocks, 1 of them frozen, so it can be at most 2",
    "--dgl --module_ends 1,0": "--module_ends 1,0: needs ascending numbers of blocks, from 0",
    "--dgl --module_ends 1,1": "--module_ends 1,1: needs ascending numbers of blocks, from 0",
    "--dgl --module_ends one": "--module_ends 'one': allowed is ascending whole numbers, as 2,5,8",
    "--dgl --module_ends 0,3": "--module_ends 0,3: BasicCNN has 3 blocks, so they must lie in 0 to 2",
    "--dgl --module_ends 0 --first_trainable_block -2": "3 blocks, 1 of them frozen, so they must lie in 1 to 2",
    "--dgl --module_ends 0 --num_modules 2": "--module_ends and --num_modules exclude each other; give one",
    "--dgl --split flops": "--split has no effect: it needs --num_modules above 0",
    "--dgl --overlap 3": "--overlap 3: there are 3 modules, so it can be at most 2",
    "--dgl --overlap 1 --num_modules 1": "--overlap 1: there is one module, so it can be at most 0",
    "--dgl --overlap 1 --first_trainable_block -1": "--overlap 1: there is one module, so it can be at most 0",
    "--dgl --overlap 1 --is_direct_global": "--is_direct_global and --overlap exclude each other; give one",
    "--dfa --overlap 1": "--overlap has no effect with --method dfa; it belongs to: dgl, ",
    "--supcon_loss_weight 1": "--supcon_loss_weight has no effect with --method bp; it belongs to: critic, ",
    "--dgl --supcon_loss_weight=-1": "--supcon_loss_weight '-1': allowed is a number, at least 0",
    "--dgl --contrast_temperature 0.2": "--contrast_temperature has no effect: it needs --supcon_loss_weight above 0",
    "--dgl --is_direct_global --supcon_loss_weight 1": "--supcon_loss_weight and --is_direct_global exclude each other",
    "--dgl --supcon_loss_weight 1 --batch_size 1": "--batch_size '1': allowed is a whole number, at least 2",
    "--dgl --supcon_loss_weight 1 --batch_size 2": "--batch_size 2: a contrastive loss with labels is always 0 there",
    "--infopro --batch_size 2": "it needs at least 3 images, one to find and one to find it among",
    "--dfa --simclr_loss_weight 1": "--simclr_loss_weight has no effect with --method dfa; it belongs to: critic, ",
    "--dgl --simclr_temperature 1": "--simclr_temperature has no effect: it needs --simclr_loss_weight above 0",
    "--dgl --is_direct_global --simclr_loss_weight 1": "--simclr_loss_weight and --is_direct_global exclude each other",
    "--dgl --simclr_loss_weight 1 --no_random_crop --no_random_horizontal_flip": "it compares two augmentations",
    "--dgl --simclr_loss_weight 1 --diagnostics alignment": "--diagnostics alignment exclude each other",
    "--bp --cpc_loss_weight 1": "--cpc_loss_weight has no effect with --method bp; it belongs to: critic, ",
    "--dgl --is_direct_global --cpc_loss_weight 1": "--cpc_loss_weight and --is_direct_global exclude each other",
    "--dgl --cpc_loss_weight inf": "--cpc_loss_weight 'inf': allowed is a number, at least 0",
    "--skip_frozen_blocks": "has no effect: it needs --first_trainable_block other than 0",
    "--dgl --context": "--context has no effect with --method dgl; it belongs to: cdni, dni",
    "--dgl --last_gradient_weight 0.5": "--last_gradient_weight has no effect: it needs --is_direct_global",
    "--dgl --is_direct_global --last_gradient_weight 1.5": "allowed is a number, at least 0, at most 1",
    "--optimizer_type Adam --momentum 0.5": "--momentum has no effect: it needs --optimizer_type SGD or SignSGD",
    "--dgl --pred_aux_type mlp_sr --aux_mlp_hidden_dim 8": "no effect: it needs --pred_aux_type",
    "--dgl --pred_aux_type linear --aux_mlp_n_hidden_layers 2": "no effect: it needs --pred_aux_type mlp or",
    "--infopro --label_weight_last 0 --reconstruction_weight_last 0": "leave a block nothing to learn from",
    "--infopro --pred_aux_type linear": "--label_loss contrast and --pred_aux_type linear exclude each other: its",
    "--dgl --num_modules 1 --ssl": "--ssl has no effect: it needs more than one block that learns",
    "--dgl --first_trainable_block -1 --simclr_loss_weight 0.5": "--simclr_loss_weight has no effect",
    "--dgl --num_modules 1 --man": "--man has no effect: it needs more than one block that learns",
    "--critic --man": "--man has no effect with --method critic; it belongs to: dgl, ",
    "--critic --sequential --epochs 21": "--sequential has no effect with --method critic; it belongs to: dgl",
    "--dgl --man --sequential --epochs 21": "--man and --sequential exclude each other; give one",
    "--critic --overlap 1": "--overlap has no effect with --method critic; it belongs to: dgl, ",
    "--critic --coarse_labels_first": "--coarse_labels_first has no effect with --method critic; it belongs to: dgl",
    "--critic --cascade_loss_weight=-1": "--cascade_loss_weight '-1': allowed is a number, at least 0",
    "--critic --optimizer_type Adam --cascade_loss_weight 0.1": "no effect: it needs --optimizer_type SGD",
    "--critic --is_direct_global": "--is_direct_global has no effect with --method critic; it belongs to: dgl",
    "--dgl --aux_depth 3": "--aux_depth has no effect: it needs --pred_aux_type auglocal",
    "--dgl --pred_aux_type auglocal --aux_depth 0": "--aux_depth '0': allowed is a whole number, at least 1",
    "--dgl --pred_aux_type auglocal --aux_pyramid 2": "--aux_pyramid '2': allowed is a number, at least 0, at most 1",
    "--dgl --pred_aux_type auglocal --aux_mlp_hidden_dim 8": "no effect: it needs --pred_aux_type mlp or",
    "--dgl --ssl --ssl_task rotate --pred_aux_type auglocal": "rotate and --pred_aux_type auglocal exclude",
    "--dgl --man_momentum 0.9": "--man_momentum has no effect: it needs --man",
    "--dgl --man --man_momentum 2": "--man_momentum '2': allowed is a number, at least 0, at most 1",
    "--dgl --man --pred_aux_type auglocal": "--man and --pred_aux_type auglocal exclude each other; give one",
    "--dgl --man --overlap 1": "--man and --overlap exclude each other; give one",
    "--predsim --man --bio": "--bio and --man exclude each other; give one",
    "--predsim --man --sim_loss_weight 1": "--man has no effect: it needs --sim_loss_weight below 1",
    "--dgl --label_loss softmax": "--label_loss has no effect with --method dgl; it belongs to: infopro",
    "--dgl --dim_in_decoder 8": "it belongs to: predsim",
    "--predsim --aux_mlp_hidden_dim 8": "no effect: it needs --pred_aux_type mlp or cnn or pooled",
    "--predsim --sim_loss_weight 1 --pred_aux_type mlp": "no effect: it needs --sim_loss_weight below 1",
    "--predsim --sim_loss_weight 1 --dim_in_decoder 8": "no effect: it needs --sim_loss_weight below 1",
    "--predsim --bio --pred_aux_type mlp": "--bio needs --pred_aux_type linear: its heads are linear",
    "--dgl --bio": "--bio has no effect with --method dgl; it belongs to: predsim",
    "--mlp_n_hidden_layers 0 --mlp_hidden_dim 8": "it needs --mlp_n_hidden_layers above 0",
    "--dataset digits --data_dir x": "--data_dir has no effect",
    "--dataset folder --download": "--download has no effect",
    "--dataset arrays --data_dir x.npz --image_size 32": "--image_size has no effect: it needs --dataset folder",
    "--dataset folder --image_size 0": "--image_size '0': allowed is a whole number, at least 1",
    "--num_bits 9": "--num_bits has no effect: it needs --dataset parity",
    "--dataset parity --circuit_depth 3": "--circuit_depth has no effect: it needs --dataset boolean_circuit",
    "--dataset digits --data_seed 1": "--data_seed has no effect: it needs --dataset parity or boolean_circuit or ",
    "--dataset parity --bit_probability 0.3": "--bit_probability has no effect: it needs --parity_inputs biased",
    "--dataset parity --parity_size 31": "--parity_size 31: an image has 30 bits (--num_bits)",
    "--dataset parity --parity_inputs mixture --parity_size 4": "--parity_size 4: with --parity_inputs mixture it must",
    "--dataset parity --num_bits 13": "10000 and --num_test_images 2000: with these settings there are 8192",
    "--dataset boolean_circuit --local_correlation 0.4": "with --circuit_gates and_or it must lie in 0.5 to 1",
    "--dataset boolean_circuit --circuit_gates xor --local_correlation 0.6": "with --circuit_gates xor it must lie in",
    "--dataset boolean_circuit --circuit_depth 3": "there are 256 different images (--dataset boolean_circuit)",
    "--dataset random_hierarchy --hierarchy_depth 2": "there are 512 different images (--dataset random_hierarchy)",
    "--dataset random_hierarchy --hierarchy_multiplicity 9": "there are 64, so it can be 8 at most",
    "--dataset random_hierarchy --hierarchy_branching 7": "a list of all v^s tuples, which can be 1048576 at most",
    "--dataset random_hierarchy --hierarchy_branching 65 --hierarchy_depth 2": "can have 4096 positions at most",
    "--dataset hierarchical_digits --digit_levels 4": "--digit_levels '4': allowed is a whole number, at least 2, at",
    "--dataset parity --num_bits 4096 --num_train_images 900000": "there can be 262144 (--dataset parity)",
    "--dataset parity --random_crop": "--random_crop and --dataset parity exclude each other: the label of a gen",
    "--dataset hierarchical_digits --random_horizontal_flip": "--random_horizontal_flip and --dataset hierarchical_dig",
    "--dataset boolean_circuit --random_erasing": "--random_erasing and --dataset boolean_circuit exclude each other",
    "--dataset parity --random_resized_crop": "--random_resized_crop and --dataset parity exclude each other",
    "--dataset parity --data_dir x": "--data_dir has no effect",
    "--num_layers 2": "--num_layers has no effect: it needs --model MLP or TreeCNN or TreeLC",
    "--model MLP --patch_size 3": "--patch_size has no effect: it needs --model TreeCNN or TreeLC",
    "--model MLP --padding_mode circular": "--padding_mode has no effect: it needs a network of the project with",
    "--model MLP --skip_frozen_blocks --first_trainable_block 1": "--skip_frozen_blocks has no effect: it needs a net",
    "--model MLP --num_layers 2 --first_trainable_block 2": "MLP has 2 blocks, so it must lie in -2 to 1",
    "--optimizer_type Rprop --lr_schedule cosine": "--lr_schedule has no effect: it needs --optimizer_type other than",
    "--optimizer_type Rprop --weight_decay 0.1": "--weight_decay has no effect: it needs --optimizer_type other than",
    "--optimizer_type Rprop --warmup_epochs 1": "--warmup_epochs has no effect: it needs --optimizer_type other than",
    "--optimizer_type Rprop --momentum 0.5": "--momentum has no effect: it needs --optimizer_type SGD or SignSGD",
    "--optimizer_type SignSGD --gradient_clip 1": "--gradient_clip has no effect: it needs --optimizer_type SGD or",
    "--optimizer_type Rprop --cuda_graph on": "--optimizer_type Rprop and --cuda_graph on exclude each other: torch's",
    "--train_size 1": "--train_size '1': allowed is a whole number, at least 2",
    "--random_crop --random_resized_crop": "exclude each other",
    "--bp --sequential": "--sequential has no effect with --method bp; it belongs to: dgl, ",
    "--dgl --pred_aux_type cnn_full --aux_mlp_hidden_dim 8": "--aux_mlp_hidden_dim has no effect: it needs --pred_aux",
    "--dgl --sequential": "--sequential shares --epochs 20 among 3 blocks in turn, so it must be a multiple of 3, as",
    "--dgl --sequential --num_modules 2 --epochs 1": "must be a multiple of 2, as 2",
    "--dgl --sequential --epochs 6 --warmup_epochs 2": "--warmup_epochs 2 must be below the 2 epochs that --sequential",
    "--dgl --sequential --overlap 1": "--sequential and --overlap exclude each other",
    "--dgl --sequential --is_direct_global": "--is_direct_global and --sequential exclude each other",
    "--dgl --sequential --epochs 21 --layer_parallel threads": "--sequential and --layer_parallel threads exclude",
    "--curriculum easy_first": "--curriculum easy_first needs --curriculum_teacher: the folder of a run",
    "--curriculum easy_first --curriculum_teacher none": "--curriculum_teacher none: no run folder there",
    "--curriculum_start 0.5": "--curriculum_start has no effect: it needs --curriculum easy_first or hard_first",
    "--curriculum_teacher x": "--curriculum_teacher has no effect: it needs --curriculum easy_first or hard_first",
    "--first_trainable_block 3": "--first_trainable_block 3: BasicCNN has 3 blocks, so it must lie in -3 to 2",
    "--warmup_epochs 20": "--warmup_epochs 20 must be below --epochs 20",
    "--lr_schedule multistep --lr_milestones 0.9 0.1": "needs ascending fractions between 0 and 1",
    "--momentum 0": "--nesterov needs --momentum above 0: without momentum give --no_nesterov",
    "reprot runs": "unknown argument reprot (did you mean report?); see python main.py --help",
    "--versoin": "unknown flag --versoin (did you mean --version?)",
    "report runs --ot x": "unknown flag --ot (did you mean --out?); see python main.py report --help",
    "sweep --trails 3": "unknown flag --trails (did you mean --trials?); see python main.py sweep --help",
    "--help dlg": "--help dlg: allowed is all, one of model, method, data, optim, run, or a rule (did you mean dgl?)",
    "--device cuda:99999999999999999999": "--device 'cuda:99999999999999999999': allowed is auto",
    "evaluate none --device gpu": "argument --device: 'gpu': allowed is auto, cpu, cuda:0, ...",
    f"--name {'a' * 5000}": "it has 5000 letters; allowed are at most 100",
    "--device gpu": "--device 'gpu': allowed is auto",
    "--name ../x": "--name '../x': allowed is letters, digits",
    "--config none.yaml": "--config none.yaml: No such file or directory",
    "--resume none": "--resume 'none': no run folder there",
    "report": "the following arguments are required: RUN",
    "evaluate": "the following arguments are required: RUN",
    "evaluate none": "none: no run folder there",
    "evaluate none --information=perhaps": "--information 'perhaps': allowed is true or false",
    "evaluate none --prefixes": "argument --prefixes: expected one argument",
    "evaluate none --prefixes one": "argument --prefixes: 'one': allowed is a number, at least 0, at most 100",
    "evaluate none --prefixes nan": "argument --prefixes: 'nan': allowed is a number, at least 0, at most 100",
    "evaluate none --prefixes=-1": "argument --prefixes: '-1': allowed is a number, at least 0, at most 100",
    "evaluate none --linear 2": "--linear '2': allowed is true or false",
    "evaluate none --cka": "argument --cka: expected one argument",
    "evaluate none --data_dir": "argument --data_dir: expected one argument",
    "evaluate none --data_dir=": "argument --data_dir: '': allowed is the path of a folder or file",
    "sweep": "sweep needs a FILE.yaml, or --resume FOLDER; give one of them",
    "sweep none.yaml": "none.yaml: No such file or directory",
    "sweep --trials 0": "argument --trials: '0': allowed is a whole number, at least 1",
    "sweep --engine slurm": "argument --engine: invalid choice: 'slurm' (choose from ",
}


@pytest.mark.parametrize(("words", "message"), USAGE_ERRORS.items(), ids=USAGE_ERRORS)
def test_a_wrong_command_gives_one_line_and_exit_code_2(words: str, message: str, tmp_path: Path) -> None:
    done = main(*words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("main.py: error: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "c.yaml: unknown setting epoch (did you mean epochs?)"),
        ("epochs: true", "c.yaml: epochs True: allowed is a whole number"),
        ("wandb: off", "c.yaml: wandb False: allowed is one of auto"),
        ("epochs: ten", "c.yaml: epochs 'ten'"),
        ("dgl: true", "c.yaml: unknown setting dgl (write 'method: dgl')"),
        ("optim: {model: VGG16}", "c.yaml: unknown setting model"),
        ("nonsense: {a: 1}", "c.yaml: unknown section 'nonsense'"),
        ("- 1", "must hold settings as 'name: value', not a list"),
        ("a: [", "c.yaml is not valid YAML at line"),
        ("seed: 010", "c.yaml: line 1: YAML reads 010 as an octal number; write 10"),
        ("data:\n  val_size: -0_17", "c.yaml: line 2: YAML reads -0_17 as an octal number; write -17"),
        ("epochs: 1:30", "c.yaml: line 1: YAML reads 1:30 as a number of base 60; quote it, or write the number"),
        ("seed: 1\nepochs: 2\nseed: 1", "c.yaml: line 3: seed stands in line 1 already; leave one of them out"),
        ("data: {val_size: 1, val_size: 2}", "c.yaml: line 1: val_size stands in line 1 already"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    done = main("--config", "c.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_yaml_that_can_mean_one_thing_only_is_read(tmp_path: Path) -> None:
    text = "a: &same {val_size: 10}\ndata: {<<: *same}\nseed: 0\nlearning_rate: 0.10\nname: '010'\n"
    (tmp_path / "c.yaml").write_text(text)
    content = read_yaml(tmp_path / "c.yaml")
    assert (content["data"], content["seed"], content["name"]) == ({"val_size": 10}, 0, "010")


def test_the_short_help_fits_a_screen_and_its_examples_are_commands(tmp_path: Path) -> None:
    done = main("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") <= 45 and max(map(len, done.stdout.splitlines())) <= 104
    assert main("-h", cwd=tmp_path).stdout == done.stdout
    shown = re.findall(r"^  python main\.py (.*?)  ", done.stdout, re.MULTILINE)
    assert shown == list(EXAMPLES) and len(shown) == 6
    for words in (example.split() for example in shown):
        assert cli.parse(words).verb == (words[0] if words[0] in VERBS else "train")
    assert all(f" {name}" in done.stdout for name in method_sections())


@pytest.mark.parametrize("title", SECTIONS)
def test_help_of_a_part_has_its_flags(title: str, tmp_path: Path) -> None:
    text = main("--help", title, cwd=tmp_path).stdout
    for name, section in SECTIONS.items():
        for setting in own_fields(section):
            assert (f"  --{setting} " in text) == (name == title), setting


def test_version_names_what_figures_depend_on(tmp_path: Path) -> None:
    done = main("--version", cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert done.stdout.startswith(f"Beyond Backprop {VERSION}") and f"torch {metadata.version('torch')}" in done.stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == VERSION


def test_help_shows_every_flag_once_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = main("--help", "all", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  --")]
    sections = [*(section for name, section in SECTIONS.items() if name != "method"), *method_sections().values()]
    names = {name for section in sections for name in fields_of(section)}
    assert sorted(shown) == sorted(
        [f"--{name}" for name in names | {"config", "print_config"} | set(method_sections())]
    )


@pytest.mark.parametrize("method", method_sections())
def test_help_of_a_method_shows_its_own_flags_only(method: str, tmp_path: Path) -> None:
    text = main("--method", method, "--help", cwd=tmp_path).stdout
    own = fields_of(method_sections()[method])
    for section in method_sections().values():
        for name in fields_of(section):
            assert (f"  --{name} " in text) == (name in own), name
    assert main(f"--{method}", "--help", cwd=tmp_path).stdout == main("--help", method, cwd=tmp_path).stdout == text


@pytest.mark.parametrize(
    "words",
    ["--dgl", "--method dgl", "--dgl=true", "--dgl True", "--dgl=1", "--method=dgl", "--no_bp --dgl"],
)
def test_ways_to_choose_a_method(words: str) -> None:
    assert cli.parse(words.split()).args.method.method == "dgl"


@pytest.mark.parametrize("words", ["", "--no_dgl", "--dgl=false", "--dgl False", "--bp"])
def test_ways_to_choose_back_propagation(words: str) -> None:
    assert cli.parse(words.split()).args.method.method == "bp"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--learning-rate 0.1", "learning_rate", 0.1),
        ("--learning_rate=1e-3", "learning_rate", 1e-3),
        ("--no-nesterov", "nesterov", False),
        ("--nesterov False", "nesterov", False),
        ("--first_trainable_block -1", "first_trainable_block", -1),
        ("--lr_schedule multistep --lr_milestones 0.2 0.4", "lr_milestones", [0.2, 0.4]),
        ("--lr_schedule multistep --lr_milestones=[0.2,0.4]", "lr_milestones", [0.2, 0.4]),
        ("--dataset digits", "random_horizontal_flip", False),
        ("--dataset digits --random_horizontal_flip", "random_horizontal_flip", True),
        ("--random_resized_crop", "random_crop", False),
        ("--model VGG16", "mlp_n_hidden_layers", 0),
        ("--model VGG11c", "mlp_hidden_dim", 1024),
        ("", "mlp_hidden_dim", 256),
        ("--epochs 3 --epochs 4", "epochs", 4),
        ("--dgl --module_ends 0 1", "module_ends", [0, 1]),
        ("--dgl --module_ends=[0,1]", "module_ends", [0, 1]),
        ("--dni", "context", False),
        ("--dni --context", "context", True),
        ("--cdni", "context", True),
        ("--predsim", "sim_loss_weight", 0.99),
        ("--predsim --bio", "sim_loss_weight", 0.01),
        ("--predsim --bio=false", "sim_loss_weight", 0.99),
        ("--predsim --sim_loss_weight 0.5 --bio", "sim_loss_weight", 0.5),
        ("--predsim --bio --sim_loss_weight 1 --dim_in_decoder 8", "dim_in_decoder", 8),
    ],
)
def test_ways_to_write_a_value(words: str, name: str, value: object) -> None:
    assert cli.parse(words.split()).args.flat()[name] == value


def test_defaults_then_files_then_flags(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("epochs: 3\nmodel: VGG8c\nmethod: dgl\nlearning_rate: 1e-3\n")
    second.write_text("optim:\n  epochs: 4\n  batch_size: 7\n")
    flat = cli.parse(["--config", str(first), "--config", str(second), "--batch_size", "8"]).args.flat()
    assert (flat["epochs"], flat["batch_size"], flat["model"], flat["method"]) == (4, 8, "VGG8c", "dgl")
    assert (flat["learning_rate"], flat["momentum"]) == (1e-3, 0.9)


def test_print_config_is_taken_back(tmp_path: Path) -> None:
    done = main("--dgl", "--is_direct_global", "--epochs", "7", "--dataset", "digits", "--print_config", cwd=tmp_path)
    (tmp_path / "c.yaml").write_text(done.stdout)
    again = cli.parse(["--config", str(tmp_path / "c.yaml")])
    assert again.warnings == []
    assert again.args.model_dump(mode="json") == yaml.safe_load(done.stdout)
    assert again.args.flat()["epochs"] == 7


def test_a_file_of_another_method_warns_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("method: dgl\nis_direct_global: true\n")
    command = cli.parse(["--config", str(tmp_path / "c.yaml"), "--bp"])
    assert command.args.method.method == "bp"
    [warning] = command.warnings
    assert "is_direct_global has no effect with --method bp" in warning


@pytest.mark.parametrize(
    "words", ["--shift_ssl_labels", "--ssl_task shift", "--ssl_task shift --shift_ssl_labels=true"]
)
def test_both_ways_to_ask_for_a_shift_are_one(words: str) -> None:
    command = cli.parse(["--dgl", "--ssl", "--upsample", *words.split()])
    assert command.args is not None
    assert (command.args.method.tasks.ssl_task, command.args.method.tasks.shift_ssl_labels) == ("shift", True)


@pytest.mark.parametrize(("padding", "count"), [("zeros", 1), ("circular", 0)])
def test_a_shift_with_zero_padding_warns_once_and_says_why(padding: str, count: int) -> None:
    words = ["--dgl", "--ssl", "--upsample", "--shift_ssl_labels", "--padding_mode", padding]
    warnings = cli.parse(words).warnings
    assert [("wraps around" in line, "--padding_mode circular" in line) for line in warnings] == [(True, True)] * count


def test_flags_are_unique_across_sections() -> None:
    for section in method_sections().values():
        names = [
            name for part in (*(s for t, s in SECTIONS.items() if t != "method"), section) for name in fields_of(part)
        ]
        assert len(names) == len(set(names))


def test_no_two_groups_of_a_rule_declare_one_setting() -> None:
    def leaves(section: type[Section]) -> list[str]:
        groups = section.GROUPS if issubclass(section, Composite) else ()
        return [*own_fields(section), *(name for group in groups for name in leaves(group))]

    for group in (Tasks, *method_sections()["dgl"].GROUPS):
        assert len(leaves(group)) == len(set(leaves(group))), group


def test_the_configs_of_the_project_are_valid() -> None:
    files = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "sweeps")
    assert files
    for file in files:
        assert cli.parse(["--config", str(file)]).warnings == [], file


def test_resume_refuses_a_flag_that_would_change_the_run(tmp_path: Path) -> None:
    args = build_args({"method": "dgl", "epochs": 5})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(args.model_dump(mode="json")))
    resumed = cli.parse(["--resume", str(tmp_path), "--epochs", "5", "--log_interval", "7", "--dgl"]).args
    assert (resumed.flat()["method"], resumed.flat()["log_interval"], resumed.run.resume) == ("dgl", 7, str(tmp_path))
    for words in (["--epochs", "6"], ["--learning_rate", "0.1"], ["--bp"], ["--no_nesterov"]):
        with pytest.raises(UsageError, match="another value would change it"):
            cli.parse(["--resume", str(tmp_path), *words])


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_is_gone_is_no_traceback(buffered: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, *([] if buffered else ["-u"]), str(ROOT / "main.py"), "--print_config"]
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does once it has read enough
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
