"""A gunicorn configuration whose hook says when a request is over, and how much it sent."""


def post_request(worker, req, environ, resp) -> None:
    print(f"post_request {req.path} {resp.sent}", flush=True)
