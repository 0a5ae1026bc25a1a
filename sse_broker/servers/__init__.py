"""What each WSGI server shows of itself: its socket, its threads, and whether it stops."""
