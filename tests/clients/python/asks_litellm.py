"""The litellm library."""

import json

import litellm
from asking import BASE_URL, TOOLS, answered, question


def chat(name, **more):
    return litellm.completion(
        model="openai/any", api_base=BASE_URL, api_key="none", temperature=0,
        messages=question(name), num_retries=0, **more,
    )  # fmt: skip


plain = chat("capital").choices[0].message
stream = list(chat("capital", stream=True))
call = chat("weather", tools=TOOLS).choices[0].message.tool_calls[0].function
thought = chat("multiply").choices[0].message
answered(
    plain=plain.content,
    streamed="".join(chunk.choices[0].delta.content or "" for chunk in stream),
    pieces=len(stream),
    tool=[call.name, json.loads(call.arguments)],
    thought=[thought.reasoning_content, thought.content],
)
