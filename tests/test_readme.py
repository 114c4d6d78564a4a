"""The commands and claims of the README and the guides."""

import importlib
import json
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqnets import datasets
from seqnets.cells import GRUCell
from seqnets.cli.main import command as seqnets
from seqnets.datasets import ClassificationFiles, SeriesTable
from seqnets.datasets.readers import LogMel
from seqnets.datasets.sequences.pairs import Pairs
from seqnets.datasets.text.codecs import TokenCodec, fit_codecs
from seqnets.datasets.text.vocabulary import LINE_END, UNKNOWN
from seqnets.models import (
    BahdanauAttention,
    ConditionalRandomField,
    SequenceToSequence,
    best_path,
)
from seqnets.training import Transduction, export
from seqnets.training.predict import predict
from seqnets.typing import END, IGNORE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "writing-a-cell.md").read_text(encoding="utf-8")
INSIDE = (ROOT / "docs" / "inside-the-engine.md").read_text(encoding="utf-8")
ELSEWHERE = ("benchmarks", "export", "from-python", "writing-a-cell", "kernels")  # below; printed
PAGES = [
    path.stem
    for path in (ROOT / "docs").glob("*.md")
    if "```python" in path.read_text(encoding="utf-8") and path.stem not in ELSEWHERE
]
AROUND = (ROOT / "docs" / "inside-training.md").read_text(encoding="utf-8")


needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs seqnets[onnx]"
)


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", [README, GUIDE], ids=["readme", "writing_a_cell"])
def test_the_python_in_the_pages_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    script = "\n".join(["import torch, seqnets", *blocks(page, "python")])
    (tmp_path / "a_page.py").write_text(script, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_page", raising=False)

    module = importlib.import_module("a_page")

    assert module.MGUCell.gates == ("f", "n")


@pytest.mark.parametrize("page", PAGES)
def test_the_python_in_a_page_runs(page, tmp_path, monkeypatch):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    here = [b for b in blocks(text, "python") if torch.cuda.is_available() or "cuda" not in b]
    here = [block for block in here if '"verkauf.csv"' not in block]  # it has a test of its own
    monkeypatch.chdir(tmp_path)
    for name in ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"):
        monkeypatch.setattr(torch.nn, name, getattr(torch.nn, name))  # a page replaces them

    exec("\n".join(here), {})


def done(*arguments, folder):
    """What a command says, run in a folder whose modules can be imported."""
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    known.pop("TRITON_INTERPRET", None)  # with which a benchmark of Triton's kernels takes minutes
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=known,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_page_for_python_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "from-python.md").read_text(encoding="utf-8")
    first, own = re.findall(r"seqnets (train .*)", "\n".join(blocks(text, "bash")))
    python = blocks(text, "python")
    (tmp_path / "mytask.py").write_text(python[-1], encoding="utf-8")
    for path, config in zip(re.findall(r"`(conf/.*?)`", text), blocks(text, "yaml"), strict=True):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(config, encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    trained = seqnets([*shlex.split(first), "trainer=debug"])
    said = done("-c", "\n".join(python), folder=tmp_path)
    trained_own = seqnets([*shlex.split(own), "trainer=debug"])

    told = capsys.readouterr()
    assert trained == trained_own == 0, told.err

    assert said.startswith("{'prediction': ")
    assert "test/accuracy" in said
    assert "mae" in told.out


@needs_onnx
def test_the_page_about_export_says_in_numpy_what_the_commands_say(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    *alone, in_torch, from_python = blocks(text, "python")
    walks = [f"{n},{'abc'[n % 3]},{1e5 + n % 3},{n}" for n in range(60) for _ in range(2 + n % 5)]
    (tmp_path / "walks.csv").write_text("\n".join(["sequence,label,x,y", *walks]) + "\n")
    new = [",".join(w.split(",")[::2] + w.split(",")[3:]) for w in walks]
    (tmp_path / "new.csv").write_text("\n".join(["sequence,x,y", *new]) + "\n")
    (tmp_path / "book.txt").write_text("The cat, the dog; The end.\n" * 60)
    small = "trainer=debug", "model.hidden_size=4"
    monkeypatch.chdir(tmp_path)
    classes = "dataset=classification", "dataset.path=walks.csv"
    letters = "dataset=text", "dataset.path=book.txt", "dataset.chunk_length=16"

    assert seqnets(["train", *small, *classes]) == 0
    assert seqnets(["export", "checkpoint=last"]) == 0
    assert seqnets(["export", "checkpoint=last", "target=model.pt2"]) == 0
    assert seqnets(["predict", "checkpoint=last", "input=new.csv"]) == 0
    assert seqnets(["train", *small, *letters, "dataset.batch_size=2"]) == 0
    assert seqnets(["export", "checkpoint=last", "target=writer.onnx"]) == 0
    capsys.readouterr()
    writing = "prompt='The '", "temperature=0", "length=80"
    assert seqnets(["generate", "checkpoint=last", *writing]) == 0
    written = capsys.readouterr().out
    without = "import sys; sys.modules.update(torch=None, seqnets=None)"
    said = done("-c", "\n".join([without, *alone[:2]]), folder=tmp_path)
    compared = done("-c", "\n".join([alone[0], in_torch, from_python]), folder=tmp_path)

    rows = [*map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())]
    *predicted, wrote = said.split("\n", len(rows))
    labels, shares = zip(*(line.split() for line in predicted), strict=True)
    assert list(labels) == [row["prediction"] for row in rows]
    assert [*map(float, shares)] == pytest.approx([row["probability"] for row in rows], abs=1e-5)
    assert wrote == written
    assert float(compared.splitlines()[-1]) < 1e-5


@needs_onnx
def test_the_page_about_export_writes_in_numpy_what_models_of_pairs_write(tmp_path):
    first, *others = blocks((ROOT / "docs" / "export.md").read_text(encoding="utf-8"), "python")
    imports = [line for line in first.splitlines() if line.startswith("import")]
    at = next(place for place, block in enumerate(others) if "translator" in block)
    source = TokenCodec(["\n", UNKNOWN, *"abc"], "characters")
    target = TokenCodec([LINE_END, UNKNOWN, *map(str, range(5))])
    known = {"sizes": {"vocab_size": 5, "target_vocab_size": 7}}
    known |= {"source": source.describe(), "target": target.describe()}
    model = SequenceToSequence(
        GRUCell, 7, vocab_size=5, hidden_size=4, attention=BahdanauAttention, feed="output"
    )
    torch.manual_seed(15)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # so that it writes more than one token
    texts = ["abca", "c", "cab", "bbabcaab", "x", "aabbcc"]
    (tmp_path / "new.txt").write_text("\n".join(texts) + "\n")
    batch = Pairs.unanswered(source.encode(texts)).batch(torch.arange(len(texts)))
    searches = [Transduction(beam_size=size) for size in (1, 3)]
    expected = [row["prediction"] for o in searches for row in predict(model, o, [batch], known)]

    module = SimpleNamespace(model=model, objective=searches[0], card={"data": known})
    export(module, tmp_path / "translator.onnx")
    searched = "for ids in sources:\n    print(decode(beam(ids, 3, 0.6)))"
    without = "import sys; sys.modules.update(torch=None, seqnets=None)"
    program = "\n".join([without, *imports, *others[at : at + 5], searched])
    said = done("-c", program, folder=tmp_path)

    assert said.splitlines() == expected
    assert len(set(expected)) > len(texts)


@pytest.mark.parametrize("unit", ["words", "characters", "bpe"])
def test_the_page_about_export_reads_and_writes_tokens_as_the_data_do(unit):
    if unit == "bpe":
        pytest.importorskip("tokenizers")
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (block,) = (block for block in blocks(text, "python") if "def codec" in block)
    page = {"writing": {"end": END}}
    exec(block, page)
    told = ["a cat  sees a dog", "zebras </s> and <unk>", LINE_END]
    codec, _ = fit_codecs(told[:1], told[:1], unit=unit, size=300, min_count=1, joint=True)

    encode, decode = page["codec"](codec.describe())

    ids = codec.encode(told)
    assert [encode(text) for text in told] == [given.tolist() for given in ids]
    assert [decode(given.tolist()) for given in ids] == [codec.decode(given) for given in ids]


def test_the_page_about_export_draws_tokens_by_their_shares():
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (block,) = (block for block in blocks(text, "python") if block.startswith("def drawn"))
    page = {"np": np}
    exec(block, page)
    logits, random = np.array([1.0, -np.inf, 900.0, 899.0], "float32"), np.random.default_rng(0)

    tokens = [page["drawn"](logits, 0.5, random) for _ in range(4_000)]

    shares = np.bincount(tokens, minlength=4) / 4_000
    assert shares == pytest.approx([0, 0, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], abs=0.03)


def test_the_page_about_export_decodes_as_the_models_do():
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    page = {"np": np}
    exec("\n".join(block for block in blocks(text, "python") if block.startswith("def ")), page)
    torch.manual_seed(0)
    head = ConditionalRandomField(4, 5)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    y, logits = torch.randn(6, 9, 4), torch.randn(6, 9, 3)
    crf = {name: getattr(head, name).tolist() for name in ("start", "transitions", "end")}

    tags = [page["tags"](scores, crf) for scores in head(y).detach().numpy()]
    texts = [page["transcript"](shares, ["", "a", "b"], "") for shares in logits.numpy()]

    labels, _ = best_path(logits)
    assert tags == head.predict(y).tolist()
    assert texts == ["".join("-ab"[n] for n in row if n != IGNORE) for row in labels.tolist()]


@pytest.mark.parametrize("count", [100, 1_999, 2_000])
def test_the_page_about_export_makes_the_features_of_sound_as_the_datasets_do(count):
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    page = {"np": np}
    exec("\n".join(block for block in blocks(text, "python") if block.startswith("def ")), page)
    samples = np.random.default_rng(0).normal(size=count)
    mel = LogMel(bands=12, window=0.03, hop=0.0125)

    made = page["log_mel"](samples, 8_000, **asdict(mel))

    np.testing.assert_allclose(made, mel(samples, 8_000), rtol=1e-6)


def test_the_page_inside_the_engine_names_its_files_and_no_others():
    engine = ROOT / "src" / "seqnets" / "engine"
    files = {path.name for kind in ("py", "h", "json") for path in engine.rglob(f"*.{kind}")}
    named = re.findall(r"`((?:[\w-]+/)*)(\w+\.(?:py|h|json))`", INSIDE)

    assert {name for _, name in named} >= files - {"__init__.py"}
    for folder, name in named:
        assert list(engine.rglob(folder + name)) or (ROOT / folder / name).is_file(), folder + name


def test_the_page_inside_the_engine_shows_c_that_is_printed():
    from seqnets.cells import MGUCell
    from seqnets.engine.c.printer import print_program
    from seqnets.engine.plans import program_of

    printed = {line.strip() for line in print_program(program_of(MGUCell(8, 64))).text.splitlines()}

    shown = "".join(blocks(INSIDE, "c")).splitlines()
    assert shown
    assert set(shown) <= printed


def test_the_page_inside_training_names_files_that_exist_and_all_that_no_verb_is_in():
    package, verbs = ROOT / "src" / "seqnets", {f"{p.stem}.py" for p in ROOT.glob("configs/*.yaml")}
    found = re.findall(r"\b((?:\w+/)*)(\w+\.py)\b", AROUND)
    named = {name for _, name in found}

    for folder, name in set(found) - {("cli/", "VERB.py")}:
        assert list(package.rglob(folder + name)) or (ROOT / folder / name).is_file(), folder + name
    for folder in ("cli", "datasets/readers"):
        files = {path.name for path in (package / folder).glob("*.py")}
        assert named >= files - verbs - {"__init__.py"}


def test_the_page_inside_training_says_what_base_classes_of_datasets_leave_to_others():
    row = r"^\|[^|]+\| `(\w+)` \(`([\w/]+)\.py`\) \| ((?:`\w+`(?:, )?)+)(?: and the like)? \|$"
    rows = re.findall(row, AROUND, re.MULTILINE)

    assert len(rows) == 9
    for name, file, left in rows:
        base = getattr(datasets, name)
        assert base.__module__ == f"seqnets.datasets.{file.replace('/', '.')}"
        assert base.__abstractmethods__ >= set(re.findall(r"\w+", left))


@pytest.mark.slow
def test_the_python_in_the_page_of_benchmarks_runs(tmp_path):
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    assert float(done("-c", "\n".join(blocks(text, "python")), folder=tmp_path).split()[0]) > 0


def test_the_page_of_options_names_them_all():
    named = set(re.findall(r"^\| `(\w+)`", OPTIONS, re.MULTILINE))

    assert named == {path.stem for path in (ROOT / "configs" / "model" / "option").glob("*.yaml")}


@pytest.mark.parametrize(
    ("name", "language", "begin", "labels", "lengths"),
    [
        ("steps.csv", "text", "sequence,", ["up", "down"], [2, 1]),
        ("rows.jsonl", "json", "", ["up", "down"], [2, 1]),
        ("texts.csv", "text", "text,", ["1", "0"], [16, 11]),
    ],
)
def test_the_tables_of_the_page_of_data_are_read(name, language, begin, labels, lengths, tmp_path):
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (table,) = (block for block in blocks(text, language) if block.startswith(begin))
    (tmp_path / name).write_text(table, encoding="utf-8")

    path = str(tmp_path / name)
    data = ClassificationFiles(path, validation_path=path, test_path=path)
    train = data.part("train")

    assert [data.show_target(y)["label"] for y in train.y] == labels
    assert train.lengths.tolist() == lengths


def test_the_program_for_tables_of_a_spreadsheet_writes_one_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    days = [f"{n % 31 + 1:02}.{n // 31 + 1:02}.2025;Köln;{n};1.23{n % 10},5\r\n" for n in range(56)]
    rows = ["Tag;Filiale;Verkauf;Preis\r\n", *days]
    Path("verkauf.csv").write_text("".join(rows), encoding="cp1252", newline="")
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (program,) = (block for block in blocks(text, "python") if "verkauf.csv" in block)

    exec(program, {})
    columns = {"time": "Tag", "series": "Filiale", "targets": ["Verkauf"]}
    data = SeriesTable("sales.csv", **columns, lookback=4, horizon=2)

    assert data.series.columns == ["Verkauf", "Preis"]
    assert data.series.lengths == {"Köln": 56}
    assert data.series.times[31] == "2025-02-01"
    assert data.series.values[31].tolist() == [31, 1231.5]


def test_the_page_of_data_covers_every_experiment():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    configs = ROOT / "configs"
    needed = set()
    for path in (configs / "experiment").glob("*.yaml"):
        (dataset,) = re.findall(r"override /dataset: (\w+)", path.read_text(encoding="utf-8"))
        file = configs / "dataset" / f"{dataset}.yaml"
        if re.search("^root:", file.read_text(encoding="utf-8"), re.MULTILINE):
            needed.add(path.stem)

    assert needed
    assert needed <= named


def test_the_page_of_cells_is_up_to_date():
    made = runpy.run_path(str(ROOT / "scripts" / "make_cells_page.py"))["page"]()

    assert made == (ROOT / "docs" / "cells.md").read_text(encoding="utf-8"), (
        "run scripts/make_cells_page.py"
    )


def test_the_readme_counts_the_cells():
    page = (ROOT / "docs" / "cells.md").read_text(encoding="utf-8")
    told = re.findall(r"comes with (\d+) \[cells\].*?under (\d+) names", README, re.DOTALL)
    classes = set(re.findall(r"^`seqnets\.cells\.(\w+)`\.", page, re.MULTILINE))

    assert told == [(str(len(classes)), str(len(re.findall("^### ", page, re.MULTILINE))))]


def test_the_page_of_kernels_is_up_to_date():
    made = runpy.run_path(str(ROOT / "scripts" / "make_kernels_page.py"))["page"]()

    assert made == (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8"), (
        "run scripts/make_kernels_page.py"
    )


def made(target, folder):
    """What a target would do from a clean checkout."""
    command = ["make", "-n", target, f"VENV={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_training_sets_up_no_more_than_it_needs_and_tests_the_rest(tmp_path):
    venv = tmp_path / "venv"

    assert "-e '.[plot]'" in made("train", venv)
    assert "[test" not in made("train", venv)
    assert "-e '.[test]'" in made("test", venv)
    venv.mkdir()
    (venv / ".usable").touch()  # as `make train` leaves it
    assert "-m venv" not in made("test", venv)
    assert "-e '.[test]'" in made("test", venv)


def test_the_oldest_libraries_are_installed_beside_the_others():
    command = ["make", "--dry-run", "--always-make", "test-oldest"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert ".venv-oldest/bin/python -m pip install --quiet -c constraints-oldest.txt" in said
    assert ".venv-oldest/bin/python -m pytest" in said


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for target in re.findall(r"^make (\S+)", "\n".join(blocks(README, "bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
