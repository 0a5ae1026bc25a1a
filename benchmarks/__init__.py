"""Measures sse_broker against what one would write without it.  ``make bench`` runs it."""
