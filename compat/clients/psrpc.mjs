// Requests and replies over channels, as LiveKit's psrpc has them between its nodes: a request goes to all workers, one of each site
// claims it (SET NX EX, exact within a site), the requester gives it to one claimant, and that one replies. All payloads are bytes.
import { createHash, randomBytes } from 'node:crypto';
import { check, equal, far, Inbox, main, near, twoSites } from './harness.mjs';
import { connect } from './fleet.mjs';

const REQUESTS = 100; // at each of the two requesters, at once
const requestChannel = Buffer.from('rpc|Room|Create\xff|REQ', 'latin1');
const grantChannel = Buffer.from('rpc|Room|Create\xff|GRANT', 'latin1');
const done = new Map(); // requests that were worked off, with how often

// A message is the request's id, the name of whom it concerns, and a payload.
const ID = 8;
const pack = (id, name, payload) => Buffer.concat([id, Buffer.from([name.length]), Buffer.from(name), payload]);
const unpack = (bytes) => {
  const end = ID + 1 + bytes[ID];
  return { id: bytes.subarray(0, ID), name: String(bytes.subarray(ID + 1, end)), payload: bytes.subarray(end) };
};
const work = (payload) => createHash('sha256').update(payload).digest();

async function worker(port, name) {
  const [commands, subscriber] = [await connect(port), await connect(port)];
  const requests = new Map();
  subscriber.on('messageBuffer', async (channel, message) => {
    const { id, name: about, payload } = unpack(message);
    const key = id.toString('hex');
    if (channel.equals(requestChannel)) {
      requests.set(key, { requester: about, payload });
      if (await commands.set(`claim:${key}`, name, 'EX', 5, 'NX')) await commands.publish(`client|${about}`, pack(id, name, Buffer.from([1])));
    } else if (about === name) {
      const request = requests.get(key);
      done.set(key, (done.get(key) ?? 0) + 1);
      await commands.publish(`client|${request.requester}`, pack(id, name, Buffer.concat([Buffer.from([2]), work(request.payload)])));
    }
  });
  await subscriber.subscribe(requestChannel, grantChannel);
}

async function requester(port, name) {
  const [commands, subscriber] = [await connect(port), await connect(port)];
  const open = new Map();
  subscriber.on('messageBuffer', (channel, message) => {
    const { id, name: from, payload } = unpack(message);
    const request = open.get(id.toString('hex'));
    if (payload[0] === 2) {
      request.replies.push(payload.subarray(1));
    } else {
      request.claims.push(from);
      if (request.claims.length === 1) commands.publish(grantChannel, pack(id, from, Buffer.alloc(0)));
    }
  });
  await subscriber.subscribe(`client|${name}`);
  return async (payload) => {
    const id = randomBytes(ID);
    const request = { id: id.toString('hex'), claims: [], replies: new Inbox() };
    open.set(request.id, request);
    await commands.publish(requestChannel, pack(id, name, payload));
    await request.replies.find(() => true);
    return request;
  };
}

main(async () => {
  for (const number of [1, 2, 3]) {
    await worker(near, `here-${number}`);
    await worker(far, `there-${number}`);
  }
  for (const [place, port] of [['here', near], ['there', far]]) {
    const ask = await requester(port, `requester-${place}`);
    const payloads = Array.from({ length: REQUESTS }, (_, i) => (i === 0 ? Buffer.alloc(100000, 0xff) : randomBytes(i)));
    const requests = await Promise.all(payloads.map(ask));
    check(`every request is answered, ${place}`, requests.every(({ replies }, i) => replies.items[0]?.equals(work(payloads[i]))),
      requests.filter(({ replies }) => replies.items.length === 0).length);
    equal(`each once, ${place}`, requests.filter(({ replies }) => replies.items.length !== 1).length, 0);
    equal(`and was worked off once, ${place}`, requests.filter(({ id }) => done.get(id) !== 1).length, 0);
    const counts = requests.map(({ claims }) => claims.length);
    check(`a site claims a request once at most, ${place}`, counts.every((count) => count >= 1 && count <= (twoSites ? 2 : 1)), counts);
  }
});
