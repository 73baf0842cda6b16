"""Tables of the command line: what is a cell, a number, a label and a row."""

import csv
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import bayesnet as bn
from bayesnet.cli._table import read_csv
from bayesnet.cli.app import app


def table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    return read_csv(path)


def values(tmp_path, *cells):
    """The numbers of a column with these cells."""
    text = "a,b\n" + "".join(f"{cell},0\n" for cell in cells)
    return table(tmp_path, text).numbers(["a"], "")[:, 0].tolist()


@pytest.mark.parametrize(
    ("text", "names", "cells"),
    [
        ("\ufefftemp; y\r\n1; 2.5\r\n3; 4\r\n", ("temp", "y"), [("1", "2.5"), ("3", "4")]),
        ("a,y\r1,2\r3,4\r", ("a", "y"), [("1", "2"), ("3", "4")]),
        ('"a, b";"c, d, e";y\n1;2;3\n', ("a, b", "c, d, e", "y"), [("1", "2", "3")]),
        ("height, m;y\n1;2\n", ("height, m", "y"), [("1", "2")]),
        ("a, m;y\n1,5;2,5\n3,5;4,5\n", ("a, m", "y"), [("1,5", "2,5"), ("3,5", "4,5")]),
        ('x\t"cost, per 1,000"\ty\n1\t2\t3\n', ("x", "cost, per 1,000", "y"), [("1", "2", "3")]),
        ("tags;notes,y\na;b,1\nc;d,2\n", ("tags;notes", "y"), [("a;b", "1"), ("c;d", "2")]),
        ("height, m\n1\n2\n", ("height, m",), [("1",), ("2",)]),
        ('"say ""hi""",y\n"5"" pipe",1\n', ('say "hi"', "y"), [('5" pipe', "1")]),
        ('"a\nb",y\n"c\r\nd",1\n', ("a\nb", "y"), [("c\r\nd", "1")]),
        ("a\u2028b,y\n\u20281\x85,2\n", ("a\u2028b", "y"), [("1", "2")]),
        ("a\ty\n\t\n1\t2\n", ("a", "y"), [("", ""), ("1", "2")]),
        ("a,y\n,\n1,2\n,\n", ("a", "y"), [("", ""), ("1", "2"), ("", "")]),
        ('a,y\n"",""\n', ("a", "y"), [("", "")]),
        ('x\n1\n""\n9\n', ("x",), [("1",), ("",), ("9",)]),
        ("x\n1\n\n9\n", ("x",), [("1",), ("",), ("9",)]),
    ],
)
def test_rows_and_cells(tmp_path, text, names, cells):
    found = table(tmp_path, text)
    assert found.names == names
    assert found.cells == tuple(cells)


def test_what_the_csv_module_writes_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    parts = ["a", '"', ",", ";", "\n", "\t", "7", "'", " b"]
    for separator in ",;\t":
        rows = [["".join(rng.choice(parts, 5)) + "." for _ in range(3)] for _ in range(30)]
        rows = [["x" + row[0], *row[1:]] for row in rows]
        path = tmp_path / "t.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            writer.writerow(["id, no", "b;c", "d"])
            writer.writerows(rows)
        found = read_csv(path)
        assert found.names == ("id, no", "b;c", "d")
        assert found.cells == tuple(tuple(cell.strip() for cell in row) for row in rows)


def test_lines_are_those_on_which_rows_begin(tmp_path, capsys):
    found = table(tmp_path, '\na,y\n"1\n",2\n\n3,4\n   \n,\n\n')
    assert found.lines == (3, 6, 8)
    assert "blank lines are left out (1, 5, 7, 9)" in capsys.readouterr().err
    with pytest.raises(bn.InputError, match="line 4: 3 values, but 2 columns"):
        table(tmp_path, 'a,y\n"1\n5",2\n3,4,5\n')


@pytest.mark.parametrize("text", ['a,y\n"1,2\n', 'a,y\n1,2\n"1"x,2\n', 'a,y\n1,2\n3,"4\n5,6\n'])
def test_a_quote_that_is_not_closed_is_named(tmp_path, text):
    with pytest.raises(bn.InputError, match=r"begins on line [23]: .* must close it"):
        table(tmp_path, text)


def test_numbers_as_people_write_them(tmp_path):
    assert values(tmp_path, "1", " -2.5 ", "+3.", ".5", "1e-3", "2E+2", '"4"') == [
        1.0, -2.5, 3.0, 0.5, 1e-3, 200.0, 4.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("2020_01", "text"),
        ("1_000.5", "text"),
        ("١٢", "text"),
        ("\uff11\uff12", "text"),
        ("1e5_0", "text"),
        ("0x10", "text"),
        ("nano", "text"),
        ("infinite", "text"),
        ('"1,5"', "a comma in a number"),
        ('"1,500"', "a comma in a number"),
        ("nan", "a missing value"),
        ("-nan", "a missing value"),
        ("NaN", "a missing value"),
        ("NA", "a missing value"),
        ("#N/A", "a missing value"),
        ("<NA>", "a missing value"),
        ("inf", "an infinite value"),
        ("-Infinity", "an infinite value"),
        ("1e999", "an infinite value"),
    ],
)
def test_what_is_no_number_is_named_with_its_line(tmp_path, cell, words):
    with pytest.raises(bn.InputError, match=f"column 'a': {words} .*on line 3"):
        values(tmp_path, "1", cell)


@pytest.mark.parametrize("rows", ["1,2,\n3,4,\n", "1\n", "1,2,3\n"])
def test_rows_that_never_fit_the_header_are_told_by_their_length(tmp_path, rows):
    first = rows.partition("\n")[0].count(",") + 1
    with pytest.raises(bn.InputError, match=f"line 2: {first} values, but 4 columns"):
        table(tmp_path, "a,b,c,y\n" + rows + "5,6\n")


def test_labels_are_read_as_they_are_written(tmp_path):
    def labels(*cells):
        text = "a,kind\n" + "".join(f"1,{cell}\n" for cell in cells)
        return table(tmp_path, text).labels("kind", "").tolist()

    assert labels("0", "1", "-3") == [0, 1, -3]
    assert labels("1.0", "0.0") == [1, 0]
    assert labels("007", "7") == ["007", "7"]
    assert labels("1_0", "7") == ["1_0", "7"]
    assert labels("\uff11", "7") == ["\uff11", "7"]
    assert labels("99999999999999999999", "7") == ["99999999999999999999", "7"]
    assert labels("none", "mild") == ["none", "mild"]


def commands(tmp_path, new, *more):
    """Exit code and message of every command that reads `new` with a model of columns a, b and y."""
    run = CliRunner().invoke
    train = tmp_path / "train.csv"
    rows = [(math.sin(i), i % 5, i) for i in range(12)]
    train.write_text("a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows))
    model = tmp_path / "m.bayesnet"
    done = run(app, ["fit", str(train), "-t", "y", "--inference", "exact", "--out", str(model)])
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "new.csv"
    path.write_text(new)
    out = tmp_path / "out.csv"
    for args in (
        ["predict", model, path, "--out", out],
        ["pfn", "predict", train, path, "-t", "y", "--out", out],
        ["fit", path, "-t", "b", "--inference", "exact"],
    ):
        out.unlink(missing_ok=True)
        result = run(app, [str(a) for a in args])
        written = len(out.read_text().splitlines()) - 1 if out.exists() else None
        yield args[0], result.exit_code, " ".join(result.stderr.split()), written


@pytest.mark.parametrize(
    "new", ["a,b\n1,2\n,\n3,4\n", 'a,b\n1,2\n"",""\n3,4\n', "a,b\n1,2\n3,4\n,\n", "a;b\n;\n1;2\n"]
)
def test_a_row_of_blank_cells_is_refused_by_its_line(tmp_path, new):
    line = next(i for i, text in enumerate(new.splitlines(), 1) if not text.strip(',;"'))
    for command, code, message, written in commands(tmp_path, new):
        assert code == 2, command
        assert f"a missing value on line {line}" in message, command
        assert written is None


def test_quoted_line_breaks_and_separators_reach_every_command(tmp_path):
    new = '"b";"a"\n"1";"2\n"\n\n3;4\n5;6\n'
    for command, code, message, written in commands(tmp_path, new):
        assert code == 0, (command, message)
        assert written == (None if command == "fit" else 3)
