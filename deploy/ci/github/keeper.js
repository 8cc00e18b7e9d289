'use strict';
// The parent of the sidecar, `dayfly token --hold`: the step that starts it is gone long before the job
// is, and a sidecar ends its task when its parent is gone. So this stays, for as long as the runner's own
// process does. In: a plan from main.js. Out, to main.js: what was granted, or how it ended; to a file:
// what the sidecar says later, which post.js puts into the log.

const fs = require('node:fs');
const { spawn, spawnSync } = require('node:child_process');
const lib = require('./lib.js');

const LOOK_MS = 1000;
/** The sidecar tries twice, 2 s each, to end its task. */
const STOP_MS = 6000;
const END_MS = 8000;

let sidecar = null;
let settled = false;
let stopping = false;

function tell(message) {
  if (process.connected) process.send(message, () => {});
}

/** Lets the sidecar end its task. */
function stop() {
  if (stopping) return;
  stopping = true;
  if (!sidecar) process.exit(0);
  sidecar.kill('SIGTERM');
  setTimeout(() => sidecar.kill('SIGKILL'), STOP_MS).unref();
}

/** A sidecar that was stopped while it asked leaves a handle, and maybe an open task that nobody holds. */
function endUnseen({ dayfly, folder }) {
  const { handle, key } = lib.places(folder);
  if (!fs.existsSync(handle)) return;
  spawnSync(dayfly, lib.endOf(handle, key), { timeout: END_MS, stdio: 'ignore' });
}

function start(plan) {
  const log = fs.createWriteStream(lib.places(plan.folder).said, { flags: 'a', mode: 0o600 });
  log.on('error', () => {});
  sidecar = spawn(plan.dayfly, plan.args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let head = '';
  let granted = false;
  sidecar.stdout.setEncoding('utf8').on('data', (text) => {
    if (granted) return;
    head += text;
    if (!head.includes('\n')) return;
    granted = true;
    tell({ granted: JSON.parse(head.slice(0, head.indexOf('\n'))) });
  });
  sidecar.stderr.setEncoding('utf8').on('data', (text) => {
    if (settled) log.write(text);
    else tell({ said: text });
  });
  sidecar.on('error', (error) => tell({ said: `error: ${error.message}\n` }));
  sidecar.on('close', (code) => {
    if (stopping) endUnseen(plan);
    tell({ over: { exit: code ?? 1 } });
    log.end(() => process.exit(0));
  });
  if (plan.worker) setInterval(() => lib.lives(plan.worker) || stop(), LOOK_MS);
}

process.on('message', (message) => {
  if (message === 'settled') settled = true;
  else start(message);
});
// The step was killed before it could tell anybody of this.
process.on('disconnect', () => settled || stop());
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, stop);
