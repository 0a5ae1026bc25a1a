"""From bytes to sockets: what writes to the clients of a process, without Flask and gunicorn."""
