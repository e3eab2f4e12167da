import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from threading import local

import pytest
import torch
from torch import nn

from synthmtl import exchange
from synthmtl.exchange import Mailbox
from synthmtl.native import load_functions


@pytest.fixture(params=["in C++", "in Python", "mixed"])
def boxes(request, tmp_path, monkeypatch):
    """Of three processes that have mapped the same file; threads stand for them."""
    if request.param == "in C++" and not load_functions(exchange.SOURCE):
        pytest.skip("needs Linux and a C++ compiler")
    turns = {"in C++": [True], "in Python": [False], "mixed": [True, False, False]}[request.param]
    calls = itertools.cycle(turns)
    monkeypatch.setattr(exchange, "load_functions", lambda source: next(calls) and load_functions(source))
    path = tmp_path / "mail"
    path.write_bytes(bytes(Mailbox.size(3)))
    mailboxes = [Mailbox(path, rank, 3) for rank in range(3)]
    path.unlink()
    return mailboxes


def message(rank, number):
    """Of a length that all know, with contents that only its sender does."""
    length = random.Random(number).choice([1, 2, 7, 200, exchange.CAPACITY])
    return torch.randn(length, generator=torch.Generator().manual_seed(1000 * rank + number))


def test_everyone_reads_everyones_message_of_the_same_round(boxes):
    def work(box):
        luck = random.Random(box.rank)
        for number in range(150):
            if luck.random() < 0.1:
                time.sleep(0.003)
            read = box.gather(message(box.rank, number))
            assert torch.equal(read, torch.stack([message(rank, number) for rank in range(3)])), number
        return box.rank

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, boxes)) == [0, 1, 2]


def test_every_number_arrives_bit_for_bit(boxes):
    sent = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 3.4e38])
    with ThreadPoolExecutor(3) as pool:
        for read in pool.map(lambda box: box.gather(sent), boxes):
            assert torch.equal(read.view(torch.int32), sent.view(torch.int32).expand(3, -1))


def test_rounds_begin_anew_before_their_number_overflows(boxes):
    for box in boxes:
        box.round = 2**31 - 4
    with ThreadPoolExecutor(3) as pool:
        for number in range(6):
            sent = [torch.tensor([10.0 * number + rank]) for rank in range(3)]
            for read in pool.map(lambda box, sent=sent: box.gather(sent[box.rank]), boxes):
                assert torch.equal(read, torch.stack(sent))
    assert {box.round for box in boxes} == {4}


def test_who_does_not_answer_is_given_up(boxes, monkeypatch):
    monkeypatch.setattr(exchange, "PATIENCE", 0.05)
    with pytest.raises(TimeoutError, match="has not answered"):
        boxes[0].gather(torch.zeros(2))


def parameters_of(rank):
    """Four: used by all, kept channels last, used by all but the first process, and used by none."""
    weight = torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last)
    parameters = [nn.Parameter(t) for t in (torch.zeros(5), weight, torch.zeros(3), torch.zeros(2))]
    parameters[0].grad = torch.arange(5.0) + rank
    # Some gradients come in another memory format than their parameter's.
    parameters[1].grad = torch.arange(24.0).view(2, 3, 2, 2) * (rank + 1)
    if rank:
        parameters[1].grad = parameters[1].grad.to(memory_format=torch.channels_last)
        parameters[2].grad = torch.full((3,), float(rank))
    return parameters


def test_gradients_are_averaged(boxes, monkeypatch):
    own = local()
    monkeypatch.setattr(exchange, "mailbox", lambda: own.box)

    def work(box):
        own.box, parameters = box, parameters_of(box.rank)
        exchange.average_gradients(parameters)
        return [parameter.grad for parameter in parameters], parameters[1].stride()

    with ThreadPoolExecutor(3) as pool:
        for (first, second, third, fourth), stride in pool.map(work, boxes):
            torch.testing.assert_close(first, torch.arange(5.0) + 1)
            torch.testing.assert_close(second, torch.arange(24.0).view(2, 3, 2, 2) * 2)
            assert second.stride() == stride
            assert torch.equal(third, torch.ones(3)) and fourth is None  # (0 + 1 + 2) / 3


def test_averages_of_any_length(boxes):
    def work(box):
        for number, length in enumerate((1, exchange.PARCEL, 2 * exchange.PARCEL + 5, 300)):
            parts = [torch.randn(length, generator=torch.Generator().manual_seed(number + 10 * i)) for i in range(3)]
            mine = parts[box.rank].clone()
            box.average(mine)
            torch.testing.assert_close(mine, torch.stack(parts).mean(0))
            box.gather(torch.zeros(3))  # letters between parcels

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, boxes))
