"""Sinks: where predictions go. None of them ever makes the loop wait."""

from agent.worker.sinks.lines import CountingSink, LineSink, Sink, build_sink

__all__ = ["CountingSink", "LineSink", "Sink", "build_sink"]
