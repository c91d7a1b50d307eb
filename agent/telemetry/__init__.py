"""What the agent tells the outside: metrics for Prometheus, and log lines.

The rules this folder keeps:
 * A scrape turns one frozen snapshot into text and computes no statistics; the text is
   byte for byte that of prometheus_client, which would take ten times as long.
 * What is shown is bounded: in series, in time, and in privacy mode in what can be
   concluded from it.
 * A log line is an event name with fields; one line per transition, none per sample.
"""
