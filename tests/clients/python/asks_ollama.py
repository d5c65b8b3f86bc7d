"""The ollama library, on the gateway: there the name of a profile is the name of a model."""

import sys

import ollama
from asking import ROOT_URL, TOOLS, answered, prompt, question


client = ollama.Client(host=ROOT_URL)
profile = sys.argv[3]
greedy = {"temperature": 0}


def chat(name, **more):
    return client.chat(model=profile, messages=question(name), options=greedy, **more)


plain = chat("capital").message
pieces = [part.message.content for part in chat("capital", stream=True)]
call = chat("weather", tools=TOOLS).message.tool_calls[0].function
thought = chat("multiply", think=True).message
answered(
    plain=plain.content,
    streamed="".join(pieces),
    pieces=len(pieces),
    tool=[call.name, dict(call.arguments)],
    thought=[thought.thinking, thought.content],
    generated=client.generate(model=profile, prompt=prompt("capital"), options=greedy).response,
    models=[model.model for model in client.list().models],
)
