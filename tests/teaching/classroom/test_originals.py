"""What a student put in the place of the library's functions is undone."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from blip2_lab.teaching.classroom import originals


@pytest.fixture
def package(monkeypatch):
    """A package with a module that has a function, a class and a constant."""
    module = ModuleType("made_up.masks")
    exec("def mask(): return 'right'\nclass Layer:\n    def forward(self): return 'right'\nSIZE = 3", vars(module))
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    monkeypatch.setitem(sys.modules, "made_up.masks", module)
    monkeypatch.setitem(sys.modules, "made_upper", ModuleType("made_upper"))
    return module


def test_functions_methods_and_constants_are_put_back(package):
    kept = originals.remember("made_up")
    package.mask = package.Layer.forward = lambda *args: "wrong"
    package.SIZE = 4
    package.Layer, layer = type("Layer", (), {}), package.Layer
    originals.put_back(kept)
    assert package.mask() == package.Layer().forward() == "right" and package.SIZE == 3 and package.Layer is layer


def test_what_was_deleted_is_put_back(package):
    kept = originals.remember("made_up")
    del package.mask, package.Layer.forward
    originals.put_back(kept)
    assert package.mask() == package.Layer().forward() == "right"


def test_only_the_package_is_remembered(package):
    names = {holder.__name__ for holder, _ in originals.remember("made_up")}
    assert names == {"made_up", "made_up.masks", "Layer", *originals.COMPARE}


def test_what_checks_compare_with_is_put_back():
    kept, right = originals.remember(), torch.equal
    torch.equal = lambda *tensors: True
    originals.put_back(kept)
    assert torch.equal is right and not torch.equal(torch.ones(1), torch.zeros(1))


def test_the_library_is_put_back():
    from blip2_lab.models import masks
    from blip2_lab.teaching import checks

    kept, right = originals.remember(), masks.unimodal_mask
    masks.unimodal_mask = None
    originals.put_back(kept)
    assert masks.unimodal_mask is right is checks.unimodal_mask.solution
