"""Memory and threads.  No I/O, no framework."""
