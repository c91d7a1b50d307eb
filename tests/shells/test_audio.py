"""Log-mel and MFCC features, checked against scipy and an independent filterbank."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct, rfft
from scipy.io import wavfile
from scipy.signal import get_window

from agent.core.manifest import TensorSpec
from agent.core.reasons import Reason
from agent.core.steps import LogMel, Mfcc, Step
from agent.errors import TrialFailedError
from agent.worker.preprocess import build_preprocess
from agent.worker.preprocess.audio import (
    dct_matrix,
    hz_to_mel,
    mel_to_hz,
    mel_triangles,
)
from agent.worker.samples import Array, InputError

KWS = LogMel()  # the defaults are those of keyword spotting: 30 ms every 20 ms
SLANEY = LogMel(frame=400, hop=160, fft=512, mels=64, high_hz=8000.0, scale="slaney")


def features(steps: tuple[Step, ...], audio: Array, shape: tuple[int, ...]) -> Array:
    """Return what the steps make of audio."""
    result = build_preprocess(steps, (TensorSpec("x", shape, "float32"),))(audio)
    assert result is not None
    return result[0]


def oracle(step: LogMel, audio: Array) -> Array:
    """Compute log-mel by scipy and triangles by linear interpolation."""
    window = get_window("hann", step.frame, fftbins=True)
    starts = range(0, len(audio) - step.frame + 1, step.hop)
    frames = np.stack([audio[at : at + step.frame] * window for at in starts])
    power = np.abs(rfft(frames, step.fft, axis=1)) ** 2
    low, high = hz_to_mel(np.array([step.low_hz, step.high_hz]), step.scale)
    corners = mel_to_hz(np.linspace(low, high, step.mels + 2), step.scale)
    bins = np.fft.rfftfreq(step.fft, 1 / step.sample_rate)
    bank = [
        np.interp(bins, corners[at : at + 3], [0.0, 1.0, 0.0], left=0, right=0)
        for at in range(step.mels)
    ]
    return np.asarray(np.log(np.maximum(power @ np.array(bank).T, step.floor)))


def noise(count: int) -> Array:
    """Return white noise in -1..1."""
    random = np.random.default_rng(7)
    return random.uniform(-1, 1, count).astype(np.float32)


@pytest.mark.parametrize("step", [KWS, SLANEY])
def test_log_mel_is_that_of_scipy(step: LogMel) -> None:
    """Frames, window, spectrum, filterbank and log agree to float32 precision."""
    audio = noise(16_000)
    expected = oracle(step, audio)
    actual = features((step,), audio, expected.shape)
    assert np.float32 == actual.dtype
    assert np.allclose(expected, actual, rtol=1e-5, atol=1e-5)


def test_mfcc_is_scipys_dct_of_log_mel() -> None:
    """Keyword spotting's 49 x 10 features, shaped as its model takes them."""
    audio = noise(16_000)
    expected = dct(oracle(KWS, audio), type=2, norm="ortho", axis=1)[:, :10]
    actual = features((KWS, Mfcc(count=10)), audio, (1, 49, 10, 1))
    assert np.allclose(expected, actual[0, :, :, 0], rtol=1e-4, atol=1e-4)


def test_a_second_sample_of_another_length() -> None:
    """Buffers that are kept between samples do not leak into the next."""
    build = build_preprocess((KWS,), (TensorSpec("x", (9, 40), "float32"),))
    audio = noise(480 + 8 * 320)
    first = build(audio)
    with pytest.raises(InputError, match="the model takes"):
        build(noise(480 + 20 * 320))
    second = build(audio)
    assert first is not None
    assert second is not None
    assert first[0].tolist() == second[0].tolist()


def test_a_tone_is_found_in_its_band() -> None:
    """1 kHz lies in the band whose triangle peaks nearest to it."""
    seconds = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)
    mels = features((KWS,), tone, (49, 40))
    low, high = hz_to_mel(np.array([KWS.low_hz, KWS.high_hz]), "htk")
    peaks = mel_to_hz(np.linspace(low, high, 42)[1:-1], "htk")
    assert int(np.abs(peaks - 1000).argmin()) == int(mels[20].argmax())


def test_int16_is_scaled_and_silence_is_the_floor() -> None:
    """PCM means -1..1; silence is log(floor), never minus infinity."""
    audio = noise(4800)
    pcm = np.round(audio * 32_000).astype(np.int16)
    same = pcm.astype(np.float32) / 32_768
    expected = features((KWS,), same, (14, 40))
    assert np.allclose(expected, features((KWS,), pcm, (14, 40)), atol=1e-4)
    silence = features((KWS,), np.zeros(480, np.int16), (1, 40))
    assert np.allclose(np.log(1e-6), silence)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(479, np.float32), "479 samples, a frame has 480"),
        (np.zeros((8000, 2), np.float32), "mono"),
        (np.zeros(8000, np.uint8), "float or int16"),
    ],
)
def test_audio_that_is_none(audio: Array, message: str) -> None:
    """Too short, stereo and bytes are bad samples."""
    with pytest.raises(InputError, match=message):
        features((KWS,), audio, (1, 40))


def test_mfcc_needs_enough_mels() -> None:
    """More coefficients than mels do not exist."""
    with pytest.raises(InputError, match="mfcc"):
        features((LogMel(mels=8), Mfcc(count=10)), noise(480), (1, 10))


@pytest.mark.parametrize(
    "step",
    [
        LogMel(frame=480, fft=256),
        LogMel(high_hz=8001.0),
        LogMel(low_hz=4000.0, high_hz=4000.0),
    ],
)
def test_contradictions_are_the_authors(step: LogMel) -> None:
    """Numbers that contradict each other are found before any sample."""
    with pytest.raises(TrialFailedError, match="log_mel") as caught:
        build_preprocess((step,), (TensorSpec("x", (1, 40), "float32"),))
    assert caught.value.reason == Reason.CONTRACT


@given(hz=st.floats(0, 96_000), scale=st.sampled_from(["htk", "slaney"]))
def test_mel_to_hz_is_the_inverse(hz: float, scale: str) -> None:
    """Law: Hz to mel and back is the same frequency."""
    back = mel_to_hz(hz_to_mel(np.array([hz]), scale), scale)
    assert pytest.approx(hz, rel=1e-9, abs=1e-9) == back.item()


@given(
    first=st.floats(0, 20_000),
    second=st.floats(0, 20_000),
    scale=st.sampled_from(["htk", "slaney"]),
)
def test_mel_rises(first: float, second: float, scale: str) -> None:
    """Law: a higher frequency never has a lower mel."""
    low, high = sorted((first, second))
    mels = hz_to_mel(np.array([low, high]), scale)
    assert mels[0] <= mels[1]


def test_mel_scales_at_known_points() -> None:
    """1 kHz is 1000 mel of HTK (by its definition, nearly) and 15 mel of Slaney."""
    assert pytest.approx(999.99, abs=0.01) == hz_to_mel(np.array(1000.0), "htk").item()
    assert pytest.approx(15.0) == hz_to_mel(np.array(1000.0), "slaney").item()
    assert pytest.approx(42.0) == hz_to_mel(np.array(6400.0), "slaney").item()


@given(mels=st.integers(1, 64), scale=st.sampled_from(["htk", "slaney"]))
def test_triangles_are_weights(mels: int, scale: str) -> None:
    """Law: weights lie in 0..1, and those of a bin add up to 1 at most."""
    step = LogMel(mels=mels, scale=scale)  # type: ignore[arg-type] # sampled from it
    triangles = mel_triangles(step)
    assert (257, mels) == triangles.shape
    assert triangles.min() >= 0.0
    assert triangles.sum(axis=1).max() <= 1.0 + 1e-9


@given(mels=st.integers(1, 80), data=st.data())
def test_dct_matrix_is_orthonormal(mels: int, data: st.DataObject) -> None:
    """Law: its columns are orthonormal."""
    count = data.draw(st.integers(1, mels))
    matrix = dct_matrix(mels, count)
    assert np.allclose(np.eye(count), matrix.T @ matrix, atol=1e-9)


def test_public_recordings(models: Path) -> None:
    """Real words have features that are finite, and silence has less of everything."""
    loud = wavfile.read(models / "audio" / "yes_1000ms.wav")[1]
    quiet = wavfile.read(models / "audio" / "silence_1000ms.wav")[1]
    word = features((KWS,), loud, (49, 40))
    silence = features((KWS,), quiet, (49, 40))
    assert np.isfinite(word).all()
    assert silence.mean() < word.mean()
