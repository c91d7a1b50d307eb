"""What the agent tells the outside: metrics for Prometheus, and log lines.

The rules this folder keeps:
 * It is the only door to prometheus_client, and uses no global registry: a scrape
   turns one frozen snapshot into text and computes no statistics.
 * A log line is an event name with fields; one line per transition, none per sample.
"""
