import torch

from synthmtl.data.provenance import homes_of, match_files, match_places, may_be_edits_of, photographs_of, sources_of
from synthmtl.data.table import FaceTable, coded_words


def test_files_match_by_whole_parts_and_only_once():
    files = ["/data/set/train/anger/1.png", "/data/set/train/fear/1.png", "/data/set/train/fear/11.png", "rows.csv:7"]
    wanted = ["train/anger/1.png", "1.png", "fear/11.png", None, "r/1.png", "other/rows.csv:7", "rows.csv:7", ""]
    assert match_files(files, wanted).tolist() == [0, -1, 2, -1, -1, 3, 3, -1]
    assert match_files([], wanted).tolist() == [-1] * 8


def photographs(files, *, own=None, synthetic=None):
    """Faces of these files; ``own`` is their ``source_file``."""
    column, words = coded_words(own or [None] * len(files))
    return FaceTable(
        images=torch.zeros(len(files), 1, 8, 8, dtype=torch.uint8),
        classes=("anger",),
        files=files,
        attributes={"source_file": column} if own else {},
        words={"source_file": words} if own else {},
        synthetic=torch.tensor(synthetic) if synthetic else None,
    )


def test_photographs_are_found_by_their_file_or_by_what_they_were_called_before():
    tables = [
        photographs(["/d/train/0.png", "/d/train/1.png"], own=["a/x.png", "a/y.png"], synthetic=[False, True]),
        photographs(["/d/test/0.png"]),
    ]
    sources = ["train/0.png", "test/0.png", "a/x.png", "a/y.png", "train/1.png", "0.png", None]
    assert homes_of(sources, tables).tolist() == [0, 1, 0, -1, -1, -1, -1]
    assert homes_of([], tables).tolist() == []


def test_a_renamed_folder_is_known_by_the_places_of_its_faces():
    files = ["/d/renamed/fear/1.png", "/d/renamed/anger/1.png", "/d/renamed/fear/2.png", ""]
    wanted = ["FACES/fear/1.png", "up/FACES/anger/1.png", "fear/2.png", "FACES/sad/1.png", "2.png", "", None]
    assert match_places(files, wanted).tolist() == [0, 1, 2, -1, -1, -1, -1]
    assert match_places(["d/x.csv:7", "d/x.csv:8"], ["e/x.csv:8"]).tolist() == [1]


def test_a_place_holds_for_one_face_of_one_split_and_one_expression():
    """Never is another face taken for one that is not there."""
    flat = ["/d/renamed/fear/1.png", "/d/renamed/anger/2.png"]
    assert match_places(flat, ["train/fear/1.png", "FACES/test/anger/2.png"]).tolist() == [-1, -1]
    splits = ["/d/set/train/fear/1.png", "/d/set/test/fear/2.png"]
    assert match_places(splits, ["train/fear/2.png", "FACES/fear/2.png", "x/test/fear/2.png"]).tolist() == [-1, -1, 1]
    for part in ("train", "fear"):  # all faces are in one folder, which is none of a data set's
        assert match_places([f"/d/{part}/1.png"], ["train/1.png", "anger/1.png"])[1] == -1
    assert match_places(["/d/a/1.png", "/d/b/1.png", "/d/b/1.png"], ["x/a/1.png", "x/b/1.png"]).tolist() == [0, -1]
    assert match_places([], ["a/1.png"]).tolist() == [-1] and match_places(flat, []).tolist() == []


def test_the_name_of_a_file_goes_before_its_place():
    """``FACES/fear/1.png`` is a photograph by itself, whatever lies at its place elsewhere."""
    tables = [
        photographs(["/d/renamed/fear/1.png"], own=["old/fear/1.png"]),
        photographs(["/d/renamed/fear/7.png"], own=["FACES/fear/1.png"]),
    ]
    number, row, by_place = photographs_of(["FACES/fear/1.png", "new/fear/1.png", None, "x/fear/9.png"], tables)
    assert number.tolist() == [1, 0, -1, -1] and row.tolist() == [0, 0, -1, -1]
    assert by_place.tolist() == [False, True, False, False]


def test_names_from_other_working_folders_match():
    assert match_files(["/d/FACES/fear/1.png"], ["../d/FACES/fear/1.png", "./fear/1.png"]).tolist() == [0, 0]
    assert match_files(["../FACES/fear/1.png"], ["FACES/fear/1.png"]).tolist() == [0]


def test_what_may_be_an_edit_of_a_held_out_face_is_taken_for_one():
    """A name that fits several photographs is of a held-out one as soon as one of them is."""
    train = photographs(["/d/FACES/fear/1.png", "/d/FACES/fear/2.png", "/d/FACES/anger/2.png", "/d/FACES/anger/3.png"])
    validation = photographs(["/d/FACES/anger/1.png"])
    test = photographs(["/d/FACES/sad/3.png", "/d/FACES/sad/4.png", "/d/FACES/anger/4.png"])
    sources = ["fear/1.png", "FACES/anger/1.png", "old/sad/3.png", "1.png", "2.png", "4.png", "5.png", None]
    shown, lost = may_be_edits_of(sources, [validation, test], [train])
    assert shown.tolist() == [False, True, True, True, False, True, False, False]
    assert lost.tolist() == [False, False, False, False, False, False, True, False]
    assert torch.equal(may_be_edits_of(sources, [test, validation], [train])[0], shown)
    assert not may_be_edits_of(sources, [], [train, validation, test])[0].any()
    assert not may_be_edits_of([], [test], [train])[0].numel()


def test_two_photographs_that_were_called_alike_are_both_the_source():
    """As in a set that was balanced twice: whichever of them is held out, no edit of it is trained on."""
    one, other = (photographs([f"/d/{i}.png"], own=["a/x.png"]) for i in range(2))
    assert homes_of(["a/x.png"], [one, other]).tolist() == [-1]
    for held_out, others in (([one, other], []), ([one], [other])):
        assert may_be_edits_of(["a/x.png"], held_out, others)[0].all()


def test_a_name_may_be_that_of_a_file_or_what_another_one_was_called_before():
    """As in a set that was balanced twice, and edits that were put beside it."""
    one, other = photographs(["/d/a/1.png"], own=["a/2.png"]), photographs(["/d/a/2.png"], own=["a/7.png"])
    for held_out, others in ((one, other), (other, one)):
        assert may_be_edits_of(["a/2.png"], [held_out], [others])[0].all()
    assert may_be_edits_of(["a/1.png", "a/7.png"], [one], [other])[0].tolist() == [True, False]


def test_faces_without_a_source_name_none():
    assert sources_of(photographs(["a.png"])) == [None]
    assert sources_of(photographs(["a.png", "b.png"], own=["x.png", None])) == ["x.png", None]
