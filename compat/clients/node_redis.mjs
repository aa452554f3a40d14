// node-redis: the current major, or with the environment's COMPAT_PACKAGE the one before.
import { database, main, protocol } from './harness.mjs';
import { scenario } from './scenario.mjs';

const { createClient, RESP_TYPES } = await import(process.env.COMPAT_PACKAGE ?? 'redis');
const asBuffers = { [RESP_TYPES.BLOB_STRING]: Buffer };

const words = {
  channel: { subscribe: 'subscribe', unsubscribe: 'unsubscribe' },
  pattern: { subscribe: 'pSubscribe', unsubscribe: 'pUnsubscribe' },
  shard: { subscribe: 'sSubscribe', unsubscribe: 'sUnsubscribe' },
};

// Commands without a function of their own are strings or bytes, one by one.
const add = (chain, commands) => commands.reduce((all, words) => all.addCommand(words), chain);

const adapter = {
  async connect(port, { password, name }) {
    const client = createClient({ RESP: protocol, password, name, database, pingInterval: 1000,
      socket: { host: '127.0.0.1', port, reconnectStrategy: (times, cause) => (/WRONGPASS/.test(cause?.message) ? cause : 50) } });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  },
  call: (client, ...all) => client.sendCommand(all),
  pipeline: (client, commands) => add(client.multi(), commands).execAsPipeline(),
  // node-redis tells by an error that a watched key has changed.
  multi: (client, commands) => add(client.multi(), commands).exec().catch((error) => {
    if (error.constructor.name === 'WatchError') return null;
    throw error;
  }),
  watch: (client, key) => client.watch(key),
  set: (client, key, value) => client.set(key, value),
  getBuffer: (client, key) => client.withTypeMapping(asBuffers).get(key),
  hset: (client, key, fields) => client.hSet(key, fields),
  hgetall: async (client, key) => ({ ...(await client.hGetAll(key)) }),
  subscribe: (client, kind, name, tell) =>
    client[words[kind].subscribe](name, (payload, channel) => tell(String(channel), payload), true),
  unsubscribe: (client, kind, name) => client[words[kind].unsubscribe](name),
  close: (client) => client.close(),
};

main(() => scenario(adapter));
