"""No regular expression of percoin may take more than time in proportion to its text."""

import ast
import re
import time
from pathlib import Path

import pytest

import percoin

ROOT = Path(percoin.__file__).parent
LENGTH = 20_000
# A quadratic expression takes minutes for one of these, a linear one milliseconds.
MOST_SECS = 2.0
METHODS = ("match", "fullmatch", "search", "sub", "split", "findall", "finditer")
HOSTILE = [
    *("a" * LENGTH, "A" * LENGTH + "!", "0" * LENGTH, " " * LENGTH + "x", "\n" * LENGTH + "x"),
    *("/" * LENGTH, "a/" * (LENGTH // 2), "\\" * LENGTH, "'" * LENGTH, "(" * LENGTH),
    *("," * LENGTH + "'", "symbol=" + "," * LENGTH + "'", "symbol=" + "a," * LENGTH + "["),
    *("key=" * LENGTH, "a=b " * (LENGTH // 4), "a:1/" * (LENGTH // 4), "A_A_" * LENGTH),
    *("{{a." * LENGTH, "https://" + "x" * LENGTH + " ", "ray://" * LENGTH, "-2020-01" * LENGTH),
    *("1.5-e" * LENGTH, "a: b # " * LENGTH, "a" * LENGTH + ":", "0" * 64 + " *" + "x" * LENGTH),
]


def expressions():
    """Every expression with the way it is used: ``file:line method pattern``."""
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "re." not in text:
            continue
        tree = ast.parse(text)
        names = {
            id(node.value): node.targets[0].id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if not is_call or ast.unparse(node.func.value) != "re":
                continue
            pattern = node.args[0]
            if node.func.attr not in {*METHODS, "compile"} or not isinstance(pattern, ast.Constant):
                continue
            used = [node.func.attr]
            if used == ["compile"]:
                name = re.escape(names.get(id(node), "?"))
                used = [method for method in METHODS if re.search(rf"{name}\.{method}\(", text)]
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            for method in used:
                yield pytest.param(pattern.value, method, id=f"{where} {method}")


@pytest.mark.parametrize(("pattern", "method"), list(expressions()))
def test_an_expression_takes_time_in_proportion_to_its_text(pattern, method):
    compiled = re.compile(pattern)
    for text in HOSTILE:
        began = time.process_time()
        if method == "sub":
            compiled.sub("", text)
        else:
            getattr(compiled, method)(text)
        assert time.process_time() - began < MOST_SECS, text[:20]
