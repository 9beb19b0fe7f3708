// A client of the TypeScript SDK: writes a file, reads it, tries another one, and prints what came.
// Arguments: the path, then the command of the server.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
const [path, ...command] = process.argv.slice(2);
const about = { name: "somebody", version: "1" };
const client = new Client(about, { capabilities: { elicitation: {} } });
const asked = [];
client.setRequestHandler(ElicitRequestSchema, async (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: { approved: true, by: "dana" } };
});
const [program, ...args] = command;
await client.connect(new StdioClientTransport({ command: program, args, env: process.env }));
const tools = (await client.listTools()).tools.map((one) => one.name);
const written = await client.callTool({ name: "write_file", arguments: { path, content: "hello" } });
const read = await client.callTool({ name: "read_text_file", arguments: { path } });
const other = { path: "/etc/passwd" };
const denied = await client.callTool({ name: "read_text_file", arguments: other });
console.log(JSON.stringify({ tools, asked, written, read, denied }));
await client.close();
