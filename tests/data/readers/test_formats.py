import zipfile

import numpy as np
import pytest

from synthmtl.data.inspection import inspect_data
from synthmtl.data.load import load_splits, read_tables
from synthmtl.data.readers.formats import FORMATS, FRAME_OPTIONS, detect_format
from synthmtl.data.readers.london import COLUMNS
from synthmtl.errors import InputError

POINTS = "\n".join(f"{8 + i % 9} {8 + i % 17}" for i in range(68))
LAYOUTS = {
    "affectnet": {
        **{f"train_set/images/{i}.jpg": i for i in range(4)},
        **{f"train_set/annotations/{i}_exp.npy": np.array(str(i)) for i in range(4)},
    },
    "rafdb": {
        "basic/EmoLabel/list_patition_label.txt": "train_1.png 4\ntrain_2.png 5\ntest_1.png 4\n",
        **{f"basic/Image/aligned/{name}_aligned.png": i for i, name in enumerate(["train_1", "train_2", "test_1"])},
    },
    "ckplus": {
        "cohn-kanade-images/S005/001/S005_001_00000001.png": 1,
        "cohn-kanade-images/S005/001/S005_001_00000011.png": 2,
        "Emotion/S005/001/S005_001_00000011_emotion.txt": "  3.0e+00",
    },
    "affwild2": {
        "annotations/VA_Set/Train_Set/1.txt": "valence,arousal\n0,0\n",
        "cropped_aligned/1/00001.jpg": 1,
    },
    "disfa": {"ActionUnit_Labels/SN001/SN001_au1.txt": "1,5\n", "Images/SN001/1.png": 1},
    "bp4d": {"AUCoding/F001_T1.csv": "0,1\n1,1\n", "BP4D-training/F001/T1/1.jpg": 1},
    "wflw": {
        "WFLW_annotations/list_98pt_rect_attr_train.txt": f"{'8 24 ' * 49}{'24 8 ' * 49}0 0 9 9 0 0 0 0 0 0 a.png",
        "WFLW_images/a.png": 1,
    },
    "300w": {"afw/1.pts": f"version: 1\nn_points: 68\n{{\n{POINTS}\n}}\n", "afw/1.png": 1},
    "emotionet": {"train.csv": "URL,AU 1\nhttp://example.org/a.png,1\n", "images/a.png": 1},
    "london": {
        "neutral/1.png": 1,
        "happiness/1.png": 2,
        "landmarks.csv": f"{','.join(COLUMNS)}\nneutral/1.png,{','.join(['16'] * 378)}\n",
    },
    "image_folder": {"train/happy/1.png": 1, "train/sad/2.png": 2},
}


def read(path, **options):
    return read_tables(path, **{"image_size": 16, "channels": 1} | options)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_detected_and_read(lay_out, name):
    root = lay_out(LAYOUTS[name])
    assert detect_format(root) == name
    assert [layout for layout, (detect, _) in FORMATS.items() if detect(root)] in ([name], [name, "image_folder"])
    for format in (None, name):
        tables = read(root, format=format)
        assert all(table.images.shape[1:] == (1, 16, 16) and len(table) for table in tables.values())


@pytest.mark.parametrize("option", FRAME_OPTIONS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_frames_are_chosen_where_there_are_videos_and_nowhere_else(lay_out, name, option):
    root = lay_out(LAYOUTS[name])
    size = {"image_size": 16, "channels": 1}
    if name in FRAME_OPTIONS[option]:
        for take in (read_tables, inspect_data):  # what is wrong with it, the reader itself says
            with pytest.raises(InputError, match=f"^{option} must be at least 1, not 0$"):
                take(root, **size, **{option: 0})
    for take in (read_tables, load_splits, inspect_data) if name not in FRAME_OPTIONS[option] else ():
        with pytest.raises(InputError, match=f": {option} is 2, and {name} has no such option, only .*: leave it out$"):
            take(root, **size, **{option: 2})
    assert {split: table.files for split, table in read(root, **{option: 1}).items()} == {
        split: table.files for split, table in read(root).items()
    }


def test_every_frame_or_each_second_one(lay_out):
    rows = "".join(f"{frame},{frame % 6}\n" for frame in range(1, 8))
    root = lay_out(
        {"ActionUnit_Labels/SN001/SN001_au1.txt": rows} | {f"Images/SN001/{frame}.png": frame for frame in range(1, 8)}
    )
    for every in (1, 2, 3, 9):
        (table,) = read(root, every=every).values()
        assert [file.split("/")[-1] for file in table.files] == [f"{frame}.png" for frame in range(1, 8, every)]
        assert inspect_data(root, every=every)["faces"] == len(table)


def test_fer2013_and_the_formats_by_name(lay_out):
    pixels = " ".join(["7"] * 2304)
    root = lay_out({"fer.csv": f"emotion,pixels,Usage\n3,{pixels},Training\n"})
    assert detect_format(root / "fer.csv") == "fer2013" and len(read(root / "fer.csv")["train"]) == 1
    assert {"fer2013", "huggingface", "webdataset", *LAYOUTS} == set(FORMATS)
    with pytest.raises(InputError, match="unknown format 'fer': use one of huggingface, affectnet, .*image_folder"):
        read(root, format="fer")
    with pytest.raises(InputError, match="no such folder or file"):
        read(root / "none", format="rafdb")
    with pytest.raises(InputError, match="FER[+] votes"):
        read(lay_out(LAYOUTS["rafdb"]), ferplus=root / "votes.csv")


def test_a_wrong_format_says_what_to_give(lay_out):
    root = lay_out(LAYOUTS["image_folder"])
    for name, layout in FORMATS.items():
        if name != "image_folder":
            with pytest.raises(InputError) as error:
                layout.read(root, image_size=16, channels=1)
            assert str(root) in str(error.value) and "\n" not in str(error.value)


def split(path, **options):
    return load_splits(path, **{"image_size": 16, "channels": 1} | options)


def test_sets_without_expressions_are_split_by_subject(lay_out):
    files = {}
    for subject in range(10):
        files[f"ActionUnit_Labels/SN{subject:03d}/x_au1.txt"] = "1,5\n2,0\n"
        files |= {f"Images/SN{subject:03d}/{frame}.png": 10 * subject + frame for frame in (1, 2)}
    root = lay_out(files)
    with pytest.raises(InputError, match="no expression"):
        split(root)
    splits = split(root, require_expression=False)
    people = [set(table.subject.tolist()) for table in splits.tables().values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 10 and all(people)
    assert splits.classes == ()
    assert splits.notes[0].startswith("split 20 faces by subject, with seed 0: train 14")
    assert len(splits.notes) == 1  # nothing is said about expressions that nobody expects


def test_sets_without_expressions_keep_the_publishers_splits(lay_out):
    parts = ("helen/trainset", "helen/testset")
    text = LAYOUTS["300w"]["afw/1.pts"]
    files = {f"{part}/{i}.pts": text for part in parts for i in range(8)}
    files |= {name.replace(".pts", ".png"): i for i, name in enumerate(files)}
    splits = split(lay_out(files), require_expression=False)
    assert all("/testset/" in file for file in splits.test.files) and len(splits.test) == 8
    assert all("/trainset/" in file for table in (splits.train, splits.validation) for file in table.files)
    assert len(splits.train) == 7 and len(splits.validation) == 1


def test_data_without_any_label_are_refused(lay_out):
    rows = "\n".join(f"{i}.png,train,x" for i in range(4))
    root = lay_out({"metadata.csv": f"file_name,split,note\n{rows}\n"} | {f"{i}.png": i for i in range(4)})
    with pytest.raises(InputError, match="train: no usable label: give faces with one of expression, compound"):
        split(root, require_expression=False)


@pytest.mark.parametrize("stray", ["landmarks.pts", "a.csv", "embeddings.parquet"])
def test_a_stray_file_does_not_turn_an_image_folder_into_another_set(lay_out, stray):
    contents = {"landmarks.pts": LAYOUTS["300w"]["afw/1.pts"], "a.csv": "file,AU1\nx.png,1\n"}
    root = lay_out(LAYOUTS["image_folder"] | {stray: contents.get(stray, b"PAR1")})
    assert detect_format(root) == "image_folder" and list(read(root)) == ["train"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013/icml_face_data.csv"])
def test_a_wrapped_csv_is_named(lay_out, tmp_path, name, packed):
    files = {name: "emotion, Usage, pixels\n", "example_submission.csv": "a,b\n", "readme.txt": "x"}
    path = root = lay_out(files)
    if packed:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(root / file, file)
    for read_or_inspect in (read, inspect_data):
        with pytest.raises(InputError) as error:
            read_or_inspect(path)
        cure = f"unpack {name} and give that file" if packed else f"give {root / name} itself"
        assert str(error.value) == f"{path}: no faces found, but FER2013's csv: {cure}"


def test_a_csv_beside_pictures_wraps_nothing(lay_out):
    root = lay_out(LAYOUTS["image_folder"] | {"fer2013.csv": "emotion,pixels,Usage\n"})
    assert detect_format(root) == "image_folder" and list(read(root)) == ["train"]
