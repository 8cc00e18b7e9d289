'use strict';
// What the steps of the action share: how they hear the runner (inputs, state) and talk to it (commands,
// files), which variables a program gets, and which process is which. Nothing here knows a shell: what
// the workflow says reaches programs as one argument each, or as a file.

const fs = require('node:fs');
const path = require('node:path');
const { randomUUID } = require('node:crypto');

/** What the runner gives to actions alone, never to a script: it would let a script be the action. */
const OF_ACTIONS = [
  'ACTIONS_RUNTIME_TOKEN',
  'ACTIONS_RUNTIME_URL',
  'ACTIONS_RESULTS_URL',
  'ACTIONS_CACHE_URL',
  'ACTIONS_CACHE_SERVICE_V2',
  'GITHUB_STATE',
];

/** What would send a token or a handle to another place than ours. */
const OF_OTHERS = ['DAYFLY_TASK_FILE', 'DAYFLY_TOKEN_FILE', 'DAYFLY_TASK', 'DAYFLY_DPOP_KEY', 'DAYFLY_LEASE'];

/** Exit codes of `dayfly` by which a broker said no: docs/REFERENCE.md. */
const REFUSED = [3, 4, 77];

/** A failure that people are told, and the exit code of the step. */
class Failure extends Error {
  constructor(message, exit = 1) {
    super(message);
    this.exit = exit;
  }
}

function raw(name) {
  return process.env[`INPUT_${name.toUpperCase()}`] ?? '';
}

/** One line, which stays one where a program quotes it: a line of its own could command the runner. */
function plain(name, value) {
  if (/[\x00-\x1f\x7f]|##\[/.test(value)) {
    throw new Failure(`the input \`${name}\` holds a line break, or what commands the runner`, 2);
  }
  return value;
}

function input(name) {
  return plain(name, raw(name).trim());
}

function state(name) {
  return process.env[`STATE_${name}`] ?? '';
}

/** A line for the runner, which takes it out of the log. Line breaks cannot begin another one. */
function command(name, message) {
  const escaped = message.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
  fs.writeSync(1, `::${name}::${escaped}\n`);
}

/** What a program said, without anything that the runner would take for a command. */
function show(text) {
  process.stderr.write(text.replace(/^(\s*):(?=:)/gm, '$1: ').replace(/##\[/g, '## ['));
}

function mask(file) {
  const secret = fs.readFileSync(file, 'utf8').trim();
  if (secret !== '') command('add-mask', secret);
}

/** A name and its value for a file of the runner. The mark that ends it cannot be guessed. */
function put(variable, name, value) {
  const file = process.env[variable];
  if (!file) throw new Failure(`\`${variable}\` is not set: this is a step of a GitHub workflow`, 2);
  const mark = `ends_${randomUUID()}`;
  fs.appendFileSync(file, `${name}<<${mark}\n${value}\n${mark}\n`);
}

/** Our variables without what is the action's own, and with what says where the broker is. */
function environment(door) {
  const ours = Object.entries(process.env).filter(
    ([name]) => !OF_ACTIONS.includes(name) && !OF_OTHERS.includes(name) && !/^(INPUT|STATE)_/.test(name),
  );
  const said = { DAYFLY_ADDR: door.addr, ...(door.ca ? { DAYFLY_CA: door.ca } : {}) };
  return { ...Object.fromEntries(ours), ...said };
}

/** The absolute path of a program: what a later step puts on PATH is not what the post step runs. */
function found(program) {
  const runs = (file) => {
    try {
      fs.accessSync(file, fs.constants.X_OK);
      return fs.statSync(file).isFile();
    } catch {
      return false;
    }
  };
  const folders = program.includes('/') ? [''] : (process.env.PATH ?? '').split(':').filter(path.isAbsolute);
  const file = folders.map((folder) => path.resolve(folder, program)).find(runs);
  if (file) return file;
  const help = 'install it in a step before this one, or name its place with the input `dayfly`';
  throw new Failure(`the program \`${program}\` is not found; ${help}`, 127);
}

/** Parent and start of a process, in ticks since boot, or nothing. */
function seen(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
    // From the third field on: the name may hold spaces and brackets.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? null : { name, parent: Number(fields[1]), start: fields[19] };
  } catch {
    return null;
  }
}

/** Whether this number is still the process that it was: numbers are given again. */
function lives({ pid, start }) {
  return Number(pid) > 1 && start !== '' && seen(pid)?.start === start;
}

/** The process whose end is the job's, where it can be seen: not from inside of a container. */
function worker() {
  for (let pid = process.ppid; pid > 1; ) {
    const process = seen(pid);
    if (!process) return null;
    if (process.name === 'Runner.Worker') return { pid, start: process.start };
    pid = process.parent;
  }
  return null;
}

/** Where the files of a sidecar are. */
function places(folder) {
  const at = (name) => path.join(folder, name);
  return { token: at('token'), handle: at('token.task'), key: at('dpop.pem'), said: at('said'), where: at('where') };
}

/** The arguments that end the task of a handle. */
function endOf(handle, key) {
  return ['task', 'end', `--task-file=${handle}`, ...(fs.existsSync(key) ? [`--dpop-key=${key}`] : [])];
}

function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}

/** Runs a step, and tells its failure where people look for it. */
async function step(work) {
  try {
    process.exitCode = await work();
  } catch (error) {
    command('error title=dayfly', error.message);
    process.exitCode = error instanceof Failure ? error.exit : 1;
  }
}

module.exports = {
  Failure, REFUSED, command, endOf, environment, found, input, lives, mask, pause, places, plain, put, raw, seen,
  show, state, step, worker,
};
