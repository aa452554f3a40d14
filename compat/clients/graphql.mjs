// GraphQL subscriptions over graphql-redis-subscriptions: a mutation at one server of an application, the subscriptions at another.
import { GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLSchema, GraphQLString, parse, subscribe } from 'graphql';
import { RedisPubSub } from 'graphql-redis-subscriptions';
import { check, database, equal, eventually, far, killAndRestart, main, near, password, protocol } from './harness.mjs';

const { Redis } = await import('ioredis');

async function pubsub(port, options = {}) {
  const connect = () => new Redis({ port, password, db: database, protocol, retryStrategy: () => 50, maxRetriesPerRequest: null });
  const [publisher, subscriber] = [connect(), connect()];
  for (const client of [publisher, subscriber]) client.on('error', () => undefined);
  return new RedisPubSub({ publisher, subscriber, ...options });
}

/** The schema of a chat whose subscription follows one room. */
function schemaOf(events) {
  const message = new GraphQLObjectType({ name: 'Message', fields: { text: { type: GraphQLString }, number: { type: GraphQLInt } } });
  const args = { room: { type: new GraphQLNonNull(GraphQLString) } };
  return new GraphQLSchema({
    query: new GraphQLObjectType({ name: 'Query', fields: { rooms: { type: GraphQLInt } } }),
    subscription: new GraphQLObjectType({ name: 'Subscription', fields: {
      said: { type: message, args, resolve: (event) => event, subscribe: (_, { room }) => events.asyncIterator(`said.${room}`) },
      anywhere: { type: message, resolve: (event) => event, subscribe: () => events.asyncIterator('said.*', { pattern: true }) },
    } }),
  });
}

const open = async (schema, document) => {
  const results = await subscribe({ schema, document: parse(document) });
  if (!results[Symbol.asyncIterator]) throw new Error(JSON.stringify(results.errors));
  const first = results.next(); // what subscribes
  return { results, first };
};

main(async () => {
  const [here, there] = [await pubsub(near), await pubsub(far)];
  const schema = schemaOf(there);
  const room = await open(schema, 'subscription { said(room: "lobby") { text number } }');
  const all = await open(schema, 'subscription { anywhere { text } }');
  const other = await open(schema, 'subscription { said(room: "empty") { text } }');
  let otherGot = false;
  other.first.then(() => (otherGot = true));
  // The iterator subscribes without saying when it has: asked of the server.
  const known = async (ask) => eventually(async () => ask(await there.getPublisher().call('PUBSUB', 'NUMSUB', 'said.lobby', 'said.empty')));
  check('the subscriptions are known', await known(([, lobby, , empty]) => Number(lobby) > 0 && Number(empty) > 0));
  check('and the pattern', await eventually(async () => Number(await there.getPublisher().call('PUBSUB', 'NUMPAT')) > 0));

  await here.publish('said.lobby', { text: 'good morning ☕', number: 1 });
  equal('a subscription', (await room.first).value?.data?.said, { text: 'good morning ☕', number: 1 });
  equal('a subscription by pattern', (await all.first).value?.data?.anywhere, { text: 'good morning ☕' });
  for (let number = 2; number <= 20; number += 1) await here.publish('said.lobby', { text: 'more', number });
  const numbers = [];
  while (numbers.length < 19) numbers.push((await room.results.next()).value.data.said.number);
  equal('20 in order', numbers, Array.from({ length: 19 }, (_, i) => i + 2));
  check('another room hears nothing', !otherGot);

  await killAndRestart();
  const next = room.results.next();
  let came = false;
  next.then(() => (came = true));
  check('a subscription after the restart', await eventually(async () => {
    await here.publish('said.lobby', { text: 'again', number: 100 });
    return came;
  }, 50));
  equal('and what it says', (await next).value?.data?.said?.text, 'again');
  await other.results.return();
  check('what was left is left', await known(([, , , empty]) => Number(empty) === 0));
});
