// Perfetto's trace processor, as its web page has it: loads a trace and answers queries.
//
// node perfetto.mjs FOLDER TRACE QUERY...: FOLDER has `engine_bundle.js` and its WebAssembly. Prints one line of JSON
// a query, a list of rows; what the trace processor says is wrong goes to standard error and fails.
//
// The bundle is made for a browser's worker: it is given as much of one as it uses. Messages are those of
// `protos/perfetto/trace_processor/trace_processor.proto`, TraceProcessorRpcStream.

import fs from "node:fs";
import path from "node:path";
import vm from "node:vm";

const [, , folder, trace, ...queries] = process.argv;

function fail(text) {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}

// A worker.

class FileRequest {
  open(method, url) {
    this.name = path.basename(url);
  }
  send() {
    const bytes = fs.readFileSync(path.join(folder, this.name));
    this.status = 200;
    this.response = new WorkerBytes(bytes).buffer;
  }
}

const quiet = { log() {}, warn() {}, error() {} };
const worker = { console: quiet, performance, URL, TextDecoder, TextEncoder, setTimeout, clearTimeout, crypto };
Object.assign(worker, { XMLHttpRequest: FileRequest, WorkerGlobalScope: class {}, fetch: () => Promise.reject(new Error()) });
Object.assign(worker, { self: worker, location: { href: "http://localhost/engine_bundle.js" } });
vm.createContext(worker);
const WorkerBytes = vm.runInContext("Uint8Array", worker);

// Protocol buffers.

function varint(number) {
  const bytes = [];
  for (let rest = number; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
}

const numberField = (field, number) => Buffer.concat([varint(field * 8), varint(number)]);
const bytesField = (field, bytes) => Buffer.concat([varint(field * 8 + 2), varint(bytes.length), bytes]);

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  get more() {
    return this.at < this.bytes.length;
  }
  varint() {
    let number = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.bytes[this.at++];
      number |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asIntN(64, number);
    }
  }
  *fields() {
    while (this.more) {
      const key = Number(this.varint());
      switch (key & 7) {
        case 0:
          yield [key >> 3, this.varint()];
          break;
        case 1:
          yield [key >> 3, this.bytes.subarray(this.at, (this.at += 8))];
          break;
        case 2: {
          const length = Number(this.varint());
          yield [key >> 3, this.bytes.subarray(this.at, (this.at += length))];
          break;
        }
        default:
          fail(`wire type of ${key}`);
      }
    }
  }
}

const fields = (bytes) => new Reader(bytes).fields();

// The trace processor.

const APPEND = 1;
const FINALIZE = 2;
const QUERY = 3;
let sequence = 0;
let replies = [];
const port = { postMessage: (reply) => replies.push(Buffer.from(reply)) };

/** Sends a request and gives the fields of the answers. */
function ask(request, ...parts) {
  replies = [];
  const message = bytesField(1, Buffer.concat([numberField(1, ++sequence), numberField(2, request), ...parts]));
  port.onmessage({ data: new WorkerBytes(message) });
  const answers = [...fields(Buffer.concat(replies))].flatMap(([, answer]) => [...fields(answer)]);
  for (const [field, value] of answers) {
    if (field === 5) fail(`fatal: ${value}`);
    // AppendTraceDataResult.error, FinalizeDataResult.error
    if (field === 201 || field === 209) {
      for (const [what, text] of fields(value)) if (what === 2 || field === 209) fail(`cannot load: ${text}`);
    }
  }
  return answers;
}

function* cells(batch) {
  const kinds = [];
  const [numbers, reals, texts] = [[], [], []];
  for (const [field, value] of fields(batch)) {
    if (field === 1) kinds.push(...value);
    if (field === 2) for (const reader = new Reader(value); reader.more; ) numbers.push(Number(reader.varint()));
    if (field === 3) for (let at = 0; at < value.length; at += 8) reals.push(value.readDoubleLE(at));
    if (field === 5) texts.push(...value.toString().split("\0"));
  }
  for (const kind of kinds) yield [null, null, numbers, reals, texts][kind]?.shift() ?? null;
}

function query(text) {
  let columns = 0;
  const all = [];
  for (const [answer, result] of ask(QUERY, bytesField(103, bytesField(1, Buffer.from(text))))) {
    if (answer !== 203) continue;
    for (const [field, value] of fields(result)) {
      if (field === 1) columns += 1;
      if (field === 2 && value.length > 0) fail(`${text}: ${value}`);
      if (field === 3) all.push(...cells(value));
    }
  }
  return Array.from({ length: all.length / columns }, (_, row) => all.slice(row * columns, (row + 1) * columns));
}

vm.runInContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"), worker);
worker.onmessage({ data: port });
// Its WebAssembly is there already; what waits for that runs before the next turn of the event loop.
await new Promise((resolve) => setTimeout(resolve));
const bytes = fs.readFileSync(trace);
for (let at = 0; at < bytes.length; at += 1 << 20) {
  ask(APPEND, bytesField(101, bytes.subarray(at, at + (1 << 20))));
}
ask(FINALIZE);
for (const text of queries) process.stdout.write(`${JSON.stringify(query(text))}\n`);
process.exit(0);
