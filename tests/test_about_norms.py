"""What is said of each norm is true of its layer."""

import copy
import re

import numpy as np
import pytest
import torch
from test_more_norms import BUILT_IN, layer_of, numbers
from test_norms import apply, maps

from normlab.nets import ABOUT, NORMS

SHAPE = (4, 6, 2, 3)
G, V = 2, 2  # groups; images of a ghost batch
GHOSTS = {"gbn": {"virtual_batch_size": V}}


def test_every_norm_of_the_registry_is_described_and_no_other() -> None:
    assert list(ABOUT) == [name for name in NORMS if name != "custom"]
    assert len({about.title for about in ABOUT.values()}) == len(ABOUT)
    for name, about in ABOUT.items():
        assert name == "none" or re.search(r"\b20\d\d\b.*, arXiv:\d{4}\.\d{5}\b", about.source), name


def sets(name: str) -> np.ndarray:
    """The number of the statistic that each element of `SHAPE` shares, by the axes that are named; -1 without one."""
    over = ABOUT[name].over
    if not over:
        return np.full(SHAPE, -1)
    n, c, h, w = np.indices(SHAPE)
    parts = {"N": n // V if "V" in over else n, "C": c // (SHAPE[1] // G) if "C/G" in over else c, "H": h, "W": w}
    found = np.zeros(SHAPE, dtype=int)
    for axis, part in parts.items():
        if axis not in over:
            found = found * (part.max() + 1) + part
    return found


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_statistic_is_over_these_axes(name: str) -> None:
    """∂y/∂x is zero between two numbers exactly where they share no statistic; and there are as many as it says."""
    layer = layer_of(name, SHAPE, **GHOSTS.get(name, {}), **({"threshold": False} if name == "frn" else {}))
    jacobian = torch.autograd.functional.jacobian(layer, torch.from_numpy(maps(SHAPE)))
    size = int(np.prod(SHAPE))
    found = sets(name).ravel()
    shared = (found[:, None] == found) & (found >= 0) | np.eye(size, dtype=bool)
    np.testing.assert_array_equal(jacobian.reshape(size, size).abs().numpy() > 1e-12, shared)
    lengths = dict(zip("NCHW", SHAPE, strict=True)) | {"G": G, "V": V}
    many = eval(ABOUT[name].count.replace("·", "*"), {}, lengths)  # a formula in N, C, G, V, H and W
    assert many == len(set(found.tolist()) - {-1})
    of_an_image = [np.sum(found.reshape(SHAPE)[0] == i) for i in set(found.reshape(SHAPE)[0].ravel().tolist()) - {-1}]
    assert {ABOUT[name].values(6, (2, 3), G)} == set(of_an_image or [0])


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_mean_is_subtracted_where_it_says_so(name: str) -> None:
    layer = layer_of(name, SHAPE, **({"threshold": False} if name == "frn" else {}))
    changed = np.abs(apply(copy.deepcopy(layer), maps(SHAPE) + 3) - apply(copy.deepcopy(layer), maps(SHAPE))).max()
    assert (changed < 1e-6) == ABOUT[name].centred


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_kept_is_a_buffer_that_training_moves(name: str) -> None:
    layer, about = layer_of(name, SHAPE), ABOUT[name]
    before = {key: value.clone() for key, value in layer.named_buffers()}
    apply(layer, maps(SHAPE))
    moved = {key for key, value in layer.named_buffers() if not torch.equal(value, before[key])}
    assert moved == set(before)
    assert bool(about.state) == bool(before)
    assert ("running mean and variance" in about.state) == ({"running_mean", "running_var"} <= moved)


@pytest.mark.parametrize("name", BUILT_IN)
def test_train_and_eval_mode_differ_where_it_says_so(name: str) -> None:
    layer, x = layer_of(name, SHAPE, seed=2), maps(SHAPE)
    in_use = apply(copy.deepcopy(layer).eval(), x)
    assert bool(ABOUT[name].modes) == (not np.allclose(apply(layer, x), in_use, rtol=1e-6, atol=1e-6))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_formula_has_the_letters_that_the_layer_learns(name: str) -> None:
    letters = {"weight": "γ", "bias": "β", "alpha": "α", "tau": "τ"}
    learned = {letters[key] for key in numbers(layer_of(name, SHAPE))}
    assert {letter for letter in letters.values() if letter in ABOUT[name].formula} == learned
    assert ("μ" in ABOUT[name].formula) == ABOUT[name].centred
