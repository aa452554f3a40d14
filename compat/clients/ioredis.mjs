// ioredis: the current major, or with the environment's COMPAT_PACKAGE the one before. COMPAT_TLS is a folder with ca.crt, and with
// client.crt and client.key to show: then the port is one for TLS.
import fs from 'node:fs';
import { database, main, protocol } from './harness.mjs';
import { scenario } from './scenario.mjs';

const { Redis } = await import(process.env.COMPAT_PACKAGE ?? 'ioredis');
const folder = process.env.COMPAT_TLS;
const file = (name) => fs.readFileSync(`${folder}/${name}`);
const tls = folder && { ca: file('ca.crt'), cert: file('client.crt'), key: file('client.key') };
const quiet = () => undefined; // errors of a connection that is made again are no errors of the program

const words = {
  channel: { subscribe: 'subscribe', unsubscribe: 'unsubscribe', event: 'messageBuffer' },
  shard: { subscribe: 'ssubscribe', unsubscribe: 'sunsubscribe', event: 'smessageBuffer' },
};

const adapter = {
  async connect(port, { password, name }) {
    const options = { port, host: '127.0.0.1', db: database, password, connectionName: name, lazyConnect: true, protocol, ...(tls && { tls }),
      retryStrategy: (times) => (times > 200 ? null : 50), maxRetriesPerRequest: null };
    const redis = new Redis(options);
    let refused;
    redis.on('error', (error) => (refused = error));
    try {
      await redis.connect();
      await redis.ping();
    } catch (error) {
      redis.disconnect();
      throw refused ?? error;
    }
    return redis;
  },
  call: (redis, ...all) => redis.call(...all),
  async pipeline(redis, commands) {
    const replies = await redis.pipeline(commands.map(([name, ...rest]) => [name.toLowerCase(), ...rest])).exec();
    return replies.map(([error, reply]) => error ?? reply);
  },
  async multi(redis, commands) {
    const replies = await redis.multi(commands.map(([name, ...rest]) => [name.toLowerCase(), ...rest])).exec();
    return replies && replies.map(([error, reply]) => error ?? reply);
  },
  watch: (redis, key) => redis.watch(key),
  set: (redis, key, value) => redis.set(key, value),
  getBuffer: (redis, key) => redis.getBuffer(key),
  hset: (redis, key, fields) => redis.hset(key, fields),
  hgetall: (redis, key) => redis.hgetall(key),
  async subscribe(redis, kind, name, tell) {
    if (kind === 'pattern') {
      redis.on('pmessageBuffer', (pattern, channel, payload) => String(pattern) === name && tell(String(channel), payload));
      await redis.psubscribe(name);
    } else {
      redis.on(words[kind].event, (channel, payload) => String(channel) === name && tell(String(channel), payload));
      await redis[words[kind].subscribe](name);
    }
  },
  unsubscribe: (redis, kind, name) => redis[words[kind].unsubscribe](name),
  close: (redis) => redis.quit().catch(quiet),
};

main(() => scenario(adapter));
