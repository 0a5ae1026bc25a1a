"""Values to bytes and back.  No clock, no thread, no socket."""
