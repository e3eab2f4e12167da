import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthmtl.data.inspection import format_inspection, inspect_data
from synthmtl.data.readers.london import COLUMNS
from synthmtl.data.writer import write_image_folder
from synthmtl.errors import InputError


def test_everything_wrong_at_once(folder, save, faces, tmp_path):
    root = folder({"train/Angry": 3, "train/fear": 2, "train/sleepy": 2, "test/angry": 2})
    train = root / "train" / "Angry"
    (train / "empty.png").touch()
    (train / "broken.png").write_text("no picture")
    (root / "test" / "angry" / "copy.png").write_bytes((train / "000.png").read_bytes())
    (root / "train" / "fear" / "again.png").write_bytes((train / "000.png").read_bytes())
    save(root / "stray.png", faces(1)[0])
    Image.new("RGB", (20, 30)).save(train / "color.png")
    rows = ["file_name,subject,label,valence", "train/Angry/000.png,ann,angry,0.5", "train/Angry/001.png,ann,fear,"]
    rows += ["train/Angry/002.png,bob,anger,5", "test/angry/000.png,ann,,", "test/angry/none.png,ann,,"]
    (root / "metadata.csv").write_text("\n".join(rows))
    report = inspect_data(root)
    assert json.loads(json.dumps(report)) == report
    assert report["counts"] == {"train": {"fear": 3, "anger": 3}, "test": {"fear": 0, "anger": 3}}
    assert report["faces"] == 9 and report["classes"] == ["fear", "anger"]
    for message, part in zip(sorted(report["bad_files"]), ("none.png", "broken.png", "empty.png"), strict=False):
        assert part in message or "metadata" in message
    assert len(report["bad_files"]) == 3
    assert len(report["problems"]) == 3
    text = "\n".join(report["problems"])
    assert "labelled 'fear'" in text and "valence is '5'" in text and "sleepy" in text
    assert report["ignored"] == [(root / "stray.png").as_posix()]
    assert report["sizes"] == {"16x16": 8, "20x30": 1} and report["modes"] == {"L": 8, "RGB": 1}
    assert report["subjects"] == {"train": 2, "test": 1}
    assert report["missing"]["train"]["subject"] == 4 and report["missing"]["train"]["valence_arousal"] == 5
    assert report["repeats"] == {
        "train": {"exact": 1, "near": 1, "mirrored": 0}, "test": {"exact": 0, "near": 0, "mirrored": 0}
    }  # fmt: skip
    assert report["synthetic"] == {"train": 0, "test": 0}
    (leak,) = report["leaks"]
    assert (leak["exact"], leak["exact_other_label"], leak["subjects"]) == (1, 1, 1)
    assert report["renamed"] == {"Angry": "anger", "angry": "anger"}
    assert "test has no images of fear" in report["warnings"]
    printed = format_inspection(report)
    for part in ("9 faces", "fear", "empty.png", "labelled 'fear'", "stray.png", "Angry → anger", "20x30 (1)"):
        assert part in printed


def test_duplicates_people_and_synthesized_faces_across_splits(table, tmp_path):
    train, test = table({"anger": 8, "fear": 8}, subjects=4, size=48), table({"anger": 6, "fear": 6}, size=48, seed=2)
    train.images[1] = train.images[0].flip(-1)
    train.images[5] = train.images[4]
    test.images[0] = train.images[9].flip(-1)
    test.images[1] = train.images[10]
    test.subject[:] = 3
    test.synthetic[[2, 3]] = True
    for name, part in (("train", train), ("test", test)):
        write_image_folder(part, tmp_path, name)
    report = inspect_data(tmp_path)
    assert json.loads(json.dumps(report)) == report
    assert report["repeats"]["train"] == {"exact": 1, "near": 2, "mirrored": 1}
    (leak,) = report["leaks"]
    assert (leak["near"], leak["exact"], leak["mirrored"], leak["subjects"]) == (2, 1, 1, 1)
    assert report["synthetic"] == {"train": 0, "test": 2}
    assert "test has 2 synthesized faces, which training leaves out" in report["warnings"]
    printed = format_inspection(report)
    for part in ("2 look-alikes (16.7 %", "1 mirrored; 1 subjects in both", "repeats, mirrored", "synthesized"):
        assert part in printed


def test_faces_whose_files_say_that_they_were_synthesized(folder):
    root = folder({"anger": 3, "fear": 3})
    said = PngInfo()
    said.add_text("synthetic", "true")
    for file in sorted((root / "fear").glob("*.png"))[:2]:
        with Image.open(file) as image:
            image.copy().save(file, pnginfo=said)
    assert inspect_data(root)["synthetic"] == {"all": 2}


def test_a_good_set(folder):
    report = inspect_data(folder({"anger": 3, "fear": 2}))
    assert report["counts"] == {"all": {"fear": 2, "anger": 3}}
    assert not any(report[name] for name in ("bad_files", "problems", "ignored", "warnings", "renamed", "leaks"))
    assert report["subjects"] == {"all": None} and "unknown" in format_inspection(report)


def test_fer2013_csv_with_bad_rows(tmp_path):
    pixels = [" ".join(str((i * j) % 256) for j in range(2304)) for i in (1, 2, 3)]
    rows = [
        f"0,{pixels[0]},Training",
        f"3,{pixels[1]},Training",
        "9,1,Training",
        f"3,{pixels[2]},PublicTest",
        "3,1,Training",
    ]
    (tmp_path / "fer.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    report = inspect_data(tmp_path / "fer.csv")
    assert report["counts"]["train"] == {"happiness": 1, "anger": 1}
    assert [message.split(": ")[0][-9:] for message in report["bad_files"]] == ["fer.csv:4", "fer.csv:6"]
    assert "train has 1 images of anger: training needs at least two" in report["warnings"]


def test_only_faults_are_a_report_too(folder):
    root = folder({"anger": 1, "sleepy": 1})
    (root / "anger" / "000.png").write_bytes(b"")
    report = inspect_data(root)
    assert report["faces"] == 0 and len(report["bad_files"]) == 1 and len(report["problems"]) == 1
    assert "sleepy" in format_inspection(report)


def test_long_lists_are_cut(folder):
    root = folder({"anger": 30, "fear": 2})
    for path in (root / "anger").iterdir():
        path.write_bytes(b"")
    report = inspect_data(root)
    assert len(report["bad_files"]) == 30
    assert "... and 20 more" in format_inspection(report)


def test_nothing_to_inspect(tmp_path):
    with pytest.raises(InputError, match="no such folder or file"):
        inspect_data(tmp_path / "none")
    with pytest.raises(InputError, match="no faces found"):
        inspect_data(tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="not FER2013's csv"):
        inspect_data(tmp_path / "other.csv")


def test_published_layouts_are_read_by_their_readers(lay_out):
    rows = [f"{split}_{number:04d}.jpg {number % 7 + 1}" for split in ("train", "test") for number in range(14)]
    files = {f"Image/aligned/{row.split('.')[0]}_aligned.jpg": i for i, row in enumerate(rows)}
    rows.append("train_0099.jpg 9")
    report = inspect_data(lay_out(files | {"EmoLabel/list_patition_label.txt": "\n".join(rows)}))
    assert report["layout"] == "rafdb" and report["faces"] == 28
    assert report["counts"]["train"] == dict.fromkeys(report["classes"], 2)
    (problem,) = report["problems"]
    assert "list_patition_label.txt:29" in problem and "'9'" in problem
    assert "rafdb, 28 faces" in format_inspection(report)


def test_corrupt_pictures_of_a_published_layout_are_bad_files(lay_out):
    rows = [f"train_{number}.jpg {number % 2 + 4}" for number in range(6)]
    files = {f"Image/aligned/train_{number}_aligned.jpg": number for number in range(5)}
    files |= {"EmoLabel/list_patition_label.txt": "\n".join([*rows, "train_7.jpg 9"])}
    root = lay_out(files | {"Image/aligned/train_1_aligned.jpg": b"no picture"})
    report = inspect_data(root)
    assert json.loads(json.dumps(report)) == report and report["faces"] == 4
    absent, broken = report["bad_files"]
    assert "train_5_aligned.jpg" in absent and broken.startswith(f"{root}/Image/aligned/train_1_aligned.jpg: not an")
    (problem,) = report["problems"]
    assert problem.startswith(f"{root}/EmoLabel/list_patition_label.txt:7: expression is '9'")
    printed = format_inspection(report)
    assert "files that cannot be read: 2" in printed and "sizes" not in printed and "modes" not in printed


def test_pictures_that_the_reader_of_a_published_layout_ignores(lay_out):
    root = lay_out(
        {
            "landmarks.csv": f"{','.join(COLUMNS)}\nneutral/1.png,{','.join(['16'] * 378)}\n",
            **{f"{name}/{i}.png": 10 * k + i for k, name in enumerate(("neutral", "happy")) for i in (1, 2)},
            "stray.png": 7,
            "happy/phone.heic": b"photograph",
        }
    )
    report = inspect_data(root)
    assert report["layout"] == "london" and not report["problems"] and not report["bad_files"]
    assert report["ignored"] == [(root / name).as_posix() for name in ("happy/phone.heic", "stray.png")]


def test_pictures_that_are_not_read_are_listed(folder):
    root = folder({"anger": 2, "fear": 2})
    names = ["anger/a.HEIC", "anger/b.heif", "fear/c.jp2", "fear/d.jxl"]
    for name in names:
        (root / name).write_bytes(b"photograph")
    report = inspect_data(root)
    assert report["ignored"] == [(root / name).as_posix() for name in names] and report["faces"] == 4


def test_the_format_may_be_given(lay_out):
    rows = {"train.csv": "file,1\n" + "".join(f"happy/{i}.png,{i % 2}\n" for i in range(4))}
    root = lay_out(rows | {f"happy/{i}.png": i for i in range(4)} | {"sad/9.png": 9})
    assert inspect_data(root)["layout"] == "image folder"
    report = inspect_data(root, format="emotionet")
    assert report["layout"] == "emotionet" and report["missing"]["train"]["action_units"] == 0
    with pytest.raises(InputError, match="unknown format 'nosuch': use one of huggingface, "):
        inspect_data(root, format="nosuch")
    for path in (root, root / "train.csv"):
        with pytest.raises(InputError, match="not FER2013's csv"):
            inspect_data(path, format="fer2013")


def test_columns_that_are_nearly_called_as_known_ones(folder):
    root = folder({"anger": 3, "fear": 3})
    rows = [f"{path.relative_to(root).as_posix()},ann,x" for path in sorted(root.rglob("*.png"))]
    (root / "metadata.csv").write_text("\n".join(["file_name,Subject_ID,class", *rows]))
    (warning,) = inspect_data(root)["warnings"]
    assert warning.startswith(f"{root}: the column 'Subject_ID' is not read as subject: call it 'subject'")
    (root / "metadata.csv").write_text("\n".join(["file_name,Subject,class", *rows]))
    report = inspect_data(root)
    assert not report["warnings"] and report["subjects"] == {"all": 1}
