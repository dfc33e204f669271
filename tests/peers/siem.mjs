// What takes events of the Elastic Common Schema, and knows nothing of tmpcred: judges events
// by the fields that Elastic publishes as @elastic/ecs.
//
//   node siem.mjs <EVENTS
//
// Reads a line of JSON for each event. Prints what is wrong with them, a line each. What is
// in `tmpcred`, a name that the schema has not, is a matter of ours.

import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { EcsFlat as fields, EcsVersion as version } from '@elastic/ecs';

const OURS = 'tmpcred';
const names = Object.keys(fields);
if (names.some((name) => name.split('.')[0] === OURS)) throw new Error(`the schema has a place for ${OURS}`);

const is = {
  keyword: (value) => typeof value === 'string' && value !== '',
  match_only_text: (value) => typeof value === 'string',
  wildcard: (value) => typeof value === 'string',
  long: Number.isSafeInteger,
  date: (value) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(value) && !Number.isNaN(Date.parse(value)),
  ip: (value) => isIP(value) !== 0,
};

const flat = (value, path, found) => {
  if (value === null) return found;
  if (typeof value !== 'object' || Array.isArray(value)) return found.set(path, value);
  for (const [name, inner] of Object.entries(value)) flat(inner, path ? `${path}.${name}` : name, found);
  return found;
};

const judge = function* ({ [OURS]: ours, ...event }) {
  const found = flat(event, '', new Map());
  for (const name of ['@timestamp', 'ecs.version', 'event.kind', 'event.dataset', 'event.outcome']) {
    if (!found.has(name)) yield `${name}: it is missing`;
  }
  if (found.get('ecs.version') !== version) yield `ecs.version: it is not ${version}`;
  for (const [name, value] of found) {
    const field = fields[name];
    if (!field) {
      yield `${name}: there is no such field`;
      continue;
    }
    const several = field.normalize.includes('array');
    if (several !== Array.isArray(value)) yield `${name}: ${several ? 'it has to be a list' : 'it may not be a list'}`;
    for (const one of [value].flat()) {
      if (!is[field.type]?.(one)) yield `${name}: ${JSON.stringify(one)} is no ${field.type}`;
      if (field.allowed_values && !field.allowed_values.some((allowed) => allowed.name === one)) yield `${name}: ${one} is not allowed`;
    }
  }
  const categories = found.get('event.category') ?? [];
  const types = found.get('event.type') ?? [];
  const expected = fields['event.category'].allowed_values.filter(({ name }) => categories.includes(name)).map((category) => category.expected_event_types);
  for (const type of types) {
    if (!expected.some((of) => of.includes(type))) yield `event.type: ${type} is expected of none of ${categories}`;
  }
  if (expected.some((of) => !of.some((type) => types.includes(type)))) yield `event.category: one of ${categories} expects none of ${types}`;
};

for (const line of readFileSync(0, 'utf8').trimEnd().split('\n')) {
  const event = JSON.parse(line);
  for (const wrong of judge(event)) console.log(`${event.event.sequence}: ${wrong}`);
}
