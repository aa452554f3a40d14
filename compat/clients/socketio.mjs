// Socket.IO on two servers of an application, one at each URL, with real browsers' clients: what its Redis adapters do with pub/sub.
//
// COMPAT_ADAPTER is classic or sharded; COMPAT_CLIENT the Redis client below it, ioredis or redis (which is node-redis).
import { createServer } from 'node:http';
import { once } from 'node:events';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { Emitter } from '@socket.io/redis-emitter';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import { check, database, equal, eventually, far, Inbox, main, near, password, protocol } from './harness.mjs';

const sharded = process.env.COMPAT_ADAPTER === 'sharded';
const EACH = Number(process.env.COMPAT_BROWSERS ?? 5); // clients at each of the two servers
const REQUEST_MS = 20000; // the longest that a question to the other server may take, where the adapter lets us say so
const ACKNOWLEDGE_MS = 60000; // for an answer of each of up to 1,000 clients
const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

async function redis(port) {
  if (process.env.COMPAT_CLIENT === 'ioredis') {
    const client = new Redis({ port, password, db: database, protocol, lazyConnect: true });
    await client.connect();
    return client;
  }
  const client = createClient({ RESP: protocol, password, database, socket: { port, host: '127.0.0.1' } });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

class Site {
  clients = [];
  async start(port) {
    this.http = createServer();
    const [publisher, subscriber] = [await redis(port), await redis(port)];
    this.publisher = publisher;
    const adapter = sharded ? createShardedAdapter(publisher, subscriber) :
      createAdapter(publisher, subscriber, { requestsTimeout: REQUEST_MS });
    this.io = new Server(this.http, { adapter });
    this.io.on('connection', (socket) => {
      socket.on('join', (room, done) => Promise.resolve(socket.join(room)).then(done));
    });
    this.http.listen(0, '127.0.0.1');
    await once(this.http, 'listening');
    return this;
  }
  async connect(count) {
    const url = `http://127.0.0.1:${this.http.address().port}`;
    for (let number = 0; number < count; number += 1) {
      const socket = io(url, { transports: ['websocket'], forceNew: true });
      const inbox = new Inbox();
      socket.onAny((event, ...rest) => {
        const answer = typeof rest.at(-1) === 'function' ? rest.pop() : undefined;
        inbox.push([event, ...rest]);
        answer?.(`${socket.id} heard`);
      });
      this.clients.push({ socket, inbox });
    }
    await Promise.all(this.clients.map(({ socket }) => socket.connected || once(socket, 'connect')));
  }
}

/** Everybody in `who` gets exactly one such event, and after it a fence gets to all; nobody else gets it. */
async function heard(sites, what, event, who, send) {
  send();
  const got = await Promise.all(who.map(({ inbox }) => inbox.find(([name]) => name === event)));
  check(`${what}: arrives`, got.every(Boolean), `at ${got.filter(Boolean).length} of ${who.length}`);
  return got[0];
}

async function onceEach(sites, events) {
  const everybody = sites.flatMap((site) => site.clients);
  for (const [number, site] of sites.entries()) {
    site.io.emit(`fence ${number}`);
    await Promise.all(everybody.map(({ inbox }) => inbox.find(([name]) => name === `fence ${number}`)));
  }
  for (const [event, who] of events) {
    const counts = everybody.map((client) => [client, client.inbox.items.filter(([name]) => name === event).length]);
    check(`${event}: once for each, and for nobody else`, counts.every(([client, count]) => count === (who.includes(client) ? 1 : 0)),
      counts.map(([, count]) => count));
  }
}

main(async () => {
  const sites = [await new Site().start(near), await new Site().start(far)];
  const [here, there] = sites;
  await Promise.all(sites.map((site) => site.connect(EACH)));
  const everybody = sites.flatMap((site) => site.clients);

  // A server knows of the other once its subscription has come round.
  const all = await eventually(async () => {
    const found = await Promise.all(sites.map((site) => site.io.fetchSockets()));
    return found.every((sockets) => sockets.length === 2 * EACH) && found;
  });
  check(`fetchSockets sees all ${2 * EACH} at both`, all);
  equal('and they are the same', all?.map((sockets) => sockets.map(({ id }) => id).sort()[0]).every((id, _, ids) => id === ids[0]), true);

  await heard(sites, 'a broadcast', 'everybody', everybody, () => here.io.emit('everybody', { bytes }));
  const [, payload] = await heard(sites, 'a broadcast of the other server', 'from there', everybody, () => there.io.emit('from there', { bytes }));
  check('its bytes are whole', Buffer.from(payload.bytes).equals(bytes));

  const inRoom = [here.clients[0], there.clients[0], there.clients[1]];
  await Promise.all(inRoom.map(({ socket }) => new Promise((done) => socket.emit('join', 'room', done))));
  // The sharded adapter subscribes to a room's own channel after it has said that the socket is in.
  check('a room has its members', await eventually(async () => (await here.io.in('room').fetchSockets()).length === inRoom.length));
  await heard(sites, 'a message to a room', 'in the room', inRoom, () => there.io.to('room').emit('in the room', 1));
  await heard(sites, 'a message to all but a room', 'not there', everybody.filter((client) => !inRoom.includes(client)),
    () => here.io.except('room').emit('not there', 1));

  here.io.in(there.clients[2].socket.id).socketsJoin('moved');
  await eventually(async () => (await here.io.in('moved').fetchSockets()).length === 1);
  await heard(sites, 'a socket that the other server put into a room', 'moved', [there.clients[2]], () => here.io.to('moved').emit('moved'));

  for (const site of sites) site.io.on('sum', (a, b, answer) => answer(a + b));
  // The sharded adapter gives up after 5 s of its own.
  const answers = await eventually(() => here.io.serverSideEmitWithAck('sum', 2, 3));
  equal('serverSideEmit with acknowledgement', answers, [5]);

  const acknowledged = await here.io.timeout(ACKNOWLEDGE_MS).emitWithAck('say so').catch((error) => error);
  check('a broadcast with acknowledgements', acknowledged?.length === 2 * EACH, `${acknowledged?.length ?? acknowledged}`);

  const events = [['everybody', everybody], ['from there', everybody], ['in the room', inRoom], ['say so', everybody],
    ['not there', everybody.filter((client) => !inRoom.includes(client))], ['moved', [there.clients[2]]]];
  if (!sharded) {
    const emitter = new Emitter(here.publisher);
    await heard(sites, 'the emitter', 'from a process without sockets', everybody, () => emitter.emit('from a process without sockets'));
    await heard(sites, 'the emitter to a room', 'emitted to the room', inRoom, () => emitter.to('room').emit('emitted to the room'));
    events.push(['from a process without sockets', everybody], ['emitted to the room', inRoom]);
  }
  await onceEach(sites, events);

  here.io.in('moved').disconnectSockets(true);
  check('a socket that the other server disconnected', await eventually(() => !there.clients[2].socket.connected));
  check('is counted no more', await eventually(async () => (await here.io.fetchSockets()).length === 2 * EACH - 1));
});
