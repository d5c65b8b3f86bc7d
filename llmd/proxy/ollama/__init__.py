"""Ollama's API on the gateway, for the many programs that speak nothing else.

What is there is answered from the profiles' cards; chats become chat completions of whatever engine
the profile has, and its stream becomes lines. Nothing here names, fetches or removes a model.
"""

from llmd.proxy.ollama.catalogue import METHODS, RUNNING, answer
from llmd.proxy.ollama.question import TRANSLATED, Question, read
from llmd.proxy.ollama.relay import OllamaRelay


__all__ = ["METHODS", "RUNNING", "TRANSLATED", "OllamaRelay", "Question", "answer", "read"]
