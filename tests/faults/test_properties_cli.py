"""Any command line and any file ends in settings or in one line: never in a traceback."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import main
from cli.messages import choices, is_boolean
from cli.settings import known_names, read_files
from schemas import SECTIONS, build_args, method_sections, sections_for
from sections.fields import fields_of
from utils import UsageError

# The same examples every time, none remembered in a file, and no limit on the time of one: the machine may be busy.
QUIET = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
FIELDS = {
    name: field
    for section in (*SECTIONS.values(), *method_sections().values())
    for name, field in fields_of(section).items()
}
ODD = [
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "true",
    "None",
    "0.5",
    "1,2",
    "../x",
    "a\nb",
    "\x1b[31m",
    "é",
    "--dgl",
    "=",
    "9" * 40,
]


def values_of(name: str) -> st.SearchStrategy[str]:
    """Text for a flag: often one that it takes."""
    field = FIELDS[name]
    good = list(choices(field)) or (
        ["true", "false"] if is_boolean(field) else ["1", "0.1", "3", "2", str(field.default)]
    )
    likely = st.sampled_from(good)
    return st.one_of(likely, likely, likely, likely, st.sampled_from(ODD), st.text(max_size=6))


@st.composite
def words(draw: st.DrawFn) -> list[str]:
    """A method and a few flags, most of them its own and with a value of their kind."""
    method = draw(st.sampled_from(sorted(method_sections())))
    own = sorted({name for section in sections_for(method).values() for name in fields_of(section)} - {"method"})
    found = [f"--{method}"] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(own))
        flag, value = draw(st.sampled_from([f"--{name}", f"--{name.replace('_', '-')}"])), draw(values_of(name))
        likely = [[flag, value], [f"{flag}={value}"]]
        other = [[flag], [f"--no_{name}"], [f"--{draw(st.sampled_from(sorted(FIELDS)))}", value]]
        other += [[f"--{method}={value}"], [draw(st.sampled_from(ODD))]]
        found += draw(st.sampled_from(likely if draw(st.integers(0, 4)) else other))
    return found


def outcome(argv: list[str]) -> str:
    """``settings`` or ``refused``; anything else fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main.main([*argv, "--print_config"])
        except SystemExit as end:
            code = end.code
    if code == 0 and {"-h", "--help"} & set(argv):
        return "help"
    if code == 0:
        assert err.getvalue() == ""
        build_args(flat(yaml.safe_load(out.getvalue())))
        return "settings"
    assert (code, out.getvalue(), err.getvalue().count("\n")) == (2, "", 1), (
        argv,
        code,
        out.getvalue(),
        err.getvalue(),
    )
    assert err.getvalue().startswith("main.py: error: ") and err.getvalue()[:-1].isprintable()
    return "refused"


def flat(sections: dict[str, Any]) -> dict[str, Any]:
    return {name: value for section in sections.values() for name, value in section.items()}


def check_command_lines(count: int) -> dict[str, int]:
    seen = dict.fromkeys(("settings", "refused", "help"), 0)

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(words())
    def check(argv: list[str]) -> None:
        seen[outcome(argv)] += 1

    check()
    return seen


def test_command_lines_end_in_settings_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = check_command_lines(300)
    assert seen["settings"] > 10 and seen["refused"] > 100  # about 27 are expected: neither kind is rare
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_ten_thousand_command_lines_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    lines, files = check_command_lines(6000), check_files(4000, tmp_path)
    with capsys.disabled():
        print(f"\ncommand lines: {lines}; files: {files}")
    assert sum(lines.values()) + sum(files.values()) >= 10_000
    assert min(lines["settings"], lines["refused"], files["settings"], files["refused"]) > 300


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(ODD), st.dates()
)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3))


@st.composite
def contents(draw: st.DrawFn) -> str:
    """The text of a file: settings, most of them of the right kind, flat or in sections; or any structure or text."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.text(max_size=40))
    if draw(st.integers(0, 9)) == 0:
        return yaml.safe_dump(draw(anything), allow_unicode=True)
    entries: dict[Any, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4)):
        entries[name] = draw(st.one_of(values_of(name).map(as_yaml), values_of(name).map(as_yaml), anything))
    if draw(st.booleans()):
        entries = {draw(st.sampled_from([*SECTIONS, "other"])): entries}
    return yaml.safe_dump(entries, allow_unicode=True)


def as_yaml(text: str) -> Any:
    """What the text of a flag is in a file."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def check_files(count: int, folder: Path) -> dict[str, int]:
    seen, path = dict.fromkeys(("settings", "refused"), 0), folder / "c.yaml"

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(contents())
    def check(text: str) -> None:
        path.write_bytes(text.encode(errors="surrogatepass"))
        seen[outcome(["--config", "c.yaml"])] += 1

    check()
    return seen


def test_files_end_in_settings_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = check_files(300, tmp_path)
    assert seen["settings"] > 30 and seen["refused"] > 100


@settings(QUIET, max_examples=300)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_settings_or_one_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with contextlib.suppress(UsageError):
        assert set(read_files([path], {}).values) <= known_names(method_sections())


@pytest.mark.parametrize(
    "text",
    [
        "epochs: !!python/object/apply:os.mkdir [executed]",
        "epochs: !!python/name:os.system",
        "&a [*a]",
        "epochs: &a [*a]",
        "[" * 5000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "epochs: " + "[[" * 20 + "&a [1,2,3,4,5,6,7,8,9]" + "]]" * 20,
        "epochs: 2000-99-99",
    ],
    ids=["object", "name", "cycle", "cycle in a value", "deep", "laughs", "nested", "date"],
)
def test_hostile_files_are_one_line_and_run_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    assert outcome(["--config", "c.yaml"]) == "refused"
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
