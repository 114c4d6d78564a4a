"""Compiles C source to a shared library with the system's compiler, and caches it on disk."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from seqnets.warn import warn

TARGETS = (("-march=native",), ("-mcpu=native",), ())
"""Flags for this processor's full instruction set; the next is tried where one is refused."""

FLAGS = (
    *("-O3", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),  # not -ffast-math: keeps NaN
)
TIMEOUT = 300.0
"""The most seconds that a compilation may take: one or two, but many times that on a processor that
is emulated or shared, where each process would begin again what is given up."""

NOEXEC = "Code cannot be run from a file system that is mounted noexec"
"""Why a folder is of no use, as /tmp is in many containers: a compiler is not to blame."""

_DIGEST = hashlib.sha256().digest_size
_POLL = 0.2  # seconds until it is asked whether a compiler has ended
_STALE = 24 * 3600.0  # seconds after which a build folder is abandoned
_loaded: dict[str, ctypes.CDLL] = {}
_refused: dict[str, str] = {}  # by key: reasons; a failed compilation is not retried
_locks: dict[str, threading.RLock] = {}  # by key: threads that need the same library make it once
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_locks.clear)  # no thread of a forked process holds them


class NoCompiler(Exception):  # noqa: N818  a reason, like Untraceable, not a mistake
    """Compilation is impossible here; the message is the reason, in one line."""


def load(source: str) -> ctypes.CDLL:
    """Compile a C source unless the cache has it, and load the library.

    Where that is impossible, a cached build of the same source for such a processor by any
    compiler is loaded, so that a cache can be filled on another machine.

    Args:
        source: The source. It includes no headers but the compiler's own, so that it alone
            determines the library.

    Returns:
        The library; its exports have ``__attribute__((visibility("default")))``.

    Raises:
        NoCompiler: There is no compiler, or it rejects the source.
    """
    try:
        return _compiled(source, compiler())
    except NoCompiler:
        if (kept := _kept(source)) is None:
            raise
        return kept


def _compiled(source: str, command: tuple[str, ...]) -> ctypes.CDLL:
    """The library that a compiler makes of a source, or has made; each is made once."""
    key = _key(source, command)
    with _locks.setdefault(key, threading.RLock()):
        if key in _refused:
            raise NoCompiler(_refused[key])
        if key not in _loaded:
            try:
                _loaded[key] = _load(key, source, command)
            except NoCompiler as reason:
                _refused[key] = str(reason)
                raise
        return _loaded[key]


def _kept(source: str) -> ctypes.CDLL | None:
    """A cached library of a source, by any compiler; None if there is none."""
    what = _digest_of(source)
    if what not in _loaded:
        with contextlib.suppress(OSError):
            folder = _cache_folder()
            for target in sorted(folder.glob(f"{what}-*.so")):
                with contextlib.suppress(OSError):  # try the next
                    _loaded[what] = _opened(folder, target)
                    break
    return _loaded.get(what)


def _load(key: str, source: str, command: tuple[str, ...]) -> ctypes.CDLL:
    """Load a library from the cache, or if that fails from a folder of this process."""
    try:
        return _load_from(_cache_folder(), key, source, command)
    except OSError as error:
        problem = f"{error.strerror or error}: {error.filename or 'the cache of compiled code'}"
    try:
        library = _load_from(_private_folder(os.getpid()), key, source, command)
    except OSError as error:
        raise NoCompiler(f"what {command[0]} made cannot be loaded: {error}") from None
    _warn(problem)
    return library


def compiler() -> tuple[str, ...]:
    """The compiler's command: ``CC`` with its arguments, or else cc, gcc or clang.

    Raises:
        NoCompiler: None is found, or this is Windows.
    """
    if sys.platform == "win32":  # files have no mode there, and processes no group
        raise NoCompiler("code is compiled on Linux and macOS, not on Windows")
    named = os.environ.get("CC", "").strip()
    try:
        commands = [shlex.split(named)] if named else [["cc"], ["gcc"], ["clang"]]
    except ValueError as error:
        raise NoCompiler(f"CC is {named!r}, which is not a command: {error}") from None
    for program, *arguments in commands:
        if path := shutil.which(program):
            return (os.path.abspath(path), *arguments)
    if named:
        raise NoCompiler(f"CC is {named!r}, but there is no program {commands[0][0]!r}")
    raise NoCompiler("there is no C compiler: none of cc, gcc and clang is on PATH, CC is not set")


def _key(source: str, command: tuple[str, ...]) -> str:
    """The cache key: a digest of source, flags and processor, and one of the compiler."""
    programs = []
    for path in filter(None, map(shutil.which, command)):  # CC="ccache gcc" names two
        real = os.path.realpath(path)
        info = os.stat(real)
        programs.append((real, info.st_size, info.st_mtime_ns))
    return f"{_digest_of(source)}-{_digest(command, programs)[:16]}"


def _digest_of(source: str) -> str:
    return _digest(source, TARGETS, FLAGS, _cpu())


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@functools.cache
def _cpu() -> str:
    """This processor's model and features."""
    known = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    lines = [platform.machine()]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if not line.strip():  # the other cores are the same
                break
            if line.startswith(known):
                lines.append(line)
    if sys.platform == "darwin":
        name, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
        libc = ctypes.CDLL(None)
        libc.sysctlbyname(b"machdep.cpu.brand_string", name, ctypes.byref(size), None, 0)
        lines.append(name.value.decode(errors="replace"))
    return "\n".join(lines)


def _cache_folder() -> Path:
    """The folder of compiled libraries inside the cache, private to this user."""
    named = os.environ.get("SEQNETS_CACHE")
    if not named:
        default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
        named = os.path.join(os.environ.get("XDG_CACHE_HOME") or default, "seqnets")
    named = os.path.expanduser(named)
    if named.startswith("~"):
        raise OSError(errno.ENOENT, "There is no home folder", named)
    folder = Path(os.path.abspath(named), "c")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def _private_folder(process: int) -> Path:
    """A temporary folder of this process; a fork has another id, and makes its own."""
    folder = Path(tempfile.mkdtemp(prefix="seqnets-"))

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@functools.cache
def _warn(problem: str) -> None:
    warn(
        f"{problem}.\n"
        "  Compiled code is kept for this process only, and compiled again in the next.\n"
        "  Give SEQNETS_CACHE a folder that is yours, that you can write and others cannot "
        "(chmod go-w).",
        RuntimeWarning,
    )


def _load_from(folder: Path, key: str, source: str, command: tuple[str, ...]) -> ctypes.CDLL:
    """Load a library from a folder, building it first if it is missing or damaged."""
    target = folder / f"{key}.so"
    try:
        return _opened(folder, target)
    except FileNotFoundError:
        if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):  # Linux alone tells it
            raise PermissionError(errno.EACCES, NOEXEC, str(folder)) from None
        _make(target, source, command)
    return ctypes.CDLL(str(target))


def _opened(folder: Path, target: Path) -> ctypes.CDLL:
    """Load a library, if it is intact and no other user can have written it.

    Raises:
        FileNotFoundError: It is missing or damaged.
        PermissionError: Others can write it or its folder.
    """
    _check(folder.stat(), folder, stat.S_ISDIR)
    _check(target.lstat(), target, stat.S_ISREG)
    if not _is_whole(target):
        raise FileNotFoundError(errno.ENOENT, "Compiled code is damaged", str(target))
    return ctypes.CDLL(str(target))


def _check(info: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    """Raise PermissionError unless a path is of its kind, ours, and writable by us alone."""
    if not is_kind(info.st_mode):
        reason = "A link or something else is in the place of compiled code"
    elif info.st_uid != os.geteuid():
        reason = "Another user owns compiled code"
    elif info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = "Others can write compiled code"
    else:
        return
    raise PermissionError(errno.EPERM, reason, str(path))


def _is_whole(library: Path) -> bool:
    """Whether a library ends in its own digest: mapping a truncated one kills the process."""
    content = library.read_bytes()
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def _make(target: Path, source: str, command: tuple[str, ...]) -> None:
    """Compile in a folder beside the target, and rename the result into place atomically."""
    _remove_abandoned(target.parent)
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as name:
        build = Path(name)
        build.joinpath("source.c").write_text(source)
        _compile(command, build)
        library = build / "library.so"
        content = library.read_bytes()
        library.write_bytes(content + hashlib.sha256(content).digest())
        library.chmod(0o700)
        library.replace(target)


def _remove_abandoned(folder: Path) -> None:
    """Remove build folders that a killed process has left."""
    for build in folder.glob("build-*"):
        with contextlib.suppress(OSError):
            if build.stat().st_mtime < time.time() - _STALE:
                shutil.rmtree(build)


def _compile(command: tuple[str, ...], build: Path) -> None:
    """Compile for this processor, or as near to it as the compiler can."""
    for processor in TARGETS:
        try:
            _run((*command, *processor, *FLAGS), build)
            return
        except NoCompiler as refusal:
            if not processor or "native" not in str(refusal).partition(" fails: ")[2]:
                raise


def _run(command: tuple[str, ...], build: Path) -> None:
    """Compile ``source.c`` to ``library.so``.

    Raises:
        NoCompiler: It fails, or takes too long.
        OSError: The disk is full.
    """
    files = (str(build / "source.c"), "-o", str(build / "library.so"), "-lm")
    try:
        process = subprocess.Popen(
            (*command, *files),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # a file could not be written on a disk that is full
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(build), "LC_ALL": "C"},
            start_new_session=True,  # so that the compiler's children can be killed with it
        )
    except OSError as error:
        raise NoCompiler(f"{command[0]} cannot be started: {error.strerror}") from None
    with process:
        try:
            output = _output(process)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                told = f"{shlex.join(command)}: not done after {TIMEOUT:g} s"
                raise NoCompiler(told) from None
            raise
    if process.returncode:
        if any(sign in output for sign in ("No space left", "NoSpaceLeft", "quota exceeded")):
            raise OSError(errno.ENOSPC, "The disk is full", str(build.parent))
        lines = output.replace(f"{build}/", "").splitlines()
        faults = [line for line in lines if "error" in line or "ld: " in line]
        told = "; ".join(faults[:3] or lines[:3]) or f"exit status {process.returncode}"
        raise NoCompiler(f"{shlex.join(command)} fails: {told}")


def _output(process: subprocess.Popen[bytes]) -> str:
    """What a process prints until it ends; a server that it leaves behind may keep its output open.

    Raises:
        TimeoutExpired: It does not end in time.
    """
    latest = time.monotonic() + TIMEOUT
    while True:
        ended = process.poll() is not None  # asked first: all that it printed is there then
        try:
            output, _ = process.communicate(timeout=min(_POLL, TIMEOUT))
            break
        except subprocess.TimeoutExpired as waiting:
            if ended:
                output = waiting.output or b""
                break
            if time.monotonic() > latest:
                raise
    return output.decode(errors="replace")
