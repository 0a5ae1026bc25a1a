"""``python -m sse_broker``: the same as ``sse_broker``."""

from sse_broker.cli import main

main(prog_name="sse_broker")
