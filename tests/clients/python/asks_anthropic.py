"""The anthropic library."""

import anthropic
from asking import ROOT_URL, WEATHER, answered, question


client = anthropic.Anthropic(base_url=ROOT_URL, api_key="none", max_retries=0)
# This version has no word for the temperature any more.
given = {"model": "any", "max_tokens": 200, "extra_body": {"temperature": 0}}
tool = {
    "name": WEATHER["name"],
    "description": WEATHER["description"],
    "input_schema": WEATHER["parameters"],
}


def blocks(message):
    return {block.type: block for block in message.content}


plain = client.messages.create(messages=question("capital"), **given)
with client.messages.stream(messages=question("capital"), **given) as stream:
    pieces = list(stream.text_stream)
called = client.messages.create(messages=question("weather"), tools=[tool], **given)
thought = blocks(
    client.messages.create(
        messages=question("multiply"),
        thinking={"type": "enabled", "budget_tokens": 1024},
        **{**given, "max_tokens": 2000},
    )
)
call = blocks(called)["tool_use"]
answered(
    plain=blocks(plain)["text"].text,
    streamed="".join(pieces),
    pieces=len(pieces),
    tool=[call.name, call.input],
    thought=[thought["thinking"].thinking, thought["text"].text],
    counted=client.messages.count_tokens(model="any", messages=question("capital")).input_tokens,
)
