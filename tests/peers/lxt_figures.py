"""Writes tests/peers/lxt.json: what lxt 2.1 makes of six tiny language models with random weights, in float64.

lxt works with transformers 4 only and patches its classes for the whole process, so each case is a process of its own in
an environment of its own, and the figures are kept:

    python -m venv lxt && lxt/bin/pip install torch torchvision && lxt/bin/pip install transformers==4.57.6 lxt==2.1
    lxt/bin/python tests/peers/lxt_figures.py

`tests/test_peers_lxt.py` builds the same models (`tests/peers/models.py`) with the transformers of the day.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import models  # noqa: E402

METHODS = ("attnlrp", "cp_lrp")


def declare_what_a_cpu_build_lacks() -> torch.library.Library | None:
    """lxt imports torchvision, whose CUDA build stops at operators that a CPU build of torch does not have."""
    found = importlib.util.find_spec("torchvision")
    assert found is not None and found.submodule_search_locations
    try:
        for file in Path(found.submodule_search_locations[0]).glob("_C*.so"):
            torch.ops.load_library(str(file))
        return None
    except (OSError, ImportError):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library


def one(name: str, method: str) -> list[float]:
    """Relevance per token of the first prompt."""
    library = declare_what_a_cpu_build_lacks()
    from lxt.efficient import monkey_patch

    case = models.CASES[name]
    code = importlib.import_module(case.code)
    theirs = importlib.import_module("lxt.efficient.models." + case.lxt)
    if method == "attnlrp":
        monkey_patch(code)
    else:
        if not hasattr(theirs, "cp_LRP"):
            raise SystemExit(f"lxt has no CP-LRP for {name}")
        monkey_patch(code, theirs.cp_LRP)
    model = models.build(name)
    x = model.get_input_embeddings()(models.IDS).detach().requires_grad_()
    score = models.score(model(inputs_embeds=x).logits)
    score.sum().backward()
    assert x.grad is not None
    del library
    return [float(score[0].detach()), *(x * x.grad).sum(-1)[0].tolist()]


def main() -> None:
    from importlib.metadata import version

    import transformers

    figures: dict[str, dict[str, list[float]]] = {}
    for name in models.CASES:
        for method in METHODS:
            done = subprocess.run([sys.executable, __file__, name, method], capture_output=True, text=True)
            if done.returncode:
                print(f"{name} {method}: {done.stderr.strip().splitlines()[-1]}")
                continue
            figures.setdefault(name, {})[method] = json.loads(done.stdout.strip().splitlines()[-1])
            print(name, method, figures[name][method][:3])
    versions = {
        "lxt": version("lxt"),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    text = json.dumps({"versions": versions, "score, then relevance per token": figures}, indent=1)
    (HERE / "lxt.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], sys.argv[2])))
    else:
        main()
