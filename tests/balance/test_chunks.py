import pytest
import torch

from synthmtl.balance.chunks import Chunk, ChunkStore, weights_hash
from synthmtl.errors import InputError


def some_chunk():
    return Chunk(
        images=torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2),
        reason=torch.arange(3), agreement=torch.linspace(0, 1, 3), source=torch.arange(3),
        seed=torch.arange(3) + 2**62, attempt=torch.arange(3),
        rejected=torch.ones(2, 4, dtype=torch.int64),
    )  # fmt: skip


def test_round_trip(tmp_path):
    store, chunk = ChunkStore(tmp_path, {"plan": "a"}), some_chunk()
    assert store.load(2) is None and not store.has(2)
    store.save(2, chunk)
    again = ChunkStore(tmp_path, {"plan": "a"}, rank=1).load(2)
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(chunk).items())
    assert sorted(p.name for p in store.folder.iterdir()) == ["00002.safetensors", "identity.json"]


def test_damaged_chunk_counts_as_missing(tmp_path):
    store = ChunkStore(tmp_path, {})
    store.save(0, some_chunk())
    whole = store.path(0).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense" * 20):
        store.path(0).write_bytes(damaged)
        assert store.load(0) is None


def test_other_identity_is_refused_by_name(tmp_path):
    ChunkStore(tmp_path, {"plan": "a", "generator": "b"})
    with pytest.raises(InputError, match="another generator:"):
        ChunkStore(tmp_path, {"plan": "a", "generator": "c"})
    (tmp_path / "chunks" / "identity.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        ChunkStore(tmp_path, {"plan": "a", "generator": "b"})


def test_chunks_of_unknown_identity_are_refused(tmp_path):
    store = ChunkStore(tmp_path, {})
    store.save(0, some_chunk())
    (store.folder / "identity.json").unlink()
    with pytest.raises(InputError, match="missing beside finished chunks"):
        ChunkStore(tmp_path, {})


def test_weights_hash_sees_values_and_survives_saving(tmp_path, job):
    generator = job.make_generator()
    generator.save_pretrained(tmp_path)
    assert weights_hash(generator) == weights_hash(type(generator).from_pretrained(tmp_path))
    assert weights_hash(generator) != weights_hash(job.make_generator(seed=1))
    assert len(weights_hash(generator.bfloat16())) == 16
