// A tool for opencode, which calls it as this file is called where it is put. Offline it cannot
// fetch its own package for plugins; zod, which that package hands on, is there already.
import { z } from "NODE_MODULES/zod/index.js";

export default {
  description: "The current weather in a city.",
  args: { city: z.string().describe("Name of the city") },
  execute: async ({ city }) => JSON.stringify({ city, sky: "sunny", celsius: 21 }),
};
