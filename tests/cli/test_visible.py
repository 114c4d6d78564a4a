"""No terminal obeys what a model writes; files and pipes have it to the letter."""

import re
import sys

import pytest

from seqnets.insight.visible import visible

from .conftest import only_run

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # rich's own


@pytest.fixture(scope="module")
def odd_text():
    return "an \x1b[2J odd\x9b \x07 text\x7f\n" * 150


@pytest.fixture
def odd_run(seqnets, small_text, text_file, odd_text, tmp_path):
    """A language model's run, half of whose tokens are control characters; how it ended."""

    def train(*more):
        text_file.write_text(odd_text, encoding="utf-8")
        long = "++callbacks.samples.length=300"
        return seqnets("train", *small_text, long, "logger=none", *more)

    return train


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Let what is printed go to a terminal, as far as the command can tell."""
    return lambda: monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


def test_control_characters_are_escapes_and_all_else_stays():
    assert visible("a\x1b[0m\x9b\r\x7f") == r"a\u001b[0m\u009b\u000d\u007f"
    assert visible("ü\t\n→ \U0001f600") == "ü\t\n→ \U0001f600"


def test_the_sample_at_the_end_of_a_training(odd_run, on_a_terminal):
    piped = odd_run().out
    on_a_terminal()
    seen = odd_run("callbacks.progress=null").out

    assert "\x1b" in piped
    assert not OBEYED.search(COLOURS.sub("", seen).replace("\n", ""))
    assert r"\u001b" in seen


@pytest.mark.parametrize(
    "verb", [["generate", "length=200", "prompt=an \x1b"], ["predict", "to=-"]]
)
def test_what_is_generated_and_predicted(verb, odd_run, on_a_terminal, seqnets, tmp_path):
    odd_run()
    call = [*verb, f"checkpoint={only_run(tmp_path)}"]

    piped = seqnets(*call).out
    on_a_terminal()
    seen = seqnets(*call).out

    assert OBEYED.search(piped.replace("\n", ""))
    assert not OBEYED.search(seen.replace("\n", ""))
    assert seen == visible(piped)


def test_samples_of_a_dataset(text_file, odd_text, seqnets, tmp_path):
    text_file.write_text(odd_text, encoding="utf-8")

    done = seqnets(
        "inspect", "dataset=text", f"dataset.path={text_file}", f"dataset.cache={tmp_path}"
    )

    assert done.code == 0, done.err
    assert not OBEYED.search(done.out.replace("\n", ""))
    assert r"\u001b" in done.out
