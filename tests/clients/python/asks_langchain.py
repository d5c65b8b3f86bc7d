"""LangChain's ChatOpenAI, which has no place for reasoning."""

from asking import BASE_URL, TOOLS, answered, prompt
from langchain_openai import ChatOpenAI


model = ChatOpenAI(model="any", base_url=BASE_URL, api_key="none", temperature=0, max_retries=0)
plain = model.invoke(prompt("capital"))
pieces = [chunk.text for chunk in model.stream(prompt("capital")) if chunk.text]
call = model.bind_tools(TOOLS).invoke(prompt("weather")).tool_calls[0]
answered(
    plain=plain.text,
    streamed="".join(pieces),
    pieces=len(pieces),
    tool=[call["name"], call["args"]],
)
