"""Compiled once, kept on disk, and nothing loaded that is damaged or someone else's."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seqnets.engine.c import compiler
from seqnets.engine.c.compiler import NoCompiler

SOURCE = """
__attribute__((visibility("default"))) int twice(int x) { return 2 * x; }
"""
CHILD = f"""
import sys
sys.path.insert(0, {str(Path(compiler.__file__).parent)!r})  # alone: seqnets loads torch
import compiler
print(compiler.load({SOURCE!r}).twice(21))
"""
FORKING = """
import os
sys.stdout.flush()
if child := os.fork():
    os.waitpid(child, 0)
    print(compiler._private_folder(os.getpid()).is_dir())
"""

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The empty folder that libraries go to, in a process that has loaded none."""
    try:
        compiler.compiler()
    except NoCompiler as reason:
        pytest.skip(str(reason))
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    _forget()
    yield tmp_path / "cache" / "c"
    _forget()


def _forget():
    compiler._loaded.clear()
    compiler._refused.clear()
    compiler._warn.cache_clear()


def _script(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o700)
    return path


def _real():
    """The compiler of this machine, as a shell calls it; CC may be of several words."""
    return shlex.join(compiler.compiler())


def _logged_compiler(folder):
    """A compiler that writes a line for each of its starts."""
    log = folder / "log"
    log.touch()
    script = _script(
        folder / "logged-cc", f'echo "$@" >> {shlex.quote(str(log))}', f'exec {_real()} "$@"'
    )
    return script, log


def _start_child():
    return subprocess.Popen([sys.executable, "-I", "-c", CHILD], stdout=subprocess.PIPE, text=True)


def _run_child():
    child = _start_child()
    answer, _ = child.communicate()
    return answer, child.returncode


def test_processes_that_start_at_once_leave_one_library_and_nothing_else(cache):
    children = [_start_child() for _ in range(8)]

    assert [child.communicate()[0] for child in children] == ["42\n"] * 8
    (library,) = cache.iterdir()
    assert library.suffix == ".so"


def test_what_is_on_disk_is_loaded_without_starting_anything(monkeypatch):
    compiler.load(SOURCE)
    _forget()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process started"))

    assert compiler.load(SOURCE).twice(4) == 8


def test_a_process_loads_a_text_once():
    assert compiler.load(SOURCE) is compiler.load(SOURCE)


def test_threads_that_need_the_same_text_compile_it_once(tmp_path, monkeypatch):
    script, log = _logged_compiler(tmp_path)
    monkeypatch.setenv("CC", str(script))
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(compiler.load, [SOURCE] * 4))

    assert len(log.read_text().splitlines()) == 1
    assert all(library is loaded[0] for library in loaded)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_while_another_thread_compiles_can_compile(monkeypatch):
    compiling, done = threading.Event(), threading.Event()
    monkeypatch.setattr(compiler, "_load", lambda *_: compiling.set() or done.wait(20))
    thread = threading.Thread(target=compiler.load, args=(SOURCE,))
    thread.start()
    assert compiling.wait(5)
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # it would wait for ever
        done.set()
        compiler.load(SOURCE)
        os._exit(0)
    done.set()
    thread.join()

    assert os.waitpid(child, 0)[1] == 0


def test_cc_may_carry_arguments(tmp_path, monkeypatch):
    script, log = _logged_compiler(tmp_path)
    monkeypatch.setenv("CC", f"{script} -DTIMES='3 + 1'")

    library = compiler.load(SOURCE.replace("2", "(TIMES)"))

    assert library.twice(5) == 20
    assert "-DTIMES=3 + 1" in log.read_text()


@pytest.mark.parametrize(
    ("refused", "taken"), [("march", "-mcpu=native"), ("march mcpu", "-O3")], ids=["one", "both"]
)
def test_a_target_that_is_refused_gives_way_to_the_next(refused, taken, tmp_path, monkeypatch):
    refusal = f"for option in {refused}; do case $1 in -$option=*) "
    refusal += "echo \"error: unknown value 'native' for '-$option'\" >&2; exit 1; esac; done"
    real = _real()
    drop = f'test $1 = {taken} && shift && exec {real} "$@"'  # -mcpu=native, for other processors
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", refusal, drop)))

    assert compiler.load(SOURCE).twice(1) == 2


def test_another_architecture_of_one_processor_has_libraries_of_its_own(monkeypatch):
    before = compiler._cpu.__wrapped__()
    monkeypatch.setattr(compiler.platform, "machine", lambda: "translated")

    assert compiler._cpu.__wrapped__() != before


def test_cc_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc -m64")

    with pytest.raises(NoCompiler, match="CC is 'no-such-cc -m64', but there is no program"):
        compiler.load(SOURCE)


def test_cc_that_is_no_command_is_told(monkeypatch):
    monkeypatch.setenv("CC", "cc 'unclosed")

    with pytest.raises(NoCompiler, match="which is not a command: No closing quotation"):
        compiler.load(SOURCE)


def test_on_windows_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(compiler.sys, "platform", "win32")

    with pytest.raises(NoCompiler, match="on Linux and macOS, not on Windows"):
        compiler.load(SOURCE)


def test_a_path_without_compiler_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoCompiler, match="none of cc, gcc and clang is on PATH"):
        compiler.load(SOURCE)


def test_a_compiler_that_cannot_start_is_told(tmp_path, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o700)
    monkeypatch.setenv("CC", str(broken))

    with pytest.raises(NoCompiler, match="broken-cc cannot be started: Exec format error"):
        compiler.load(SOURCE)


def test_an_error_in_the_text_is_told_with_its_place_and_leaves_nothing(cache):
    with pytest.raises(NoCompiler, match=r" -O3 .* fails: source\.c:1:\d+: error: ") as caught:
        compiler.load("int f(void) { return }")

    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_what_the_linker_misses_is_told(tmp_path, monkeypatch):
    missing = 'echo "/usr/bin/ld: cannot find crti.o: No such file or directory" >&2'
    verdict = 'echo "collect2: error: ld returned 1 exit status" >&2'
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", missing, verdict, "exit 1")))

    with pytest.raises(NoCompiler, match=r"cannot find crti\.o.*; collect2: error: ld returned 1"):
        compiler.load(SOURCE)


def test_a_compiler_that_fails_without_an_error_is_told_by_its_first_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", 'echo "no licence today" >&2', "exit 1")))

    with pytest.raises(NoCompiler, match="fails: no licence today"):
        compiler.load(SOURCE)


def test_a_compiler_that_makes_nothing_is_told_and_no_folder_is_blamed(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", "exit 0")))

    with pytest.raises(NoCompiler, match=r"what \S+/cc made cannot be loaded: .*No such file"):
        compiler.load(SOURCE)  # a warning of the cache would be an error here


def test_a_compiler_that_failed_is_not_started_again(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", f"echo started >> {log}", "exit 1")))

    for _ in range(3):
        with pytest.raises(NoCompiler, match="exit status 1"):
            compiler.load(SOURCE)

    assert log.read_text() == "started\n"


def test_where_there_is_no_home_a_folder_of_this_process_is_taken(tmp_path, monkeypatch):
    for name in ("SEQNETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)

    with pytest.warns(RuntimeWarning, match=r"There is no home folder: ~.*\n.*this process only"):
        assert compiler.load(SOURCE).twice(3) == 6

    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_hangs_is_ended(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", "sleep 60")))
    monkeypatch.setattr(compiler, "TIMEOUT", 0.1)

    with pytest.raises(NoCompiler, match=r"not done after 0\.1 s"):
        compiler.load(SOURCE)
    assert list(cache.iterdir()) == []


def test_a_server_that_a_compiler_leaves_behind_holds_nothing_up(tmp_path, monkeypatch):
    server = f"sleep 30 & echo $! > {tmp_path / 'server'}"
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", server, "echo no error; exit 1")))
    monkeypatch.setattr(compiler, "TIMEOUT", 10)

    with pytest.raises(NoCompiler, match="fails: no error"):
        compiler.load(SOURCE)
    os.kill(int((tmp_path / "server").read_text()), signal.SIGKILL)  # it is still at work


def test_what_a_killed_compilation_left_is_removed_after_a_day(cache):
    cache.mkdir(parents=True, mode=0o700)
    old, new = cache / "build-old", cache / "build-new"
    for folder, age in ((old, 25), (new, 23)):
        folder.mkdir()
        os.utime(folder, (time.time() - age * 3600,) * 2)

    compiler.load(SOURCE)

    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    "part", ["source", "flags", "target", "processor", "compiler", "arguments"]
)
def test_a_change_of_what_it_depends_on_makes_another_library(cache, tmp_path, monkeypatch, part):
    compiler.load(SOURCE)
    if part == "flags":
        monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-g0"))
    elif part == "target":
        monkeypatch.setattr(compiler, "TARGETS", (("-DOTHER",), ("-DANOTHER",)))
    elif part == "processor":
        monkeypatch.setattr(compiler, "_cpu", lambda: "another")
    elif part == "arguments":
        monkeypatch.setenv("CC", f"{_real()} -g0")
    elif part == "compiler":
        monkeypatch.setenv("CC", str(_logged_compiler(tmp_path)[0]))

    compiler.load(SOURCE + "\n" if part == "source" else SOURCE)

    assert len(list(cache.glob("*.so"))) == 2


def test_an_update_of_the_compiler_makes_another_library(cache, tmp_path, monkeypatch):
    script, _ = _logged_compiler(tmp_path)
    monkeypatch.setenv("CC", str(script))
    compiler.load(SOURCE)
    os.utime(script, (0, 0))

    compiler.load(SOURCE)

    assert len(list(cache.glob("*.so"))) == 2


def test_without_a_compiler_what_one_has_made_will_do(cache, monkeypatch):
    compiler.load(SOURCE)
    _forget()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")

    assert compiler.load(SOURCE).twice(4) == 8
    with pytest.raises(NoCompiler, match="there is no C compiler"):
        compiler.load(SOURCE + "\n")


def test_if_the_compiler_fails_what_another_has_made_will_do(tmp_path, monkeypatch):
    compiler.load(SOURCE)
    _forget()
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", "exit 1")))

    assert compiler.load(SOURCE).twice(4) == 8
    with pytest.raises(NoCompiler, match="exit status 1"):
        compiler.load(SOURCE + "\n")


@pytest.mark.parametrize("spoil", ["damaged", "open to others"])
def test_without_a_compiler_what_cannot_be_trusted_is_not_loaded(cache, monkeypatch, spoil):
    _run_child()  # a library that is cut short ends the process that has it
    (library,) = cache.iterdir()
    if spoil == "damaged":
        library.unlink()  # to shorten a file that is loaded would end this process
        library.touch(mode=0o700)
    else:
        library.chmod(0o702)
    _forget()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(NoCompiler, match="there is no C compiler"):
        compiler.load(SOURCE)


def test_without_a_compiler_a_damaged_library_does_not_hide_a_whole_one(cache, monkeypatch):
    compiler.load(SOURCE)
    (library,) = cache.iterdir()
    first = library.with_name(library.name.rpartition("-")[0] + "-0.so")
    first.write_bytes(b"")
    first.chmod(0o700)
    _forget()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")

    assert compiler.load(SOURCE).twice(4) == 8


def _cut(content):
    return content[: len(content) // 2]


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [_cut, _flip, lambda content: b""], ids=["cut", "bit", "empty"])
def test_a_damaged_library_is_compiled_again(cache, damage):
    _run_child()
    (library,) = cache.iterdir()
    whole = library.read_bytes()
    library.write_bytes(damage(whole))

    assert _run_child() == ("42\n", 0)
    assert len(library.read_bytes()) == len(whole)
    assert compiler._is_whole(library)


def _open_to_group(cache, library):
    cache.chmod(0o770)


def _open_file_to_all(cache, library):
    library.chmod(0o702)


def _link(cache, library):
    library.rename(cache.parent / "elsewhere.so")
    library.symlink_to(cache.parent / "elsewhere.so")


def _give_away(cache, library):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(library, 65534, -1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_open_to_group, "Others can write compiled code"),
        (_open_file_to_all, "Others can write compiled code"),
        (_link, "A link or something else is in the place"),
        (_give_away, "Another user owns compiled code"),
    ],
)
def test_what_others_could_have_written_is_not_loaded(cache, monkeypatch, spoil, reason):
    compiler.load(SOURCE)
    (library,) = cache.iterdir()
    spoil(cache, library)
    _forget()

    with pytest.warns(RuntimeWarning, match=reason) as warned:
        found = compiler.load(SOURCE)

    assert found.twice(3) == 6
    assert not found._name.startswith(str(cache))
    (warning,) = warned
    assert "chmod go-w" in str(warning.message)


def test_one_problem_is_told_once(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)

    with pytest.warns(RuntimeWarning, match="Others can write") as warned:
        compiler.load(SOURCE)

    assert [each.filename for each in warned] == [__file__]  # the user's
    assert compiler.load(SOURCE + "\n").twice(3) == 6  # a second warning would be an error here


def test_a_folder_that_cannot_be_made_is_done_without(cache):
    cache.parent.touch()

    with pytest.warns(RuntimeWarning, match="File exists"):
        assert compiler.load(SOURCE).twice(3) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_only_to_be_read_is_done_without(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o500)

    with pytest.warns(RuntimeWarning, match="Permission denied"):
        assert compiler.load(SOURCE).twice(3) == 6


def test_a_full_disk_is_done_without(cache, tmp_path, monkeypatch):
    told = 'ulimit -f 0; echo "ld: final link failed: No space left on device" >&2'  # in no file
    full = f'case "$*" in *{cache.parent}*) {told}; exit 1; esac'
    monkeypatch.setenv("CC", str(_script(tmp_path / "cc", full, f'exec {_real()} "$@"')))

    with pytest.warns(RuntimeWarning, match="The disk is full"):
        assert compiler.load(SOURCE).twice(3) == 6
    assert list(cache.iterdir()) == []


def test_a_process_removes_its_private_folder(cache, tmp_path, monkeypatch):
    cache.parent.touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    child = subprocess.run(
        [sys.executable, "-I", "-c", CHILD], capture_output=True, text=True, check=True
    )

    assert child.stdout == "42\n"
    assert "RuntimeWarning: File exists" in child.stderr
    assert list(tmp_path.glob("seqnets-*")) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_leaves_the_private_folder_to_its_parent(cache, tmp_path, monkeypatch):
    cache.parent.touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    child = subprocess.run(
        [sys.executable, "-I", "-c", CHILD + FORKING], capture_output=True, text=True, check=True
    )

    assert child.stdout.splitlines()[1:] == ["True"]
    assert list(tmp_path.glob("seqnets-*")) == []
