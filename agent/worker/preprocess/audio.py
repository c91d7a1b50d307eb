"""Steps on audio: log-mel spectrogram and MFCC, in plain numpy.

The mel scales and their triangles are those of HTK and of Slaney's Auditory Toolbox:
triangles are straight in Hz, peak at 1 and are not normalised by area (in the words of
librosa: ``htk=True/False, norm=None``); Hann windows are periodic.

The rules this module keeps: those of ``agent.worker.preprocess.arrays``. Arithmetic is
float64 throughout, so that numpy 1 and 2 give the same features.
"""

import numpy as np

from agent.core.steps import LogMel, Mfcc
from agent.worker.preprocess.arrays import Transform, misfit
from agent.worker.samples import Array, InputError

PCM_SCALE = np.float64(1.0 / 32768.0)  # 16 bit samples as -1..1

_HTK_HZ, _HTK_MEL = 700.0, 2595.0  # mel = 2595 log10(1 + f / 700)
# Slaney: 3 mel for 200 Hz up to 1 kHz, then 27 mel for a factor of 6.4.
_LINEAR_HZ, _KNEE_HZ = 200.0 / 3.0, 1000.0
_KNEE_MEL, _LOG_STEP = 15.0, np.log(6.4) / 27.0


def hz_to_mel(hz: Array, scale: str) -> Array:
    """Return frequencies in Hz on the ``htk`` or ``slaney`` mel scale."""
    if scale == "htk":
        return np.asarray(_HTK_MEL * np.log10(1.0 + hz / _HTK_HZ))
    logs = np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _LINEAR_HZ, _KNEE_MEL + logs)


def mel_to_hz(mel: Array, scale: str) -> Array:
    """Return mels as frequencies in Hz; law: the inverse of ``hz_to_mel``."""
    if scale == "htk":
        return np.asarray(_HTK_HZ * (10.0 ** (mel / _HTK_MEL) - 1.0))
    beyond = np.maximum(mel - _KNEE_MEL, 0.0)
    logs = _KNEE_HZ * np.exp(_LOG_STEP * beyond)
    return np.where(mel < _KNEE_MEL, mel * _LINEAR_HZ, logs)


def mel_triangles(step: LogMel) -> Array:
    """Return the filterbank as a matrix (FFT bins, mels) of weights 0..1."""
    low, high = hz_to_mel(np.array([step.low_hz, step.high_hz]), step.scale)
    corners = mel_to_hz(np.linspace(low, high, step.mels + 2), step.scale)
    bins = np.arange(step.fft // 2 + 1) * (step.sample_rate / step.fft)
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - left) / (peak - left)
    falling = (right - bins[:, None]) / (right - peak)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def build_log_mel(step: LogMel) -> Transform:
    """Return ``(samples,) -> (frames, mels)``, natural log, float32.

    Raises:
        TrialFailedError: Its numbers contradict each other (``contract``).
    """
    _check_log_mel(step)
    power_of = _Spectrum(step)
    triangles = mel_triangles(step)
    # Only the bins that a triangle touches: half of them for speech. One product of
    # them beats a product for each triangle's own slice (10 us against 48 us).
    touched = np.flatnonzero(triangles.any(axis=1))
    bins = slice(touched[0], touched[-1] + 1) if touched.size else slice(0, 1)
    weights = triangles[bins].copy()
    floor = step.floor

    def log_mel(x: Array) -> Array:
        mels = power_of(_mono(x))[:, bins] @ weights
        np.maximum(mels, floor, out=mels)
        logs: Array = np.log(mels, out=mels)
        return logs.astype(np.float32)

    return log_mel


class _Spectrum:
    """The power spectrum of overlapping frames, in buffers that are kept.

    Only ``log_mel`` sees them, and it is done with them before the next sample.
    """

    def __init__(self, step: LogMel) -> None:
        self._frame, self._hop, self._fft = step.frame, step.hop, step.fft
        turns = np.arange(step.frame) * (2.0 * np.pi / step.frame)
        self._window = 0.5 - 0.5 * np.cos(turns)
        self._padded = np.zeros((0, step.fft))

    def __call__(self, x: Array) -> Array:
        """Return ``|rfft|^2`` as (frames, fft // 2 + 1)."""
        if len(x) < self._frame:
            raise InputError(f"log_mel: {len(x)} samples, a frame has {self._frame}")
        frames = 1 + (len(x) - self._frame) // self._hop
        if len(self._padded) != frames:
            self._padded = np.zeros((frames, self._fft))
        cut = np.lib.stride_tricks.sliding_window_view(x, self._frame)[:: self._hop]
        np.multiply(cut, self._window, out=self._padded[:, : self._frame])
        spectrum = np.fft.rfft(self._padded, axis=1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        return power


def build_mfcc(step: Mfcc) -> Transform:
    """Return ``(frames, mels) -> (frames, count)``: orthonormal DCT-II, float32."""
    matrix = np.zeros((0, step.count))

    def mfcc(x: Array) -> Array:
        nonlocal matrix
        if x.ndim != 2 or x.shape[1] < step.count:
            raise InputError(
                f"mfcc: {step.count} coefficients of shape {x.shape}; it takes "
                "(frames, mels) with at least as many mels"
            )
        if len(matrix) != x.shape[1]:  # once: the number of mels does not change
            matrix = dct_matrix(x.shape[1], step.count)
        return np.asarray(x @ matrix, np.float32)

    return mfcc


def dct_matrix(mels: int, count: int) -> Array:
    """Return the first ``count`` basis vectors of the orthonormal DCT-II, as columns.

    Law: its columns are orthonormal.
    """
    angle = (np.arange(mels)[:, None] + 0.5) * np.arange(count) * (np.pi / mels)
    matrix = np.cos(angle) * np.sqrt(2.0 / mels)
    matrix[:, 0] *= np.sqrt(0.5)
    return np.asarray(matrix)


def _mono(x: Array) -> Array:
    """Return the samples as one float64 row; 16 bit PCM becomes -1..1."""
    flat = x.reshape(-1) if x.size == x.shape[0] else x
    if flat.ndim != 1:
        raise InputError(f"log_mel: takes mono audio (samples,), not shape {x.shape}")
    if flat.dtype == np.int16:
        return flat * PCM_SCALE
    if flat.dtype.kind != "f":
        raise InputError(f"log_mel: takes float or int16 audio, not {flat.dtype}")
    return flat.astype(np.float64)


def _check_log_mel(step: LogMel) -> None:
    """Refuse numbers that contradict each other."""
    if step.fft < step.frame:
        raise misfit(f"log_mel: fft {step.fft} is shorter than frame {step.frame}")
    if step.high_hz > step.sample_rate / 2:
        raise misfit(f"log_mel: high_hz {step.high_hz} is above half the sample rate")
    if step.low_hz >= step.high_hz:
        raise misfit(f"log_mel: low_hz {step.low_hz} is not below {step.high_hz}")
