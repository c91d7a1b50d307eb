"""The board's own proof: its log of receipts, what is paid for, what is kept.

The rules this folder keeps:
 * Nothing here is on the sample path: workers write records into shared memory, and
   this folder takes them from there in batches.
 * What is said to be durable is on the disk; what was lost is said to be lost.
 * Formats and decisions are in ``agent.core``; here they meet the disk and the clock.
"""
