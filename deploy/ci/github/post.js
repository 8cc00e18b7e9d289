'use strict';
// After the job's last step, whatever became of it: the second net. In: what main.js told the runner. It
// ends the task by its handle, stops the sidecar, and removes the files. The job fails by it only where
// the broker refused to end the task; a broker that cannot be reached ends it by itself, by the missing
// beats.

const fs = require('node:fs');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const lib = require('./lib.js');

const END_MS = 15000;
const STOP_MS = 9000;
const LOOK_MS = 50;

/** The handle that is there: the sidecar's, or that of a script whose `exec` was killed. */
function handles(folder) {
  const { handle, key, where } = lib.places(folder);
  if (!fs.existsSync(where)) return { handle, key };
  const killed = fs.readFileSync(where, 'utf8').trim();
  return { handle: killed, key: path.join(path.dirname(killed), 'dpop.pem'), left: path.dirname(killed) };
}

/** Whether the broker refused. */
function end(folder, door) {
  const { handle, key } = handles(folder);
  if (!fs.existsSync(handle) || fs.statSync(handle).size === 0) return false;
  const options = { env: lib.environment(door), timeout: END_MS, stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' };
  const ended = spawnSync(lib.state('dayfly'), lib.endOf(handle, key), options);
  lib.show(ended.stderr ?? '');
  if (ended.status === 0) return false;
  const why = (ended.stderr ?? '').trim() || ended.error?.message || 'it was killed';
  const task = ['the task', lib.state('task')].join(' ').trim();
  // A task that main.js never saw may never have been opened.
  const known = lib.state('task') !== '' || handles(folder).left !== undefined;
  if (known && lib.REFUSED.includes(ended.status)) {
    lib.command('error title=dayfly', `the broker refused to end ${task}\n${why}`);
    return true;
  }
  const so = known ? 'without its holder the broker ends it by itself' : 'it may never have been opened';
  lib.command('warning title=dayfly', `${task} could not be ended; ${so}\n${why}`);
  return false;
}

async function stop() {
  const keeper = { pid: lib.state('keeper'), start: lib.state('start') };
  if (keeper.pid === '') return;
  if (!lib.lives(keeper)) {
    lib.command('warning title=dayfly', 'the sidecar was gone before the job was done: its credential died with it');
    return;
  }
  const send = (signal) => {
    try {
      process.kill(Number(keeper.pid), signal);
    } catch {
      // It is gone, which is what we want.
    }
  };
  send('SIGTERM');
  for (let waited = 0; lib.lives(keeper) && waited < STOP_MS; waited += LOOK_MS) await lib.pause(LOOK_MS);
  if (lib.lives(keeper)) send('SIGKILL');
}

/** What `exec` calls its folders: nothing else is removed by a path that a script could have written. */
function isOfExec(folder) {
  return /^dayfly-exec-[^/]+$/.test(path.basename(folder)) && fs.existsSync(path.join(folder, 'lock'));
}

function forget(folder) {
  const { left } = handles(folder);
  const gone = [folder, ...(left && isOfExec(left) ? [left] : [])];
  gone.forEach((one) => fs.rmSync(one, { recursive: true, force: true }));
}

lib.step(async () => {
  const folder = lib.state('folder');
  if (folder === '' || !fs.existsSync(folder)) {
    process.stderr.write('dayfly: nothing to end\n');
    return 0;
  }
  const refused = end(folder, { addr: lib.state('addr'), ca: lib.state('ca') });
  await stop();
  const { said } = lib.places(folder);
  if (fs.existsSync(said)) lib.show(fs.readFileSync(said, 'utf8'));
  forget(folder);
  return refused ? 1 : 0;
});
