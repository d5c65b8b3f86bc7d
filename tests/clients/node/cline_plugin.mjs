// A plugin for Cline: the one tool that the demo model knows how to call.
export default {
  name: "weather",
  manifest: { capabilities: ["tools"] },
  setup(api) {
    api.registerTool({
      name: "get_weather",
      description: "The current weather in a city.",
      inputSchema: {
        type: "object",
        properties: { city: { type: "string", description: "Name of the city" } },
        required: ["city"],
      },
      execute: ({ city }) => ({ city, sky: "sunny", celsius: 21 }),
    });
  },
};
