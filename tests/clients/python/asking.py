"""What the programs beside this file share; they run in the clients' own environment.

Started with the base URL and the lessons of the demo model (a JSON file) as arguments, each of them
asks what it can and prints what it was answered as one JSON document.
"""

import json
import sys
from pathlib import Path


BASE_URL = sys.argv[1]
"""Ends in `/v1`."""
ROOT_URL = BASE_URL.removesuffix("/v1")
_LESSONS = json.loads(Path(sys.argv[2]).read_text())
TOOLS = _LESSONS["tools"]
WEATHER = TOOLS[0]["function"]


def prompt(name):
    return _LESSONS["prompts"][name]


def question(name):
    return [{"role": "user", "content": prompt(name)}]


def answered(**answers):
    json.dump(answers, sys.stdout)
