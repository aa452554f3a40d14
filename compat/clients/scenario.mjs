// What every client of Redis is asked to do, whatever its API: an adapter gives it the calls below.
//
//   connect(port, {password, name})   a connection to the database of this run, or an error
//   call(c, ...words)                 any command
//   pipeline(c, [words, …])           one round trip; the replies
//   multi(c, [words, …])              MULTI … EXEC; null when a watched key has changed
//   watch(c, key)
//   set, getBuffer, hset, hgetall     the client's own functions
//   subscribe(c, kind, name, tell)    kind: channel, pattern or shard; tell(channel, payload as a Buffer)
//   unsubscribe(c, kind, name)
//   close(c)
import { check, database, equal, eventually, far, Inbox, killAndRestart, near, password, protocol, rejects, twoSites } from './harness.mjs';

const KINDS = ['channel', 'pattern', 'shard'];
const nameOf = { channel: 'news', pattern: 'pat:*', shard: 'shard' };
const channelOf = { channel: 'news', pattern: 'pat:one', shard: 'shard' };
const everyByte = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

export async function scenario(adapter) {
  const a = await adapter.connect(near, { password, name: 'writer' });
  const b = await adapter.connect(far, { password, name: 'reader' });
  await connecting(adapter, a);
  await pipelines(adapter, a);
  await transactions(adapter, a);
  await hashes(adapter, a, b);
  const subscriber = await adapter.connect(far, { password, name: 'subscriber' });
  await events(adapter, a, b, subscriber);
  const inboxes = await subscriptions(adapter, a, subscriber);
  await largeAndBinary(adapter, a, b, inboxes);
  await reconnecting(adapter, a, b, inboxes);
  for (const connection of [a, b, subscriber]) await adapter.close(connection);
}

async function connecting(adapter, a) {
  equal('the name', String(await adapter.call(a, 'CLIENT', 'GETNAME')), 'writer');
  const info = String(await adapter.call(a, 'CLIENT', 'INFO'));
  check('the database', info.includes(` db=${database} `), info);
  check('the protocol', info.includes(` resp=${protocol}`), info);
  const refused = await rejects(adapter.connect(near, { password: 'wrong', name: 'nobody' }));
  check('a wrong password is refused', /WRONGPASS|NOAUTH/.test(refused ?? ''), refused);
  await adapter.call(a, 'FLUSHDB');
}

async function pipelines(adapter, a) {
  const many = Array.from({ length: 500 }, (_, i) => i);
  const replies = await adapter.pipeline(a, many.flatMap((i) => [['SET', `p:${i}`, `v${i}`], ['GET', `p:${i}`]]));
  equal('a pipeline of 1,000 is answered in order', replies.map(String), many.flatMap((i) => ['OK', `v${i}`]));
}

async function transactions(adapter, a) {
  const other = await adapter.connect(near, { password, name: 'other' });
  await adapter.set(a, 'stock', '3');
  equal('EXEC', (await adapter.multi(a, [['DECR', 'stock'], ['GET', 'stock']])).map(String), ['2', '2']);
  await adapter.watch(a, 'stock');
  await adapter.set(other, 'stock', '9');
  equal('EXEC after a change of a watched key', await adapter.multi(a, [['DECR', 'stock']]), null);
  await adapter.watch(a, 'stock');
  equal('EXEC after none', (await adapter.multi(a, [['DECR', 'stock']])).map(String), ['8']);
  await adapter.close(other);
}

async function hashes(adapter, a, b) {
  await adapter.hset(a, 'room', { name: 'Room one', seats: '12', empty: '' });
  await adapter.call(a, 'HINCRBY', 'room', 'seats', '30');
  const room = await eventually(async () => {
    const read = await adapter.hgetall(b, 'room');
    return read.seats === '42' && read;
  });
  equal('a hash', room && Object.entries(room).sort(), [['empty', ''], ['name', 'Room one'], ['seats', '42']]);
  equal('a hash that is not there', Object.entries(await adapter.hgetall(b, 'no-room')), []);
}

async function events(adapter, a, b, subscriber) {
  for (const connection of [a, b]) await adapter.call(connection, 'CONFIG', 'SET', 'notify-keyspace-events', 'AKE');
  const inbox = new Inbox();
  await adapter.subscribe(subscriber, 'pattern', `__keyspace@${database}__:lock`, (channel, payload) =>
    inbox.push(`${channel} ${payload}`));
  await adapter.call(a, 'SET', 'lock', '1', 'PX', '100000', 'NX');
  check('the event set', await inbox.find((event) => event === `__keyspace@${database}__:lock set`), inbox.items);
  // Only now is its end made near: a site which a key reaches after its time tells that it has expired and nothing else.
  await adapter.call(a, 'PEXPIRE', 'lock', '300');
  check('the event expired', await inbox.find((event) => event === `__keyspace@${database}__:lock expired`), inbox.items);
  equal('an expired key', await adapter.getBuffer(b, 'lock'), null);
  await adapter.call(a, 'SET', 'long', '1', 'EX', '100');
  const ttl = await eventually(async () => Number(await adapter.call(b, 'TTL', 'long')) > 0 && adapter.call(b, 'TTL', 'long'));
  check('the time to live', ttl > 90 && ttl <= 100, ttl);
}

const publish = (adapter, connection, kind, payload, channel = channelOf[kind]) =>
  adapter.call(connection, kind === 'shard' ? 'SPUBLISH' : 'PUBLISH', channel, payload);

async function subscriptions(adapter, a, subscriber) {
  const inboxes = {};
  for (const kind of KINDS) {
    const inbox = new Inbox();
    inboxes[kind] = inbox;
    await adapter.subscribe(subscriber, kind, nameOf[kind], (channel, payload) => inbox.push({ channel, payload }));
    await publish(adapter, a, kind, `to ${kind}`);
    const got = await inbox.find(({ payload }) => payload.equals(Buffer.from(`to ${kind}`)));
    equal(`a message by ${kind}`, got?.channel, channelOf[kind]);
  }
  const many = Array.from({ length: 100 }, (_, i) => `n${i}`);
  await adapter.pipeline(a, many.map((text) => ['PUBLISH', 'news', text]));
  await inboxes.channel.find(({ payload }) => String(payload) === 'n99');
  const numbered = inboxes.channel.items.map(({ payload }) => String(payload)).filter((text) => /^n\d/.test(text));
  equal('100 messages in order, each once', numbered, many);
  await adapter.subscribe(subscriber, 'channel', 'left', () => inboxes.channel.push({ channel: 'left', payload: Buffer.from('') }));
  await adapter.unsubscribe(subscriber, 'channel', 'left');
  await publish(adapter, a, 'channel', 'nobody hears', 'left');
  await publish(adapter, a, 'channel', 'after that');
  await inboxes.channel.find(({ payload }) => String(payload) === 'after that');
  check('nothing comes after UNSUBSCRIBE', !inboxes.channel.items.some(({ channel }) => channel === 'left'));
  return inboxes;
}

async function largeAndBinary(adapter, a, b, inboxes) {
  const megabyte = Buffer.alloc(1 << 20, everyByte);
  for (const [what, bytes] of [['every byte', everyByte], ['a megabyte', megabyte]]) {
    for (const kind of KINDS) {
      await publish(adapter, a, kind, bytes);
      check(`a message of ${what} by ${kind}`, await inboxes[kind].find(({ payload }) => payload.equals(bytes)));
    }
    await adapter.set(a, 'bytes', bytes);
    check(`a value of ${what}`, await eventually(async () => (await adapter.getBuffer(b, 'bytes'))?.equals(bytes)));
  }
}

// The client notices, connects again with all it was told, and subscribes again; nobody here helps it.
async function reconnecting(adapter, a, b, inboxes) {
  await adapter.set(a, 'kept', 'over the restart');
  await eventually(async () => String(await adapter.getBuffer(b, 'kept')) === 'over the restart');
  await killAndRestart();
  const kept = await eventually(async () => String(await adapter.getBuffer(b, 'kept')) === 'over the restart');
  check('what was acknowledged is there after a kill', kept);
  const name = await eventually(async () => String(await adapter.call(b, 'CLIENT', 'GETNAME')));
  equal('the name is told again', name, 'reader');
  for (const kind of KINDS) {
    let round = 0;
    const heard = await eventually(async () => {
      round += 1;
      await publish(adapter, a, kind, `again ${round}`);
      return inboxes[kind].items.some(({ payload }) => String(payload).startsWith('again '));
    }, 50);
    check(`a message by ${kind} after the restart`, heard);
  }
  check('the near site goes on', await eventually(async () => String(await adapter.call(a, 'PING')) === 'PONG'), String(twoSites));
}
