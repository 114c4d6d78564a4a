"""The numbers in the README and the guides are those of committed measurements."""

import json
import re
import runpy
from pathlib import Path

import pytest

from seqnets.benchmarking import Report, markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def table(text, head):
    """The cells of the first table whose head begins like this, without the head."""
    _, _, after = f"\n{text}".partition(f"\n| {head}")
    lines = after.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def times(name):
    """The ms of each row of a benchmark, by its case."""
    return {
        (case["pass_"], case["dtype"], case["cell"], case["B"], case["T"], case["H"]): {
            row["name"]: row["ms"] for row in measured["rows"]
        }
        for measured in result(name)["measured"]
        if (case := measured["case"])
    }


def is_told(shown, measured):
    """Whether a number in a text is one that was measured, rounded to as many digits."""
    digits = len(shown.partition(".")[2])
    return any(f"{each:.{digits}f}" == shown for each in measured)


def not_told(shown, *measured):
    """The numbers of a cell of a table that none of those measured is."""
    return [each for each in NUMBER.findall(shown) if not is_told(each, measured)]


CELLS = {
    "GRU": "gru",
    "RNN": "rnn",
    "LSTM": "lstm",
    "peephole LSTM": "peephole_lstm",
    "GRU as first published": "original_gru",
}
CPU = [times(name) for name in ("cpu", "lstm_32_128_256", "lstm_64_128_512")]


@pytest.mark.parametrize("row", table(page("README.md"), "B·T·H |"), ids=lambda row: row[0])
def test_the_readme_compares_training_as_measured(row):
    what, *shown = row
    name, against = what.split(", against ")
    other = "torch.nn" if against.startswith("`nn.") else "loop"

    sizes = (1, 512, 256), (16, 128, 128), (32, 128, 256), (64, 128, 512)
    for size, each in zip(sizes, shown, strict=True):
        case = ("training", "float32", CELLS[name], *size)
        assert not not_told(
            each, *(run[case][other] / run[case]["auto"] for run in CPU if case in run)
        )


def test_the_readme_begins_with_a_row_of_its_table():
    (gru,) = (row for row in table(page("README.md"), "B·T·H |") if row[0].startswith("GRU, "))
    first, last = gru[1].strip("*"), gru[-1].strip("*")

    assert f"a GRU trains {last} to {first} times as fast as `nn.GRU`" in page("README.md")


def test_the_readme_compares_single_steps_as_measured():
    (told,) = re.findall(r"`seqnets.Stream` is (.*?) times", page("README.md"))
    shown = dict(re.findall(r"([\d.]+) \((\w+)\)", told))

    assert set(shown.values()) == {"GRU", "LSTM", "RNN"}
    for number, name in shown.items():
        ms = CPU[0]["step", "float32", name.lower(), 1, 1, 256]
        assert is_told(number, [ms["torch.nn"] / ms["stream"]]), name


@pytest.mark.parametrize(
    ("head", "column", "name"),
    [
        ("target |", 1, "cpu"),
        ("| Zen 3 | Zen 4", 1, "cpu_zen3"),
        ("| Zen 3 | Zen 4", 2, "cpu_zen4"),
        ("| Zen 3 | Zen 4", 3, "cpu_intel"),
    ],
)
def test_the_page_of_benchmarks_tells_what_the_targets_reached(head, column, name):
    rows, verdicts = table(page("docs/benchmarks.md"), head), result(name)["verdicts"]

    assert len(rows) == len(verdicts) == 10
    for row, verdict in zip(rows, verdicts, strict=True):
        mean, worst = NUMBER.findall(row[column])
        assert is_told(mean, [verdict["mean"]]), verdict["what"]
        assert is_told(worst, [verdict["worst"]]), verdict["what"]


def test_the_page_of_benchmarks_tells_what_the_targets_reached_on_a_gpu():
    _, _, text = page("docs/benchmarks.md").partition("### What was reached on a GPU")
    told = [NUMBER.findall(row[1]) for row in table(text, "target |")]
    pairs = [pair for pair in told if len(pair) == 2]
    verdicts = result("cuda")["verdicts"]

    assert len(pairs) == len(verdicts) == 7
    for verdict in verdicts:
        both = [verdict["mean"]], [verdict["worst"]]
        assert any(all(map(is_told, pair, both)) for pair in pairs), verdict["what"]


def test_the_first_tables_of_benchmarks_repeat_what_the_targets_below_reached():
    first, _, below = page("docs/benchmarks.md").partition("**What was missed.**")
    told = re.findall(r"\| ([\d.]+) \| ([\d.]+) \|$", first, re.MULTILINE)

    assert len(told) == 10
    assert not [pair for pair in told if f"| {', '.join(pair)} |" not in below]


def test_the_page_of_benchmarks_tells_how_fast_layers_on_a_gpu_train():
    ms = times("cuda")
    rows = table(page("docs/benchmarks.md"), "| (B, T, H) | bfloat16")

    assert len(rows) == 14
    for name, size, *shown in rows:
        for dtype, each in zip(("bfloat16", "tf32", "float16"), shown, strict=True):
            case = ms.get(("training", dtype, CELLS[name], *map(int, NUMBER.findall(size))))
            assert not not_told(each, *([case["torch.nn"] / case["triton"]] if case else [])), size


def test_the_page_of_benchmarks_tells_what_padding_costs():
    names = "all alike", "from 1 to all", "one long row", "one very long row"
    rows = table(page("docs/benchmarks.md"), "lengths |")
    for row in result("padding")["ms"]:
        both = rows[names.index(row["lengths"])][{"LSTM": 1, "GRU": 2}[row["cell"]]]
        shown = both.split(" / ")[row["pass"] == "training"]

        assert is_told(shown, [row["ratio"]]), row


def test_the_page_of_benchmarks_tells_how_fast_cells_as_people_write_them_are():
    ms, rows = times("own_cells"), table(page("docs/benchmarks.md"), "cell | written as")
    script = runpy.run_path(str(ROOT / "scripts" / "measure_own_cells.py"))

    assert len(ms) == len(script["ROWS"]) * len(script["CELLS"])
    for name, (_, _, *shown) in zip(script["CELLS"], rows, strict=True):
        for B, number in zip(script["ROWS"], shown, strict=True):
            case = ms["training", "float32", name, B, script["T"], script["H"]]
            assert is_told(number, [case["loop"] / case["auto"]]), (name, B)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.md")), ids=lambda path: path.stem)
def test_the_page_of_a_benchmark_has_its_figures(path):
    assert path.read_text(encoding="utf-8") == markdown(Report.load(path.with_suffix(".json")))


def test_the_page_of_benchmarks_tells_how_fast_matrix_memories_are():
    text = " ".join(page("docs/benchmarks.md").split())
    told = re.search(r"plain loop's time over that of `scan`.*?: (.*?)\. The file's", text)[1]
    names = {"mLSTM": "mlstm", "retention": "retention", "DeltaNet": "delta_net"}
    names |= {
        "gated linear attention": "gated_linear_attention",
        "gated DeltaNet": "gated_delta_net",
        "Kimi delta attention": "kimi_delta_attention",
    }
    names |= {"HGRN2": "hgrn2", "Mamba-2": "ssd", "RWKV-7": "rwkv7"}
    shown = dict(re.findall(r"([\w -]+?) ([\d.]+)(?:,|$) ?", told))
    ms = times("matrix_memory")

    assert {names[name] for name in shown} == {case[2] for case in ms}
    for name, number in shown.items():
        case = ms["training", "float32", names[name], 8, 512, 128]
        assert is_told(number, [case["loop"] / case["scan"]]), name


def test_the_page_of_benchmarks_tells_what_newer_cells_take():
    ms = times("newer_cells")
    rows = table(page("docs/benchmarks.md"), "newer cell")

    assert {name.strip("`") for name, *_ in rows} == {case[2] for case in ms}
    for name, *shown in rows:
        for B, number in zip((1, 16), shown, strict=True):
            case = ms["training", "float32", name.strip("`"), B, 128, 128]
            assert is_told(number, [case["loop"] / case["auto"]]), (name, B)


def test_the_page_of_benchmarks_tells_what_single_steps_and_half_precision_take():
    text = " ".join(page("docs/benchmarks.md").split())
    of_lstm = re.search(r"against `nn.LSTM`, ([\d.]+) to ([\d.]+) times", text).groups()
    of_others = re.search(r"`nn.GRU` and `nn.RNN`, ([\d.]+) to ([\d.]+) times", text).groups()
    of_half = re.search(r"GRUs and RNNs are ([\d.]+) to ([\d.]+) times", text).groups()
    of_tiles = re.search(r"on an Intel Xeon with AMX, ([\d.]+) to ([\d.]+) times", text).groups()

    for told, name, cells in (
        (of_lstm, "one_step", {"lstm"}),
        (of_others, "one_step", {"gru", "rnn"}),
        (of_half, "half", {"gru", "rnn"}),
        (of_tiles, "half_intel", {"gru", "rnn"}),
    ):
        measured = times(name).items()
        speeds = sorted(ms["torch.nn"] / ms["auto"] for case, ms in measured if case[2] in cells)
        assert is_told(told[0], [speeds[0]]), (name, cells)
        assert is_told(told[1], [speeds[-1]]), (name, cells)


def test_the_page_of_the_engine_tells_what_was_measured_of_memory():
    measured = result("memory")["MiB"]

    for name, *shown in table(page("docs/engine.md"), "| torch.nn | full"):
        assert shown == [f"{number:.1f}" for number in measured[name].values()]


def test_the_page_of_training_tells_what_the_command_costs():
    rows = table(page("docs/training.md"), "| thread and memory settings")
    others = "bare loop", "bare loop, nn.LSTM", "seqnets train logger=none"

    assert len(rows) == 6
    for place, (_, _, *shown) in enumerate(rows):
        for size, number in zip(("small", "medium"), shown, strict=True):
            found = result(f"training_{size}{'_settings' * (place % 2)}")["ratios"]
            assert is_told(number, [found[f"seqnets train / {others[place // 2]}"]]), (place, size)


def test_the_guide_quotes_the_measured_cost_of_a_fused_softmax():
    rows = result("linear_cross_entropy")["rows"]
    memory, time = (
        " and ".join(f"{row[ratio]:.2f}" for row in rows) for ratio in ("MiB ratio", "ms ratio")
    )

    told = f"took {memory} times the memory, and {time} times the time"
    assert told in " ".join(page("docs/training.md").split())
