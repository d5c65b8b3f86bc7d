"""The openai library, asked everything that the demo model knows."""

import json

import openai
from asking import BASE_URL, TOOLS, answered, question


client = openai.OpenAI(base_url=BASE_URL, api_key="none", max_retries=0)


def chat(name, **more):
    return client.chat.completions.create(
        model="any", temperature=0, messages=question(name), **more
    )


plain = chat("capital").choices[0].message
stream = [c for c in chat("capital", stream=True) if c.choices]
call = chat("weather", tools=TOOLS).choices[0].message.tool_calls[0].function
thought = chat("multiply").choices[0].message
response = client.responses.create(model="any", temperature=0, input=question("capital"))
answered(
    plain=plain.content,
    streamed="".join(chunk.choices[0].delta.content or "" for chunk in stream),
    pieces=len(stream),
    tool=[call.name, json.loads(call.arguments)],
    thought=[thought.model_extra["reasoning_content"], thought.content],
    responses=response.output_text,
    models=[model.id for model in client.models.list()],
)
