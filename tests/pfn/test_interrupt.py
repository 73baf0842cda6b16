"""Ctrl-C during training: the step is finished and kept."""

import os
import signal

import numpy as np
import pytest

from bayesnet.pfn.checkpoint import CHECKPOINT
from bayesnet.pfn.interrupt import deferred_interrupt
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.settings import Training


@pytest.fixture(autouse=True)
def usual():
    """Python's own handler: a run in the background of a shell ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Counting:
    """An objective whose state counts its steps; Ctrl-C comes in the middle of one."""

    training = Training(steps=6)
    losses = ("loss",)

    def __init__(self, interrupted=None):
        self.interrupted, self.done = interrupted, []

    def identity(self):
        return "counting"

    def start(self):
        return np.zeros(1, np.float32)

    def step(self, state, number):
        self.done.append(number)
        if number == self.interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        return state + 1, np.zeros(1)

    def evaluate(self, state):
        return {}


def test_the_step_is_finished_and_kept(tmp_path):
    first = Counting(interrupted=2)
    with pytest.raises(KeyboardInterrupt):
        run_loop(first, folder=tmp_path)
    assert first.done == [0, 1, 2]
    assert (tmp_path / CHECKPOINT).is_file()
    second = Counting()
    assert run_loop(second, folder=tmp_path)[0] == 6
    assert second.done == [3, 4, 5]


def test_without_a_folder_it_is_an_interrupt_as_ever():
    with pytest.raises(KeyboardInterrupt):
        run_loop(Counting(interrupted=0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_one_is_not_deferred():
    with deferred_interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_others_are_left_alone():
    mine = []
    usual = signal.signal(signal.SIGINT, lambda *_: mine.append(1))
    try:
        with deferred_interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
        assert mine == [1]
        assert not interrupt.asked
    finally:
        signal.signal(signal.SIGINT, usual)
