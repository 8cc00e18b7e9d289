'use strict';
// The step itself. With a script it is `dayfly exec`: the credential lives as long as the script, and the
// step ends as the script does. Without one, a sidecar gets the credential and holds it for the job's
// later steps, until post.js ends it.
//
// What post.js needs is told to the runner before anything is asked of the broker.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const lib = require('./lib.js');

const PERMISSIONS = 'permissions:\n  id-token: write\n  contents: read';

/** Before the script: where post.js finds the handle, should all of this be killed; and the masks. */
const BEFORE = `
set -e
printf '%s\\n' "$DAYFLY_TASK_FILE" >"$2"
printf '::add-mask::%s\\n' "$(cat "$DAYFLY_TOKEN_FILE")" "$(cat "$DAYFLY_TASK_FILE")"
exec bash --noprofile --norc -eo pipefail "$1"
`;

/** How a sidecar that came to nothing is told that the target wants a key of the job. */
const WANTS_KEY = '[E-DPOP]';

/** The runner's first word is INT, the next TERM; then it kills. */
const SIGNALS = { SIGINT: 2, SIGTERM: 15 };

function wanted() {
  if (process.platform !== 'linux') throw new lib.Failure('this action runs on Linux runners', 2);
  const task = lib.input('task');
  if (task === '') throw new lib.Failure('the input `task` is missing: the template to run', 2);
  const addr = lib.input('addr') || process.env.DAYFLY_ADDR;
  if (!addr) throw new lib.Failure('the input `addr` is missing: the broker\'s URL (or the variable DAYFLY_ADDR)', 2);
  const actions = lib.raw('actions').split(/[\s,]+/).filter((action) => action !== '');
  // One word each, so that no value is ever an option of its own.
  const options = ['target', 'ttl', 'ticket'].filter((name) => lib.input(name) !== '');
  const ask = [
    `--task=${task}`,
    ...options.map((name) => `--${name}=${lib.input(name)}`),
    ...actions.map((action) => `--action=${lib.plain('actions', action)}`),
  ];
  return { addr, ask, dayfly: lib.found(lib.input('dayfly') || 'dayfly'), script: lib.raw('run') };
}

/** Said here too, because here it can be put where people look first. */
function requireIdentity() {
  const given = ['DAYFLY_ID_TOKEN', 'DAYFLY_ID_TOKEN_FILE'].some((name) => process.env[name]);
  const mints = ['ACTIONS_ID_TOKEN_REQUEST_URL', 'ACTIONS_ID_TOKEN_REQUEST_TOKEN'].every((name) => process.env[name]);
  if (given || mints) return;
  throw new lib.Failure(
    'GitHub gave this job no way to prove what it is. Add these lines to the job, or to the top of the workflow; ' +
      `pull requests from forks cannot have a token\n${PERMISSIONS}`,
    4,
  );
}

/** The authorities of the broker: PEM text becomes a file of the job. */
function authorities(folder) {
  const ca = lib.raw('ca').trim();
  if (ca === '') return '';
  if (!ca.includes('-----BEGIN')) return path.resolve(process.env.GITHUB_WORKSPACE ?? '', lib.input('ca'));
  const file = path.join(folder, 'ca.pem');
  fs.writeFileSync(file, `${ca}\n`, { mode: 0o600 });
  return file;
}

/** `dayfly exec` around a script. */
function run(want, door, folder) {
  const [file, where] = [path.join(folder, 'script'), lib.places(folder).where];
  fs.writeFileSync(file, `${want.script}\n`, { mode: 0o600 });
  const args = ['exec', ...want.ask, '--', 'bash', '-c', BEFORE, 'dayfly-run', file, where];
  const child = spawn(want.dayfly, args, { env: lib.environment(door), stdio: ['ignore', 'inherit', 'inherit'] });
  for (const signal of Object.keys(SIGNALS)) process.on(signal, () => child.kill(signal));
  return new Promise((done, failed) => {
    child.on('error', failed);
    child.on('exit', (code, signal) => {
      const began = fs.existsSync(where);
      if (!began) lib.command('error title=dayfly', 'no credential was issued, so the script did not run: see the log');
      done(code ?? 128 + (os.constants.signals[signal] ?? 0));
    });
  });
}

/** A keeper with its sidecar: what was granted, or how it ended. */
function kept(want, door, folder, args) {
  const keeper = spawn(process.execPath, [path.join(__dirname, 'keeper.js')], {
    detached: true,
    env: lib.environment(door),
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  const stop = () => keeper.kill('SIGTERM');
  const ended = new Promise((done, failed) => {
    keeper.on('error', failed);
    keeper.on('exit', done);
  });
  let said = '';
  let stopped = 0;
  for (const [signal, number] of Object.entries(SIGNALS)) {
    process.on(signal, () => {
      stopped = stopped || number;
      stop();
    });
  }
  keeper.send({ dayfly: want.dayfly, args, folder, worker: lib.worker() });
  const told = new Promise((done) => {
    keeper.on('message', (message) => {
      if (message.said) {
        said += message.said;
        lib.show(message.said);
      }
      if (message.granted || message.over) done(message);
    });
    ended.then(() => done({ over: { exit: 1 } }), () => done({ over: { exit: 1 } }));
  });
  return told.then(async (message) => {
    if (stopped) await ended;
    return { ...message, keeper, said, stopped };
  });
}

/** Asks once, and once more where the target wants a key of the job: that is made then. */
async function granted(want, door, folder) {
  const { token, handle, key } = lib.places(folder);
  const args = ['token', ...want.ask, `--out=${token}`, `--task-file=${handle}`, '--hold', '--output=json'];
  const first = await kept(want, door, folder, args);
  if (first.granted || first.stopped || !first.said.includes(WANTS_KEY)) return first;
  return kept(want, door, folder, [...args, `--dpop-key=${key}`]);
}

/** The failure without the talk before it. */
function why(said) {
  const at = `\n${said}`.lastIndexOf('\nerror: ');
  return at < 0 ? 'no credential was issued' : said.slice(at).replace(/^error: /, '').trim();
}

/** A sidecar for the later steps. */
async function hold(want, door, folder) {
  const { token, handle, key } = lib.places(folder);
  const { granted: document, over, keeper, said, stopped } = await granted(want, door, folder);
  if (stopped) return 128 + stopped;
  if (!document) throw new lib.Failure(why(said), over.exit || 1);
  lib.mask(token);
  lib.mask(handle);
  lib.put('GITHUB_STATE', 'keeper', keeper.pid);
  lib.put('GITHUB_STATE', 'start', lib.seen(keeper.pid)?.start ?? '');
  lib.put('GITHUB_STATE', 'task', document.task_id ?? '');
  const outputs = {
    'token-file': token,
    'task-file': handle,
    'task-id': document.task_id ?? '',
    'lease-id': document.lease_id ?? '',
    'expires-at': document.expires_at ?? '',
    ...(fs.existsSync(key) ? { 'dpop-key-file': key } : {}),
  };
  Object.entries(outputs).forEach(([name, value]) => lib.put('GITHUB_OUTPUT', name, value));
  await new Promise((done) => keeper.send('settled', done));
  keeper.disconnect();
  keeper.unref();
  return 0;
}

lib.step(async () => {
  const want = wanted();
  requireIdentity();
  const folder = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP || os.tmpdir(), 'dayfly-'));
  const door = { addr: want.addr, ca: authorities(folder) };
  // Whatever happens from here on, post.js knows of it.
  Object.entries({ folder, dayfly: want.dayfly, ...door }).forEach(([name, value]) => lib.put('GITHUB_STATE', name, value));
  return want.script.trim() === '' ? hold(want, door, folder) : run(want, door, folder);
});
