// Connections for the applications that are played here: quiet about outages, and they go on for ever, as a service's do.
import { Redis } from 'ioredis';
import { database, password, protocol } from './harness.mjs';

/** A connection to a server, ready to use. */
export async function connect(port) {
  const redis = new Redis({ port, password, db: database, protocol, lazyConnect: true, retryStrategy: () => 50, maxRetriesPerRequest: null });
  redis.on('error', () => undefined);
  await redis.connect();
  return redis;
}
