// Asks the engine what LiteLLM asks it, over its own small schema. Needs an empty database:
//   DATABASE_URL=postgresql://user:password@host/database node --test check.js
'use strict'
const assert = require('node:assert/strict')
const { spawn } = require('node:child_process')
const { mkdtempSync, writeFileSync } = require('node:fs')
const { createServer } = require('node:net')
const { tmpdir } = require('node:os')
const path = require('node:path')
const { after, before, test } = require('node:test')
const pg = require('pg')

const SCHEMA = `
generator client { provider = "none" }
datasource db {
  provider = "postgresql"
  url      = env("DATABASE_URL")
}
model Team {
  id      String @id
  members User[]
}
model User {
  id      String    @id
  email   String?   @unique
  meta    Json?     @default("{}")
  spend   Float     @default(0)
  hits    BigInt    @default(0)
  cost    Decimal   @default(0)
  models  String[]
  blob    Bytes?
  made    DateTime  @default(now())
  team_id String?
  team    Team?     @relation(fields: [team_id], references: [id])
}`
const TABLES = `
DROP TABLE IF EXISTS "User", "Team";
CREATE TABLE "Team" (id text PRIMARY KEY);
CREATE TABLE "User" (id text PRIMARY KEY, email text UNIQUE, meta jsonb DEFAULT '{}', spend float8 DEFAULT 0 NOT NULL,
  hits bigint DEFAULT 0 NOT NULL, cost numeric DEFAULT 0 NOT NULL, models text[], blob bytea,
  made timestamp(3) DEFAULT CURRENT_TIMESTAMP NOT NULL, team_id text REFERENCES "Team"(id))`
const DEADLINE_MS = 10_000

let engine
let base

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function until(complaint, condition) {
  const deadline = Date.now() + DEADLINE_MS
  while (!(await condition())) {
    assert.ok(Date.now() < deadline && engine.exitCode === null, complaint)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function post(url, body, headers = {}) {
  const response = await fetch(base + url, { method: 'POST', body: JSON.stringify(body), headers })
  return { status: response.status, ...(await response.json()) }
}

async function ask(query, transaction) {
  const answer = await post('/', { query, variables: {} }, transaction && { 'X-transaction-id': transaction })
  if (answer.errors) throw Object.assign(new Error(answer.errors[0].error), answer.errors[0].user_facing_error)
  return answer.data.result
}

const text = (value) => JSON.stringify(value)
const jsonText = (value) => text(text(value))

before(async () => {
  const client = new pg.Client(process.env.DATABASE_URL)
  await client.connect()
  await client.query(TABLES)
  await client.end()
  const directory = mkdtempSync(path.join(tmpdir(), 'engine-'))
  writeFileSync(path.join(directory, 'schema.prisma'), SCHEMA)
  writeFileSync(path.join(directory, '_raw_query.py'), 'prisma__value')
  const port = await freePort()
  base = `http://127.0.0.1:${port}`
  const url = new URL(process.env.DATABASE_URL)
  url.searchParams.set('connection_limit', '3')
  const env = { ...process.env, DATABASE_URL: url.href, PRISMA_DML_PATH: path.join(directory, 'schema.prisma') }
  engine = spawn(path.join(__dirname, 'query-engine'), ['-p', port], { env, stdio: 'inherit' })
  await until('the engine does not answer', () =>
    fetch(`${base}/status`).then(
      () => true,
      () => false,
    ),
  )
})

after(() => engine.kill())

test('a row keeps every type', async () => {
  const made = '2026-01-02T03:04:05.678Z'
  const meta = { a: [1, { b: 'ü"\\' }], n: null }
  const fields = 'id meta spend hits cost models blob made team { id members { id } }'
  const created = await ask(`mutation { result: createOneUser(data: { id: "u1", email: "u1@x", meta: ${jsonText(meta)},
    spend: 0.1, hits: 9007199254740993, cost: "12.340", models: ["a", "b,\\"c"], blob: "AAH/", made: "${made}",
    team: { create: { id: "t1" } } }) { ${fields} } }`)
  assert.deepEqual(JSON.parse(created.meta), meta)
  assert.deepEqual(
    { ...created, meta: undefined },
    {
      id: 'u1',
      meta: undefined,
      spend: 0.1,
      hits: '9007199254740993',
      cost: '12.34',
      models: ['a', 'b,"c'],
      blob: 'AAH/',
      made,
      team: { id: 't1', members: [{ id: 'u1' }] },
    },
  )
})

test('JSON is stored as JSON, whatever its kind, and found by its path', async () => {
  for (const value of ['word', 3, [], [1, 'a'], true, { k: 'v' }]) {
    const one = `id: "j", meta: ${jsonText(value)}`
    await ask(`mutation { result: upsertOneUser(where: { id: "j" }, create: { ${one} }, update: { ${one} }) { id } }`)
    const [row] =
      await ask(`mutation { result: queryRaw(query: "SELECT jsonb_typeof(meta) AS t FROM \\"User\\" WHERE id = 'j'",
      parameters: "[]") }`)
    const kind = Array.isArray(value) ? 'array' : typeof value
    assert.equal(row.t.prisma__value, kind)
    const found = await ask(`query { result: findManyUser(where: { meta: { equals: ${jsonText(value)} } }) { id } }`)
    assert.deepEqual(found, [{ id: 'j' }])
  }
  const found = await ask(
    `query { result: findManyUser(where: { OR: [{ meta: { path: ["k"], equals: ${jsonText('v')} } }] }) { id } }`,
  )
  assert.deepEqual(found, [{ id: 'j' }])
})

test('counting, grouping and changing many', async () => {
  await ask(
    `mutation { result: createManyUser(data: [{ id: "m1", spend: 1 }, { id: "m2", spend: 2 }],
      skipDuplicates: true) { count } }`,
  )
  const where = 'where: { id: { in: ["m1", "m2"] } }'
  const more = await ask(
    `mutation { result: updateManyUser(${where}, data: { spend: { increment: 1 }, hits: 5 }) { count } }`,
  )
  assert.deepEqual(more, { count: 2 })
  const total = await ask(`query { result: aggregateUser(${where}) { _count { _all } _sum { spend } } }`)
  assert.deepEqual(total, { _count: { _all: 2 }, _sum: { spend: 5 } })
  const groups = await ask(`query { result: groupByUser(by: [hits], ${where}) { hits _sum { spend } } }`)
  assert.deepEqual(groups, [{ hits: '5', _sum: { spend: 5 } }])
  const page = await ask(
    `query { result: findManyUser(${where}, orderBy: [{ spend: desc }], take: 1, skip: 1) { id } }`,
  )
  assert.deepEqual(page, [{ id: 'm1' }])
})

test('errors carry the codes that clients match', async () => {
  await ask('mutation { result: createOneUser(data: { id: "e", email: "e@x" }) { id } }')
  await assert.rejects(ask('mutation { result: createOneUser(data: { id: "e2", email: "e@x" }) { id } }'), {
    error_code: 'P2002',
  })
  await assert.rejects(ask('mutation { result: updateOneUser(where: { id: "none" }, data: { spend: 1 }) { id } }'), {
    error_code: 'P2025',
  })
  await assert.rejects(ask('mutation { result: queryRaw(query: "SELECT nonsense", parameters: "[]") }'), {
    error_code: 'P2010',
  })
  await assert.rejects(ask('query { result: findManyUser(where: { nonsense: 1 }) { id } }'), { error_code: 'P2009' })
  assert.equal(await ask('query { result: findUniqueUser(where: { id: "none" }) { id } }'), null)
})

test('raw queries answer typed values and take typed parameters', async () => {
  const query =
    `SELECT $1::int AS i, 9::bigint AS l, 1.5::numeric AS d, 'x' AS s, now()::timestamptz AS t, ARRAY['a',NULL] AS a,
    '{"k": 1}'::jsonb AS j, NULL::int AS n, true AS b, 'Team'::name AS o, 1.5::float8 AS f`.replaceAll('\n', ' ')
  const [row] = await ask(`mutation { result: queryRaw(query: ${text(query)}, parameters: "[7]") }`)
  const types = Object.fromEntries(Object.entries(row).map(([name, { prisma__type: type }]) => [name, type]))
  assert.deepEqual(types, {
    i: 'int',
    l: 'bigint',
    d: 'decimal',
    s: 'string',
    t: 'datetime',
    a: 'array',
    j: 'json',
    n: 'null',
    b: 'bool',
    o: 'string',
    f: 'double',
  })
  assert.equal(row.i.prisma__value, 7)
  assert.ok(Math.abs(Date.parse(row.t.prisma__value) - Date.now()) < 60_000, `${row.t.prisma__value} is not now`)
  const update = `UPDATE "User" SET spend = $1, made = $2::timestamp WHERE id = 'u1'`
  const values = '[2.5, {"prisma__type": "date", "prisma__value": "2026-01-01T00:00:00Z"}]'
  const changed = await ask(`mutation { result: executeRaw(query: ${text(update)}, parameters: ${text(values)}) }`)
  assert.equal(changed, 1)
})

test('a batch is one transaction', async () => {
  const create = (id) => ({ query: `mutation { result: createOneUser(data: { id: "${id}" }) { id } }`, variables: {} })
  const good = await post('/', { batch: [create('b1'), create('b2')], transaction: true })
  assert.deepEqual(good.batchResult, [{ data: { result: { id: 'b1' } } }, { data: { result: { id: 'b2' } } }])
  const bad = await post('/', { batch: [create('b3'), create('b1')], transaction: true })
  assert.equal(bad.errors[0].user_facing_error.error_code, 'P2002')
  assert.equal(await ask('query { result: findUniqueUser(where: { id: "b3" }) { id } }'), null)
})

test('transactions commit, roll back, expire and wait no longer than asked', async () => {
  const start = (options) => post('/transaction/start', { timeout: 5000, max_wait: 300, ...options })
  const create = (id, transaction) =>
    ask(`mutation { result: createOneUser(data: { id: "${id}" }) { id } }`, transaction)
  const found = (id) => ask(`query { result: findUniqueUser(where: { id: "${id}" }) { id } }`)
  for (const [how, expected] of [
    ['commit', { id: 'commit' }],
    ['rollback', null],
  ]) {
    const { id } = await start()
    await create(how, id)
    assert.equal(await found(how), null)
    assert.equal((await post(`/transaction/${id}/${how}`, {})).status, 200)
    assert.deepEqual(await found(how), expected)
  }
  const open = await Promise.all([start(), start(), start()])
  assert.equal((await start()).error_code, 'P2028')
  await Promise.all(open.map(({ id }) => post(`/transaction/${id}/rollback`, {})))
  const short = await start({ timeout: 50 })
  await until('the transaction does not expire', () =>
    ask('query { result: findFirstUser { id } }', short.id).then(
      () => false,
      () => true,
    ),
  )
  await assert.rejects(create('late', short.id), { error_code: 'P2028' })
  assert.notEqual((await post(`/transaction/${short.id}/commit`, {})).status, 200)
  await Promise.all(Array.from({ length: 30 }, () => found('commit')))
})
