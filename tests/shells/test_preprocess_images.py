"""Preprocess of images, with Pillow as oracle."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from PIL import Image

from agent.core.manifest import TensorSpec
from agent.core.steps import Colour, Crop, Resize, Step
from agent.worker.preprocess import build_preprocess
from agent.worker.samples import Array, InputError

Channels = Literal["rgb", "bgr", "gray"]
RGB = stn.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def apply(step: Step, image: Array, shape: tuple[int, ...]) -> Array:
    """Perform one step into a uint8 tensor."""
    result = build_preprocess((step,), (TensorSpec("x", shape, "uint8"),))(image)
    assert result is not None
    return result[0]


@given(RGB)
def test_luma_is_that_of_pillow(image: Array) -> None:
    """Law: rgb and bgr to gray equal Pillow's ``L`` in every pixel."""
    expected = np.asarray(Image.fromarray(image).convert("L"))
    shape = (*image.shape[:2], 1)
    rgb = apply(Colour(source="rgb", to="gray"), image, shape)
    bgr = apply(Colour(source="bgr", to="gray"), image[:, :, ::-1], shape)
    assert expected.tolist() == rgb[:, :, 0].tolist()
    assert expected.tolist() == bgr[:, :, 0].tolist()


@given(RGB)
def test_channel_order_is_its_own_inverse(image: Array) -> None:
    """Law: rgb to bgr and back is the same picture."""
    there = apply(Colour(source="rgb", to="bgr"), image, image.shape)
    back = apply(Colour(source="bgr", to="rgb"), there, image.shape)
    assert image[:, :, ::-1].tolist() == there.tolist()
    assert image.tolist() == back.tolist()


def test_gray_becomes_three_equal_channels() -> None:
    """Gray to rgb repeats; two axes are one channel."""
    gray = np.array([[1, 2], [3, 4]], np.uint8)
    rgb = apply(Colour(source="gray", to="rgb"), gray, (2, 2, 3))
    assert rgb.tolist() == [[[1] * 3, [2] * 3], [[3] * 3, [4] * 3]]


@pytest.mark.parametrize("source", ["rgb", "gray"])
def test_colour_refuses_other_channels(source: Channels) -> None:
    """An image that is not what the step states is a bad sample."""
    image = np.zeros((2, 2, 4), np.uint8)
    with pytest.raises(InputError, match="this image has 4"):
        apply(Colour(source=source, to="gray"), image, (2, 2, 1))


def test_float_luma() -> None:
    """Float images keep their type; other integers have no luma."""
    preprocess = build_preprocess(
        (Colour(to="gray"),), (TensorSpec("x", (1, 1, 1), "float32"),)
    )
    result = preprocess(np.array([[[1.0, 0.5, 0.0]]], np.float32))
    assert result is not None
    assert pytest.approx(0.299 + 0.2935) == result[0].item()
    with pytest.raises(InputError, match="no luma of int32"):
        preprocess(np.zeros((1, 1, 3), np.int32))


def test_crop_takes_the_centre() -> None:
    """An odd margin leaves its extra pixel at the end."""
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    cut = apply(Crop(width=2, height=2), image, (2, 2, 1))
    assert cut[:, :, 0].tolist() == [[6, 7], [11, 12]]
    with pytest.raises(InputError, match="6 x 2 pixels do not fit into 5 x 4"):
        apply(Crop(width=6, height=2), image, (2, 6))


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_that_of_pillow(
    method: Literal["nearest", "bilinear", "bicubic", "area"], channels: int
) -> None:
    """Each method is the filter of Pillow that carries its meaning."""
    image = np.random.default_rng(1).integers(0, 256, (13, 17, channels), np.uint8)
    filters = {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "area": Image.Resampling.BOX,
    }
    flat = image if channels == 3 else image[:, :, 0]
    expected = np.asarray(Image.fromarray(flat).resize((8, 6), filters[method]))
    step = Resize(width=8, height=6, method=method)
    actual = apply(step, image, (6, 8, channels))
    assert expected.reshape(6, 8, channels).tolist() == actual.tolist()


def test_resize_takes_views_and_floats() -> None:
    """Strided views are resized; floats keep their range."""
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :, 0] = 200
    view = image[:, ::-1, ::-1]
    step = Resize(width=2, height=2)
    assert apply(step, view, (2, 2, 3))[0, 0].tolist() == [0, 0, 200]
    real = build_preprocess((step,), (TensorSpec("x", (2, 2, 2), "float32"),))
    result = real(np.full((4, 4, 2), -1.5, np.float32))
    assert result is not None
    assert result[0][0, 0].tolist() == [-1.5, -1.5]


def test_resize_leaves_the_right_size_alone() -> None:
    """An image of the wanted size is not touched, and no image is no image."""
    image = np.zeros((2, 3, 3), np.uint8)
    assert apply(Resize(width=3, height=2), image, (2, 3, 3)) is image
    with pytest.raises(InputError, match="is no image"):
        apply(Resize(width=3, height=2), np.zeros(6, np.uint8), (2, 3, 3))
