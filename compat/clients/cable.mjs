// Fan-out as ActionCable and Phoenix.PubSub do it: every node of an application subscribes to one channel, every broadcast goes through
// it with its topic inside, and each node hands it to those of its own clients that follow the topic.
import { check, eventually, far, killAndRestart, main, near, pause } from './harness.mjs';
import { connect } from './fleet.mjs';

const CHANNEL = 'phx:app_production';
const NODES = 6; // by turns at each site
const EACH = 100; // broadcasts of each node, in a row
const TOPICS = ['room:lobby', 'room:1', 'user:42'];

class Node {
  got = []; // as the node's clients see it
  async start(port, name) {
    this.name = name;
    [this.publisher, this.subscriber] = [await connect(port), await connect(port)];
    this.subscriber.on('message', (channel, text) => this.got.push(JSON.parse(text)));
    await this.subscriber.subscribe(CHANNEL);
    return this;
  }
  broadcast(number) {
    return this.publisher.publish(CHANNEL, JSON.stringify({ node: this.name, topic: TOPICS[number % TOPICS.length], number, event: 'shout ☃' }));
  }
  from(name) {
    return this.got.filter(({ node }) => node === name).map(({ number }) => number);
  }
}

main(async () => {
  const nodes = [];
  for (let number = 0; number < NODES; number += 1) nodes.push(await new Node().start(number % 2 ? far : near, `node${number}`));
  await Promise.all(nodes.map(async (node) => {
    const sent = [];
    for (let number = 0; number < EACH; number += 1) sent.push(node.broadcast(number));
    await Promise.all(sent);
  }));
  const complete = await eventually(() => nodes.every((node) => node.got.length >= NODES * EACH));
  check('every node hears every broadcast', complete, nodes.map(({ got }) => got.length));
  await pause(100); // a repeat would come about now
  const order = Array.from({ length: EACH }, (_, number) => number).join();
  for (const node of nodes) {
    const wrong = nodes.filter(({ name }) => node.from(name).join() !== order).map(({ name }) => name);
    check(`${node.name} hears each node's in order, each once, its own too`, wrong.length === 0, wrong);
  }
  const lobby = nodes[0].got.filter(({ topic }) => topic === 'room:lobby').length;
  check('a topic has its third', lobby === NODES * Math.ceil(EACH / TOPICS.length), lobby);

  await killAndRestart();
  for (const node of nodes) node.got = [];
  const heard = await eventually(async () => {
    await nodes[0].broadcast(1000);
    return nodes.every((node) => node.from('node0').includes(1000));
  }, 50);
  check('every node hears broadcasts after the restart', heard, nodes.map(({ got }) => got.length));
});
