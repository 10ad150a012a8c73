"""docs/example.ipynb runs as it is printed, from the folder it lies in, and is kept without results."""

import json
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
NOTEBOOK = json.loads((PROJECT / "docs" / "example.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
# Runs each cell, and says of what its last line shows which type it has and, of a picture, the size.
RUN = """
import ast, json, sys
names = {}
for cell in json.load(sys.stdin):
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        print(type(shown).__name__, getattr(shown, "size", shown if isinstance(shown, tuple) else ""))
"""


def test_every_cell_runs_and_shows_what_the_text_says(tmp_path: Path) -> None:
    here = tmp_path / "docs"
    here.mkdir()
    (tmp_path / "assets").symlink_to(PROJECT / "assets")
    (tmp_path / "outputs").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{RUN}"],
        cwd=here,
        input=json.dumps(CODE),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    photo, shape, frames, parameters = done.stdout.splitlines()
    assert photo == "PngImageFile (576, 384)"
    assert shape == "tuple (14, 192, 320, 3)"
    assert frames == f"Image ({5 * 320}, 192)"
    assert parameters == "dict "
    assert (tmp_path / "outputs" / "example.mp4").stat().st_size > 0


def test_it_is_kept_without_results() -> None:
    for cell in NOTEBOOK["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    assert NOTEBOOK["nbformat"] == 4
