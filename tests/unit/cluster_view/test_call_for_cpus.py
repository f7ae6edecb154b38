"""A job's missing CPUs are asked for at once; with a real autoscaler in test_autoscaling.py."""

import logging

import pytest

from pipelines.cluster_view import autoscaler


@pytest.mark.parametrize(
    ("there", "wanted", "could", "asked", "told"),
    [
        (2.0, 5, True, [{"CPU": 1.0}] * 5, ""),
        (0.0, 3, None, [{"CPU": 1.0}] * 3, ""),  # nothing makes the cluster grow
        (2.0, 64, False, [{"CPU": 1.0}] * 64, "64 tasks at a time are asked for"),
        (8.0, 8, True, None, ""),
    ],
)
def test_what_is_asked_for(monkeypatch, caplog, there, wanted, could, asked, told):
    found = []

    def answer(bundles):
        found.append(bundles)
        return could

    monkeypatch.setattr(autoscaler.ray, "cluster_resources", lambda: {"CPU": there} if there else {})
    monkeypatch.setattr(autoscaler, "autoscaler_could", answer)
    with caplog.at_level(logging.WARNING):
        autoscaler.call_for_cpus(wanted)
    assert found == ([] if asked is None else [asked])
    assert caplog.text.count("asked for") == bool(told) and told in caplog.text
