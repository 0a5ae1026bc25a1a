"""``sse_broker completion``: the script that makes a shell complete this command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands and options.

    \b
      eval "$(sse_broker completion bash)"       # in ~/.bashrc
      eval "$(sse_broker completion zsh)"        # in ~/.zshrc
      sse_broker completion fish > ~/.config/fish/completions/sse_broker.fish
    """
    made = get_completion_class(shell)
    root = context.find_root()
    assert made is not None
    click.echo(made(root.command, {}, "sse_broker", "_SSE_BROKER_COMPLETE").source())
