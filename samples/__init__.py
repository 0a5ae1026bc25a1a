"""Six uses of sse_broker as small applications, and a demo that joins them."""
