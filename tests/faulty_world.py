"""A good data set and a good run to be spoiled, the commands that then complain, and the list of what was spoiled."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file


@dataclasses.dataclass
class World:
    """A good data set and a good run, to be spoiled."""

    root: Path

    @property
    def faces(self):
        return self.root / "faces"

    @property
    def run(self):
        return self.root / "run"

    @property
    def bad(self):
        """A file of the data set that a test may replace."""
        return self.faces / "fear" / "2.png"

    def config(self, part="model", **changes):
        file = self.run / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def weights(self, change, part="model"):
        file = self.run / part / WEIGHTS
        weights = load_file(file)
        change(weights)
        save_file(weights, file)

    def jsonl(self, *rows):
        (self.faces / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def csv(self, text, name="metadata.csv", encoding="utf-8"):
        (self.faces / name).write_text(text, encoding=encoding)

    def fer2013(self, *rows):
        pixels = " ".join(["7"] * 48 * 48)
        lines = ["emotion,pixels,Usage", f"0,{pixels},Training", *rows]
        (self.root / "fer.csv").write_text("\n".join(lines).replace("PIXELS", pixels) + "\n")


WEIGHTS = "diffusion_pytorch_model.safetensors"
RUN = ["run", "--preset", "smoke", "--data", "{faces}", "--out", "{out}"]
FER = ["evaluate", "--model", "{run}", "--data", "{root}/fer.csv", "--out", "{out}.json"]
QUICKSTART = ["quickstart", "--preset", "smoke", "--out", "{out}"]
CONFIGURED = [*QUICKSTART, "--config", "{root}/options.yaml"]
PREDICT = ["predict", "--model", "{run}", "{face}"]
EVALUATE = ["evaluate", "--model", "{run}", "--data", "{faces}", "--out", "{out}.json"]
BALANCE = ["balance", "--model", "{run}", "--data", "{faces}", "--out", "{out}"]
SYNTHESIZE = ["synthesize", "--model", "{run}", "--expression", "fear", "--out", "{out}", "{face}"]
SCORE = ["score", "--real", "{faces}", "--synthetic", "{faces}", "--out", "{out}.json"]
STUDY = ["study", "--preset", "smoke", "--out", "{out}"]
RENDER = ["render", "--count", "8", "--size", "32", "--out", "{out}"]
INSPECT = ["inspect", "{faces}"]

CASES = []


def case(command, message, *more, name=None):
    """Put what a function spoils on the list: the call, and the end of what is said about it."""

    def register(spoil):
        CASES.append(pytest.param(spoil, [*command, *more], message, id=name or spoil.__name__.removeprefix("spoil_")))
        return spoil

    return register
