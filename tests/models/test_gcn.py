import pytest
import torch
from scipy.stats import spearmanr

from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS, EXPRESSIONS_7
from synthmtl.models import emotion_adjacency
from synthmtl.models.gcn import EmotionGraph, read_word_vectors

NAN = float("nan")


def full(*, linked=False):
    """Labels of seven expressions that all go with valence and with arousal, which have nothing to do with each other.

    Six faces each; valence is 1 for four expressions, and arousal is 1 on as many faces of these as of the others.
    """
    expression = torch.arange(7).repeat_interleave(6)
    valence = torch.where(expression < 4, 1.0, -1.0)
    excited = torch.tensor([6, 6, 0, 0, 6, 1, 2])
    arousal = torch.where(torch.arange(6).repeat(7) < excited[expression], 1.0, -1.0)
    return expression, torch.stack([valence, valence if linked else arousal], 1)


def test_known_matrix():
    # a goes with valence only, b with nothing, c with both.
    expression = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    values = torch.tensor([[-1.0, 0], [-1, 0], [-1, 0], [-1, 0], [0, -1], [0, 1], [0, -1], [0, 1],
                           [1, 1], [1, 1], [1, 1], [1, 1]])  # fmt: skip
    matrix = emotion_adjacency(expression, values, EXPRESSIONS[:3], threshold=0.45)
    expected = torch.tensor(
        [
            [0.5, 0, 0, 0.5, 0],
            [0, 1, 0, 0, 0],
            [0, 0, 0.5, 0.25, 0.25],
            [0.5 / 3, 0, 0.5 / 3, 0.5, 0.5 / 3],
            [0, 0, 0.25, 0.25, 0.5],
        ]
    )
    torch.testing.assert_close(matrix, expected)
    found = emotion_adjacency(expression, values, EXPRESSIONS[:3], threshold=0.45, normalization="published")
    assert torch.equal(found, matrix.T)


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_neighbors_are_those_of_scipy(threshold):
    generator = torch.Generator().manual_seed(1)
    expression = torch.randint(0, 8, (300,), generator=generator)
    values = torch.randn(300, 2, generator=generator) + torch.linspace(-0.8, 0.8, 8)[expression][:, None]
    matrix = emotion_adjacency(expression, values, EXPRESSIONS, threshold=threshold)
    torch.testing.assert_close(matrix.sum(1), torch.ones(10))
    assert torch.equal(matrix[:8, :8], torch.diag(matrix.diag()[:8]))
    for k in range(8):
        for j in range(2):
            rho = spearmanr((expression == k).numpy(), values[:, j].numpy()).statistic
            assert bool(matrix[k, 8 + j] > 0) == bool(matrix[8 + j, k] > 0) == (abs(rho) >= threshold)
    rho = spearmanr(values[:, 0].numpy(), values[:, 1].numpy()).statistic
    assert bool(matrix[8, 9] > 0) == (abs(rho) >= threshold)


@pytest.mark.parametrize(("linked", "mass"), [(False, 2.25), (True, 2.25 + 0.5 / 8)])
def test_published_normalization_gives_valence_and_arousal_more_mass(linked, mass):
    expression, values = full(linked=linked)
    row = emotion_adjacency(expression, values, EXPRESSIONS_7)
    assert row[:7, 7:].all() and row[7:, :7].all() and bool(row[7, 8] > 0) == linked
    published = emotion_adjacency(expression, values, EXPRESSIONS_7, normalization="published")
    # D^-1/2 Aᵀ D^-1/2, as the published code has it
    spread = row.sum(1).rsqrt()
    torch.testing.assert_close(published, spread[:, None] * row.T * spread)
    assert row.sum(1).tolist() == pytest.approx([1] * 9)
    assert published.sum(1)[7:].tolist() == pytest.approx([mass, mass])


def test_missing_labels_are_left_out():
    expression, values = full()
    matrix = emotion_adjacency(expression, values, EXPRESSIONS_7)
    more = torch.cat([expression, torch.full((50,), -1), torch.arange(7).repeat(6)])
    noise = torch.full((92, 2), NAN)
    assert torch.equal(emotion_adjacency(more, torch.cat([values, noise]), EXPRESSIONS_7), matrix)
    half = values.clone()
    half[:, 1] = NAN
    found = emotion_adjacency(expression, half, EXPRESSIONS_7)
    assert found[8, 8] == 1 and not found[:8, 8].any()  # arousal stands alone
    assert torch.equal(found[:7, 7] > 0, matrix[:7, 7] > 0)


def test_constant_labels_have_no_neighbors():
    expression, values = full()
    values[:, 0] = 0.2
    matrix = emotion_adjacency(expression, values, EXPRESSIONS, threshold=0.0001)
    assert matrix[7, 7] == matrix[8, 8] == 1  # a class without a face, and valence
    assert matrix[:7, 9].tolist() == [0.5] * 7


def test_no_face_with_both_labels():
    with pytest.raises(InputError, match="no training face carries an expression together with valence or arousal"):
        emotion_adjacency(torch.tensor([-1, 0]), torch.tensor([[0.1, 0.2], [NAN, NAN]]), EXPRESSIONS_7)


def words(path, names, *, dim=4, header=None):
    lines = [f"{name} " + " ".join(f"{i + j / 10}" for j in range(dim)) for i, name in enumerate(names)]
    path.write_text("\n".join(([header] if header else []) + lines) + "\n", encoding="utf-8")
    return path


def test_word_vectors(tmp_path):
    path = words(tmp_path / "glove.txt", ["the", "anger", "happiness", "arousal", "happy", "valence"], header="6 4")
    vectors = read_word_vectors(path, ("happiness", "anger"))
    assert vectors[:, 0].tolist() == [2, 1, 5, 3] and vectors.shape == (4, 4)
    # aliases, where the name is not there; the name first, wherever it stands
    path = words(tmp_path / "aliases.txt", ["excitement", "joy", "angry", "happy", "pleasure", "mad"])
    assert read_word_vectors(path, ("happiness", "anger"))[:, 0].tolist() == [3, 2, 4, 0]


def test_word_vectors_that_are_missing_or_broken(tmp_path):
    path = words(tmp_path / "glove.txt", ["happiness", "valence", "arousal"])
    with pytest.raises(InputError, match=r"glove.txt: has no vector for 'anger' \(nor for angry, angrily, mad\)"):
        read_word_vectors(path, ("happiness", "anger"))
    path.write_text("happiness 1 2 3\nvalence 1 2\narousal 1 2 3\n")
    with pytest.raises(InputError, match="glove.txt:2: the vector of 'valence' has 2 numbers, not 3"):
        read_word_vectors(path, ("happiness",))
    for value in ("x", "nan", "inf", "-inf", "1e39"):  # the last is no float32
        path.write_text(f"happiness 1 2 {value}\n")
        with pytest.raises(InputError, match="glove.txt:1: the vector of 'happiness' is not made of numbers"):
            read_word_vectors(path, ("happiness",))
    for broken in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InputError, match="cannot read word vectors"):
            read_word_vectors(broken, ("happiness",))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read word vectors"):
        read_word_vectors(path, ("happiness",))


def test_graph_is_its_formula():
    torch.manual_seed(0)
    nodes, adjacency = torch.randn(5, 3), torch.rand(5, 5)
    graph = EmotionGraph(nodes, adjacency, trained=False, hidden_channels=4, features=6)
    hidden = adjacency @ nodes @ graph.first.weight.T
    hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    torch.testing.assert_close(graph(), adjacency @ hidden @ graph.second.weight.T)
    assert sum(p.numel() for p in graph.parameters()) == 3 * 4 + 4 * 6
    trained = EmotionGraph(nodes, adjacency, trained=True, hidden_channels=4, features=6)
    assert sum(p.numel() for p in trained.parameters()) == 3 * 4 + 4 * 6 + 5 * 3
    exact = graph()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(graph(), exact)
    half = trained.bfloat16()
    assert half.nodes.dtype == torch.bfloat16 and half().dtype == torch.float32
    half.adjacency = adjacency  # as where loading rounds what it loads and nothing else
    assert half().dtype == torch.float32
