"""Long work reports its progress, also without a terminal."""

import logging

import d4m.progress
from d4m.progress import track


def test_the_numbers_come_in_order():
    assert list(track(4, "work", unit="step")) == [0, 1, 2, 3]
    assert list(track(0, "work", unit="step")) == []


def test_short_work_logs_nothing(caplog):
    caplog.set_level(logging.INFO)
    list(track(3, "work", unit="step"))
    assert caplog.messages == []


def test_long_work_logs_its_progress(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(d4m.progress, "_LOG_EVERY_S", 0.0)
    list(track(3, "denoiser", unit="step"))
    assert caplog.messages[0] == "denoiser: 1 of 3 steps"
    assert caplog.messages[-1] == "denoiser: 3 of 3 steps"
