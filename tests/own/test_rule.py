"""A rule of the user's own, in a file outside the project: the one of the page, through the real entry point."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import cli
import main
from consts import VERBS
from engine import trainer
from engine.run.wandb_log import WandbLog, tags
from sections.files import sha256
from tests.conftest import pytest_configure
from tests.engine.test_threads import after
from utils import UsageError

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "own_rule.md").read_text()
[RULE] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    python main\.py (.*)$", PAGE, re.MULTILINE)
OWN = ["--method", "my/tempered.py"]
SHORT = ["--train_size", "96", "--batch_size", "32", "--device", "cpu", "--precision", "fp32", "--wandb", "disabled"]


@pytest.fixture(autouse=True)
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rule of the page in a file; what was named is remembered for this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "my" / "tempered.py", RULE)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        cli.parse(words)
    return str(caught.value)


def test_the_rule_of_the_page_is_short() -> None:
    assert 30 <= RULE.count("\n") <= 60


def test_every_command_of_the_page_works(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert len(COMMANDS) == 7
    with monkeypatch.context() as patch:  # what is written down as experiments/RUN
        patch.setattr("time.strftime", lambda form: "RUN")
        for words in (command.split() for command in COMMANDS[:-1]):
            assert "--help" in words or main.main([*words, *([] if words[0] in cli_verbs() else SHORT)]) == 0, words
    groups = [row["group"] for row in csv.DictReader((tmp_path / "report/runs.csv").open())]
    assert sorted(groups) == [  # the best comes first
        "dgl layer_parallel=off",
        "tempered temperature=2 layer_parallel=threads",
        "tempered temperature=3 layer_parallel=off",
    ]
    folders = sorted((tmp_path / "experiments").iterdir())
    runs = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    assert [each["method"] for each in runs] == ["tempered", "tempered", "dgl"]
    assert [each["status"] for each in runs] == ["done"] * 3


def cli_verbs() -> set[str]:
    return set(VERBS)


def test_its_flags_are_in_its_help_and_in_no_other(capsys) -> None:
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit, match="0"):
            cli.parse([*words, "--help"])
        return capsys.readouterr().out

    own = shown(*OWN)
    assert "Greedy training with a temperature (tempered):" in own
    assert re.search(r"  --temperature TEMPERATURE\s+divides the logits .*?\[default 2.0;\s+above 0\]", own, re.DOTALL)
    assert "--num_modules" in own and "--ssl" not in own and "--sim_loss_weight" not in own
    assert "--temperature " not in shown("--dgl")


def test_flags_and_files_say_the_same(tmp_path: Path, capsys) -> None:
    write(tmp_path / "c.yaml", "method: my/tempered.py\ntemperature: 3\nepochs: 7\n")
    args = cli.parse(["--config", "c.yaml"]).args
    assert args == cli.parse([*OWN, "--temperature=3", "--epochs", "7"]).args
    assert args.method.method == str(tmp_path / "my/tempered.py")
    assert cli.parse(["--config", "c.yaml", "--temperature", "4"]).args.method.temperature == 4
    assert main.main(["--config", "c.yaml", "--print_config"]) == 0
    printed = write(tmp_path / "d.yaml", capsys.readouterr().out)
    again = cli.parse(["--config", str(printed)])
    assert (again.args, again.warnings) == (args, [])
    assert yaml.safe_load(printed.read_text())["method"]["method_sha256"] == sha256(RULE.encode())
    other = cli.parse(["--config", "c.yaml", "--dgl"])
    assert other.args.method.method == "dgl"
    assert other.warnings == ["c.yaml: temperature has no effect with --method dgl and is left out"]


def test_a_settings_file_of_a_rule_that_has_changed_says_so(tmp_path: Path) -> None:
    text = f"method: my/tempered.py\nmethod_sha256: {sha256(b'other')}\n"
    write(tmp_path / "c.yaml", text)
    [warning] = cli.parse(["--config", "c.yaml"]).warnings
    assert warning.startswith("c.yaml: method: my/tempered.py has changed since these settings were written")
    assert cli.parse(["--config", "c.yaml", "--dgl"]).args.method.method == "dgl"
    write(tmp_path / "d.yaml", text.replace("my/tempered.py", "dgl"))
    assert "unknown setting method_sha256" in refusal("--config", "d.yaml")


def test_a_settings_file_can_be_used_where_its_rule_is_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "c.yaml", "method:\n  method: /gone/tempered.py\n  method_sha256: '00'\n  temperature: 3\n")
    assert "c.yaml: method /gone/tempered.py: cannot read" in refusal("--config", "c.yaml")
    args = cli.parse(["--config", "c.yaml", *OWN]).args
    assert (args.method.temperature, args.method.method) == (3, str(tmp_path / "my/tempered.py"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*OWN, "--temperature", "0"], "--temperature '0': allowed is a number, above 0"),
        ([*OWN, "--ssl"], "--ssl has no effect with --method"),
        ([*OWN, "--dgl"], "exclude each other; give one"),
        (["--method", "my/tempered"], "allowed is one of bp, cdni, critic, ddtp, dfa"),
        (["--method", "my/none.py"], "--method my/none.py: cannot read "),
        (["--method", "my"], "or the path of a file that ends in .py"),
        (["--method", "my/tempered.py:Tempered"], "a file holds one rule; give its path without what stands behind"),
    ],
)
def test_flags_that_make_no_sense_are_refused(words: list[str], message: str) -> None:
    assert message in refusal(*words)


def test_a_flag_of_another_rule_is_unknown(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.parse(["--dgl", "--temperature", "2"])
    assert "unknown flag --temperature" in capsys.readouterr().err


def test_the_limit_case_is_dgl(run, same) -> None:
    assert run(*OWN, "--temperature", "1") == 0
    own = run.state()
    assert run("--dgl") == 0
    same({**own, "args": None}, {**run.state(), "args": None})
    assert run(*OWN) == 0
    with pytest.raises(AssertionError):
        same({**own, "args": None}, {**run.state(), "args": None})


def test_stages_in_threads_have_the_same_bits(run, same) -> None:
    assert run(*OWN) == 0
    whole = run.state()
    assert run(*OWN, "--layer_parallel", "threads", "--num_stages", "2") == 0
    same(whole, run.state())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stages_in_processes_have_the_same_bits(run, same, tmp_path: Path) -> None:
    assert run(*OWN, "--mlp_hidden_dim", "16") == 0
    whole = run.state()
    words = ["--layer_parallel", "processes", "--path", str(run.path), "--mlp_hidden_dim", "16"]
    from tests.engine.conftest import SMALL

    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *SMALL, "--model", "VGGs", *OWN, *words],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    same(whole, run.state())


def test_a_run_goes_on_with_its_own_code(run, same, rule: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The file is changed and then gone: neither touches a run that has begun, and the first is said."""
    assert run(*OWN) == 0
    whole = run.state()
    folders = []
    for _ in range(2):
        with monkeypatch.context() as patch:
            after(6, patch)
            assert run(*OWN) == 143
        folders.append(run.last)
        assert (run.last / "code/method/tempered.py").read_text() == RULE
    rule.write_text(RULE.replace("logits_BN / temperature", "logits_BN * temperature"))
    capsys.readouterr()
    assert run.resume(str(folders[0])) == 0
    assert f"my/tempered.py has changed since {folders[0]} was started, which goes on" in capsys.readouterr().out
    same(whole, run.state(folders[0]))
    rule.unlink()
    assert run.resume(str(folders[1]), "--method", str(folders[1] / "code/method/tempered.py")) == 0
    assert "has changed" not in capsys.readouterr().out
    same(whole, run.state(folders[1]))


def test_a_run_is_resumed_automatically_only_with_the_same_code(run, rule: Path, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        after(6, patch)
        assert run(*OWN) == 143
    begun = run.last
    other = write(tmp_path / "other" / "tempered.py", RULE + "# other code\n")
    assert run("--method", str(other), "--resume", "auto") == 0
    assert len(run.folders) == 2 and run.summary(begun)["status"] == "interrupted"
    moved = write(tmp_path / "moved" / "tempered.py", RULE)
    assert run("--method", str(moved), "--resume", "auto") == 0
    assert len(run.folders) == 2 and run.summary(begun)["status"] == "done"


def test_a_run_from_elsewhere_runs_its_code_only_when_that_is_named(run, tmp_path: Path, monkeypatch, capsys) -> None:
    mark = tmp_path / "ran"
    write(tmp_path / "my/tempered.py", RULE + f"open({str(mark)!r}, 'w')\n")
    assert run(*OWN) == 0
    other = tmp_path / "from_elsewhere"
    shutil.copytree(run.last, other)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    mark.unlink()
    for words in (["evaluate", str(other)], ["--resume", str(other)], ["report", str(other), "--out", "r"]):
        capsys.readouterr()
        assert main.main(words) == (0 if words[0] == "report" else 2)
        named = f"name it once: evaluate {other} --method {other / 'code/method/tempered.py'}"
        assert (named in capsys.readouterr().err) == (words[0] != "report")
        assert not mark.exists()
    evaluate = ["evaluate", str(other), "--device", "cpu"]
    assert main.main([*evaluate, "--method", "my/none.py"]) == 2
    assert main.main([*evaluate, "--method", str(other / "code/method/tempered.py")]) == 0
    assert mark.exists() and "test accuracy" in capsys.readouterr().out
    assert main.main(evaluate) == 0


def test_reports_call_it_as_its_file_and_keep_other_code_apart(run, tmp_path: Path, capsys) -> None:
    other = write(tmp_path / "other" / "tempered.py", RULE.replace("2.0", "2.5"))
    for words in (OWN, [*OWN, "--seed", "1"], ["--method", str(other)], ["--dgl"]):
        assert run(*words, "--epochs", "1") == 0
    assert main.main(["report", str(run.path), "--out", "r"]) == 0
    own, others = (sha256(text.encode())[:8] for text in (RULE, other.read_text()))
    rows = list(csv.DictReader((tmp_path / "r" / "runs.csv").open()))
    assert sorted(row["method"] for row in rows) == ["dgl"] + ["tempered"] * 3
    assert sorted(row["group"] for row in rows) == [
        "dgl",
        f"tempered temperature=2 method_sha256={own}",
        f"tempered temperature=2 method_sha256={own}",
        f"tempered temperature=2.5 method_sha256={others}",
    ]
    page = (tmp_path / "r" / "report.html").read_text()
    assert "tempered" in page and "my/tempered.py" not in page


def test_two_runs_of_one_file_have_the_code_that_each_was_trained_with(run, rule: Path, capsys) -> None:
    """In one process, and that is not the code which the file holds by then."""
    assert run(*OWN, "--epochs", "1") == 0
    older = run.last
    rule.write_text(RULE.replace("2.0", "2.5"))
    newer = write(rule.with_name("newer.py"), rule.read_text())  # a process runs a path once
    assert run("--method", str(newer), "--epochs", "1") == 0
    (run.last / "config.yaml").write_text((run.last / "config.yaml").read_text().replace("newer.py", "tempered.py"))
    (run.last / "code/method/newer.py").rename(run.last / "code/method/tempered.py")
    one, other = (cli.args_of_run(folder).method for folder in (older, run.last))
    assert (type(one).model_fields["temperature"].default, type(other).model_fields["temperature"].default) == (2, 2.5)
    capsys.readouterr()
    assert main.main(["evaluate", str(older), "--device", "cpu", "--cka", str(run.last)]) == 0
    assert f"tempered.py has changed since {older} was started" in capsys.readouterr().out
    curriculum = ["--curriculum", "easy_first", "--curriculum_teacher", str(older)]
    assert run("--dgl", "--epochs", "1", *curriculum) == 0


def test_the_dashboard_calls_it_as_its_file(run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def log(args, folder, warn):
        seen.append((args.effective() | args.labels(), tags(args)))
        return WandbLog(args, folder, warn)

    monkeypatch.setattr(trainer, "WandbLog", log)
    assert run(*OWN, "--epochs", "1") == 0
    [(config, words)] = seen
    assert words[:3] == ["tempered", "VGGs", "digits"]
    assert (config["method"], config["method_sha256"], config["temperature"]) == ("tempered", sha256(RULE.encode()), 2)


def test_a_sweep_takes_it_as_a_value_of_method_and_its_flags(sweeper, capsys) -> None:
    rules = sweeper.vary(method={"values": ["dgl", "my/tempered.py"]}, learning_rate={"value": 0.1})
    assert sweeper(str(sweeper.write(parameters=rules))) == 0
    assert sorted(row["method"] for row in sweeper.rows()) == ["dgl", "my/tempered.py"]
    out = capsys.readouterr().out
    assert re.search(r"^ *[01]  +done .*  tempered$", out, re.MULTILINE)
    flags = rules | {"method": {"value": "my/tempered.py"}, "temperature": {"values": [1, 2]}}
    assert sweeper(str(sweeper.write(parameters=flags))) == 0
    for parameters, message in (
        (flags | {"temperature": {"values": [1, -1]}}, "--temperature '-1': allowed is a number, above 0 (in the"),
        (flags | {"method": {"values": ["my/none.py", "dgl"]}}, "sweep.yaml: --method my/none.py: cannot read "),
        (flags | {"temprature": {"value": 1}}, "unknown flag parameters.temprature (did you mean temperature?)"),
    ):
        assert sweeper(str(sweeper.write(parameters=parameters))) == 2
        assert message in capsys.readouterr().err


def test_the_contract_suite_takes_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", f"--rule={tmp_path / 'my/tempered.py'}", "--collect-only"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    tests = [line for line in done.stdout.splitlines() if "::" in line]
    assert done.returncode == 0 and {line.partition("::")[0] for line in tests} == {
        "tests/methods/test_contract.py",
        "tests/methods/test_flags.py",
    }
    assert all("[tempered" in line or "-tempered" in line for line in tests)
    assert any("test_isolation_is_as_declared" in line for line in tests)
    assert any(line.endswith("[tempered-temperature]") for line in tests)


@pytest.mark.parametrize("value", ["dgl", "none.py"])
def test_the_contract_suite_refuses_what_is_no_rule(value: str) -> None:
    options = SimpleNamespace(getoption=lambda name: value)
    with pytest.raises(pytest.UsageError, match=f"--rule {value}: (allowed is the path of a file|cannot read )"):
        pytest_configure(options)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_contract_suite_passes_and_finds_a_flag_that_does_nothing(tmp_path: Path) -> None:
    def failed(text: str) -> list[str]:
        path = write(tmp_path / "idle.py", text)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", f"--rule={path}", "-q", "-p", "no:cacheprovider", "-k",
             "not loss_falls and (test_contract or temperature or smoothing)"],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert " passed" in done.stdout or "100%" in done.stdout, done.stdout
        return re.findall(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)

    assert failed(RULE) == []
    assert failed(RULE.replace("else self.args.temperature", "else 2.0")) == [
        "test_a_flag_that_a_rule_accepts_changes_what_it_learns[idle-temperature]"
    ]


TWO = "\n\nclass Second({base}):\n    pass\n"
FAULTS = {
    "no rule": (RULE.partition("class Tempered(")[0], "defines no rule, a subclass of Method"),
    "no section": (RULE.replace("Args(MethodArgs)", "Args"), "defines no section of settings, a subclass"),
    "two rules": (RULE + TWO.format(base="Tempered"), "must define one rule, a subclass of Method"),
    "two sections": (RULE + TWO.format(base="TemperedArgs"), "not TemperedArgs, Second (a name"),
    "not whole": (RULE.replace("def block_loss", "def another"), "Tempered does not define block_loss"),
    "no traits": (RULE.replace("TRAITS", "OTHER"), "Tempered does not define TRAITS"),
    "plain field": (RULE.replace("setting(2.0", "(lambda x, *_, **__: x)(2.0"), "temperature is not declared with"),
    "impossible default": (RULE.replace("setting(2.0", "setting(-1.0"), "ValidationError: 1 validation error"),
    "groups": (RULE.replace("(Smoothing, Heads, Modules, Overlap)", "(3,)"), "TypeError: "),
    "a flag of every run": (RULE.replace("temperature", "batch_size"), "--batch_size is a flag of every run; rename"),
    "a rule's flag": (RULE.replace("temperature", "dgl"), "--dgl is a flag of every run; rename the setting"),
    "a flag for files": (RULE.replace("temperature", "config"), "--config is a flag of every run; rename the setting"),
    "syntax": (RULE.replace("GROUPS = (", "GROUPS = = ("), "line 21 of own.py: SyntaxError: invalid syntax"),
    "error": (RULE.replace("class Tempered(", "1 / 0\n\nclass Tempered("), "line 28 of own.py: ZeroDivisionError"),
    "missing import": (RULE.replace("heads.build", "beside"), "line 8 of own.py: ModuleNotFoundError: No module named"),
    "setting without type": (RULE.replace("temperature: float", "temperature"), "line 18 of own.py: PydanticUserError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_rule_is_refused_in_one_line(fault: str, tmp_path: Path, capsys) -> None:
    text, message = FAULTS[fault]
    assert text != RULE
    write(tmp_path / "own.py", text)
    assert main.main(["--method", "own.py", "--dataset", "digits"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("main.py: error: --method") and message in err, err
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "experiments").exists()


def test_a_copied_rule_that_keeps_the_settings_of_another_is_refused(tmp_path: Path) -> None:
    rule, section = (ROOT / folder / "dgl.py" for folder in ("methods", "sections/rules"))
    write(tmp_path / "copied.py", rule.read_text())
    assert refusal("--method", "copied.py").endswith(
        "defines no section of settings, a subclass of MethodArgs of sections/rule.py or DglArgs"
    )
    own = section.read_text().replace("DglArgs", "CopiedArgs")
    write(tmp_path / "copied2.py", rule.read_text() + own.replace('"""Settings of ``--method dgl``."""', ""))
    assert refusal("--method", "copied2.py").endswith(
        "DecoupledGreedyLearning reads the settings of another rule (args: DglArgs); its own are CopiedArgs"
    )
    write(tmp_path / "copied3.py", rule.read_text() + "\n\nclass CopiedArgs(DglArgs):\n    pass\n")
    assert cli.parse(["--method", "copied3.py", "--is_direct_global"]).args.method.is_direct_global


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dgl.py", "dgl is a rule of the project, and a rule is called as its file; rename the file"),
        ("my-rule.py", "a rule is called as its file; allowed are letters, digits and underscores"),
        ("a b.py", "allowed are letters, digits and underscores"),
        ("2nd.py", "allowed are letters, digits and underscores"),
        ("tempéred.py", "allowed are letters, digits and underscores"),
    ],
)
def test_a_name_that_cannot_be_a_rules_is_refused(name: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / name, RULE)
    found = refusal("--method", name)
    assert found.startswith(f"--method {tmp_path / name}: ") and found.endswith(message)


def test_classes_with_an_underscore_and_imported_ones_do_not_count(tmp_path: Path) -> None:
    more = "from methods.dgl import DecoupledGreedyLearning\n\n\nclass _Family(LocalMethod):\n    pass\n"
    write(tmp_path / "own.py", RULE + more + "\n\nAgain = Tempered\n")
    assert cli.parse(["--method", "own.py"]).args.method.temperature == 2
