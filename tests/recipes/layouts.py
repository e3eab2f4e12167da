"""Tiny data sets in the layouts of their publishers, for recipes whose configs name them."""

import numpy as np
from PIL import Image

SIDE = 40


def picture(path, seed, side=SIDE):
    """Random pixels at ``path``; the ending decides how they are stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def points(seed, side=SIDE):
    """68 points (x, y) inside a picture, in pixels, eyes apart."""
    found = np.random.default_rng(seed).uniform(0.2 * side, 0.8 * side, (68, 2))
    found[36], found[45] = (0.3 * side, 0.4 * side), (0.7 * side, 0.4 * side)
    return found


def rafdb(root):
    """RAF-DB's basic part: 6 training and 3 test faces of each of the seven expressions."""
    lines = []
    for split, each in (("train", 6), ("test", 3)):
        for number in range(7 * each):
            name = f"{split}_{number + 1:05d}"
            picture(root / "basic/Image/aligned" / f"{name}_aligned.jpg", len(lines))
            lines.append(f"{name}.jpg {number % 7 + 1}")
    (root / "basic/EmoLabel").mkdir(parents=True)
    (root / "basic/EmoLabel/list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return root


def w300(root):
    """300-W: 12 training and 4 test pictures with their points."""
    for part, count in (("lfpw/trainset", 12), ("lfpw/testset", 4)):
        for number in range(count):
            file = picture(root / part / f"image_{number:04d}.png", number)
            rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points(number))
            file.with_suffix(".pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    return root


def affectnet(root):
    """AffectNet's newer layout: 6 training and 3 validation faces of each of the eight expressions."""
    for folder, each in (("train_set", 6), ("val_set", 3)):
        for number in range(8 * each):
            picture(root / folder / "images" / f"{number}.jpg", number)
            notes = root / folder / "annotations"
            notes.mkdir(exist_ok=True)
            rng = np.random.default_rng(number)
            np.save(notes / f"{number}_exp.npy", str(number % 8))
            np.save(notes / f"{number}_val.npy", f"{rng.uniform(-1, 1):.3f}")
            np.save(notes / f"{number}_aro.npy", f"{rng.uniform(-1, 1):.3f}")
            np.save(notes / f"{number}_lnd.npy", points(number).flatten())
    return root


def emotionet(root):
    """EmotioNet's csv: 24 pictures with action units, some of them unknown."""
    units = [1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26, 43]
    rows = [",".join(["url", *(f"AU {unit}" for unit in units)])]
    for number in range(24):
        picture(root / f"{number}.jpg", number)
        values = np.random.default_rng(number).choice([0, 1, 999], len(units), p=[0.4, 0.5, 0.1])
        rows.append(",".join([f"{number}.jpg", *map(str, values)]))
    (root / "emotionet.csv").write_text("\n".join(rows) + "\n")
    return root


def affwild2(root):
    """Aff-Wild2: three training videos and one of validation, with expressions and action units in each frame."""
    units = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
    heads = {"EXPR_Recognition_Challenge": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
             "AU_Detection_Challenge": units}  # fmt: skip
    for video in range(4):
        for task, head in heads.items():
            split = "Train_Set" if video < 3 else "Validation_Set"
            file = root / "annotations" / task / split / f"video{video}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(video)
            single = [str(number % 7) for number in range(14)]
            several = [",".join(map(str, rng.integers(0, 2, 12))) for _ in range(14)]
            file.write_text("\n".join([head, *(single if task.startswith("EXPR") else several)]) + "\n")
        for number in range(14):
            picture(root / "cropped_aligned" / f"video{video}" / f"{number + 1:05d}.jpg", 100 * video + number)
    return root
