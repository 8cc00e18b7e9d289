// A stand-in for the GitHub runner, as far as a JavaScript action can tell: variables for inputs and
// state, files for outputs, commands in the log, an endpoint that mints identity tokens, a first and a
// last step of which the last is always run, and its way to cancel (INT, then TERM, then KILL).
//
// usage: node github_runner.mjs ACTION_FOLDER <JSON
// JSON: work, inputs, env, job (claims file), dayfly, state, tls {key, cert}, between (a script of the
// next step), cancel {at, with}, noMain, noIdentity. Prints one JSON object.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join, resolve } from 'node:path';

// What the action looks for, to know when the job's runner is gone.
process.title = 'Runner.Worker';

const action = resolve(process.argv[2]);
const spec = JSON.parse(readFileSync(0, 'utf8'));
const runs = Object.fromEntries(
  [...readFileSync(join(action, 'action.yml'), 'utf8').matchAll(/^ {2}(main|post|post-if|using): (.+)$/gm)].map((line) => line.slice(1)),
);
const work = mkdtempSync(join(spec.work, 'runner-'));
const temp = join(work, 'temp');
mkdirSync(temp);
const audiences = [];

/** The endpoint of the job's identity. */
const server = createServer({ key: readFileSync(spec.tls.key), cert: readFileSync(spec.tls.cert) }, (request, response) => {
  const url = new URL(request.url, 'https://localhost');
  const known = request.headers.authorization === 'bearer runner-token' && url.searchParams.get('api-version') === '2';
  audiences.push(url.searchParams.get('audience'));
  const minted = spawnSync(spec.dayfly, ['dev', 'token', '--state', spec.state, '--claims', spec.job], { encoding: 'utf8', env: {} });
  response.writeHead(known ? 200 : 401, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify({ count: 1, value: minted.stdout.trim() }));
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const identity = {
  ACTIONS_ID_TOKEN_REQUEST_URL: `https://localhost:${server.address().port}/token?api-version=2`,
  ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'runner-token',
};
const always = { PATH: process.env.PATH, GITHUB_ACTIONS: 'true', CI: 'true', RUNNER_TEMP: temp, GITHUB_WORKSPACE: work };
const shared = { ...always, ...spec.env, ...(spec.noIdentity ? {} : identity) };
const inputs = Object.fromEntries(Object.entries(spec.inputs).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value]));
const masks = [];

/** `name<<MARK`, lines, `MARK`. */
function told(file) {
  const found = {};
  const lines = readFileSync(file, 'utf8').split('\n');
  while (lines.length > 1) {
    const [name, mark] = lines.shift().split('<<');
    const end = lines.indexOf(mark);
    found[name] = lines.splice(0, end).join('\n');
    lines.shift();
  }
  return found;
}

/** The log as people see it: masks are taken out and applied. */
function shown(text) {
  const lines = text.split('\n').filter((line) => {
    const mask = /^::add-mask::(.*)$/.exec(line);
    if (mask) masks.push(mask[1]);
    return !mask;
  });
  return masks.reduce((log, mask) => log.replaceAll(mask, '***'), lines.join('\n'));
}

/** Whether the job was asked who it is, and left this file: it is about to ask the broker. */
function asks(file) {
  return audiences.length > 0 && readdirSync(temp).some((folder) => existsSync(join(temp, folder, file)));
}

async function cancelled(child, seen) {
  const due = () => ('file' in spec.cancel ? asks(spec.cancel.file) : seen().includes(spec.cancel.at));
  while (!due() && child.exitCode === null) await new Promise((done) => setTimeout(done, 5));
  for (const signal of spec.cancel.with) {
    child.kill(signal);
    const ended = new Promise((done) => child.on('exit', () => done(true)));
    if (await Promise.race([ended, new Promise((done) => setTimeout(done, 7500, false))])) return;
  }
}

async function step(name, env) {
  const files = Object.fromEntries(['OUTPUT', 'STATE', 'ENV', 'PATH', 'STEP_SUMMARY'].map((kind) => [`GITHUB_${kind}`, join(work, `${name}-${kind}`)]));
  Object.values(files).forEach((file) => writeFileSync(file, ''));
  // What only actions get.
  const own = { ACTIONS_RUNTIME_TOKEN: 'runtime', ACTIONS_RUNTIME_URL: 'https://runtime.example', ...env };
  const child = spawn(process.execPath, [join(action, runs[name])], { env: { ...shared, ...inputs, ...own, ...files }, cwd: work, stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { log += text; });
  // As the runner, it waits for the end of the process and not for the end of its output.
  const ended = new Promise((done) => child.on('exit', (code, signal) => setTimeout(() => done({ code, signal }), 100)));
  if (name === 'main' && spec.cancel) await cancelled(child, () => log);
  const { code, signal } = await ended;
  return { code, signal, log: shown(log), outputs: told(files.GITHUB_OUTPUT), state: told(files.GITHUB_STATE), env: readFileSync(files.GITHUB_ENV, 'utf8') };
}

const main = spec.noMain ? { outputs: {}, state: {} } : await step('main', {});
let between = null;
if (spec.between && main.code === 0) {
  const outputs = Object.entries(main.outputs).map(([name, value]) => [`OUT_${name.replaceAll('-', '_')}`, value]);
  const ran = spawnSync('bash', ['-ec', spec.between], { env: { ...shared, ...Object.fromEntries(outputs) }, cwd: work, encoding: 'utf8' });
  between = { code: ran.status, out: ran.stdout, err: ran.stderr };
}
if (runs['post-if'] !== 'always()') throw new Error('a second net that is not always there');
const began = Date.now();
const post = await step('post', Object.fromEntries(Object.entries(main.state).map(([name, value]) => [`STATE_${name}`, value])));
process.stdout.write(`${JSON.stringify({ main, between, post, postMs: Date.now() - began, masks, audiences, left: readdirSync(temp) })}\n`);
server.close();
