"""The runner of the Autobahn|Testsuite: what it asks for, what it makes of the report.

The suite itself needs CPython 2.7 and is not run here. Where a run is looked at from end to end, a
few lines of Python stand in for it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from compliance import __main__ as program
from compliance import environment, report
from compliance.errors import ComplianceError, NotHereError
from compliance.suite import Run, patterns


def index(folder: Path, cases: dict[str, tuple[str, str]]) -> Path:
    """A report as the suite writes it."""
    found = {
        case: {"behavior": how, "behaviorClose": close, "reportfile": f"gevffi_case_{case}.json"}
        for case, (how, close) in cases.items()
    }
    path = folder / "index.json"
    path.write_text(json.dumps({"gevffi": found}))
    return path


# ---- which cases -------------------------------------------------------------------------------


def test_ranges_of_sections_are_spelled_out() -> None:
    assert patterns("1-3.*,9.1.*,12.1.1") == ["1.*", "2.*", "3.*", "9.1.*", "12.1.1"]
    assert patterns("*") == ["*"]


@pytest.mark.parametrize("text", ["", "1-3", "one", "1.*,", "1..2", "1.*.2"])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cases are named as in"):
        patterns(text)


# ---- the report --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "behavior", "close", "good"),
    [
        ("1.1.1", "OK", "OK", True),
        ("1.1.1", "NON-STRICT", "OK", False),
        ("1.1.1", "OK", "WRONG CODE", False),
        ("1.1.1", "OK", "INFORMATIONAL", False),
        ("1.1.1", "INFORMATIONAL", "OK", False),
        ("12.1.1", "UNIMPLEMENTED", "OK", False),
        ("7.1.6", "INFORMATIONAL", "INFORMATIONAL", True),
        ("7.13.1", "INFORMATIONAL", "OK", True),
        ("7.13.2", "OK", "OK", True),
        ("7.13.2", "INFORMATIONAL", "FAILED", False),
        ("7.1.6", report.MISSING, report.MISSING, False),
    ],
)
def test_what_counts_as_good(case: str, behavior: str, close: str, good: bool) -> None:
    assert report.Outcome(case, behavior, close, "").good is good


def test_a_report_is_read_in_order_and_what_is_not_in_it_is_missing(tmp_path: Path) -> None:
    path = index(tmp_path, {"2.9": ("OK", "OK"), "2.10": ("FAILED", "UNCLEAN")})
    outcomes = report.read(path, ["2.10", "2.11", "2.9"])
    assert [(o.case, o.behavior, o.close) for o in outcomes] == [
        ("2.9", "OK", "OK"),
        ("2.10", "FAILED", "UNCLEAN"),
        ("2.11", "MISSING", "MISSING"),
    ]
    assert outcomes[1].detail == "gevffi_case_2.10.html"


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"a": {}, "b": {}}'])
def test_what_is_no_report_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "index.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ComplianceError):
        report.read(path, ["1.1.1"])


def test_the_summary_counts_and_names_what_is_not_ok(tmp_path: Path) -> None:
    cases = {
        "1.1.1": ("OK", "OK"),
        "1.1.2": ("OK", "WRONG CODE"),
        "7.1.6": ("INFORMATIONAL", "INFORMATIONAL"),
        "10.1.1": ("FAILED", "FAILED"),
    }
    text = report.summary(report.read(index(tmp_path, cases), cases))
    assert text.splitlines() == [
        "| section | cases | OK | INFORMATIONAL | FAILED | closed as it should be |",
        "|---|--:|--:|--:|--:|--:|",
        "| 1 framing | 2 | 2 | 0 | 0 | 1 |",
        "| 7 closing | 1 | 0 | 1 | 0 | 1 |",
        "| 10 auto-fragmentation | 1 | 0 | 0 | 1 | 0 |",
        "| all | 4 | 2 | 1 | 1 | 2 |",
        "",
        "* 1.1.2: OK, close WRONG CODE -- not as it should be gevffi_case_1.1.2.html",
        "* 7.1.6: INFORMATIONAL, close INFORMATIONAL",
        "* 10.1.1: FAILED, close FAILED -- not as it should be gevffi_case_10.1.1.html",
    ]


def test_a_clean_summary_is_the_table_alone(tmp_path: Path) -> None:
    path = index(tmp_path, {"1.1.1": ("OK", "OK")})
    assert report.summary(report.read(path, ["1.1.1"])).count("\n") == 3


# ---- CPython 2.7 -------------------------------------------------------------------------------


def script(path: Path, text: str) -> Path:
    """A program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


PYTHON27 = "#!/bin/sh\necho CPython 2.7\n"


def test_python27_is_found_among_the_versions_of_pyenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On the path is only what pyenv puts there while 2.7 is not switched on.
    script(tmp_path / "shims" / "python2.7", "#!/bin/sh\nexit 127\n")
    python = script(tmp_path / "versions" / "2.7.18" / "bin" / "python2.7", PYTHON27)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert environment.find_python27() == python


def test_another_python_is_not_taken_for_it() -> None:
    with pytest.raises(NotHereError, match=r"CPython 2\.7"):
        environment.find_python27(Path(sys.executable))


def test_without_python27_it_says_so_and_has_a_status_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert program.main(["server", f"--cache={tmp_path / 'cache'}"]) == program.NOT_RUN == 3
    assert "NOT RUN: the test suite needs CPython 2.7" in capsys.readouterr().err


def test_an_environment_that_is_complete_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def run(words: str, command: object) -> None:
        steps.append(words)
        (tmp_path / "cache" / "suite").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr("venv.create", lambda folder, with_pip: None)
    python = script(tmp_path / "python2.7", PYTHON27)
    for _ in range(2):
        programs = environment.prepare(tmp_path / "cache", python)
    assert programs == tmp_path / "cache" / "suite" / "bin"
    assert len(steps) == 3
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("another==1\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", requirements)
    environment.prepare(tmp_path / "cache", python)
    assert len(steps) == 6


def test_where_it_cannot_be_installed_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(folder: Path, with_pip: bool) -> None:
        script(folder / "bin" / "python", "#!/bin/sh\necho no such index\nexit 1\n")

    monkeypatch.setattr("venv.create", create)
    python = script(tmp_path / "python2.7", PYTHON27)
    status = program.main(["server", f"--cache={tmp_path}", f"--python27={python}"])
    assert status == program.NOT_RUN
    said = "compliance: NOT RUN: installing virtualenv<20.22: failed\nno such index"
    assert said in capsys.readouterr().err


# ---- a run -------------------------------------------------------------------------------------

SUITE = """\
import json, os, signal, socket, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
spec = json.load(open(options["--spec"]))
mode = options["--mode"]
print("Cases = ['1.1.1', '1.1.2']")
print("Running test case ID 1.1.2")
report = {case: {"behavior": "OK", "behaviorClose": "OK", "reportfile": ""} for case in CASES}
json.dump({"gevffi": report}, open(os.path.join(spec["outdir"], "index.json"), "w"))
if mode == "fuzzingserver":
    listener = socket.create_server(("127.0.0.1", int(spec["url"].rpartition(":")[2])))
    while True:
        listener.accept()[0].close()
assert spec["servers"] == [{"agent": "gevffi", "url": "ws://127.0.0.1:1"}], spec
if HANG:
    signal.pause()
"""
SERVER = f"""{sys.executable} -c '
import signal; print("listening on 127.0.0.1:1", flush=True); signal.pause()'"""


def stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cases: str = "1.1.1 1.1.2", hang: bool = False
) -> list[str]:
    """Put a stand-in in the suite's place; returns the arguments that say where the report goes."""
    text = SUITE.replace("CASES", repr(cases.split())).replace("HANG", repr(hang))
    script(folder / "bin" / "wstest", text)
    (folder / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(environment, "prepare", lambda cache, python: folder / "bin")
    return [f"--output={folder / 'report'}"]


def test_a_server_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stand_in(tmp_path, monkeypatch)
    assert program.main(["server", "--server", SERVER, *where]) == program.GOOD == 0
    shown = capsys.readouterr().out
    assert "server: all 2 cases are as they should be" in shown
    assert (tmp_path / "report" / "summary.md").read_text().strip() in shown


def test_a_case_that_was_not_run_is_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stand_in(tmp_path, monkeypatch, cases="1.1.1")
    assert program.main(["server", "--server", SERVER, *where]) == program.BAD == 1
    shown = capsys.readouterr().out
    assert "* 1.1.2: MISSING, close MISSING" in shown
    assert "server: 1 of 2 cases are not as they should be" in shown


def test_a_server_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stand_in(tmp_path, monkeypatch, hang=True)
    assert program.main(["server", "--server", SERVER, "--seconds=0.2", *where]) == program.BROKEN
    assert "the suite was not done after 0.2 s; the suite's last words: " in capsys.readouterr().err
    assert not (tmp_path / "report" / "summary.md").exists()


def test_a_server_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stand_in(tmp_path, monkeypatch)
    server = f"{sys.executable} -c 'raise SystemExit(7)'"
    assert program.main(["server", "--server", server, *where]) == program.BROKEN
    assert "the server: ended before it listened (exit status 7)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("import sys; assert sys.argv[1].startswith('ws://127.0.0.1:')", program.GOOD),
        ("raise SystemExit(5)", program.BROKEN),
    ],
)
def test_a_client_program_is_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    status: int,
) -> None:
    where = stand_in(tmp_path, monkeypatch)
    (tmp_path / "a_client.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert program.main(["client", "--client=a_client", *where]) == status
    if status != program.GOOD:
        assert "the client a_client ended with status 5" in capsys.readouterr().err


def test_a_run_empties_the_folder_of_its_report(tmp_path: Path) -> None:
    old = tmp_path / "report" / "index.json"
    old.parent.mkdir()
    old.write_text("{}")
    Run(tmp_path, tmp_path / "report", ["*"], 1)
    assert not old.exists()


def test_unknown_cases_are_a_wrong_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["server", "--cases", "first"])
    assert "not 'first'" in capsys.readouterr().err
