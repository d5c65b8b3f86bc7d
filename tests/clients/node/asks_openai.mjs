// The openai library for Node; see python/asking.py. Its directory is the first argument.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [directory, baseURL, file] = process.argv.slice(2);
const OpenAI = createRequire(`${directory}/`)("openai").OpenAI;
const { prompts, tools } = JSON.parse(readFileSync(file, "utf8"));
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const question = (name) => [{ role: "user", content: prompts[name] }];
const chat = (name, more = {}) =>
  client.chat.completions.create({
    model: "any",
    temperature: 0,
    messages: question(name),
    ...more,
  });

const plain = await chat("capital");
const pieces = [];
for await (const chunk of await chat("capital", { stream: true })) {
  pieces.push(chunk.choices[0]?.delta?.content ?? "");
}
const call = (await chat("weather", { tools })).choices[0].message.tool_calls[0].function;
const thought = (await chat("multiply")).choices[0].message;
const response = await client.responses.create({
  model: "any",
  temperature: 0,
  input: question("capital"),
});
const models = await client.models.list();
console.log(
  JSON.stringify({
    plain: plain.choices[0].message.content,
    streamed: pieces.join(""),
    pieces: pieces.length,
    tool: [call.name, JSON.parse(call.arguments)],
    thought: [thought.reasoning_content, thought.content],
    responses: response.output_text,
    models: models.data.map((model) => model.id),
  }),
);
