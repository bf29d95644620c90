"""Servers that speak OpenAI's protocol, through OpenAI's own SDK."""

import logging

from runner.backends.openai.chat import ChatClient
from runner.backends.openai.refusals import shown_url

__all__ = ["ChatClient", "shown_url"]

logging.getLogger("httpx2").setLevel(
    logging.WARNING
)  # its INFO lines show whole addresses, with what is secret in them
